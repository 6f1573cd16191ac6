# -*- test-case-name: tests.target.test_reload -*-
"""A service is told to serve something else, in memory."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.config.options import UnitOptions
from iscsi_twisted.config.steps import Steps
from iscsi_twisted.errors import ConfigurationErrors, DeviceError, LocalError
from iscsi_twisted.interfaces import Asker, Grant, IAccessPolicy, ISecretStore
from iscsi_twisted.scsi import codes
from iscsi_twisted.target.assembly import Disk, Plan
from iscsi_twisted.target.change import GRACE, Wanted
from iscsi_twisted.target.commit import Changes
from iscsi_twisted.target.farewell import LOGOUT
from iscsi_twisted.target.kinds import Kind
from iscsi_twisted.target.slices import SLICE
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.served import MemoryLine, MemoryService
from tests.support.turns import turn
from tests.support.wire import TARGET, TEST_UNIT_READY, read10

OTHER = "iqn.2001-04.com.example:other"

ANY = cast(IAccessPolicy, Netmask("any"))

INQUIRY = bytes.fromhex("120000006000")

REPORT_LUNS = b"\xa0" + bytes(5) + (64).to_bytes(4, "big") + bytes(2)

CAPACITY = b"\x25" + bytes(9)


class Masked:
    """A policy that shows some LUNs."""

    def __init__(self, *luns: int, readOnly: bool = False) -> None:
        self.luns, self.readOnly = frozenset(luns), readOnly

    def admits(self, address: str | None) -> bool:
        return True

    def decide(self, asker: Asker) -> Grant | None:
        return Grant(self.readOnly, self.luns) if self.luns else None


def disk(device: FakeDevice, definition: object = None, *files: str, **options: Any) -> Disk:
    """A device with a definition, and the files that it locks."""
    kind = Kind(device if definition is None else definition, files or device, frozenset(files))
    readOnly = options.pop("readOnly", False)
    return Disk(device, UnitOptions(**options), readOnly=readOnly, kind=kind)


def plan(*disks: Disk, name: str = TARGET, policy: Any = ANY, **options: Any) -> Plan:
    """A target."""
    return Plan(name, disks, policy, **options)


def ready(size: int = 1 << 20, **options: Any) -> FakeDevice:
    """A device that answers at once."""
    return FakeDevice(size, synchronous=True, **options)


class Client:
    """A session with a service, which says what an initiator says."""

    def __init__(self, memory: MemoryService, target: str = TARGET, luns: int = 1, **keys: str) -> None:
        self.memory = memory
        self.line: MemoryLine = memory.line()
        response = self.line.login(target, **keys)
        assert response["status"] == 0, hex(response["status"])
        self.tag = 0x100
        self.cmdSN = 1
        for lun in range(luns):
            while self.do(TEST_UNIT_READY, lun)["status"]:
                pass

    def send(self, cdb: bytes, lun: int = 0, **options: Any) -> list[dict[str, Any]]:
        """A command; what comes back at once."""
        self.tag += 1
        field = bytes((0, lun)) + bytes(6)
        self.cmdSN += 1
        return self.line.say(pdus.scsiCommand(cdb, itt=self.tag, cmdSN=self.cmdSN - 1, lun=field, **options))

    def do(self, cdb: bytes, lun: int = 0, **options: Any) -> dict[str, Any]:
        """A command that is answered at once; the last PDU."""
        return self.send(cdb, lun, **options)[-1]

    def attentions(self, lun: int = 0) -> list[int]:
        """All unit attentions that are pending."""
        found = []
        while (answer := self.do(TEST_UNIT_READY, lun))["status"] == codes.CHECK_CONDITION:
            sense = answer["data"][2:]
            if sense[2] & 15 != codes.UNIT_ATTENTION:
                break
            found.append(int.from_bytes(sense[12:14], "big"))
        return found

    def blocks(self, lun: int = 0) -> int:
        """READ CAPACITY."""
        return int.from_bytes(self.do(CAPACITY, lun, read=8)["data"][:4], "big") + 1

    def events(self) -> list[tuple[int, int]]:
        """Event, and Parameter3 or the additional sense code of asynchronous messages that have come."""
        found = []
        for each in self.line.take():
            if each["opcode"] == numbers.ASYNC_MESSAGE:
                event = each["event"]
                code = int.from_bytes(each["data"][14:16], "big") if event == 0 else each["parameter3"]
                found.append((event, code))
        return found

    @property
    def gone(self) -> bool:
        """Whether the target has closed the connection."""
        return bool(self.line.transport.disconnecting)


class ReloadTestCase(SynchronousTestCase):
    """Has a service with one target of one disk."""

    def setUp(self) -> None:
        self.device = ready()
        self.first = plan(disk(self.device))
        self.memory = self.serve(self.first)

    def serve(self, *plans: Plan, **options: Any) -> MemoryService:
        """A running service."""
        memory = MemoryService(**options)
        for each in plans:
            memory.service.addPlan(each)
        memory.service.startService()
        return memory

    def change(self, *plans: Plan, secrets: ISecretStore | None = None) -> Any:
        """Change to this; what has changed."""
        return self.successResultOf(self.memory.service.change(plans, secrets))

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps of a second."""
        for _ in range(round(seconds)):
            self.memory.reactor.advance(1)
            self.close()

    def close(self) -> None:
        """Let connections end that the target has closed."""
        for factory in self.memory.service.factories:
            for protocol in list(factory.protocols):
                if protocol.transport.disconnecting or protocol.transport.disconnected:  # type: ignore[union-attr]
                    protocol.connectionLost(connectionDone)


