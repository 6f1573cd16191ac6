# -*- test-case-name: tests.target.test_service -*-
"""The life of the service, in memory."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from iscsi_twisted.config.auths import Auths, parseAuths
from iscsi_twisted.config.options import UnitOptions
from iscsi_twisted.errors import (
    CheckCondition,
    ConfigurationError,
    ConfigurationErrors,
    DeviceError,
    LocalError,
)
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.sense import encode
from iscsi_twisted.storage import MemoryDevice, Mirror
from iscsi_twisted.target import Listener, TargetService, VectorEndpoint, service
from iscsi_twisted.target.service import TICK
from iscsi_twisted.target.users import FileUsers
from iscsi_twisted.wire import numbers
from tests.support.devices import Door
from tests.support.served import MemoryService
from tests.support.wire import TARGET, Nobody

NAME = "iqn.2001-04.com.example"


@implementer(IStreamServerEndpoint)
class Taken:
    """An endpoint where nobody can listen."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def listen(self, factory: object) -> Deferred[Any]:
        return fail(self.error)


def taken(number: int) -> Taken:
    """An endpoint where a socket cannot be bound."""
    return Taken(CannotListenError("", 3260, OSError(number, os.strerror(number))))


class StartTests(SynchronousTestCase):
    """Tests of starting."""

    def test_service(self) -> None:
        """It is a service as Twisted's are."""
        verifyObject(IService, MemoryService().service)

    def test_privileged(self) -> None:
        """With privileges it opens devices and listens; starting afterwards does neither again."""
        device = Door()
        memory = MemoryService(device)
        self.assertEqual((device.calls, memory.reactor.tcpServers), ([], []))
        memory.service.privilegedStartService()
        self.assertEqual((device.calls, memory.listening), (["open"], 1))
        self.assertFalse(memory.service.running)
        memory.service.startService()
        self.assertEqual((device.calls, len(memory.reactor.tcpServers)), (["open"], 1))
        self.assertTrue(memory.service.running)

    def test_unprivileged(self) -> None:
        """Starting does all of it where nobody gave privileges before."""
        device = Door()
        memory = MemoryService(device)
        memory.service.startService()
        self.assertEqual((device.calls, memory.listening), (["open"], 1))

    def test_child(self) -> None:
        """As a child of another service it starts and stops with that."""
        memory = MemoryService(Door())
        parent = MultiService()
        memory.service.setServiceParent(parent)
        parent.privilegedStartService()
        parent.startService()
        self.assertEqual(memory.listening, 1)
        self.successResultOf(parent.stopService())
        self.assertEqual(memory.listening, 0)

    def test_devicesFirst(self) -> None:
        """It listens only when a device that takes its time is open."""
        door = Door(opening=Deferred())
        memory = MemoryService(door, MemoryDevice(512))
        ready = memory.service.whenReady()
        memory.service.privilegedStartService()
        memory.service.startService()
        self.assertEqual(memory.listening, 0)
        self.assertNoResult(ready)
        door.opening.callback(None)
        self.successResultOf(ready)
        self.successResultOf(memory.service.whenReady())
        self.assertEqual(memory.listening, 1)
        self.assertEqual(memory.line().login()["status"], 0)

    def test_anyPending(self) -> None:
        """A device may answer with anything that resembles a Deferred."""

        class Promise:
            def addCallbacks(self, callback: Any, errback: Any) -> None:
                self.callback = callback

            def addBoth(self, callback: Any) -> None:
                self.callback = callback

            def cancel(self) -> None:
                """It cannot be."""

        promise = Promise()
        memory = MemoryService(Door(opening=promise))
        memory.service.startService()
        self.assertEqual(memory.listening, 0)
        promise.callback(None)
        self.assertEqual(memory.listening, 1)

    def test_failure(self) -> None:
        """If devices cannot be opened all faults are told, the others are closed, and nothing listens."""
        good, first, second = (
            Door(),
            Door(opening=DeviceError("broken")),
            Door(opening=OSError(5, "worn out")),
        )
        memory = MemoryService(first, good, second)
        error = self.assertRaises(ConfigurationErrors, memory.service.privilegedStartService)
        self.assertEqual(str(error), "broken\n[Errno 5] worn out")
        self.assertEqual((first.calls, second.calls), (["open"], ["open"]))
        self.assertEqual(good.calls, ["open", "close"])
        self.assertEqual(memory.reactor.tcpServers, [])
        self.assertFalse(memory.service.running)

    def test_nested(self) -> None:
        """Members of a device that cannot be opened are closed too."""
        good = Door()
        memory = MemoryService(Mirror([good, Door(opening=DeviceError("broken"))]))
        self.assertRaises(ConfigurationErrors, memory.service.startService)
        self.assertEqual(good.calls, ["open", "close"])

    def test_lateFailure(self) -> None:
        """If a device fails only later, that is logged, and told to those who wait and those who ask."""
        door = Door(opening=Deferred())
        memory = MemoryService(door)
        ready = memory.service.whenReady()
        memory.service.startService()
        with capturedLogs() as events:
            door.opening.errback(DeviceError("broken"))
        self.assertEqual([formatEvent(event) for event in events], ["nothing is served: broken"])
        self.assertEqual(events[0]["event"], "failed")
        for waiting in (ready, memory.service.whenReady()):
            self.assertEqual(str(self.failureResultOf(waiting, ConfigurationErrors).value), "broken")
        self.assertEqual(memory.listening, 0)
        self.successResultOf(memory.service.stopService())

    def test_surprise(self) -> None:
        """An exception that no device should raise has its traceback logged, and is a fault like others."""
        memory = MemoryService(Door(opening=ZeroDivisionError("oops")))
        error = self.assertRaises(ConfigurationErrors, memory.service.startService)
        self.assertEqual(str(error), "Door could not be opened: ZeroDivisionError: oops")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_busy(self) -> None:
        """If one port is taken nothing listens, and the devices are closed again."""
        door, reactor = Door(), MemoryReactorClock()
        service = TargetService(
            reactor, [VectorEndpoint(reactor, 1), Listener(taken(errno.EADDRINUSE), name="tcp:2")]
        )
        service.addTarget(TARGET, [door])
        error = self.assertRaises(ConfigurationErrors, service.startService)
        self.assertEqual(str(error), "cannot listen on tcp:2: Address already in use")
        self.assertEqual((door.calls, service.ports, service.factories), (["open", "close"], [], []))

    def test_unbound(self) -> None:
        """An error of the system is told in its own words, without number and temporary names."""
        listener = Listener(
            Taken(FileNotFoundError(errno.ENOENT, "No such file", "123", None, "x.lock")), name="unix:x"
        )
        service = TargetService(MemoryReactorClock(), [listener])
        error = self.assertRaises(ConfigurationErrors, service.startService)
        self.assertEqual(str(error), "cannot listen on unix:x: No such file")

    def test_optional(self) -> None:
        """Where the machine lacks a kind of address the service goes on without; a taken one is a fault."""
        reactor = MemoryReactorClock()
        for number, wanted in ((errno.EAFNOSUPPORT, 1), (errno.EADDRNOTAVAIL, 1), (errno.EADDRINUSE, 0)):
            listeners = [VectorEndpoint(reactor, 1), Listener(taken(number), name="tcp6:1", optional=True)]
            service = TargetService(reactor, listeners)
            if wanted:
                service.startService()
            else:
                self.assertRaises(ConfigurationErrors, service.startService)
            self.assertEqual(len(service.ports), wanted)

    def test_nowhere(self) -> None:
        """If all it could listen on is lacking, that is a fault."""
        listener = Listener(taken(errno.EAFNOSUPPORT), optional=True)
        service = TargetService(MemoryReactorClock(), [listener])
        error = self.assertRaises(ConfigurationErrors, service.startService)
        self.assertEqual(str(error), "cannot listen on any address")

    def test_again(self) -> None:
        """After a failed start it can be started once the fault is gone, and stale faults are not told."""
        door = Door(opening=DeviceError("broken"))
        memory = MemoryService(door)
        self.assertRaises(ConfigurationErrors, memory.service.startService)
        door.opening = None
        memory.service.startService()
        self.assertEqual(memory.listening, 1)

    def test_state(self) -> None:
        """With a state directory identities outlive the service; without one they do not."""

        def serial(directory: str | None) -> str:
            memory = MemoryService(MemoryDevice(512), stateDirectory=directory)
            memory.service.startService()
            return memory.service.status().targets[0].units[0].serial

        directory = self.mktemp()
        self.assertEqual(serial(directory), serial(directory))
        self.assertNotEqual(serial(None), serial(None))

    def test_badState(self) -> None:
        """A state directory that cannot be used is a fault, and nothing is opened."""
        blocked = self.mktemp()
        with open(blocked, "w"):
            pass
        door = Door()
        memory = MemoryService(door, stateDirectory=os.path.join(blocked, "state"))
        self.assertRaises(ConfigurationError, memory.service.startService)
        self.assertEqual(door.calls, [])

    def test_badOptions(self) -> None:
        """Options that do not fit one another are faults before anything is opened."""
        door = Door()
        memory = MemoryService()
        memory.service.addTarget(TARGET, [door], blockSize=4096, options=UnitOptions(physical=512))
        self.assertRaises(ConfigurationErrors, memory.service.startService)
        self.assertEqual(door.calls, [])

    def test_descriptions(self) -> None:
        """Where to listen may be told as descriptions; a bad one is refused at once."""
        reactor = MemoryReactorClock()
        service = TargetService(reactor, ["tcp:3261", r"tcp6:3262:interface=\:\:1"])
        service.startService()
        self.assertEqual([server[0] for server in reactor.tcpServers], [3261, 3262])
        self.assertEqual(service.status().addresses, ("0.0.0.0:3261", "[::1]:3262"))
        self.assertRaises(ConfigurationError, TargetService, reactor, ["nonsense"])


