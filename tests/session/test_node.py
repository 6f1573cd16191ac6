"""Tests for L{iscsi_twisted.session.node}: nodes, targets, and the budget that sessions share."""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.errors import LoginError
from iscsi_twisted.session.budget import Budget
from iscsi_twisted.session.doors import Peer
from iscsi_twisted.session.limits import Limits
from iscsi_twisted.session.node import Node
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.session.target import Nexus, Target
from iscsi_twisted.storage import MemoryDevice
from tests.support import pdus
from tests.support.wire import TARGET, Line, Nobody, makeNode, makeTarget

HERE = Peer("192.0.2.7", "192.0.2.7", None)
THERE = Peer("192.0.2.8", "192.0.2.8", None)
FIRST, SECOND = Portal(1), Portal(2)

EVERYWHERE = Nexus("iqn.2001-04.com.example:host", b"\x80\0\0\0\0\1", TARGET, 1, False)
"""A nexus that sees all units."""


class NodeTests(SynchronousTestCase):
    """Finding targets."""

    def setUp(self) -> None:
        self.open = makeTarget(name=TARGET)
        self.closed = makeTarget(name=TARGET + ":closed", policy=Nobody("192.0.2.8"))
        self.node, _ = makeNode(self.open, self.closed)

    def test_find(self) -> None:
        """A target is found by its name in any case, by those whom its policy admits."""
        self.assertIs(self.node.find(TARGET.upper(), HERE, FIRST), self.open)
        self.assertIs(self.node.find(TARGET + ":closed", THERE, FIRST), self.closed)
        error = self.assertRaises(LoginError, self.node.find, TARGET + ":closed", HERE, FIRST)
        self.assertEqual(
            (error.status, str(error)), (0x0202, f"the netmask of {TARGET}:closed does not admit it")
        )
        error = self.assertRaises(LoginError, self.node.find, TARGET + ":other", HERE, FIRST)
        self.assertEqual(error.status, 0x0203)

    def test_visible(self) -> None:
        """A peer sees the targets that it may log in to."""
        self.assertEqual(list(self.node.visible(HERE, FIRST)), [self.open])
        self.assertEqual(list(self.node.visible(THERE, FIRST)), [self.open, self.closed])

    def test_groups(self) -> None:
        """Through a portal of another group a target is neither seen nor found; nor is its peer admitted."""
        target = makeTarget(name=TARGET, groups=frozenset((2, 3)))
        node, _ = makeNode(target, makeTarget(name=TARGET + ":closed", policy=Nobody("192.0.2.8")))
        self.assertEqual(list(node.visible(HERE, FIRST)), [])
        self.assertEqual(list(node.visible(HERE, SECOND)), [target])
        self.assertIs(node.find(TARGET, HERE, SECOND), target)
        error = self.assertRaises(LoginError, node.find, TARGET, HERE, FIRST)
        self.assertEqual(
            (error.status, str(error)), (0x0203, f"{TARGET} is not reached through portal group 1")
        )
        self.assertEqual([node.admits(HERE.address, each) for each in (FIRST, SECOND)], [False, True])

    def admitted(self, node: Node) -> list[bool]:
        """Who is admitted by any target, through either portal."""
        return [node.admits(each.address, portal) for each in (HERE, THERE) for portal in (FIRST, SECOND)]

    def test_admitsLater(self) -> None:
        """What has changed holds at once: targets, their policies, and the portals that lead to them."""
        node, _ = makeNode(self.closed)
        self.assertEqual(self.admitted(node), [False, False, True, True])
        node.add(self.open)
        self.assertEqual(self.admitted(node), [True] * 4)
        self.open.policy = Netmask("192.0.2.8")
        self.assertEqual(self.admitted(node), [False, False, True, True])
        self.open.policy = Netmask("192.0.2.7")
        self.assertEqual(self.admitted(node), [True] * 4)
        self.open.groups = frozenset((2,))
        self.assertEqual(self.admitted(node), [False, True, True, True])
        node.remove(self.closed.name)
        self.assertEqual(self.admitted(node), [True, True, True, False])
        node.clear()
        self.assertEqual(self.admitted(node), [True] * 4)

    def test_admitsMany(self) -> None:
        """Of thousands of netmasks none is asked alone."""
        asked: list[Netmask] = []

        class Asked(Netmask):
            """Tells when it is asked."""

            def admits(self, address: str | None) -> bool:
                asked.append(self)
                return super().admits(address)

        node, _ = makeNode()
        for number in range(1000):
            policy: Any = Asked(f"10.{number >> 8}.{number & 255}.0/24")
            target = Target(f"{TARGET}:{number}", policy, {}, object(), lambda field: 0)
            node.add(target)
        for address, admitted in (("10.3.9.1", True), ("10.3.250.1", False), ("11.0.0.1", False)):
            self.assertIs(node.admits(address, FIRST), admitted)
        self.assertEqual(asked, [])

    def test_admitsByChance(self) -> None:
        """Policies of an application's are asked each time: they may say something else now."""

        class Moody:
            """Admits every second time."""

            asked = 0

            def admits(self, address: str | None) -> bool:
                self.asked += 1
                return self.asked % 2 == 0

        self.open.policy = Moody()
        self.assertEqual([self.node.admits(HERE.address, FIRST) for _ in range(4)], [False, True] * 2)

    def test_visibleWhileTheyChange(self) -> None:
        """Targets may come while somebody still looks through the list."""
        seen = self.node.visible(THERE, FIRST)
        next(seen)
        self.node.add(makeTarget(name=TARGET + ":new"))
        self.assertEqual(list(seen), [self.closed])


