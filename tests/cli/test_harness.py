"""The harness, beside a target in memory."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from iscsi_twisted import __version__
from iscsi_twisted.auth.chap import STRONGEST_FIRST
from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.cli.exercises import NUDGE, Failed
from iscsi_twisted.cli.harness import TIMEOUT, Harness, main, parser
from iscsi_twisted.errors import ISCSIError, RemoteError
from iscsi_twisted.interfaces import Account, Buffer
from iscsi_twisted.session import fullfeature
from iscsi_twisted.session.answers import LoginRefused
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.auth.test_verifier import OTHER, SECRET, Store
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
        self.patch(tempfile, "tempdir", os.path.abspath(self.mktemp()))
        os.mkdir(tempfile.gettempdir())
        said, result = self.run_("-n", "2")
        self.successResultOf(result)
        self.assertEqual(os.listdir(tempfile.gettempdir()), [])
        text = "\n".join(said)
        for words in (
            "<ITERATION 2>", "NOP-Out of 13 bytes without ping PASSED",
            "NOP-Out of 13 bytes with ping PASSED",
            "NOP-Out with 4096 bytes without ping: 2 iterations",
            "NOP-Out with 4096 bytes with ping: 2 iterations",
            "##BEGIN INITIAL TESTS", "##END iSCSI LATENCY TESTS", "##END SCSI LATENCY TESTS",
            "##END DEVICE-SPECIFIC TESTS", "integrity of 262144 bytes PASSED", "by 256 KiB",
            "all tests were completed successfully",
        ):  # fmt: skip
            self.assertIn(words, text)
        self.assertEqual(bytes(self.device.read(0, self.device.size)), before)
        self.assertEqual(self.node.sessions, set())

    def test_unread(self) -> None:
        """When nobody reads what it says any more it fails, and the disk is as it was, wherever that is."""
        self.patch(tempfile, "tempdir", os.path.abspath(self.mktemp()))
        os.mkdir(tempfile.gettempdir())
        before = os.urandom(self.device.size)
        self.device.write(0, before)
        for last in ("what is on the disk", "integrity of", "what was on the disk"):
            said: list[str] = []

            def say(line: str, last: str = last, said: list[str] = said) -> None:
                said.append(line)
                if any(one.startswith(last) for one in said):
                    raise BrokenPipeError(32, "Broken pipe")

            options = parser().parse_args(["-u", "me", "-a", "none"])
            run = Harness(self.clock, options, say, endpoint=self.endpoint, repeat=2)
            result = Deferred.fromCoroutine(run.run())
            self.turn(TURNS)
            self.assertIn("Broken pipe", str(self.failureResultOf(result).value))
            self.assertEqual(bytes(self.device.read(0, self.device.size)), before)
            self.assertEqual(os.listdir(tempfile.gettempdir()), [])
            self.assertEqual(self.node.sessions, set())

    def test_noRoom(self) -> None:
        """What is on the disk is not overwritten where it cannot be kept, unless nobody wants it."""
        before = os.urandom(self.device.size)
        self.device.write(0, before)
        self.patch(tempfile, "tempdir", "/nowhere")
        _, result = self.run_()
        self.assertIn("there is no room in /nowhere", str(self.failureResultOf(result, Failed).value))
        self.assertEqual(bytes(self.device.read(0, self.device.size)), before)
        _, result = self.run_("--destructive")
        self.successResultOf(result)

    def test_destructive(self) -> None:
        """What was on the disk is not put back if nobody wants it."""
        self.device.write(0, b"x" * 512)
        _, result = self.run_("--destructive")
        self.successResultOf(result)
        self.assertEqual(bytes(self.device.read(0, 512)), bytes(512))

    def test_deaf(self) -> None:
        """A target that answers no ping fails the first section, in a time that one can wait for."""
        handlers = list(fullfeature.HANDLERS)
        handlers[numbers.NOP_OUT] = lambda *arguments: None
        self.patch(fullfeature, "HANDLERS", handlers)
        said, result = self.run_()
        self.assertNoResult(result)
        began = self.clock.seconds()
        while not result.called and self.clock.seconds() < began + 2 * TIMEOUT:
            self.clock.advance(0.1)
        self.turn()
        error = str(self.failureResultOf(result, Failed).value)
        self.assertEqual(error, "no answer to pings after NOP-Outs without ping")
        self.assertNotIn("PASSED", "\n".join(said))

    def test_sluggish(self) -> None:
        """A target that answers a ping only once more comes, as tgt behind NOP-Outs without, passes."""
        handlers = list(fullfeature.HANDLERS)
        answer, held = handlers[numbers.NOP_OUT], []

        def late(*pdu: Any) -> None:
            if pdu[1][pdu[2] + 16 : pdu[2] + 20] == b"\xff" * 4:
                held[:] = [None]
            elif held == [None]:
                held[:] = [(pdu[0], bytes(pdu[1][pdu[2] : pdu[2] + 48]), 0, *pdu[3:])]
            else:
                for each in (*held, pdu):
                    answer(*each)
                held.clear()

        handlers[numbers.NOP_OUT] = late
        self.patch(fullfeature, "HANDLERS", handlers)
        _, result = self.run_()
        while not result.called:
            self.clock.advance(NUDGE)
            self.turn()
        self.successResultOf(result)

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
        for arguments in ([], ["-n", "0"], ["-p", "99999"], ["-a", "magic"], ["-4", "-6"]):
            said = io.StringIO()
            self.patch(sys, "stderr", said)
            error = self.assertRaises(SystemExit, main, arguments)
            self.assertTrue(error.code)
            self.assertIn("usage: iscsi-harness", said.getvalue())


class OptionTests(HarnessTestCase):
    """Every option does something."""

    def test_digests(self) -> None:
        """-d: the digests of the normal session."""
        for name, expected in (
            ("none", (False, False)), ("header", (True, False)), ("data", (False, True)),
            ("both", (True, True)), ("all", (True, True)),
        ):  # fmt: skip
            self.successResultOf(self.run_("-d", name, "-l", "1")[1])
            core = self.endpoint.transports[-1].protocol.core
            self.assertEqual((core.headerDigest, core.dataDigest), expected)

    def test_unit(self) -> None:
        """-t and -l: which target, and which unit, which is put back too."""
        said, result = self.run_("-t", self.target.name, "-l", "1")
        self.successResultOf(result)
        self.assertIn(f"##BEGIN INITIAL TESTS[{self.target.name}:1]##", said)
        _, result = self.run_("-l", "2")
        self.failureResultOf(result)

    def test_user(self) -> None:
        """-u: it is a part of the initiator's name, too."""
        made = Harness(self.clock, parser().parse_args(["-u", "Agc"]))
        self.assertEqual((made.user, made.initiator.name.rpartition(":")[2]), ("Agc", "agc"))

    def test_where(self) -> None:
        """-h, -p, -4 and -6: where the target is, by literal addresses as well as by names."""
        for arguments, expected in (
            ((), "localhost:3260"),
            (("-h", "disks.example.com", "-p", "3261"), "disks.example.com:3261"),
            (("-h", "::1"), "[::1]:3260"),
            (("-4", "-h", "127.0.0.1"), "127.0.0.1:3260"),
            (("-6", "-h", "::1", "-p", "99"), "[::1]:99"),
        ):
            self.assertEqual(Harness(self.clock, parser().parse_args(arguments))._endpoint, expected)
        for arguments in (("-4", "-h", "::1"), ("-6", "-h", "127.0.0.1")):
            error = self.assertRaises(Failed, Harness, self.clock, parser().parse_args(arguments))
            self.assertIn(f"has no IPv{arguments[0][1]} address", str(error))

    def test_version(self) -> None:
        """-V: the version, and nothing else."""
        said = io.StringIO()
        self.patch(sys, "stdout", said)
        self.assertFalse(self.assertRaises(SystemExit, main, ["-V"]).code)
        self.assertEqual(said.getvalue(), f"iscsi-harness {__version__}\n")