class AddTests(SynchronousTestCase):
    """Tests of adding targets."""

    def test_devices(self) -> None:
        """Devices become LUN 0, 1, 2 in order; an object with size, read and write will do."""

        class Least:
            size = 4096

            async def read(self, offset: int, length: int) -> bytes:
                return bytes(length)

            async def write(self, offset: int, data: bytes) -> None:
                """Forget it."""

        memory = MemoryService(MemoryDevice(512), Least(), MemoryDevice(2048))
        memory.service.startService()
        (target,) = memory.service.status().targets
        self.assertEqual([(unit.lun, unit.size) for unit in target.units], [(0, 512), (1, 4096), (2, 2048)])

    def test_numbers(self) -> None:
        """Devices may have any LUNs, each one of its own."""
        memory = MemoryService()
        memory.service.addTarget(TARGET, {70000: MemoryDevice(512), 3: MemoryDevice(1024)})
        for lun in (-1, 1 << 24):
            self.assertRaises(LocalError, memory.service.addTarget, f"{NAME}:a", {lun: MemoryDevice(512)})
        error = self.assertRaises(
            LocalError,
            memory.service.addTarget,
            f"{NAME}:b",
            [MemoryDevice(512)] * 2,
            options=UnitOptions(lun=1),
        )
        self.assertIn("two units have the same number", str(error))
        memory.service.startService()
        (target,) = memory.service.status().targets
        self.assertEqual([(unit.lun, unit.size) for unit in target.units], [(3, 1024), (70000, 512)])

    def test_refused(self) -> None:
        """What is no name, a name that is taken in any spelling, no device or no block size is refused."""
        service = MemoryService(MemoryDevice(512)).service
        for name in ("target0", "", TARGET, TARGET.upper()):
            self.assertRaises(LocalError, service.addTarget, name, [MemoryDevice(512)])
        self.assertRaises(LocalError, service.addTarget, f"{NAME}:a", [object()])
        self.assertRaises(LocalError, service.addTarget, f"{NAME}:b", [MemoryDevice(512)], blockSize=513)

    def test_tooLate(self) -> None:
        """Targets are added before the start; after a stop more may be added."""
        service = MemoryService(MemoryDevice(512)).service
        service.startService()
        self.assertRaises(LocalError, service.addTarget, f"{NAME}:late", [MemoryDevice(512)])
        self.successResultOf(service.stopService())
        service.addTarget(f"{NAME}:late", [MemoryDevice(512)])
        service.startService()
        self.assertEqual(len(service.status().targets), 2)

    def test_policy(self) -> None:
        """A policy decides who may come; without one everybody may."""
        memory = MemoryService(MemoryDevice(512))
        memory.service.addTarget(f"{NAME}:closed", [MemoryDevice(512)], policy=Nobody())
        memory.service.startService()
        self.assertEqual(memory.line().login(f"{NAME}:closed")["status"], numbers.AUTHORIZATION_FAILURE)
        self.assertEqual(memory.line().login()["status"], 0)

    def test_many(self) -> None:
        """Ten thousand targets start, are found, and stop."""
        memory = MemoryService()
        for number in range(10_000):
            memory.service.addTarget(f"{NAME}:t{number}", [MemoryDevice(512)])
        memory.service.startService()
        self.assertEqual(memory.line().login(f"{NAME}:t9999")["status"], 0)
        self.assertEqual(len(memory.service.status().targets), 10_000)
        memory.line().transport.abortConnection()
        stopping = memory.service.stopService()
        memory.reactor.pump([1.0] * 6)
        self.successResultOf(stopping)


