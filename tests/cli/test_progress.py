"""Progress bars."""

from __future__ import annotations

import io

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.cli.progress import Progress, duration


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class ProgressTests(SynchronousTestCase):
    """L{Progress}."""

    def test_shows(self) -> None:
        """Share, rate and time left, a few times a second, and a line of its own at the end."""
        clock, file = Clock(), Terminal()
        progress = Progress(300_000_000, 0, file, clock.seconds)
        clock.advance(0.1)
        progress(1)
        self.assertEqual(file.getvalue(), "")
        clock.advance(0.9)
        progress(100_000_000)
        bar = "[" + "#" * 10 + " " * 20 + "]"
        self.assertEqual(file.getvalue(), f"\r{bar}  33.3 %  100 MB/s  0:02 left\x1b[K")
        clock.advance(2)
        progress(300_000_000)
        self.assertIn("100.0 %  100 MB/s  0:00 left", file.getvalue())
        self.assertTrue(file.getvalue().endswith("\n"))

    def test_resumed(self) -> None:
        """What was there before is shown, and does not count for the rate."""
        clock, file = Clock(), Terminal()
        progress = Progress(300_000_000, 150_000_000, file, clock.seconds)
        clock.advance(1)
        progress(160_000_000)
        self.assertIn(" 53.3 %  10 MB/s  0:14 left", file.getvalue())

    def test_recent(self) -> None:
        """The rate is that of the last seconds."""
        clock, file = Clock(), Terminal()
        progress = Progress(10**12, 0, file, clock.seconds)
        for second in range(100):
            clock.advance(1)
            progress(second * 1_000_000 if second < 50 else 50_000_000 + (second - 50) * 5_000_000)
        self.assertIn("  5 MB/s  55:32:21 left", file.getvalue().split("\r")[-1])

    def test_stalled(self) -> None:
        """While nothing comes, nobody knows how long it will take."""
        clock, file = Clock(), Terminal()
        progress = Progress(1000, 0, file, clock.seconds)
        clock.advance(1)
        progress(0)
        self.assertIn("--:-- left", file.getvalue())

    def test_fails(self) -> None:
        """What is told of a failure is not told behind the bar."""
        clock, file = Clock(), Terminal()
        for done in (0, 500, 1000):
            with Progress(1000, 0, file, clock.seconds, "words: ") as progress:
                clock.advance(1)
                if done:
                    progress(done)
        first, second, rest = file.getvalue().split("\n")
        self.assertTrue(first.startswith("\rwords: [####"))
        self.assertTrue(second.startswith("\rwords: [####"))
        self.assertEqual(rest, "")

    def test_silent(self) -> None:
        """Where there is no terminal there is nothing, nor where nothing is open."""
        clock, file = Clock(), io.StringIO()
        clock.advance(1)
        Progress(1000, 0, file, clock.seconds)(1000)
        Progress(1000, 0, None, clock.seconds)(1000)
        self.assertEqual(file.getvalue(), "")

    def test_duration(self) -> None:
        """Hours only where there are some."""
        self.assertEqual([duration(s) for s in (0, 59.6, 3599, 3661)], ["0:00", "1:00", "59:59", "1:01:01"])