class TargetTests(SynchronousTestCase):
    """A target's units and handles."""

    def test_name(self) -> None:
        """A target's name is kept in normal form."""
        self.assertEqual(makeTarget(name=TARGET.upper()).name, TARGET)

    def test_addressed(self) -> None:
        """A LUN field leads to its unit, or to what answers for units that are not there."""
        target = makeTarget(MemoryDevice(512), MemoryDevice(512))
        self.assertEqual(target.addressed(bytes(8), EVERYWHERE), (0, target.units[0]))
        self.assertEqual(target.addressed(b"\0\1" + bytes(6), EVERYWHERE), (1, target.units[1]))
        self.assertEqual(target.addressed(b"\0\2" + bytes(6), EVERYWHERE), (2, target.absent))
        self.assertEqual(target.addressed(b"\xff" * 8, EVERYWHERE), (-1, target.absent))

    def test_noHandleLeft(self) -> None:
        """When all session handles are taken the login is refused: out of resources."""
        target = makeTarget(MemoryDevice(512))
        node, _ = makeNode(target)
        line = Line(node)
        line.login()
        (session,) = node.sessions

        class Other:
            """Another session, of which only the handle counts here."""

            def __init__(self, tsih: int) -> None:
                self.tsih = tsih

        taken = {("other", b"", tsih): Other(tsih) for tsih in range(1, 0x10000) if tsih != session.tsih}
        target.sessions.update(taken)  # type: ignore[arg-type]
        error = self.assertRaises(LoginError, target.nextTSIH)
        self.assertEqual(error.status, 0x0302)
        free = taken.popitem()
        del target.sessions[free[0]]
        self.assertEqual(target.nextTSIH(), free[1].tsih)

    def test_nexusKey(self) -> None:
        """Initiator name, ISID and portal group tag make a nexus of a target."""
        nexus = Nexus("iqn.2001-04.com.example:host", b"\x80\0\0\0\0\1", TARGET, 3, True)
        self.assertEqual(nexus.key, ("iqn.2001-04.com.example:host", b"\x80\0\0\0\0\1", 3))


class UnfinishedTests(SynchronousTestCase):
    """Connections whose login is not complete."""

    def test_bound(self) -> None:
        """One more than there may be takes the place of the oldest, and is served."""
        node, diary = makeNode(makeTarget(MemoryDevice(512)), limits=Limits(halfOpen=3))
        lines = [Line(node) for _ in range(5)]
        self.assertEqual([line.closed for line in lines], [True, True, False, False, False])
        reason = "too many logins are not complete, and this is the oldest"
        self.assertEqual(diary.entries, [("lost", reason)] * 2)
        for line in lines[2:]:
            line.login(InitiatorName=f"iqn.2001-04.com.example:host{lines.index(line)}")
        self.assertEqual((len(node.sessions), node.unfinished), (3, {}))

    def test_others(self) -> None:
        """Sessions are not counted, nor what has been refused, lost or logged out."""
        node, _ = makeNode(makeTarget(MemoryDevice(512)), limits=Limits(halfOpen=1))
        session = Line(node)
        session.login()
        refused = Line(node)
        refused.say(pdus.loginRequest({}))
        lost = Line(node)
        lost.core.lost("gone")
        for number in range(10):
            line = Line(node)
            line.login(InitiatorName=f"iqn.2001-04.com.example:host{number}")
            line.say(pdus.logoutRequest())
        self.assertEqual((node.unfinished, session.closed), ({}, False))

    def test_flood(self) -> None:
        """While thousands begin a login and leave it, a right one succeeds, and a session notices nothing."""
        node, _ = makeNode(makeTarget(MemoryDevice(512)))
        session = Line(node)
        session.login()
        for _ in range(3000):
            Line(node).core.receive(pdus.loginRequest({"InitiatorName": "x"})[:60])
        self.assertEqual(len(node.unfinished), node.limits.halfOpen)
        late = Line(node)
        late.login(InitiatorName="iqn.2001-04.com.example:late")
        self.assertEqual([line.command(bytes(6))[0]["status"] for line in (session, late)], [0, 0])