class TargetTests(ReloadTestCase):
    """Targets come and go."""

    def test_same(self) -> None:
        """What stays the same is not touched: not its device, nor its session, nor a command under way."""
        slow = FakeDevice()
        memory = self.memory = self.serve(plan(disk(slow, "slow", "f")))
        client = Client(memory)
        self.assertEqual(client.send(read10(0, 1), read=512), [])
        changes = self.change(plan(disk(ready(), "slow", "f")))
        self.assertEqual((changes.added, changes.removed, changes.changed, changes.ended), ((), (), (), 0))
        slow.fire()
        self.assertEqual([each["status"] for each in client.line.take()], [0])
        self.assertEqual((slow.openings, slow.closings), (1, 0))
        self.assertEqual(client.attentions(), [])
        self.assertFalse(client.gone)

    def test_added(self) -> None:
        """A new target is listed, and can be used."""
        device = ready()
        changes = self.change(self.first, plan(disk(device), name=OTHER))
        self.assertEqual(changes.added, (OTHER,))
        self.assertEqual(device.openings, 1)
        line = self.memory.line()
        line.login(None)
        (answer,) = line.say(pdus.textRequest(b"SendTargets=All\0", cmdSN=1))
        self.assertIn(f"TargetName={OTHER}".encode(), answer["data"])
        self.assertEqual(Client(self.memory, OTHER).blocks(), 2048)

    def test_removed(self) -> None:
        """A target that goes asks its initiators to log out, then ends them, then closes its device."""
        other = ready()
        self.change(self.first, plan(disk(other), name=OTHER))
        stays, goes = Client(self.memory), Client(self.memory, OTHER)
        changes = self.change(self.first)
        self.assertEqual((changes.removed, changes.ended), ((OTHER,), 1))
        self.assertEqual(goes.events(), [(numbers.EVENT_LOGOUT_REQUEST, int(LOGOUT))])
        self.assertEqual(goes.do(read10(0, 1), read=512)["status"], 0)
        self.assertEqual(self.memory.line().login(OTHER)["status"], numbers.TARGET_REMOVED)
        self.assertEqual((goes.gone, other.closings), (False, 0))
        self.advance(LOGOUT + 1)
        self.assertTrue(goes.gone)
        self.advance(1)
        self.assertEqual((other.closings, self.device.closings), (1, 0))
        self.assertEqual((stays.gone, stays.events()), (False, []))

    def test_loggedOut(self) -> None:
        """When the initiators have logged out the device is closed at once."""
        client = Client(self.memory)
        self.change()
        client.line.say(pdus.logoutRequest(cmdSN=client.cmdSN))
        self.close()
        self.assertEqual(self.device.closings, 1)

    def test_lingering(self) -> None:
        """A device that is at work is never closed under that."""
        slow = FakeDevice()
        self.memory = self.serve(plan(disk(slow)))
        client = Client(self.memory)
        client.send(read10(0, 1), read=512)
        self.change()
        with capturedLogs() as events:
            self.advance(LOGOUT + GRACE + 3)
        self.assertIn("still at work", "".join(formatEvent(each) or "" for each in events))
        self.assertTrue(client.gone)
        self.assertEqual(slow.closings, 0)
        slow.fire()
        self.assertEqual(slow.closings, 1)

    def test_again(self) -> None:
        """A target that comes back can be used again."""
        self.change()
        self.advance(1)
        self.change(self.first)
        self.assertEqual(Client(self.memory).blocks(), 2048)
        self.assertEqual(self.device.openings, 2)

    def test_restarted(self) -> None:
        """A service that starts again serves what it served last."""
        service = self.memory.service
        self.change(plan(disk(self.device), name=OTHER))
        self.advance(1)
        stopping = service.stopService()
        self.advance(10)
        self.successResultOf(stopping)
        service.startService()
        self.assertEqual(list(service.node.targets), [OTHER])
        self.assertEqual(Client(self.memory, OTHER).blocks(), 2048)

    def test_alias(self) -> None:
        """A target gets another alias."""
        self.change(plan(disk(self.device), alias="new"))
        self.assertEqual(self.memory.line().login()["keys"]["TargetAlias"], "new")