class EventTests(SynchronousTestCase):
    """SCSI events that an application reports."""

    def test_reportEvent(self) -> None:
        """The initiators of a target are told, with its sense data; those of others are not."""
        memory = MemoryService(MemoryDevice(512))
        memory.service.addTarget(f"{TARGET}2", [MemoryDevice(512)])
        memory.service.startService()
        mine, other = memory.line(), memory.line()
        mine.login()
        other.login(f"{TARGET}2")
        condition = CheckCondition(codes.UNIT_ATTENTION, codes.CAPACITY_CHANGED)
        self.assertEqual(memory.service.reportEvent(TARGET, 0, condition), 1)
        (event,) = mine.take()
        self.assertEqual((event["event"], event["lun"]), (numbers.EVENT_SCSI, bytes(8)))
        self.assertEqual(event["data"][2:], encode(condition))
        self.assertEqual(other.take(), [])
        self.assertRaises(KeyError, memory.service.reportEvent, "iqn.2001-04.com.example:none", 0, condition)

    def test_access(self) -> None:
        """Other access states are such an event, where they are others, for each unit that has them."""
        memory = MemoryService()
        memory.service.addTarget(TARGET, [MemoryDevice(512)] * 2, tpgs=1)
        memory.service.startService()
        line = memory.line()
        line.login()
        for states, lun, luns in (({1: 1}, 1, [1]), ({1: 1}, None, [0]), ({1: 1}, None, [])):
            memory.service.setAccess(TARGET, states, lun)
            events = line.take()
            self.assertEqual([event["lun"][1] for event in events], luns)
            for event in events:
                self.assertEqual(event["data"][14:16].hex(), "2a06")


