"""Attempts to authenticate that wait: after failures, and while a store of secrets is asked."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.auth.chap import MD5, decode, encode, response
from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.errors import LoginError
from iscsi_twisted.interfaces import Account
from iscsi_twisted.session.failures import ADDRESSES, FREE, LONGEST, STEP
from iscsi_twisted.session.verdicts import (
    ASKED,
    GONE,
    HELD,
    HELD_OF_ONE,
    WAITING,
    WAITING_OF_ONE,
    Held,
    Verdicts,
)
from iscsi_twisted.wire import numbers
from tests.auth.test_verifier import SECRET, Store
from tests.session.cases import DISCOVERY, NAMES, LoginTests
from tests.support import pdus
from tests.support.wire import Line

HERE, THERE = "192.0.2.7", "192.0.2.8"

PATIENCE = 30.0
"""Seconds that a login may take."""


class QueueTests(SynchronousTestCase):
    """Attempts that wait, from addresses that have failed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.verdicts = Verdicts(self.clock.seconds, self.clock.callLater, PATIENCE)
        for address in (HERE, THERE):
            for _ in range(FREE + 10):
                self.verdicts.failures.failed(address)
        self.judged: list[str] = []

    def hold(self, name: str, initiator: str = "a", address: str = HERE) -> Held:
        """An attempt that has to wait."""
        held = self.verdicts.hold(address, initiator, lambda: self.judged.append(name))
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
            lambda: self.verdicts.admit(address, initiator),
            lambda: self.verdicts.hold(address, initiator, self.fail),
        ):
            self.assertEqual(self.assertRaises(LoginError, ask).status, numbers.SERVICE_UNAVAILABLE)

    def assertNothingLeft(self) -> None:
        """Nobody waits, and nothing is kept for whoever did."""
        self.assertEqual((self.verdicts._queues, self.clock.getDelayedCalls()), ({}, []))

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
            self.verdicts.failures.failed(place)

        def judge() -> None:
            self.judged.append("wrong")
            self.verdicts.failures.failed(place)

        self.verdicts.hold(place, "a", judge)
        self.verdicts.hold(place, "a", judge)
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
        self.verdicts.hold(HERE, "a", lambda: self.hold("1"))
        self.hold("x", "b")
        self.assertEqual([self.advance(), self.advance(), self.advance()], ["", "x", "1"])
        self.assertNothingLeft()

    def test_bounded(self) -> None:
        """So many wait, and fewer of one initiator: the others are turned away before they begin."""
        for name in range(HELD_OF_ONE):
            self.hold(str(name))
        self.assertFull("a")
        for name in range(HELD - HELD_OF_ONE):
            self.verdicts.admit(HERE, f"b{name}")
            self.hold(str(name), f"b{name}")
        self.assertFull("c")
        self.verdicts.admit(THERE, "a")
        self.assertEqual(len(self.advance()), 1)
        self.verdicts.admit(HERE, "c")

    def test_gone(self) -> None:
        """Those that wait no more take no turn and no room; the next one has their turn."""
        first, second, third = (self.hold(name) for name in "123")
        self.hold("4")
        self.clock.advance(LONGEST / 2)
        first.cancel()
        third.cancel()
        third.cancel()
        self.verdicts.admit(HERE, "a")
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

        self.verdicts.hold(HERE, "a", judge)
        self.hold("2")
        self.assertRaises(KeyError, self.clock.advance, LONGEST)
        self.assertEqual(self.advance(), "2")

    def test_forgotten(self) -> None:
        """Whoever waits is judged even if the address is forgotten meanwhile."""
        self.hold("1")
        self.hold("2")
        for number in range(ADDRESSES):
            self.verdicts.failures.failed(f"10.0.{number >> 8}.{number & 255}")
        self.assertEqual(self.verdicts.failures.delay(HERE), 0)
        self.assertEqual(self.advance(), "12")
        self.assertNothingLeft()