class FailureTests(ReloadTestCase):
    """Nothing changes if anything is wrong."""

    def test_unopened(self) -> None:
        """A new device that cannot be opened: the others that were are closed again."""
        bad, good = ready(), ready()
        bad.error = DeviceError("worn out")
        client = Client(self.memory)
        changing = self.memory.service.change([plan(disk(bad), disk(good), name=OTHER)])
        with capturedLogs() as events:
            error = self.failureResultOf(changing, ConfigurationErrors).value
        self.assertEqual((str(error), good.openings, good.closings), ("worn out", 1, 1))
        self.assertEqual(list(self.memory.service.node.targets), [TARGET])
        self.assertEqual((client.do(read10(0, 1), read=512)["status"], client.events()), (0, []))
        self.assertEqual(events, [])

    def test_otherType(self) -> None:
        """A disk that is to become an optical drive while it is served is a fault."""
        client = Client(self.memory)
        drive = Disk(ready(), UnitOptions(type="cdrom"), 2048, True, kind=Kind("b", "b"))
        changing = self.memory.service.change([plan(drive)])
        fault = self.failureResultOf(changing, ConfigurationErrors).value
        self.assertIn("cannot become a cdrom while it is served", str(fault))
        self.assertEqual((client.do(read10(0, 1), read=512)["status"], client.events()), (0, []))

    def test_logged(self) -> None:
        """All that is wrong is logged, a line for each fault."""

        def read() -> Wanted:
            raise ConfigurationErrors([DeviceError("one"), DeviceError("two")])  # type: ignore[list-item]

        memory = self.serve(self.first, read=read)
        with capturedLogs() as events:
            self.failureResultOf(memory.service.reload(), ConfigurationErrors)
        self.assertEqual([formatEvent(each) for each in events], ["one", "two", "nothing was changed"])

    def test_many(self) -> None:
        """Of thousands of targets that come, go or change the log names some."""
        plans = [plan(disk(ready()), name=f"{OTHER}{number}") for number in range(23)]
        with capturedLogs() as events:
            self.assertEqual(len(self.change(*plans).added), 23)
        (line,) = [formatEvent(each) or "" for each in events if each.get("event") == "reloaded"]
        self.assertIn(f"{OTHER}19 and 3 others; removed {TARGET}", line)
        self.assertNotIn(f"{OTHER}20", line)

    def test_undone(self) -> None:
        """If what takes a file's place cannot be opened the old device is opened again, and goes on."""
        old, bad = ready(), ready()
        bad.error = DeviceError("worn out")
        self.memory = self.serve(plan(disk(old, 1, "f")))
        client = Client(self.memory)
        self.failureResultOf(self.memory.service.change([plan(disk(bad, 2, "f"))]), ConfigurationErrors)
        self.assertEqual((old.openings, old.closings), (2, 1))
        self.assertEqual((client.do(read10(0, 1), read=512)["status"], client.attentions()), (0, []))

    def test_lost(self) -> None:
        """If not even that is possible its LUN is not ready, and that is logged."""
        old, bad = ready(), ready()
        bad.error = DeviceError("worn out")
        self.memory = self.serve(plan(disk(old, 1, "f")))
        client = Client(self.memory)
        old.error = DeviceError("gone")
        with capturedLogs() as events:
            self.failureResultOf(self.memory.service.change([plan(disk(bad, 2, "f"))]), ConfigurationErrors)
        self.assertIn("unopened", [each.get("event") for each in events])
        self.assertEqual(client.do(TEST_UNIT_READY)["data"][4] & 15, codes.NOT_READY)

    def test_stopped(self) -> None:
        """A service that stops gives up what is under way, and closes all."""
        slow = FakeDevice()
        self.memory = self.serve(plan(disk(slow, 1, "f")))
        client = Client(self.memory)
        client.send(read10(0, 1), read=512)
        changing = self.memory.service.change([plan(disk(ready(), 2, "f"))])
        stopping = self.memory.service.stopService()
        self.failureResultOf(changing, LocalError)
        slow.fire()
        self.advance(10)
        self.successResultOf(stopping)
        self.assertEqual(slow.closings, 1)
        self.failureResultOf(self.memory.service.change([]), LocalError)
        self.assertEqual(self.memory.reactor.getDelayedCalls(), [])

    def test_nothingToRead(self) -> None:
        """A service that was not told where to read has nothing to reload."""
        self.failureResultOf(self.memory.service.reload(), LocalError)

    def test_names(self) -> None:
        """Two targets of one name are none."""
        self.failureResultOf(self.memory.service.change([self.first, self.first]), LocalError)

    def test_inTurn(self) -> None:
        """One change after another."""
        opening: Deferred[None] = Deferred()

        class Late(FakeDevice):
            def open(self, changed: Any) -> Any:
                super().open(changed)
                return opening

        first = self.memory.service.change([self.first, plan(disk(Late(synchronous=True)), name=OTHER)])
        second = self.memory.service.change([])
        self.assertNoResult(first)
        opening.callback(None)
        self.assertEqual(self.successResultOf(first).added, (OTHER,))
        self.assertEqual(self.successResultOf(second).removed, (TARGET, OTHER))