class CHAPTests(HarnessTestCase):
    """-a and -u: users that the target asks for, or does not."""

    def auths(self, secret: bytes) -> str:
        """An auths file that has one user."""
        path = self.mktemp()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(f"me:chap:{secret.decode()}\n")
        return path

    def guard(self, **options: Any) -> None:
        """The target asks who comes."""
        store = Store(me=Account(SECRET, "it", OTHER))
        made = partial(Verifier, store, os.urandom, **options)
        self.target.authenticate = self.node.authenticate = made

    def as_(self, secret: bytes, *arguments: str) -> Any:
        """How it ends, for a user with this secret."""
        options = parser().parse_args(["-u", "me", "-l", "1", "--auths", self.auths(secret), *arguments])
        run = Harness(self.clock, options, lambda line: None, endpoint=self.endpoint, repeat=2)
        result = Deferred.fromCoroutine(run.run())
        self.turn(TURNS)
        return result

    def test_right(self) -> None:
        """The credentials of the auths file are used if CHAP is asked for, and if nothing is said."""
        self.guard()
        for arguments in ((), ("-a", "chap")):
            self.successResultOf(self.as_(SECRET, *arguments))

    def test_hashes(self) -> None:
        """Every hash that a target may insist on; an entry with the target's secret has it prove itself."""
        for algorithm in STRONGEST_FIRST:
            self.guard(algorithms=(algorithm,))
            for more in ("", ":it:" + OTHER.decode()):
                self.successResultOf(self.as_(SECRET + more.encode(), "-a", "chap"))
            for wrong in (":it:another-secret-12", ":other:" + OTHER.decode()):
                failure = self.failureResultOf(self.as_(SECRET + wrong.encode()), RemoteError)
                self.assertIn("the target did not prove who it is", failure.getErrorMessage())

    def test_wrong(self) -> None:
        """A wrong secret is refused; who offers none reads what to do."""
        self.guard()
        self.failureResultOf(self.as_(OTHER), LoginRefused)
        none = ("-a", "none")
        error = self.failureResultOf(self.as_(SECRET, "-u", "agc", *none), Failed)
        self.assertIn("No matching user configuration entry for `agc' was found", error.getErrorMessage())
        # Whose entry there is has no need of one.
        error = self.failureResultOf(self.as_(SECRET, *none), Failed)
        self.assertEqual(error.getErrorMessage(), "the target asks for authentication: leave out -a none")

    def test_open(self) -> None:
        """A target that asks for nobody passes, but not where CHAP is insisted on."""
        self.successResultOf(self.as_(SECRET))
        self.failureResultOf(self.as_(SECRET, "-a", "chap"), ISCSIError)


