"""What targets answer, as an initiator's connection tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session import asking
from iscsi_twisted.session.answers import (
    LOGOUTS,
    REASONS,
    RESPONSES,
    STATUSES,
    ConnectionEnded,
    FunctionRefused,
    LoginRefused,
    LogoutRefused,
    Rejected,
    TargetFailure,
)
from iscsi_twisted.session.command import Outcome
from iscsi_twisted.wire import layout, numbers
from tests.session.test_client import FINAL, NO_LUN, SessionTestCase, pdu


class TableTests(SynchronousTestCase):
    """What a target can answer by a code."""

    def test_whole(self) -> None:
        """Every code that RFC 7143 defines has its words, and no other."""
        self.assertEqual({*STATUSES}, {0x101, 0x102, *range(0x200, 0x20C), *range(0x300, 0x303)})
        self.assertEqual({*REASONS}, {*range(2, 13)})
        self.assertEqual({*RESPONSES}, {*range(1, 7), 255})
        self.assertEqual({*LOGOUTS}, {1, 2, 3})

    def test_told(self) -> None:
        """Each is an exception that says it in one line, with its code; others are told, too."""
        tables: tuple[tuple[Any, Any, str], ...] = (
            (LoginRefused, STATUSES, "04x"),
            (Rejected, REASONS, "02x"),
            (FunctionRefused, RESPONSES, "d"),
            (LogoutRefused, LOGOUTS, "d"),
            (TargetFailure, {1: "the target has failed"}, "02x"),
        )
        for made, words, form in tables:
            for code in (*words, 0x77):
                told = str(made(code))
                self.assertIn(words.get(code, ""), told)
                self.assertIn(format(code, form), told)
                self.assertTrue(told.isprintable())


class AnswerTests(SessionTestCase):
    """Every answer that there is."""

    def test_outcomes(self) -> None:
        """Residuals in both directions, sense data, failures, rejects."""
        one = self.command(expected=512)
        self.core.receive(self.dataIn(one.itt, b"x" * 100))
        self.core.receive(self.response(one.itt, flags=FINAL | numbers.UNDERFLOW, residual=412))
        two = self.command(expected=512)
        self.core.receive(
            self.response(two.itt, b"\0\3abc", status=2, flags=FINAL | numbers.OVERFLOW, residual=9)
        )
        three = self.command()
        self.core.receive(self.response(three.itt, response=1))
        four = self.command()
        head = bytes(16) + four.itt.to_bytes(4, "big") + bytes(28)
        self.core.receive(self.numbered(layout.REJECT, numbers.REJECT, head, reason=9, itt=numbers.NO_TAG))
        first, second, third, fourth = self.results
        self.assertEqual(first, Outcome(0, b"", b"x" * 100, 100, 412))
        self.assertEqual(second, Outcome(2, b"abc", b"", 0, -9))
        self.assertEqual((type(third), type(fourth)), (TargetFailure, Rejected))
        self.assertEqual(self.core.commands, {})

    def test_rejects(self) -> None:
        """Every reason is told to whoever sent what was rejected; the rest of the session goes on."""
        core = self.core
        requests: tuple[Callable[[], Any], ...] = (
            self.command,
            lambda: asking.manage(core, numbers.LOGICAL_UNIT_RESET, NO_LUN, None, self.results.append),
            lambda: asking.ask(core, [("SendTargets", "")], self.results.append),
            lambda: asking.ping(core, self.results.append),
        )
        for reason in (*REASONS, 0x77):
            for number, request in enumerate(requests):
                self.make()
                self.login()
                core = self.core
                request()
                head = self.taken()[:48]
                self.core.receive(
                    self.numbered(layout.REJECT, numbers.REJECT, head, reason=reason, itt=numbers.NO_TAG)
                )
                error = self.results.pop()
                self.assertIsInstance(error, Rejected)
                self.assertEqual((error.reason, self.results), (reason, []))
                # Only the target that waits for a command whose data it has thrown away is lost.
                waits = reason == numbers.REASON_DATA_DIGEST and not number
                self.assertEqual(core.error, error if waits else None)
        # What nobody asked for, and what is too short to tell.
        self.make()
        self.login()
        for head in (bytes(48), b""):
            self.core.receive(
                self.numbered(layout.REJECT, numbers.REJECT, head, reason=4, itt=numbers.NO_TAG)
            )
        self.assertEqual((self.core.commands, self.core.callbacks, self.core.texts), ({}, {}, {}))
        self.assertIsNone(self.core.error)

    def test_rejectedData(self) -> None:
        """Data that are rejected end no command: its status does, for which the target says more."""
        one = self.command(data=bytes(1024))
        asked: dict[str, Any] = {"itt": one.itt, "ttt": 5, "expCmdSN": 1, "maxCmdSN": 64}
        self.taken()
        self.core.receive(pdu(layout.R2T, numbers.R2T, desiredLength=1024, **asked))
        head = self.taken()[:48]
        self.assertEqual(head[0], numbers.DATA_OUT)
        reject = {"reason": numbers.REASON_DATA_DIGEST, "itt": numbers.NO_TAG}
        self.core.receive(self.numbered(layout.REJECT, numbers.REJECT, head, **reject))
        self.assertEqual(self.results, [])
        self.core.receive(self.response(one.itt, b"\0\3abc", status=2))
        self.assertEqual(self.results, [Outcome(2, b"abc", b"", 0, 0)])

    def test_afterReject(self) -> None:
        """A status that still comes for a command that was rejected is nobody's."""
        one = self.command(expected=512)
        head = self.taken()[:48]
        self.core.receive(self.numbered(layout.REJECT, numbers.REJECT, head, reason=9, itt=numbers.NO_TAG))
        self.assertIsInstance(self.results.pop(), Rejected)
        self.core.receive(self.dataIn(one.itt, b"x"))
        self.core.receive(self.response(one.itt, status=2))
        self.assertEqual((self.results, self.core.error), ([], None))

    def test_responses(self) -> None:
        """Every service response but 'completed' fails the command, and every status ends it."""
        for response in (1, 2, 0x80, 0xFF):
            self.core.receive(self.response(self.command().itt, response=response))
            error = self.results.pop()
            self.assertIsInstance(error, TargetFailure)
            self.assertEqual(error.response, response)
        for status in (0, 2, 4, 8, 0x18, 0x28, 0x30, 0x40, 0x7E):
            self.core.receive(self.response(self.command().itt, status=status))
            self.assertEqual(self.results.pop(), Outcome(status, b"", b"", 0, 0))

    def test_functions(self) -> None:
        """Every response to a task management function is told."""
        for response in (0, *RESPONSES, 77):
            asking.manage(self.core, numbers.CLEAR_TASK_SET, NO_LUN, None, self.results.append)
            itt = int.from_bytes(self.taken()[16:20], "big")
            answer = layout.TASK_MANAGEMENT_RESPONSE, numbers.TASK_MANAGEMENT_RESPONSE
            self.core.receive(self.numbered(*answer, itt=itt, response=response))
            self.assertEqual(self.results.pop(), response)

    def test_asynchronous(self) -> None:
        """Every event is told; after two of them the connection is over."""
        for code in (0, 1, 2, 3, 4, 5, 255):
            self.make()
            self.login()
            self.core.receive(
                self.numbered(
                    layout.ASYNC_MESSAGE, numbers.ASYNC_MESSAGE, b"\0\2ab", itt=numbers.NO_TAG, event=code,
                    parameter1=1, parameter2=2, parameter3=3,
                )
            )  # fmt: skip
            event = self.diary[0]
            self.assertEqual((event.code, event.parameters), (code, (1, 2, 3)))
            self.assertEqual(event.sense, b"" if code else b"ab")
            self.assertEqual(self.closed, code in (2, 3))

    def test_logouts(self) -> None:
        """What the target says of a logout; the connection is over whatever that is."""
        for response in (0, *LOGOUTS, 77):
            self.make()
            self.login()
            asking.logout(self.core, self.results.append)
            itt = int.from_bytes(self.taken()[16:20], "big")
            self.core.receive(
                self.numbered(layout.LOGOUT_RESPONSE, numbers.LOGOUT_RESPONSE, itt=itt, response=response)
            )
            (result,) = self.results
            self.assertEqual(getattr(result, "response", result), response)
            self.assertEqual(isinstance(result, LogoutRefused), response != 0)
            self.assertTrue(self.closed)

    def test_dropped(self) -> None:
        """A target that says it drops the connection is believed."""
        self.core.receive(
            self.numbered(
                layout.ASYNC_MESSAGE,
                numbers.ASYNC_MESSAGE,
                itt=numbers.NO_TAG,
                event=numbers.EVENT_SESSION_DROP,
            )
        )
        self.assertIsInstance(self.core.error, ConnectionEnded)
