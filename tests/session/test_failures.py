"""Whoever fails to authenticate has to wait."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.auth.chap import MD5, decode, encode, response
from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.interfaces import Account
from iscsi_twisted.session.failures import ADDRESSES, FORGIVEN, FREE, LONGEST, STEP, Failures
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
        self.failures = Failures(self.clock.seconds, partial(deferLater, self.clock))

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
        self.assertIsNone(self.failures.hold(HERE))
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

    def test_oddities(self) -> None:
        """What is no address is counted somewhere."""
        self.delays("some:transport", 10)
        self.assertEqual(self.failures.delay("some:transport"), LONGEST)


class HeldTests(LoginTests):
    """Logins from where others have failed."""

    def setUp(self) -> None:
        super().setUp()
        store = Store(me=Account(SECRET))
        self.target.authenticate = lambda: Verifier(store, os.urandom)
        self.clock = Clock()
        self.node.failures = Failures(self.clock.seconds, partial(deferLater, self.clock))

    def attempt(self, secret: bytes, address: str = HERE, user: str = "me") -> tuple[Line, list[Any]]:
        """A login up to the response to our challenge, and what comes at once."""
        line = Line(self.node, address=address)
        self.ask(NAMES | {"AuthMethod": "CHAP"}, line, stage=0, following=None)
        said = self.ask({"CHAP_A": str(MD5)}, line, stage=0, following=None)["keys"]
        proof = response(MD5, int(said["CHAP_I"]), secret, decode("CHAP_C", said["CHAP_C"]))
        pairs = {"CHAP_N": user, "CHAP_R": encode(proof)}
        return line, line.say(pdus.loginRequest(pairs, stage=0, following=1))

    def fail(self, count: int) -> None:
        """So many wrong secrets, waited for."""
        for _ in range(count):
            line, answers = self.attempt(b"wrong")
            self.clock.advance(LONGEST)
            self.assertEqual([each["status"] for each in answers or line.take()], [0x0201])

    def test_held(self) -> None:
        """After some failures even the right secret waits; from elsewhere it does not."""
        self.fail(FREE)
        line, answers = self.attempt(SECRET)
        self.assertEqual(answers, [])
        self.clock.advance(STEP)
        self.assertEqual([each["status"] for each in line.take()], [0])
        _, answers = self.attempt(SECRET, THERE)
        self.assertEqual([each["status"] for each in answers], [0])

    def test_alike(self) -> None:
        """A user that is not there waits as long as one whose secret is wrong."""
        self.fail(FREE)
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
        self.fail(FREE)
        line, _ = self.attempt(b"wrong")
        line.core.lost("gone")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        told = len(self.diary.entries)
        self.clock.advance(LONGEST)
        self.assertEqual(len(self.diary.entries), told)
        self.assertEqual(self.node.failures.delay(HERE), STEP)  # type: ignore[union-attr]

    def test_impatient(self) -> None:
        """Who sends more while it is held is refused."""
        self.fail(FREE)
        line, _ = self.attempt(SECRET)
        self.assertRefused(numbers.INITIATOR_ERROR, {}, line, stage=0, following=1)
        self.clock.advance(LONGEST)
        self.assertIsNone(line.core.session)

    def test_othersFaults(self) -> None:
        """What is no attempt at a secret is not counted."""
        for _ in range(2 * FREE):
            self.assertRefused(0x0201, NAMES, Line(self.node), stage=1, following=3)
        self.assertEqual(self.node.failures.delay(HERE), 0)  # type: ignore[union-attr]