class Leaving(MemoryDevice):
    """
    A disk that has its target lose a connection with a write behind the first ones.

    @ivar leave: does that.
    """

    writes = 0

    def write(self, offset: int, data: Buffer) -> Any:
        """As ever, but for that."""
        self.writes += 1
        if self.writes == 5:
            self.leave()
        return super().write(offset, data)

    def leave(self) -> None:
        """To be replaced."""


class LostTests(HarnessTestCase):
    """Connections that are lost while the disk is not as it was."""

    def makeDevice(self) -> MemoryDevice:
        """It is lost with the connection."""
        return Leaving((8 << 20) + 8192)

    def lost(self, refuses: bool) -> tuple[bytes, list[str], str]:
        """What was on the disk, what is said, and what is told."""
        before = os.urandom(self.device.size)
        self.device.write(0, before)

        def leave() -> None:
            self.endpoint.refuses = refuses
            self.endpoint.transports[-1].abortConnection()

        self.device.writes, self.device.leave = 0, leave
        said, result = self.run_()
        error = str(self.failureResultOf(result, Failed).value)
        self.assertIn("the connection", error)
        self.assertNotIn("completed successfully", "\n".join(said))
        return before, said, error

    def test_again(self) -> None:
        """What was there is written back over another connection; what has failed is told all the same."""
        before, said, _ = self.lost(refuses=False)
        self.assertEqual(said[-1], "what was on the disk is there again")
        self.assertEqual(bytes(self.device.read(0, len(before))), before)
        self.assertEqual(self.node.sessions, set())

    def test_gone(self) -> None:
        """If there is none it is in a file, which is named."""
        self.patch(tempfile, "tempdir", os.path.abspath(self.mktemp()))
        os.mkdir(tempfile.gettempdir())
        before, said, _ = self.lost(refuses=True)
        self.assertIn("what was on the disk is not there again", said[-1])
        (name,) = os.listdir(tempfile.gettempdir())
        self.assertIn(name, said[-1])
        with open(os.path.join(tempfile.gettempdir(), name), "rb") as file:
            self.assertEqual(file.read(), before[: 8 << 20] + before[-512:])


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