class ProvingTests(LoginTests):
    """Tests of logins that give secrets."""

    def setUp(self) -> None:
        super().setUp()
        self.store = Store(me=Account(SECRET))
        self.target.authenticate = self.node.authenticate = lambda: Verifier(self.store, os.urandom)
        self.clock = Clock()
        self.node.verdicts = self.verdicts = Verdicts(self.clock.seconds, self.clock.callLater, PATIENCE)

    def attempt(
        self, secret: bytes, address: str = HERE, user: str = "me", names: dict[str, str] = NAMES
    ) -> tuple[Line, list[Any]]:
        """A login up to the response to our challenge, and what comes at once."""
        line = Line(self.node, address=address)
        self.ask(names | {"AuthMethod": "CHAP"}, line, stage=0, following=None)
        said = self.ask({"CHAP_A": str(MD5)}, line, stage=0, following=None)["keys"]
        proof = response(MD5, int(said["CHAP_I"]), secret, decode("CHAP_C", said["CHAP_C"]))
        pairs = {"CHAP_N": user, "CHAP_R": encode(proof)}
        return line, line.say(pdus.loginRequest(pairs, stage=0, following=1))


class HeldTests(ProvingTests):
    """Logins from where others have failed."""

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
        self.assertEqual(self.verdicts.failures.delay(HERE), STEP)

    def test_crowded(self) -> None:
        """A flood of one address's is refused at its first request; others, and those that waited, go on."""
        self.guess(FREE)
        waiting = [self.attempt(b"wrong") for _ in range(HELD_OF_ONE)]
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
        self.clock.pump([LONGEST] * (HELD_OF_ONE + 1))
        for line, _ in waiting:
            self.assertEqual([each["status"] for each in line.take()], [numbers.AUTHENTICATION_FAILURE])

    def test_late(self) -> None:
        """Those that had all begun before one of them failed are too many when they give their secrets."""
        lines = [Line(self.node, address=HERE) for _ in range(2 * HELD)]
        for line in lines:
            self.ask(NAMES | {"AuthMethod": "CHAP"}, line, stage=0, following=None)
            self.ask({"CHAP_A": str(MD5)}, line, stage=0, following=None)
        self.guess(FREE)
        pairs = {"CHAP_N": "me", "CHAP_R": encode(b"wrong")}
        found = [line.say(pdus.loginRequest(pairs, stage=0, following=1)) for line in lines]
        self.assertEqual(found[:HELD_OF_ONE], [[]] * HELD_OF_ONE)
        statuses = {each["status"] for answers in found[HELD_OF_ONE:] for each in answers}
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
        self.assertEqual(self.verdicts.failures.delay(HERE), 0)


def named(number: int) -> dict[str, str]:
    """What one of many initiators says."""
    return NAMES | {"InitiatorName": f"iqn.2001-04.com.example:{number}"}


