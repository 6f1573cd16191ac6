# -*- test-case-name: tests.target.test_journal -*-
"""The log of session life."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.doors import Peer
from iscsi_twisted.session.limits import Limits
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetFactory
from iscsi_twisted.target.journal import Journal
from iscsi_twisted.target.repeats import FIRST, WINDOW
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.served import MemoryLine
from tests.support.wire import INITIATOR, TARGET, Nobody, makeNode, makeTarget


class JournalTests(SynchronousTestCase):
    """Tests of L{Journal}, by what connections make it write."""

    def setUp(self) -> None:
        self.makeFactory()

    def makeFactory(self) -> None:
        """A target whose events go to a journal."""
        self.node, _ = makeNode(makeTarget(MemoryDevice(1 << 20)), limits=Limits(sessions=2))
        self.journal = self.node.events = Journal()
        self.factory = TargetFactory(self.node, Clock())

    def talk(self, *steps: Any) -> list[dict[str, Any]]:
        """What a conversation on one new line writes."""
        with capturedLogs() as events:
            line = MemoryLine(self.factory)
            for step in steps:
                step(line)
        return [event for event in events if "event" in event]

    def test_lines(self) -> None:
        """The four lines of the manual's question 7, to the letter, at the level of information."""

        def logout(line: MemoryLine) -> None:
            line.say(pdus.logoutRequest())
            line.lose()

        events = self.talk(lambda line: line.login(None), logout)
        events += self.talk(MemoryLine.login, logout)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                f"> Discovery login from {INITIATOR} on 192.0.2.7",
                f"< Discovery logout from {INITIATOR} on 192.0.2.7",
                f"> Normal login from {INITIATOR} on 192.0.2.7",
                f"< Normal logout from {INITIATOR} on 192.0.2.7",
            ],
        )
        self.assertEqual({event["log_level"].name for event in events}, {"info"})
        self.assertEqual({event["log_namespace"].split(".")[0] for event in events}, {"iscsi_twisted"})
        self.assertEqual(self.journal.logins, 2)

    def test_facts(self) -> None:
        """An event carries its facts by name."""
        (event,) = self.talk(MemoryLine.login)
        wanted = {
            "event": "login", "kind": "Normal", "initiator": INITIATOR, "address": "192.0.2.7",
            "target": TARGET,
        }  # fmt: skip
        self.assertEqual({name: event[name] for name in wanted}, wanted)

    def test_certificate(self) -> None:
        """The names of a certificate are among them, but not thousands."""

        def show(line: MemoryLine) -> None:
            core: Any = line.protocol.core
            core.peer = evolve(core.peer, certificate=("agc\n", *map(str, range(3000))))

        (event,) = self.talk(show, MemoryLine.login)
        self.assertEqual(event["certificate"], "agc?,0,1,2,3,4,5,6,7,8")

    def test_given(self) -> None:
        """The initiator's name stands there as it was given, upper case and all."""
        (event,) = self.talk(lambda line: line.login(InitiatorName="iqn.1993-03.org.NetBSD:agc"))
        self.assertEqual(formatEvent(event), "> Normal login from iqn.1993-03.org.NetBSD:agc on 192.0.2.7")

    def test_lost(self) -> None:
        """A connection that breaks off has a line of its own, and is counted."""
        _, event = self.talk(MemoryLine.login, MemoryLine.lose)
        self.assertEqual(
            formatEvent(event),
            f"< Normal connection lost from {INITIATOR} on 192.0.2.7: Connection was closed cleanly.",
        )
        self.assertEqual((event["event"], event["log_level"].name, self.journal.losses), ("lost", "warn", 1))

    def test_silent(self) -> None:
        """Somebody who connects, says nothing and goes is not worth a line."""
        self.assertEqual(self.talk(MemoryLine.lose), [])
        self.assertEqual(self.journal.losses, 0)

    def test_refused(self) -> None:
        """A refusal tells who, why, and with what status."""
        (event,) = self.talk(lambda line: line.login("iqn.2001-04.com.example:none"))
        self.assertEqual(
            formatEvent(event),
            f"! Normal login refused to {INITIATOR} on 192.0.2.7: there is no such target (status 0203h)",
        )
        self.assertEqual((event["event"], event["status"]), ("refused", "0203h"))
        self.assertEqual((self.journal.refusals, self.journal.logins), (1, 0))

    def test_repeated(self) -> None:
        """Of many refusals a few of each minute are told one by one, the others in one line; all count."""
        wrong = [lambda line: line.login("iqn.2001-04.com.example:none")]
        self.journal.tick(0.0)
        events = [event for _ in range(FIRST + 7) for event in self.talk(*wrong)]
        self.assertEqual([event["event"] for event in events], ["refused"] * FIRST)
        self.assertEqual(self.journal.refusals, FIRST + 7)
        with capturedLogs() as told:
            self.journal.tick(WINDOW - 1)
            self.assertEqual(told, [])
            self.journal.tick(WINDOW)
            self.journal.tick(2 * WINDOW)
        (event,) = told
        self.assertEqual(formatEvent(event), "! 7 more logins refused on 192.0.2.7 in the last minute")
        self.assertEqual((event["event"], event["of"], event["count"]), ("repeated", "refused", 7))
        self.assertEqual([event["event"] for event in self.talk(*wrong)], ["refused"])

    def test_repeatedLosses(self) -> None:
        """Connections that break off in their login are told a few times a minute, sessions always."""
        begin = pdus.loginRequest({"InitiatorName": INITIATOR, "TargetName": TARGET}, following=None)
        early = [lambda line: line.say(begin), MemoryLine.lose]
        told = [len(self.talk(*early)) for _ in range(FIRST + 2)]
        self.assertEqual(told, [1] * FIRST + [0, 0])
        self.assertEqual(len(self.talk(MemoryLine.login, MemoryLine.lose)), 2)

    def test_unnamed(self) -> None:
        """A refused initiator without a name is called that."""
        (event,) = self.talk(lambda line: line.say(pdus.loginRequest({"SessionType": "Normal"})))
        self.assertEqual((event["event"], event["initiator"]), ("refused", "(unnamed)"))

    def test_reset(self) -> None:
        """A reset tells what was reset, and by whom."""
        function = numbers.LOGICAL_UNIT_RESET
        _, event = self.talk(MemoryLine.login, lambda line: line.say(pdus.taskManagement(function)))
        self.assertEqual((event["event"], event["target"], event["lun"]), ("reset", TARGET, 0))
        self.assertIn(f"of {TARGET} LUN 0 from {INITIATOR}", formatEvent(event))

    def test_surprise(self) -> None:
        """A failure of our own is logged once with its traceback, and counted."""

        class Broken:
            def admits(self, address: str | None) -> bool:
                raise ZeroDivisionError("broken")

        self.node.add(makeTarget(MemoryDevice(512), policy=Broken()))
        request = pdus.loginRequest({"InitiatorName": INITIATOR, "TargetName": TARGET})
        events = self.talk(lambda line: line.say(request))
        self.assertEqual([event["event"] for event in events], ["surprise", "refused"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.journal.surprises, 1)

    @given(
        st.dictionaries(
            st.sampled_from(("InitiatorName", "TargetName", "SessionType", "InitiatorAlias", "x-a")),
            st.text(max_size=40),
        )
    )
    def test_clean(self, keys: dict[str, str]) -> None:
        """Whatever names come from the network, a line of the log is one line and prints."""
        self.makeFactory()
        data = "".join(f"{key}={value}\0" for key, value in keys.items()).encode("utf-8", "replace")
        events = self.talk(lambda line: line.say(pdus.loginRequest(data)))
        self.assertNotEqual(events, [])
        for event in events:
            self.assertTrue(formatEvent(event).isprintable(), formatEvent(event))
            self.assertTrue(event["initiator"].isprintable())

    def test_cleanSocket(self) -> None:
        """The name of a UNIX socket cannot break a line either."""
        with capturedLogs() as events:
            MemoryLine(self.factory, UNIXAddress(b"/run/a\r\nb"), UNIXAddress(b"/run/s")).login()
        self.assertTrue(all(formatEvent(event).isprintable() for event in events))

    def test_crowded(self) -> None:
        """Of a flood of connections ever fewer are logged."""
        journal = Journal()
        with capturedLogs() as events:
            for _ in range(100):
                journal.crowded(Peer("192.0.2.7", "192.0.2.7", None))
        self.assertEqual([each["times"] for each in events], [1, 2, 4, 8, 16, 32, 64])
        self.assertEqual(journal.refusals, 100)

    def test_turnedAway(self) -> None:
        """A connection from where no target admits anybody is one line, and counted as a refusal."""
        self.node.targets[TARGET].policy = Nobody()
        (event,) = self.talk()
        self.assertEqual(formatEvent(event), "! connection from 192.0.2.7 cut: no target admits it")
        self.assertEqual(self.journal.refusals, 1)
