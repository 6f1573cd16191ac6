"""Whoever fails to authenticate has to wait."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.auth.chap import MD5, decode, encode, response
from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.errors import LoginError
from iscsi_twisted.interfaces import Account
from iscsi_twisted.session.failures import (
    ADDRESSES,
    COUNTED,
    FORGIVEN,
    FREE,
    LONGEST,
    STEP,
    WAITING,
    WAITING_OF_ONE,
    Failures,
    Held,
)
from iscsi_twisted.wire import numbers
from tests.auth.test_verifier import SECRET, Store
from tests.session.cases import NAMES, LoginTests
from tests.support import pdus
from tests.support.wire import Line

HERE, THERE = "192.0.2.7", "192.0.2.8"


class FailuresTests(SynchronousTestCase):
    """Tests of L{Failures}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.failures = Failures(self.clock.seconds, self.clock.callLater)

    def delays(self, address: str | None, count: int) -> list[float]:
        """What attempts wait that all fail."""
        found = []
        for _ in range(count):
            found.append(self.failures.delay(address))
            self.failures.failed(address)
        return found

    def test_grows(self) -> None:
        """The first failures cost nothing, then the wait doubles up to its bound."""
        found = self.delays(HERE, FREE + 40)
        self.assertEqual(found[:FREE], [0.0] * FREE)
        self.assertEqual(found[FREE : FREE + 3], [STEP, 2 * STEP, 4 * STEP])
        self.assertEqual(found[-1], LONGEST)

    def test_forgiven(self) -> None:
        """A minute without failures makes up for all of them."""
        self.delays(HERE, 10)
        self.clock.advance(FORGIVEN - 1)
        self.assertEqual(self.failures.delay(HERE), LONGEST)
        self.clock.advance(1)
        self.assertIsNone(self.failures.hold(HERE, "a", self.fail))
        self.assertEqual(self.delays(HERE, FREE + 1), [0.0] * FREE + [STEP])

    def test_places(self) -> None:
        """Each address is counted alone; those of one IPv6 network, and peers without one, together."""
        self.delays(HERE, 10)
        self.assertEqual(self.failures.delay(THERE), 0)
        self.delays("2001:db8::1", 10)
        self.assertEqual(self.failures.delay("2001:db8::ffff:2"), LONGEST)
        self.assertEqual(self.failures.delay("2001:db8:0:1::1"), 0)
        self.delays(None, 10)
        self.assertEqual(self.failures.delay(None), LONGEST)

    def test_bounded(self) -> None:
        """Only so many addresses are remembered; those that failed last stay."""
        for number in range(2 * ADDRESSES):
            self.failures.failed(f"10.0.{number >> 8}.{number & 255}")
        self.assertEqual(len(self.failures._counts), ADDRESSES)
        self.delays(HERE, 10)
        self.assertEqual(self.failures.delay(HERE), LONGEST)

    def test_burst(self) -> None:
        """What came at once, before any of it was counted, is remembered for as long as it should take."""
        self.delays(HERE, 100)
        self.clock.advance(100 * LONGEST - 1)
        self.assertEqual(self.failures.delay(HERE), LONGEST)
        self.clock.advance(1)
        self.assertEqual(self.failures.delay(HERE), 0)
        self.delays(HERE, 2 * COUNTED)
        self.clock.advance(COUNTED * LONGEST)
        self.assertEqual(self.failures.delay(HERE), 0)

    def test_mapped(self) -> None:
        """An IPv4 address is the same however it is written; its neighbours are others."""
        self.delays(HERE, 10)
        for same in ("::ffff:192.0.2.7", "::FFFF:c000:207", "0:0:0:0:0:ffff:192.0.2.7"):
            self.assertEqual(self.failures.delay(same), LONGEST, same)
        self.assertEqual(self.failures.delay("::ffff:192.0.2.8"), 0)

    def test_oddities(self) -> None:
        """What is no address is counted somewhere."""
        self.delays("some:transport", 10)
        self.assertEqual(self.failures.delay("some:transport"), LONGEST)