class AskedTests(ProvingTests):
    """Logins that a store of secrets takes its time for."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[Deferred[Account | None]] = []
        self.store.asked = self.asked

    def wait(self, count: int, secret: bytes = SECRET, **where: Any) -> list[Line]:
        """So many attempts that are not answered at once, each another initiator's."""
        lines = []
        for number in range(count):
            line, answers = self.attempt(secret, names=named(number), **where)
            self.assertEqual(answers, [])
            lines.append(line)
        return lines

    def answer(self, *which: int) -> None:
        """Let the store answer these questions, and the next ones be asked."""
        for number in which:
            self.asked[number].callback(self.store.accounts["me"])
        self.clock.pump([0] * (len(which) + 1))

    def statuses(self, lines: list[Line]) -> list[int | None]:
        """The status of each login; None for those that wait."""
        found = [line.take() for line in lines]
        return [answers[0]["status"] if answers else None for answers in found]

    def assertNothingLeft(self) -> None:
        """Nobody waits, and nothing is kept for whoever did."""
        self.assertEqual((self.verdicts._queues, self.verdicts._gone), ({}, {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bounded(self) -> None:
        """The store is asked about so many from one address at a time; the others wait in their order."""
        lines = self.wait(ASKED + 3)
        self.assertEqual(len(self.asked), ASKED)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.answer(5)
        self.assertEqual(len(self.asked), ASKED + 1)
        self.answer(ASKED)
        self.assertEqual(len(self.asked), ASKED + 2)
        waiting = [number for number, status in enumerate(self.statuses(lines)) if status is None]
        self.assertEqual(waiting, [*range(5), 6, 7, ASKED + 1, ASKED + 2])
        self.answer(*range(5), 6, 7, ASKED + 1)
        self.answer(ASKED + 2)
        self.assertEqual(len(self.asked), ASKED + 3)
        self.assertEqual(self.statuses([lines[number] for number in waiting]), [0] * len(waiting))
        self.assertNothingLeft()

    def test_others(self) -> None:
        """Other addresses do not wait for those."""
        self.wait(ASKED + 1)
        (other,) = self.wait(1, address=THERE)
        self.answer(ASKED)
        self.assertEqual(self.statuses([other]), [0])

    def test_discovery(self) -> None:
        """It is the same for discovery, and both count."""
        self.wait(ASKED - 1)
        lines = [self.attempt(SECRET, names=DISCOVERY)[0] for _ in range(2)]
        self.assertEqual(len(self.asked), ASKED)
        self.answer(ASKED - 1)
        self.answer(ASKED)
        self.assertEqual(self.statuses(lines), [0, 0])

    def test_inTurn(self) -> None:
        """One initiator that waits with many does not keep out another."""
        self.wait(ASKED)
        lines = [self.attempt(SECRET, names=named(number))[0] for number in (0, 0, 0, 1)]
        self.answer(0)
        self.answer(1)
        self.answer(ASKED, ASKED + 1)
        self.assertEqual(self.statuses(lines), [0, None, None, 0])

    def test_crowded(self) -> None:
        """So many wait; beyond that a login is refused at its first request, before anything is done."""
        self.wait(ASKED)
        ours = [self.attempt(SECRET)[0] for _ in range(WAITING_OF_ONE)]
        full = {"stage": 0, "following": None}
        self.assertRefused(numbers.SERVICE_UNAVAILABLE, NAMES, Line(self.node, address=HERE), **full)
        self.wait(WAITING - WAITING_OF_ONE)
        self.assertRefused(numbers.SERVICE_UNAVAILABLE, named(99), Line(self.node, address=HERE), **full)
        self.assertEqual(len(self.asked), ASKED)
        self.wait(1, address=THERE)
        self.answer(0, 1)
        self.assertEqual(self.statuses(ours[:2]), [None, None])
        self.wait(1)

    def test_cut(self) -> None:
        """A login that is cut while it waits is not asked about, and leaves its place."""
        lines = self.wait(ASKED + 2)
        lines[ASKED].core.lost("cut")
        self.answer(0)
        self.answer(ASKED)
        self.assertEqual((len(self.asked), self.statuses(lines[-1:])), (ASKED + 1, [0]))

    def test_cutAsked(self) -> None:
        """One that is cut while the store is asked counts until the store has answered: it works on."""
        lines = self.wait(ASKED + 1)
        for line in lines[:3]:
            line.core.lost("cut")
        self.clock.advance(PATIENCE / 2)
        self.assertEqual((len(self.asked), len(self.verdicts._gone)), (ASKED, 3))
        told = len(self.diary.entries)
        self.answer(1)
        self.assertEqual((len(self.asked), len(self.verdicts._gone)), (ASKED + 1, 2))
        self.assertEqual(len(self.diary.entries), told)
        self.assertEqual(len(self.node.sessions), 0)

    def test_neverAnswers(self) -> None:
        """With a store that never answers logins end in their time, and then others are asked about."""
        lines = self.wait(ASKED + 2)
        self.clock.advance(self.node.limits.loginTime + 1)
        for line in lines:
            line.core.tick(self.clock.seconds())
            self.assertTrue(line.closed)
        self.verdicts.tick()
        self.assertEqual(len(self.asked), ASKED)
        for asked in self.asked:
            # It was given up, so an answer changes nothing.
            self.assertTrue(asked.called)
        self.assertNothingLeft()
        (line,) = self.wait(1)
        self.answer(ASKED)
        self.assertEqual(self.statuses([line]), [0])

    def test_givesUp(self) -> None:
        """A question that nobody waits for any more is given up in time; then the next one is asked."""
        lines = self.wait(ASKED)
        self.clock.advance(PATIENCE - 1)
        for line in lines:
            line.core.lost("cut")
        (line,) = self.wait(1)
        self.verdicts.tick()
        self.assertEqual(len(self.asked), ASKED)
        self.clock.advance(1)
        self.verdicts.tick()
        self.clock.advance(0)
        self.answer(ASKED)
        self.assertEqual(self.statuses([line]), [0])
        self.assertNothingLeft()

    def test_gone(self) -> None:
        """Only so many questions of logins that were cut are waited for, from all addresses."""
        for number in range(GONE + 1):
            (line,) = self.wait(1, address=f"10.0.{number >> 8}.{number & 255}")
            line.core.lost("cut")
        self.assertEqual([asked.called for asked in self.asked], [True] + [False] * GONE)
        self.assertEqual(len(self.verdicts._queues), GONE)
        self.verdicts.end()
        self.assertEqual({asked.called for asked in self.asked}, {True})
        self.assertNothingLeft()

    def test_failures(self) -> None:
        """Those that wait when others have failed wait for that, too; and what failed at once counts."""
        lines = self.wait(ASKED + 3, b"wrong")
        for asked in self.asked[:FREE]:
            asked.callback(self.store.accounts["me"])
        self.clock.advance(0)
        self.assertEqual(len(self.asked), ASKED)
        self.clock.advance(STEP - 0.01)
        self.assertEqual(len(self.asked), ASKED)
        self.clock.advance(0.01)
        self.assertEqual(len(self.asked), ASKED + 1)
        self.answer(*range(FREE, ASKED))
        self.clock.pump([LONGEST] * 2)
        self.assertEqual(len(self.asked), ASKED + 3)
        self.answer(*range(ASKED, ASKED + 3))
        self.assertEqual(self.statuses(lines), [numbers.AUTHENTICATION_FAILURE] * len(lines))

    def test_held(self) -> None:
        """Those that have waited after failures wait for the store, too."""
        for _ in range(FREE):
            self.verdicts.failures.failed(HERE)
        self.wait(HELD)
        self.clock.pump([STEP] * HELD)
        self.wait(HELD)
        self.clock.pump([STEP] * 2 * HELD)
        self.assertEqual(len(self.asked), ASKED)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.answer(0)
        self.clock.advance(STEP)
        self.assertEqual(len(self.asked), ASKED + 1)

    def test_brokenStore(self) -> None:
        """A store that fails makes room for the next."""
        lines = self.wait(ASKED + 1)
        self.asked[0].errback(OSError("no database"))
        self.clock.advance(0)
        self.answer(ASKED)
        self.assertEqual(self.statuses([lines[0], lines[-1]]), [numbers.TARGET_ERROR, 0])

    def test_answeredAlready(self) -> None:
        """A store may return a Deferred that has fired."""
        self.store.find = lambda user: succeed(self.store.accounts["me"])  # type: ignore[method-assign]
        _, answers = self.attempt(SECRET)
        self.assertEqual([each["status"] for each in answers], [0])
        self.assertNothingLeft()

    def test_stubborn(self) -> None:
        """What cannot be cancelled is given up all the same."""

        class Stubborn:
            def addCallbacks(self, *callbacks: Any) -> None:
                pass

            def cancel(self) -> None:
                pass

        self.store.find = lambda user: Stubborn()  # type: ignore[method-assign]
        for line in self.wait(ASKED):
            line.core.lost("cut")
        self.verdicts.end()
        self.assertNothingLeft()
