# -*- test-case-name: tests.target.test_status -*-
"""The snapshot's parts."""

from __future__ import annotations

import errno
import json
from typing import Any

import attrs
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import registrations
from iscsi_twisted.scsi.paths import OPTIMIZED, STANDBY, Paths
from iscsi_twisted.session.limits import NO_CHANGES
from iscsi_twisted.storage import FileExtent, MemoryDevice, Mirror, ReadOnly, openrange
from iscsi_twisted.target import TargetFactory
from iscsi_twisted.target.service import TICK
from iscsi_twisted.target.status import DeviceCounters, connectionStatus, sessionStatus, targetStatus, where
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.served import MemoryLine, MemoryService
from tests.support.threads import StepPool, StepReactor
from tests.support.wire import INITIATOR, TARGET, makeNode, makeTarget, read10, write10


class Port:
    """A port at an address."""

    def __init__(self, address: IAddress) -> None:
        self.getHost = lambda: address


class WhereTests(SynchronousTestCase):
    """Tests of L{where}."""

    def test_addresses(self) -> None:
        """Addresses are shown as URLs want them, those of UNIX sockets by their path."""
        for address, text in (
            (IPv4Address("TCP", "192.0.2.1", 3260), "192.0.2.1:3260"),
            (IPv6Address("TCP", "2001:db8::1", 860), "[2001:db8::1]:860"),
            (UNIXAddress(b"/run/iscsi"), "unix:/run/iscsi"),
            (UNIXAddress(None), str(UNIXAddress(None))),
        ):
            self.assertEqual(where(Port(address)), text)  # type: ignore[arg-type]


PORT = registrations.Port("iqn.2001-04.com.example:host", bytes(6), 1)


