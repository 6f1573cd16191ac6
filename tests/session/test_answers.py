"""What a target answers instead of what was asked for, as exceptions with names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.answers import (
    LOGOUTS,
    REASONS,
    RESPONSES,
    STATUSES,
    FunctionRefused,
    LoginRefused,
    LogoutRefused,
    Redirected,
    Rejected,
    TargetFailure,
)
from iscsi_twisted.wire import numbers


class WordsTests(SynchronousTestCase):
    """Tests of the words for codes."""

    def check(self, make: Callable[[int], Exception], codes: Iterable[int], unknown: int) -> None:
        """Every code has words of its own, and one that is not defined is told as that."""
        told = {str(make(code)) for code in codes}
        self.assertEqual(len(told), len(set(codes)))
        self.assertNotIn("not defined", "".join(told))
        self.assertTrue(str(make(unknown)))

    def test_logins(self) -> None:
        """All statuses of RFC 7143 11.13.5."""
        defined = {0x0101, 0x0102, *range(0x0200, 0x020C), 0x0300, 0x0301, 0x0302}
        self.assertEqual(defined - set(STATUSES), set())
        self.check(LoginRefused, STATUSES, 0x0999)

    def test_rejects(self) -> None:
        """All reasons of RFC 7143 11.17.1."""
        self.assertEqual(set(REASONS), set(range(2, 0x0D)))
        self.check(Rejected, REASONS, 0x77)

    def test_functions(self) -> None:
        """All responses of RFC 7143 11.6.1 but 'complete'."""
        self.assertEqual(set(RESPONSES), {1, 2, 3, 4, 5, 6, 255})
        self.check(FunctionRefused, RESPONSES, 9)

    def test_logouts(self) -> None:
        """All responses of RFC 7143 11.15.1 but 'closed'."""
        self.assertEqual(set(LOGOUTS), {1, 2, 3})
        self.check(LogoutRefused, LOGOUTS, 9)

    def test_commands(self) -> None:
        """The response of RFC 7143 11.4.3, and a vendor's own."""
        self.assertIn("the target has failed (01h)", str(TargetFailure(1)))
        self.assertIn("vendor's own", str(TargetFailure(0x80)))

    def test_redirected(self) -> None:
        """Whether a target has moved for good."""
        self.assertTrue(Redirected(numbers.TARGET_MOVED_PERMANENTLY, "a").forever)
        self.assertFalse(Redirected(numbers.TARGET_MOVED_TEMPORARILY, "a").forever)
