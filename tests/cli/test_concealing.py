"""What others see of a command line with a secret in it."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

SHOW = """\
import sys
from iscsi_twisted.cli.concealing import conceal
conceal()
sys.stdout.write(open("/proc/self/cmdline").read())
sys.stdout.write(" ".join(sys.argv[1:]))
"""


class ConcealingTests(SynchronousTestCase):
    """Arguments in the list of processes."""

    def shown(self, *arguments: str) -> list[str]:
        """What is shown of them, and last what the process itself goes on to see."""
        command = [sys.executable, "-c", SHOW, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.split("\0")[3:]

    def test_secret(self) -> None:
        """The secrets of URLs are not shown; the command has them, and all else is as it was."""
        urls = ("iscsi://me%geheim@host:3260/iqn.2001-04.com.example:t/0", "iscsis://you%xyz@[::1%eth0]/")
        *shown, seen = self.shown("copy", *urls, "100%", "a%b@c")
        self.assertEqual(
            shown,
            ["copy", urls[0].replace("geheim", "******"), urls[1].replace("xyz", "***"), "100%", "a%b@c"],
        )
        self.assertEqual(seen.split(), ["copy", *urls, "100%", "a%b@c"])

    def test_none(self) -> None:
        """Where there is none nothing is touched."""
        *shown, seen = self.shown("ls", "iscsi://me@host/")
        self.assertEqual((shown, seen), (["ls", "iscsi://me@host/"], "ls iscsi://me@host/"))