class SnapshotTests(SynchronousTestCase):
    """Tests of the snapshots of connections, sessions and targets."""

    def setUp(self) -> None:
        self.target = makeTarget(MemoryDevice(1 << 20), MemoryDevice(512), alias="two disks")
        node, _ = makeNode(self.target)
        self.line = MemoryLine(TargetFactory(node, Clock()))
        (self.core,) = self.line.protocol.factory.connections()

    def test_connection(self) -> None:
        """A connection shows what went over it, and the digests it has."""
        request = pdus.loginRequest(
            {"InitiatorName": INITIATOR, "TargetName": TARGET, "DataDigest": "CRC32C"}
        )
        self.line.protocol.dataReceived(request)
        self.line.protocol.dataReceived(pdus.nopOut(immediate=True))
        status = connectionStatus(self.core)
        self.assertEqual((status.address, status.pdusIn, status.pdusOut), ("192.0.2.7", 2, 2))
        self.assertEqual((status.bytesIn, status.rejects), (len(request) + 48, 0))
        self.assertEqual((status.headerDigest, status.dataDigest), (False, True))

    def test_rejects(self) -> None:
        """What was rejected is counted."""
        self.line.login()
        self.line.say(bytes([0x1F]) + bytes(47))
        self.assertEqual(connectionStatus(self.core).rejects, 1)

    def test_session(self) -> None:
        """A session shows who it is, and what it is busy with."""
        self.line.login()
        assert self.core.session is not None
        status = sessionStatus(self.core.session, self.core)
        self.assertEqual(
            (status.kind, status.initiator, status.isid, status.target, status.tasks, status.waiting),
            ("Normal", INITIATOR, "800000000001", TARGET, 0, 0),
        )
        self.assertEqual(status.tsih, self.core.session.tsih)

    def test_commands(self) -> None:
        """A session counts its commands, those that ended badly, and those that were aborted."""
        self.line.login()
        session = self.core.session
        assert session is not None
        device = FakeDevice(1 << 20)
        unit: Any = self.target.units[0]
        unit.device = device
        for itt, cdb in enumerate((bytes(6), bytes(6), b"\xff" + bytes(5), read10(0, 1)), 1):
            self.line.say(pdus.scsiCommand(cdb, itt=itt, cmdSN=itt, read=512 if cdb[0] == 0x28 else None))
        self.line.say(pdus.taskManagement(1, referenced=4, itt=9, cmdSN=5, refCmdSN=4))
        status = sessionStatus(session, self.core)
        # The first ends with the unit attention of a new nexus, the third is unknown.
        self.assertEqual((status.commands, status.errors, status.aborts), (4, 2, 1))

    def test_discovery(self) -> None:
        """A discovery session has no target."""
        self.line.login(None)
        assert self.core.session is not None
        status = sessionStatus(self.core.session, self.core)
        self.assertEqual((status.kind, status.target), ("Discovery", ""))

    def test_target(self) -> None:
        """A target shows its units in order, and how many sessions it has."""
        self.line.login()
        status = targetStatus(self.target)
        self.assertEqual((status.name, status.alias, status.sessions), (TARGET, "two disks", 1))
        self.assertEqual([(unit.lun, unit.size) for unit in status.units], [(0, 1 << 20), (1, 512)])
        self.assertEqual([unit.serial for unit in status.units], ["serial0", "serial1"])

    def test_paths(self) -> None:
        """A unit shows how it is reached, where initiators are told, and who keeps others out."""
        unit: Any = self.target.units[0]
        unit.paths = Paths((1, 2), {2: STANDBY})
        unit.registrations.register(PORT, 0, 7)
        unit.registrations.reserve(PORT, 7, 3)
        first, second = targetStatus(self.target).units
        self.assertEqual(first.access, ((1, OPTIMIZED), (2, STANDBY)))
        self.assertEqual((first.registrations, first.reservation), (1, 3))
        self.assertEqual((second.access, second.registrations, second.reservation), ((), 0, 0))

    def test_devices(self) -> None:
        """A device that counts shows its counters, and so does what it is made of, however deep."""
        reactor = StepReactor()
        pool = StepPool()
        extents = [FileExtent(self.mktemp(), 0, 8192, reactor=reactor, threadPool=pool) for _ in range(2)]
        memory = MemoryDevice(8192)
        mirror = Mirror([ReadOnly(memory), *extents], reactor=reactor)
        target = makeTarget(mirror)
        self.addCleanup(pool.run)
        self.addCleanup(mirror.close)
        extents[0].write(0, bytes(512))
        extents[0].read(0, 512)
        extents[0].read(512, 1024)
        status = targetStatus(target).units[0].device
        self.assertEqual((status.name, status.size, status.counters), (str(mirror), 8192, DeviceCounters()))
        assert status.mirror is not None
        self.assertEqual([member.name for member in status.mirror.members], list(map(str, mirror.members)))
        filtered, first, second = status.members
        self.assertEqual([one.name for one in filtered.members], [str(memory)])
        self.assertEqual((first.name, first.members), (extents[0].path, ()))
        # What the mirror looks for beside its members' data is read in threads.
        counted, still = (attrs.evolve(each.counters, threaded=0) for each in (first, second))
        self.assertEqual(counted, DeviceCounters(reads=2, bytesRead=1536, writes=1, bytesWritten=512))
        self.assertEqual(still, DeviceCounters())

    def test_distrusted(self) -> None:
        """After a failed flush the status of an extent tells why nothing is read or written there."""
        pool = StepPool()
        extent = FileExtent(self.mktemp(), 0, 8192, reactor=StepReactor(), threadPool=pool, direct=True)
        target = makeTarget(extent)
        self.assertEqual(targetStatus(target).units[0].device.distrusted, "")

        def fail(fd: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(openrange.os, "fdatasync", fail)
        flushing: Any = extent.flush()
        pool.run()
        self.failureResultOf(flushing, WriteError)
        self.assertIn("cannot make writes durable: Input", targetStatus(target).units[0].device.distrusted)
        reopening = extent.reopen()
        pool.run()
        self.successResultOf(reopening)
        self.assertEqual(targetStatus(target).units[0].device.distrusted, "")

    def test_frozen(self) -> None:
        """A snapshot does not change."""
        status = targetStatus(self.target)
        self.assertRaises(attrs.exceptions.FrozenInstanceError, setattr, status, "name", "other")


class ServiceStatusTests(SynchronousTestCase):
    """Tests of the snapshot, and of the clock."""

    def test_before(self) -> None:
        """Before the start nothing is running, and there is nothing to see."""
        status = MemoryService(MemoryDevice(512)).service.status()
        self.assertEqual(
            (status.running, status.addresses, status.targets, status.sessions), (False, (), (), ())
        )

    def test_during(self) -> None:
        """It shows targets, units and sessions with their counters."""
        memory = MemoryService(MemoryDevice(1 << 20))
        memory.service.startService()
        line = memory.line()
        line.login()
        line.say(pdus.scsiCommand(bytes(6), itt=1, cmdSN=1))
        line.say(pdus.scsiCommand(write10(0, 1), itt=2, cmdSN=2, write=512, data=bytes(512)))
        line.say(pdus.scsiCommand(read10(0, 2), itt=3, cmdSN=3, read=1024))
        memory.line().login("iqn.2001-04.com.example:none")
        status = memory.service.status()
        self.assertEqual((status.running, status.addresses), (True, ("0.0.0.0:3260",)))
        self.assertEqual((status.connections, status.logins, status.refusals, status.losses), (2, 1, 1, 0))
        ((unit,),) = (target.units for target in status.targets)
        counted = unit.counters
        self.assertEqual((counted.commands, counted.errors, counted.reads, counted.writes), (3, 1, 1, 1))
        self.assertEqual((counted.readBytes, counted.writtenBytes), (1024, 512))
        self.assertGreaterEqual(counted.latencySum, counted.latencyMax)
        (session,) = status.sessions
        self.assertEqual(
            (session.kind, session.target, session.connection.address), ("Normal", TARGET, "192.0.2.7")
        )
        self.assertEqual((session.connection.pdusIn, session.connection.pdusOut), (4, 4))

    def test_json(self) -> None:
        """The snapshot is made of values that JSON knows."""
        memory = MemoryService(MemoryDevice(1 << 20))
        memory.service.startService()
        memory.line().login()
        status = attrs.asdict(memory.service.status())
        self.assertEqual(json.loads(json.dumps(status))["sessions"][0]["target"], TARGET)

    def test_after(self) -> None:
        """After the stop there is nothing to see but what was counted."""
        memory = MemoryService(MemoryDevice(512))
        memory.service.startService()
        line = memory.line()
        line.login()
        line.lose()
        self.successResultOf(memory.service.stopService())
        status = memory.service.status()
        self.assertEqual(
            (status.running, status.addresses, status.targets, status.connections), (False, (), (), 0)
        )
        self.assertEqual((status.logins, status.losses), (1, 1))

    def test_clock(self) -> None:
        """The service's clock ends connections that do not log in."""
        memory = MemoryService(MemoryDevice(512))
        memory.service.startService()
        line = memory.line()
        memory.reactor.pump([TICK] * int(NO_CHANGES.loginTime / TICK))
        self.assertFalse(line.transport.disconnecting)
        memory.reactor.advance(TICK)
        self.assertTrue(line.transport.disconnecting)

    def test_unready(self) -> None:
        """A unit is not ready any more once its device is closed, whoever still holds it."""
        memory = MemoryService(MemoryDevice(512))
        memory.service.startService()
        (target,) = memory.service.node.targets.values()
        self.successResultOf(memory.service.stopService())
        self.assertTrue(target.units[0].notReady)  # type: ignore[attr-defined]

    def test_capabilities(self) -> None:
        """A device that says that it is read-only is shown so."""

        class Fixed(MemoryDevice):
            def capabilities(self) -> Capabilities:
                return Capabilities(readOnly=True)

        memory = MemoryService(Fixed(512))
        memory.service.startService()
        self.assertTrue(memory.service.status().targets[0].units[0].readOnly)