class SlicesTests(ReloadTestCase):
    """A change takes its time, and initiators are served meanwhile."""

    def serveSlowly(self) -> Client:
        """Serve what takes a slice of time whenever anything looks at it."""
        self.memory = self.serve(self.first, read=self.read)
        clock = self.memory.reactor
        opened = self.opened = list[float]()

        class Slow(FakeDevice):
            def open(self, changed: Any) -> Any:
                opened.append(clock.seconds())
                clock.rightNow += SLICE
                return super().open(changed)

        self.more = [plan(disk(Slow(synchronous=True)), name=f"{OTHER}{number}") for number in range(3)]
        return Client(self.memory)

    def read(self) -> Steps[Wanted]:
        """One step for each target."""
        for _ in self.more:
            self.memory.reactor.rightNow += SLICE
            yield
        return Wanted((self.first, *self.more))

    def test_served(self) -> None:
        """Between two steps commands are answered; what has changed is there all at once."""
        client = self.serveSlowly()
        made: list[Changes] = []
        self.memory.service.reload().addCallback(made.append)
        turns = 0
        while not made:
            self.assertEqual(client.do(read10(0, 1), read=512)["status"], 0)
            self.assertEqual(list(self.memory.service.node.targets), [TARGET])
            turn(self.memory.reactor)
            turns += 1
        self.assertEqual((turns, len(made[0].added)), (6, 3))

    def test_measured(self) -> None:
        """Commands are answered between two looks at devices that stay; what has grown is told in the end."""
        case = self

        class Measured(FakeDevice):
            def measure(self) -> bool:
                case.memory.reactor.rightNow += SLICE
                assert self.changed is not None
                self.changed()
                return True

        devices = [Measured(synchronous=True) for _ in range(3)]
        plans = [plan(disk(device, number), name=f"{OTHER}{number}") for number, device in enumerate(devices)]
        self.memory = self.serve(self.first, *plans)
        client = Client(self.memory)
        devices[2].size *= 2
        made: list[Changes] = []
        again = [plan(disk(FakeDevice(), number), name=f"{OTHER}{number}") for number in range(3)]
        self.memory.service.change([self.first, *again]).addCallback(made.append)
        turns = 0
        while not made:
            self.assertEqual(client.do(read10(0, 1), read=512)["status"], 0)
            turn(self.memory.reactor)
            turns += 1
        self.assertEqual((turns, made), (3, [Changes(changed=(f"{OTHER}2",))]))

    def test_kept(self) -> None:
        """Of what is served as before nothing is kept twice: thousands of targets would cost all a pause."""
        before = plan(disk(ready(), "a"), name=OTHER)
        other = plan(disk(ready(), "b"), name=f"{OTHER}1")
        self.memory = self.serve(self.first, before, other)
        again = plan(disk(FakeDevice(), "b"), name=f"{OTHER}1", alias="another")
        self.change(self.first, plan(disk(FakeDevice(), "a"), name=OTHER), again)
        plans = self.memory.service._serving.plans
        self.assertIs(plans[OTHER].disks[0], before.disks[0])
        self.assertEqual(plans[f"{OTHER}1"].alias, "another")

    def test_stopped(self) -> None:
        """A service that stops meanwhile gives it up, in whatever step, and closes what was opened."""
        for turns in range(6):
            self.setUp()
            self.serveSlowly()
            reloading = self.memory.service.reload()
            turn(self.memory.reactor, turns)
            stopping = self.memory.service.stopService()
            self.failureResultOf(reloading, LocalError)
            self.advance(10)
            self.successResultOf(stopping)
            self.assertEqual(len(self.opened), max(0, turns - 2))
            devices: list[Any] = [each.disks[0].device for each in self.more]
            self.assertEqual([each.openings - each.closings for each in devices], [0, 0, 0])
            self.assertEqual(self.memory.reactor.getDelayedCalls(), [])

    def test_later(self) -> None:
        """What is to be served may be found out later."""
        wanted: Deferred[Wanted] = Deferred()
        self.memory = self.serve(self.first, read=lambda: wanted)
        reloading = self.memory.service.reload()
        self.assertNoResult(reloading)
        wanted.callback(Wanted(()))
        self.assertEqual(self.successResultOf(reloading).removed, (TARGET,))