class QueueTests(SynchronousTestCase):
    """Attempts that wait, from addresses that have failed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.failures = Failures(self.clock.seconds, self.clock.callLater)
        for address in (HERE, THERE):
            for _ in range(FREE + 10):
                self.failures.failed(address)
        self.judged: list[str] = []

    def hold(self, name: str, initiator: str = "a", address: str = HERE) -> Held:
        """An attempt that has to wait."""
        held = self.failures.hold(address, initiator, lambda: self.judged.append(name))
        assert held is not None
        return held

    def advance(self, turns: int = 1) -> str:
        """Let the time of so many turns pass; who was judged in it."""
        self.judged = []
        self.clock.pump([LONGEST] * turns)
        return "".join(self.judged)

    def assertFull(self, initiator: str, address: str = HERE) -> None:
        """There is no room for an attempt, before it begins and later."""
        for ask in (
            lambda: self.failures.admit(address, initiator),
            lambda: self.failures.hold(address, initiator, self.fail),
        ):
            self.assertEqual(self.assertRaises(LoginError, ask).status, numbers.SERVICE_UNAVAILABLE)

    def assertNothingLeft(self) -> None:
        """Nobody waits, and nothing is kept for whoever did."""
        self.assertEqual((self.failures._queues, self.clock.getDelayedCalls()), ({}, []))

    def test_oneByOne(self) -> None:
        """However many come at once, each waits until the one before it was judged, and then its own time."""
        for name in "123":
            self.hold(name)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(LONGEST - 0.01)
        self.assertEqual(self.judged, [])
        self.clock.advance(0.01)
        self.assertEqual([self.advance() for _ in range(3)], ["2", "3", ""])
        self.assertNothingLeft()

    def test_failing(self) -> None:
        """What one attempt comes to counts for those that wait behind it."""
        place = "192.0.2.9"
        for _ in range(FREE):
            self.failures.failed(place)

        def judge() -> None:
            self.judged.append("wrong")
            self.failures.failed(place)

        self.failures.hold(place, "a", judge)
        self.failures.hold(place, "a", judge)
        self.clock.advance(STEP)
        self.assertEqual(len(self.judged), 1)
        self.clock.advance(2 * STEP - 0.01)
        self.assertEqual(len(self.judged), 1)
        self.clock.advance(0.01)
        self.assertEqual(len(self.judged), 2)

    def test_places(self) -> None:
        """Addresses do not wait for one another."""
        self.hold("1")
        self.hold("2", address=THERE)
        self.assertEqual(self.advance(), "12")

    def test_inTurn(self) -> None:
        """One initiator that has many attempts does not keep out others at its address."""
        for name in "1234":
            self.hold(name)
        self.hold("x", "b")
        self.hold("y", "b")
        self.assertEqual(self.advance(6), "1x2y34")

    def test_behind(self) -> None:
        """Who tries again as soon as it was judged is behind those that wait."""
        self.failures.hold(HERE, "a", lambda: self.hold("1"))
        self.hold("x", "b")
        self.assertEqual([self.advance(), self.advance(), self.advance()], ["", "x", "1"])
        self.assertNothingLeft()

    def test_bounded(self) -> None:
        """So many wait, and fewer of one initiator: the others are turned away before they begin."""
        for name in range(WAITING_OF_ONE):
            self.hold(str(name))
        self.assertFull("a")
        for name in range(WAITING - WAITING_OF_ONE):
            self.failures.admit(HERE, f"b{name}")
            self.hold(str(name), f"b{name}")
        self.assertFull("c")
        self.failures.admit(THERE, "a")
        self.assertEqual(len(self.advance()), 1)
        self.failures.admit(HERE, "c")

    def test_gone(self) -> None:
        """Those that wait no more take no turn and no room; the next one has their turn."""
        first, second, third = (self.hold(name) for name in "123")
        self.hold("4")
        self.clock.advance(LONGEST / 2)
        first.cancel()
        third.cancel()
        third.cancel()
        self.failures.admit(HERE, "a")
        self.clock.advance(LONGEST / 2)
        self.assertEqual(self.judged, ["2"])
        second.cancel()
        self.assertEqual(self.advance(), "4")
        self.assertNothingLeft()

    def test_allGone(self) -> None:
        """When nobody waits any more there is no timer either."""
        for held in [self.hold(name, name) for name in "1234"]:
            held.cancel()
        self.assertNothingLeft()
        self.hold("5")
        self.assertEqual(self.advance(), "5")

    def test_judgeFails(self) -> None:
        """A surprise in one attempt does not stop those behind it."""

        def judge() -> None:
            raise KeyError("surprise")

        self.failures.hold(HERE, "a", judge)
        self.hold("2")
        self.assertRaises(KeyError, self.clock.advance, LONGEST)
        self.assertEqual(self.advance(), "2")

    def test_forgotten(self) -> None:
        """Whoever waits is judged even if the address is forgotten meanwhile."""
        self.hold("1")
        self.hold("2")
        for number in range(ADDRESSES):
            self.failures.failed(f"10.0.{number >> 8}.{number & 255}")
        self.assertEqual(self.failures.delay(HERE), 0)
        self.assertEqual(self.advance(), "12")
        self.assertNothingLeft()


class HeldTests(LoginTests):
    """Logins from where others have failed."""

    def setUp(self) -> None:
        super().setUp()
        self.store = Store(me=Account(SECRET))
        self.target.authenticate = lambda: Verifier(self.store, os.urandom)
        self.clock = Clock()
        self.node.failures = Failures(self.clock.seconds, self.clock.callLater)

    def attempt(self, secret: bytes, address: str = HERE, user: str = "me") -> tuple[Line, list[Any]]:
        """A login up to the response to our challenge, and what comes at once."""
        line = Line(self.node, address=address)
        self.ask(NAMES | {"AuthMethod": "CHAP"}, line, stage=0, following=None)
        said = self.ask({"CHAP_A": str(MD5)}, line, stage=0, following=None)["keys"]
        proof = response(MD5, int(said["CHAP_I"]), secret, decode("CHAP_C", said["CHAP_C"]))
        pairs = {"CHAP_N": user, "CHAP_R": encode(proof)}
        return line, line.say(pdus.loginRequest(pairs, stage=0, following=1))

    def guess(self, count: int) -> None:
        """So many wrong secrets, waited for."""
        for _ in range(count):
            line, answers = self.attempt(b"wrong")
            self.clock.advance(LONGEST)
            self.assertEqual([each["status"] for each in answers or line.take()], [0x0201])

    def test_held(self) -> None:
        """After some failures even the right secret waits; from elsewhere it does not."""
        self.guess(FREE)
        line, answers = self.attempt(SECRET)
        self.assertEqual(answers, [])
        self.clock.advance(STEP)
        self.assertEqual([each["status"] for each in line.take()], [0])
        _, answers = self.attempt(SECRET, THERE)
        self.assertEqual([each["status"] for each in answers], [0])

    def test_alike(self) -> None:
        """A user that is not there waits as long as one whose secret is wrong."""
        self.guess(FREE)
        waits = []
        for user in ("me", "nobody"):
            line, _ = self.attempt(b"wrong", user=user)
            (timer,) = self.clock.getDelayedCalls()
            waits.append(timer.getTime() - self.clock.seconds())
            self.clock.advance(LONGEST)
            self.assertEqual([each["status"] for each in line.take()], [0x0201])
        self.assertEqual(waits, [STEP, 2 * STEP])

    def test_gone(self) -> None:
        """An attempt whose connection ends meanwhile is not judged."""
        self.guess(FREE)
        line, _ = self.attempt(b"wrong")
        line.core.lost("gone")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        told = len(self.diary.entries)
        self.clock.advance(LONGEST)
        self.assertEqual(len(self.diary.entries), told)
        self.assertEqual(self.node.failures.delay(HERE), STEP)  # type: ignore[union-attr]

    def test_crowded(self) -> None:
        """A flood of one address's is refused at its first request; others, and those that waited, go on."""
        self.guess(FREE)
        waiting = [self.attempt(b"wrong") for _ in range(WAITING_OF_ONE)]
        begun = Line(self.node, address=HERE)
        for _ in range(3):
            self.assertRefused(
                numbers.SERVICE_UNAVAILABLE, NAMES | {"AuthMethod": "CHAP"}, Line(self.node, address=HERE),
                stage=0, following=None,
            )  # fmt: skip
        other = NAMES | {"InitiatorName": "iqn.2001-04.com.example:other", "AuthMethod": "CHAP"}
        self.assertEqual(self.ask(other, begun, stage=0, following=None)["status"], 0)
        _, answers = self.attempt(SECRET, THERE)
        self.assertEqual([each["status"] for each in answers], [0])
        self.clock.pump([LONGEST] * (WAITING_OF_ONE + 1))
        for line, _ in waiting:
            self.assertEqual([each["status"] for each in line.take()], [numbers.AUTHENTICATION_FAILURE])

    def test_late(self) -> None:
        """Those that had all begun before one of them failed are too many when they give their secrets."""
        lines = [Line(self.node, address=HERE) for _ in range(2 * WAITING)]
        for line in lines:
            self.ask(NAMES | {"AuthMethod": "CHAP"}, line, stage=0, following=None)
            self.ask({"CHAP_A": str(MD5)}, line, stage=0, following=None)
        self.guess(FREE)
        pairs = {"CHAP_N": "me", "CHAP_R": encode(b"wrong")}
        found = [line.say(pdus.loginRequest(pairs, stage=0, following=1)) for line in lines]
        self.assertEqual(found[:WAITING_OF_ONE], [[]] * WAITING_OF_ONE)
        statuses = {each["status"] for answers in found[WAITING_OF_ONE:] for each in answers}
        self.assertEqual(statuses, {numbers.SERVICE_UNAVAILABLE})

    def test_storeFails(self) -> None:
        """A store that raises fails the attempt that waited, and that is told."""
        self.guess(FREE)
        line, _ = self.attempt(SECRET)
        del self.store.accounts
        self.clock.advance(STEP)
        self.assertEqual([each["status"] for each in line.take()], [numbers.TARGET_ERROR])
        self.assertEqual([entry[0] for entry in self.diary.entries[-2:]], ["surprise", "refused"])

    def test_impatient(self) -> None:
        """Who sends more while it is held is refused."""
        self.guess(FREE)
        line, _ = self.attempt(SECRET)
        self.assertRefused(numbers.INITIATOR_ERROR, {}, line, stage=0, following=1)
        self.clock.advance(LONGEST)
        self.assertIsNone(line.core.session)

    def test_othersFaults(self) -> None:
        """What is no attempt at a secret is not counted."""
        for _ in range(2 * FREE):
            self.assertRefused(0x0201, NAMES, Line(self.node), stage=1, following=3)
        self.assertEqual(self.node.failures.delay(HERE), 0)  # type: ignore[union-attr]
