"""The harness, beside a target in memory."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from twisted.internet.defer import Deferred

from iscsi_twisted.cli.exercises import Failed
from iscsi_twisted.cli.harness import Harness, main, parser
from iscsi_twisted.storage import MemoryDevice
from tests.support.initiator import InitiatorTests

TURNS = 6000


class Lying(MemoryDevice):
    """A disk that gives one wrong byte."""

    def read(self, offset: int, length: int) -> Any:
        """What was written, but for byte 70,000."""
        data = bytearray(bytes(super().read(offset, length)))
        if offset <= 70000 < offset + length:
            data[70000 - offset] ^= 0xFF
        return bytes(data)


class HarnessTestCase(InitiatorTests):
    """Runs it."""

    def makeDevice(self) -> MemoryDevice:
        """As large as the area that is written, and a bit."""
        return MemoryDevice((8 << 20) + 8192)

    def run_(self, *arguments: str) -> tuple[list[str], Any]:
        """What it says, and how it ends."""
        said: list[str] = []
        options = parser().parse_args(["-u", "me", "-a", "none", *arguments])
        run = Harness(self.clock, options, said.append, endpoint=self.endpoint, repeat=2)
        result = Deferred.fromCoroutine(run.run())
        self.turn(TURNS)
        return said, result


class HarnessTests(HarnessTestCase):
    """All of its tests, in memory."""

    def test_all(self) -> None:
        """Every section, as often as was asked, and the banner; what was on the disk is there again."""
        before = os.urandom(self.device.size)
        self.device.write(0, before)
        said, result = self.run_("-n", "2")
        self.successResultOf(result)
        text = "\n".join(said)
        for words in (
            "<ITERATION 2>", "##BEGIN INITIAL TESTS", "##END iSCSI LATENCY TESTS", "##END SCSI LATENCY TESTS",
            "##END DEVICE-SPECIFIC TESTS", "integrity of 262144 bytes PASSED", "by 256 KiB",
            "all tests were completed successfully",
        ):  # fmt: skip
            self.assertIn(words, text)
        self.assertEqual(bytes(self.device.read(0, self.device.size)), before)
        self.assertEqual(self.node.sessions, set())

    def test_destructive(self) -> None:
        """What was on the disk is not put back if nobody wants it."""
        self.device.write(0, b"x" * 512)
        _, result = self.run_("--destructive")
        self.successResultOf(result)
        self.assertEqual(bytes(self.device.read(0, 512)), bytes(512))

    def test_target(self) -> None:
        """A target that there is not."""
        said, result = self.run_("-t", "iqn.2001-04.com.example:other")
        self.assertIn("was not found", str(self.failureResultOf(result, Failed).value))
        self.assertNotIn("completed successfully", "\n".join(said))

    def test_noEntry(self) -> None:
        """The two lines, where CHAP is asked for and the user has no entry."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("other:chap:secret-of-other\n")
        _, result = self.run_("-a", "chap", "--auths", path)
        self.assertEqual(
            str(self.failureResultOf(result, Failed).value),
            "No matching user configuration entry for `me' was found\n"
            f"Please add an entry for `me' to `{path}'",
        )

    def test_usage(self) -> None:
        """Without arguments, and with wrong ones, it says how it is used."""
        for arguments in ([], ["-n", "0"], ["-a", "magic"], ["-4", "-6"]):
            said = io.StringIO()
            self.patch(sys, "stderr", said)
            error = self.assertRaises(SystemExit, main, arguments)
            self.assertTrue(error.code)
            self.assertIn("usage: iscsi-harness", said.getvalue())


class IntegrityTests(HarnessTestCase):
    """The integrity test can fail."""

    def makeDevice(self) -> MemoryDevice:
        """It lies."""
        return Lying((8 << 20) + 8192)

    def test_all(self) -> None:
        """It names the byte; there is no banner, and the session is closed."""
        said, result = self.run_()
        error = str(self.failureResultOf(result, Failed).value)
        self.assertIn("the integrity test: byte 70000 is", error)
        self.assertNotIn("completed successfully", "\n".join(said))
        self.assertEqual(self.node.sessions, set())
