# -*- test-case-name: tests.target.test_status -*-
"""The snapshot's parts."""

from __future__ import annotations

import attrs
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetFactory
from iscsi_twisted.target.status import connectionStatus, sessionStatus, targetStatus, where
from tests.support import pdus
from tests.support.served import MemoryLine
from tests.support.wire import INITIATOR, TARGET, makeNode, makeTarget


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

    def test_frozen(self) -> None:
        """A snapshot does not change."""
        status = targetStatus(self.target)
        self.assertRaises(attrs.exceptions.FrozenInstanceError, setattr, status, "name", "other")
