"""Portals and their groups, from descriptions to what initiators are told."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import ConfigurationError, LocalError
from iscsi_twisted.interfaces import TargetPort
from iscsi_twisted.scsi.paths import BOTH, IMPLICIT, NONE, OPTIMIZED, STANDBY
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetService
from iscsi_twisted.target.listeners import groupFaults, idleGroups, listener
from iscsi_twisted.target.transport import VectorEndpoint
from iscsi_twisted.wire import numbers, text
from tests.config.reading import read
from tests.support import pdus
from tests.support.served import PEER, MemoryLine
from tests.support.wire import TARGET

FIRST = "tcp:3260:interface=198.51.100.1"
SECOND = "tcp:3261:interface=198.51.100.2:tpgt=2:advertise=san.example.com:860"
IDLE = f"no target is reached through {SECOND}: portals= of none has 2"


class ListenerTests(SynchronousTestCase):
    """Tests of L{listener}."""

    def test_described(self) -> None:
        """A description says which portal it is; messages call it as it was written."""
        for text_, portal in [
            ("tcp:1", Portal()),
            ("tcp6:1:tpgt=3", Portal(3)),
            ("tcp:1:tpgt=2:advertise=a:5", Portal(2, "a:5")),
            ("unix:/s:tpgt=4", Portal(4, carrier="unix")),
            ("haproxy:tcp:1:tpgt=5", Portal(5, carrier="haproxy")),
        ]:
            made = listener(MemoryReactorClock(), text_)
            self.assertEqual((made.portal, made.name, made.optional), (portal, text_, False))
        self.assertEqual(listener(MemoryReactorClock(), "tcp:7:tpgt=2").endpoint.port, 7)  # type: ignore[attr-defined]

    def test_others(self) -> None:
        """An endpoint becomes a listener, and a listener stays one."""
        made = listener(None, VectorEndpoint(None, 1), optional=True)
        self.assertEqual((made.portal, made.optional), (Portal(), True))
        self.assertIs(listener(None, made), made)

    def test_bad(self) -> None:
        """What is wrong with our words, or with the rest, is told with the description."""
        for text_, why in [
            ("tcp:1:tpgt=0", "endpoint 'tcp:1:tpgt=0': tpgt=: 1 to 65535"),
            ("tpgt=1", "endpoint ''"),
            ("tcp:x:tpgt=1", "endpoint 'tcp:x': should read"),
        ]:
            error = self.assertRaises(ConfigurationError, listener, MemoryReactorClock(), text_)
            self.assertTrue(str(error).startswith(why), str(error))


class GroupTests(SynchronousTestCase):
    """Portal groups of a service."""

    def setUp(self) -> None:
        """A service with two portals and three targets."""
        self.service = TargetService(MemoryReactorClock(), [FIRST, SECOND])
        for name, portals in (("one", (1,)), ("two", (2,)), ("all", None)):
            self.service.addTarget(f"{TARGET}:{name}", [MemoryDevice(512)], portals=portals)
        self.service.startService()

    def line(self, number: int) -> MemoryLine:
        """A connection to one of the portals."""
        host = IPv4Address("TCP", f"198.51.100.{number}", 3259 + number)
        return MemoryLine(self.service.factories[number - 1], PEER, host)

    def told(self, number: int) -> list[str]:
        """The answer to SendTargets=All at one of the portals."""
        line = self.line(number)
        line.login(None)
        (response,) = line.say(pdus.textRequest({"SendTargets": "All"}))
        return [value.removeprefix(TARGET) for _, value in text.decode(response["data"])]

    def test_discovery(self) -> None:
        """A portal tells of the targets of its group, with all their addresses."""
        first, second = "198.51.100.1:3260,1", "san.example.com:860,2"
        self.assertEqual(self.told(1), [":one", first, ":all", first, second])
        # In memory the first portal listens on all addresses.
        first = "198.51.100.2:3260,1"
        self.assertEqual(self.told(2), [":two", second, ":all", second, first])

    def test_login(self) -> None:
        """A target is logged in to through its groups alone, and the response tells the portal's tag."""
        for number, name, status in (
            (1, "one", 0), (2, "one", numbers.NOT_FOUND), (1, "two", numbers.NOT_FOUND), (2, "two", 0),
            (1, "all", 0), (2, "all", 0),
        ):  # fmt: skip
            with self.subTest(number=number, name=name):
                response = self.line(number).login(f"{TARGET}:{name}")
                self.assertEqual(response["status"], status)
                tag = response["keys"].get("TargetPortalGroupTag")
                self.assertEqual(tag, None if status else str(number))

    def test_nexuses(self) -> None:
        """One initiator port at two target ports makes two nexuses, neither of which replaces the other."""
        for number in (1, 2):
            self.line(number).login(f"{TARGET}:all")
        sessions = self.service.node.targets[f"{TARGET}:all"].sessions
        self.assertEqual([key[2] for key in sessions], [1, 2])
        self.line(1).login(f"{TARGET}:all")
        self.assertEqual(len(sessions), 2)

    def test_ports(self) -> None:
        """Each unit knows the target ports through which it is reached."""
        for name, groups in (("one", [1]), ("two", [2]), ("all", [1, 2])):
            target = self.service.node.targets[f"{TARGET}:{name}"]
            ports = tuple(TargetPort(target.name, group) for group in groups)
            self.assertEqual(target.units[0].inventory.ports, ports)  # type: ignore[attr-defined]
        self.assertEqual(TargetPort("iqn.x", 0x12).name, "iqn.x,t,0x0012")

    def test_status(self) -> None:
        """A snapshot shows portals with their groups, and through which one a session came."""
        self.line(2).login(f"{TARGET}:all")
        status = self.service.status()
        self.assertEqual(
            [(each.address, each.group, each.advertised, each.connections) for each in status.portals],
            [("0.0.0.0:3260", 1, None, 0), ("0.0.0.0:3261", 2, "san.example.com:860", 1)],
        )
        self.assertEqual([(each.portalGroup, each.user) for each in status.sessions], [(2, "")])

    def test_missing(self) -> None:
        """A target that is tied to a group without portals is refused."""
        service = TargetService(MemoryReactorClock(), [FIRST])
        error = self.assertRaises(LocalError, service.addTarget, TARGET, [], portals=[1, 2])
        self.assertEqual(str(error), f"target {TARGET!r}: no listener belongs to portal group 2")

    def test_access(self) -> None:
        """Initiators are told of access states where there is more than one path, or somebody said which."""
        service = TargetService(MemoryReactorClock(), [FIRST, SECOND])
        for name, options in (
            ("one", {"portals": (1,)}), ("all", {}), ("uneven", {"access": {2: STANDBY}, "preferred": (1,)}),
            ("odd", {"portals": (1,), "preferred": (1,), "tpgs": IMPLICIT}), ("even", {"tpgs": NONE}),
        ):  # fmt: skip
            service.addTarget(f"{TARGET}:{name}", [MemoryDevice(512)] * 2, **options)  # type: ignore[arg-type]
        service.startService()
        units: Any = {
            name: service.node.targets[f"{TARGET}:{name}"].units
            for name in ("one", "all", "uneven", "odd", "even")
        }
        self.assertEqual(
            {name: each[0].paths.tpgs for name, each in units.items()},
            {"one": NONE, "all": BOTH, "uneven": BOTH, "odd": IMPLICIT, "even": NONE},
        )
        self.assertEqual(
            (units["uneven"][1].paths.states, units["uneven"][1].paths.preferred), ({2: STANDBY}, {1})
        )
        service.setAccess(f"{TARGET}:uneven", {1: STANDBY, 2: OPTIMIZED}, 1)
        service.setAccess(f"{TARGET}:ALL", {1: STANDBY})
        self.assertEqual(
            [units[name][lun].paths.state(1) for name in ("uneven", "all") for lun in (0, 1)],
            [OPTIMIZED, STANDBY, STANDBY, STANDBY],
        )
        for name, states, lun in (
            ("none", {1: STANDBY}, None), ("all", {3: STANDBY}, None), ("all", {1: STANDBY}, 2),
            ("all", {1: 4}, 0),
        ):  # fmt: skip
            self.assertRaises(LocalError, service.setAccess, f"{TARGET}:{name}", states, lun)

    def test_noAccess(self) -> None:
        """Access states of groups that do not lead to the target are refused."""
        service = TargetService(MemoryReactorClock(), [FIRST, SECOND])
        error = self.assertRaises(LocalError, service.addTarget, TARGET, [], portals=[1], access={2: STANDBY})
        self.assertEqual(str(error), f"target {TARGET!r}: no target port group 2; there are 1")

    def test_withoutAddress(self) -> None:
        """A portal on a UNIX socket has no address, unless one is advertised."""
        service = TargetService(MemoryReactorClock(), ["unix:s", "unix:t:advertise=localhost:1"])
        service.addTarget(TARGET, [MemoryDevice(512)])
        service.startService()
        self.assertEqual([each.listening for each in service.node.portals], [None, None])
        told = []
        for factory in service.factories:
            line = MemoryLine(factory, UNIXAddress(""), UNIXAddress("s"))
            line.login(None)
            (response,) = line.say(pdus.textRequest({"SendTargets": "All"}))
            told.append([value for name, value in text.decode(response["data"]) if name == "TargetAddress"])
        self.assertEqual(told, [["localhost:1,1"], ["localhost:1,1"]])


class FaultTests(SynchronousTestCase):
    """What targets and portals ask of each other."""

    def test_faults(self) -> None:
        """A group that a target is tied to has a portal, and every portal has a target."""
        targets = read("extent0 /a 0 1M\ntarget0 extent0 any portals=1,3").targets
        listeners = [listener(MemoryReactorClock(), each) for each in (FIRST, SECOND)]
        self.assertEqual(
            [str(each) for each in groupFaults(targets, listeners)],
            ["F:2: portals=: no portal belongs to group 3; there are 1, 2, and --listen tcp:3260:tpgt=3 would"
             " make one"],
        )  # fmt: skip
        self.assertEqual(
            list(idleGroups(targets, listeners)),
            [IDLE],
        )
        self.assertEqual(list(idleGroups((), listeners)), [])