class BudgetTests(SynchronousTestCase):
    """Bytes that may be solicited at one time."""

    def setUp(self) -> None:
        self.admitted: list[str] = []

    def asker(self, name: str) -> partial[None]:
        """Somebody who takes, and says so when admitted later."""
        return partial(self.admitted.append, name)

    def test_limit(self) -> None:
        """What fits is taken at once, up to the limit exactly."""
        budget = Budget(100)
        self.assertTrue(budget.take(60, self.asker("a")))
        self.assertTrue(budget.take(40, self.asker("b")))
        self.assertFalse(budget.take(1, self.asker("c")))
        self.assertEqual((budget.used, self.admitted), (100, []))

    def test_queue(self) -> None:
        """Those who wait are admitted in their order, as soon as they fit."""
        budget = Budget(100)
        budget.take(100, self.asker("a"))
        for name, count in (("b", 80), ("c", 30), ("d", 10)):
            self.assertFalse(budget.take(count, self.asker(name)))
        budget.give(50)
        self.assertEqual(self.admitted, [])
        budget.give(50)
        self.assertEqual((self.admitted, budget.used), (["b"], 80))
        budget.give(80)
        self.assertEqual((self.admitted, budget.used), (["b", "c", "d"], 40))

    def test_noOvertaking(self) -> None:
        """A small request does not overtake a large one that waits."""
        budget = Budget(100)
        budget.take(50, self.asker("a"))
        budget.take(80, self.asker("b"))
        self.assertFalse(budget.take(1, self.asker("c")))

    def test_tooLarge(self) -> None:
        """A request beyond the limit is admitted alone rather than never."""
        budget = Budget(100)
        budget.take(10, self.asker("a"))
        self.assertFalse(budget.take(500, self.asker("b")))
        budget.give(10)
        self.assertEqual((self.admitted, budget.used), (["b"], 500))
        self.assertFalse(budget.take(1, self.asker("c")))

    def test_forget(self) -> None:
        """Who does not want to wait any longer lets those behind it go on."""
        budget = Budget(100)
        a, b, c = map(self.asker, "abc")
        budget.take(50, a)
        budget.take(80, b)
        budget.take(50, c)
        budget.forget(b)
        self.assertEqual((self.admitted, budget.used), (["c"], 100))

    def test_parent(self) -> None:
        """What fits here may have to wait for room in the wider budget."""
        parent = Budget(100)
        one, two = Budget(80, parent), Budget(80, parent)
        self.assertTrue(one.take(80, self.asker("a")))
        self.assertFalse(two.take(60, self.asker("b")))
        self.assertEqual(parent.used, 80)
        one.give(80)
        self.assertEqual((self.admitted, one.used, two.used, parent.used), (["b"], 0, 60, 60))

    def test_admittedHereNotThere(self) -> None:
        """Whoever is admitted here after a wait may still have to wait for the wider budget."""
        parent = Budget(100)
        one, two = Budget(50, parent), Budget(100, parent)
        one.take(50, self.asker("a"))
        one.take(50, self.asker("b"))
        two.take(50, self.asker("c"))
        two.take(50, self.asker("d"))
        one.give(50)
        self.assertEqual(self.admitted, ["d"])
        two.give(50)
        self.assertEqual((self.admitted, one.used, two.used, parent.used), (["d", "b"], 50, 50, 100))

    def test_forgetInParent(self) -> None:
        """Who waits for the wider budget and gives up has nothing reserved any more."""
        parent = Budget(100)
        one, two = Budget(80, parent), Budget(80, parent)
        one.take(80, self.asker("a"))
        waiting = self.asker("b")
        two.take(60, waiting)
        two.forget(waiting)
        self.assertEqual((two.used, parent.used), (0, 80))
        one.give(80)
        self.assertEqual((self.admitted, parent.used), ([], 0))

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.sampled_from("tgf"), st.integers(0, 2), st.integers(1, 60)), max_size=60))
    def test_anyOrder(self, steps: list[tuple[str, int, int]]) -> None:
        """
        Whatever the order, both levels count the same bytes, bounds hold, and when all is given back
        nobody waits.
        """
        parent = Budget(100)
        children = [Budget(50, parent) for _ in range(3)]
        held: list[tuple[Budget, int]] = []
        waiting: dict[partial[None], tuple[Budget, int]] = {}

        def admitted(ticket: list[partial[None]]) -> None:
            held.append(waiting.pop(ticket[0]))

        for kind, which, count in steps:
            child = children[which]
            if kind == "t":
                ticket: list[partial[None]] = []
                later = partial(admitted, ticket)
                ticket.append(later)
                if child.take(count, later):
                    held.append((child, count))
                else:
                    waiting[later] = child, count
            elif kind == "g" and held:
                owner, count = held.pop(which % len(held))
                owner.give(count)
            elif kind == "f" and waiting:
                later = list(waiting)[which % len(waiting)]
                waiting.pop(later)[0].forget(later)
            self.assertEqual(parent.used, sum(count for _, count in held))
            self.assertTrue(parent.used <= 100)
        while held:
            owner, count = held.pop()
            owner.give(count)
        self.assertEqual((waiting, parent.used, [child.used for child in children]), ({}, 0, [0, 0, 0]))