class UserTests(SynchronousTestCase):
    """Services that ask who comes."""

    def test_guarded(self) -> None:
        """Targets and discovery ask for users, but those that are told not to."""
        made = MemoryService(secrets=FileUsers(parseAuths("me:chap:0123456789ab\n", "F")))
        made.service.addTarget(TARGET, [MemoryDevice(512)], users=["me"])
        made.service.addTarget(TARGET + "2", [MemoryDevice(512)], guarded=False)
        made.service.startService()
        self.addCleanup(made.service.stopService)
        self.assertEqual(made.line().login()["status"], 0x0201)
        self.assertEqual(made.line().login(None)["status"], 0x0201)
        self.assertEqual(made.line().login(TARGET + "2")["status"], 0)

    def test_nobodyAsks(self) -> None:
        """A target for some users, of a service that cannot ask for them, is a mistake."""
        for how, guarded in (({}, True), ({"secrets": FileUsers(Auths())}, False)):
            made = MemoryService(**how)
            self.assertRaises(
                LocalError, made.service.addTarget, TARGET, [MemoryDevice(512)], users=["me"], guarded=guarded
            )


class WatchTests(SynchronousTestCase):
    """What the service looks at now and then."""

    def test_thresholds(self) -> None:
        """Units look for thresholds at each tick."""
        served = MemoryService(MemoryDevice(512))
        served.service.startService()
        (unit,) = served.service.node.targets[TARGET].units.values()
        looks = []
        unit.watch = lambda: looks.append(served.reactor.seconds())  # type: ignore[method-assign]
        served.reactor.pump([TICK] * 2)
        self.assertEqual(len(looks), 2)
        served.service.stopService()

    def test_memory(self) -> None:
        """Memory is given back when the last session has ended, and when no data press any more."""
        trims: list[float] = []
        served = MemoryService(MemoryDevice(512))
        self.patch(service, "trimMalloc", lambda: trims.append(served.reactor.seconds()))
        served.service.startService()
        served.reactor.pump([TICK])
        lines = [served.line(), served.line()]
        for line in lines:
            line.login()
        for line in lines:
            served.reactor.pump([TICK])
            self.assertEqual(trims, [])
            line.lose()
        served.reactor.pump([TICK] * 2)
        self.assertEqual(len(trims), 1)
        load = served.service.node.load
        load.queue(load.limit)
        served.reactor.pump([TICK])
        load.taken(1)
        self.assertEqual(len(trims), 1)
        served.reactor.pump([TICK])
        self.assertEqual(len(trims), 2)
        served.service.stopService()
