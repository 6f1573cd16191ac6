"""The command-line tool, beside a target in memory."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail

from iscsi_twisted.auth.chap import Credentials
from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.cli import copying
from iscsi_twisted.cli.commands import Tool
from iscsi_twisted.cli.copying import PIECE, Differs
from iscsi_twisted.cli.options import parser
from iscsi_twisted.cli.tool import main
from iscsi_twisted.errors import CheckCondition, LocalError, NotReady
from iscsi_twisted.initiator import LUN, parseURL
from iscsi_twisted.interfaces import Account, Capabilities
from iscsi_twisted.scsi import codes
from iscsi_twisted.session import asking
from iscsi_twisted.session.answers import LoginRefused, LogoutRefused
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.auth.test_verifier import SECRET, Store
from tests.support.initiator import InitiatorTests
from tests.support.manual import WORDS

DISK = (3 << 20) + 8192
HOST = "iscsi://192.0.2.1"


class Sparse(MemoryDevice):
    """
    A disk that tells where it has data.

    @ivar reads: offsets that were read.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.reads: list[int] = []

    def capabilities(self) -> Capabilities:
        """Thin."""
        return Capabilities(discard=True, zero=True, allocated=True, discardZeroes=True)

    def read(self, offset: int, length: int) -> Any:
        """What it holds."""
        self.reads.append(offset)
        return super().read(offset, length)

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]]:
        """Page by page."""
        pages = range(offset, offset + length, 4096)
        sizes = [min(4096, offset + length - page) for page in pages]
        return [
            (size, any(bytes(super(Sparse, self).read(page, size))))
            for page, size in zip(pages, sizes, strict=True)
        ]


class ToolCase(InitiatorTests):
    """
    Tests of the tool.

    @ivar url: of LUN 0.
    """

    def setUp(self) -> None:
        super().setUp()
        self.url = f"{HOST}/{self.target.name}/0"

    def start(self, *arguments: str) -> tuple[list[str], Any]:
        """What it prints, and how it ends."""
        said: list[str] = []
        options = parser().parse_args(arguments)
        result = Deferred.fromCoroutine(Tool(self.clock, options, said.append, self.endpoint).run())
        self.turn(600)
        self.assertEqual(self.node.sessions, set())
        return said, result

    def good(self, *arguments: str) -> list[str]:
        """What it prints when it succeeds."""
        said, result = self.start(*arguments)
        self.successResultOf(result)
        return said

    def bad(self, kind: type[BaseException], *arguments: str) -> str:
        """What it says when it fails."""
        _, result = self.start(*arguments)
        return str(self.failureResultOf(result, kind).value)


class ToolTests(ToolCase):
    """Its commands."""

    def setUp(self) -> None:
        super().setUp()
        self.content = os.urandom(PIECE) + bytes(PIECE) + os.urandom(DISK - 2 * PIECE)
        self.device.write(0, self.content)

    def makeDevice(self) -> MemoryDevice:
        """A disk of several pieces."""
        return Sparse(DISK)

    def test_ls(self) -> None:
        """Targets, addresses and units, for people and programs."""
        said = self.good("ls", HOST)
        self.assertEqual(said[0], f"{self.target.name}  127.0.0.1:3260,1")
        self.assertEqual(said[1:], ["  LUN 0  TEST disk  3.0 MiB", "  LUN 1  TEST disk  1.0 MiB"])
        (told,) = json.loads(self.good("--json", "ls", HOST)[0])
        self.assertEqual([unit["bytes"] for unit in told["units"]], [DISK, 1 << 20])

    def test_lsNoDisk(self) -> None:
        """A unit that is no disk, or is not ready, is listed too, and hides none of the others."""
        asked = LUN.identify

        async def cdrom(lun: LUN) -> Any:
            found = await asked(lun)
            return evolve(found, kind=5) if lun.number == 0 else found

        self.patch(LUN, "identify", lambda lun: Deferred.fromCoroutine(cdrom(lun)))
        said = self.good("ls", HOST)
        self.assertEqual(
            said[1:],
            ["  LUN 0  TEST disk  no disk (peripheral device type 5)", "  LUN 1  TEST disk  1.0 MiB"],
        )
        (told,) = json.loads(self.good("--json", "ls", HOST)[0])
        self.assertEqual([(unit["type"], unit["bytes"]) for unit in told["units"]], [(5, None), (0, 1 << 20)])
        self.assertIn("type: 5", self.good("inq", self.url))

    def test_notReady(self) -> None:
        """A unit that is not ready is listed with the reason, is asked what it is, and can be reset."""

        def refuse(lun: LUN) -> Any:
            return fail(NotReady("no medium")) if lun.number == 0 else ready(lun)

        ready = LUN.ready
        self.patch(LUN, "ready", refuse)
        said = self.good("ls", HOST)
        self.assertEqual(said[1:], ["  LUN 0  TEST disk  no medium", "  LUN 1  TEST disk  1.0 MiB"])
        self.assertIn("vendor: TEST", self.good("inq", self.url))
        self.assertIn("was reset", self.good("reset", self.url)[0])

    def test_missing(self) -> None:
        """A unit that is not there is no answer."""
        self.assertIn("there is no unit", self.bad(LocalError, "inq", f"{HOST}/{self.target.name}/9"))

    def test_amiss(self) -> None:
        """Numbers that make no sense are refused, with what is right."""
        self.assertIn(
            "multiple of the unit's blocks of 512", self.bad(LocalError, "read", "--offset", "100", self.url)
        )
        self.assertIn(
            "multiple of the unit's blocks of 512", self.bad(LocalError, "write", "--offset", "5", self.url)
        )

    def test_anywhere(self) -> None:
        """Options of all commands may stand before the command, or behind it, or be left out."""
        options = (
            ("--json", True, False), ("--initiator-name", "iqn.2001-04.com.example:a", ""),
            ("--secret-file", "a", None), ("--auths", "a", None), ("--digest", "yes", "no"),
        )  # fmt: skip
        for name, value, otherwise in options:
            words = [name] if value is True else [name, value]
            for line in ([*words, "ls", HOST], ["ls", *words, HOST], ["ls", HOST, *words], ["ls", HOST]):
                found = getattr(parser().parse_args(line), name[2:].replace("-", "_"))
                self.assertEqual(found, value if name in line else otherwise, line)

    def test_about(self) -> None:
        """What a unit is."""
        self.assertIn("vendor: TEST", self.good("inq", self.url))
        told = json.loads(self.good("--json", "capacity", self.url)[0])
        self.assertEqual((told["bytes"], told["blockSize"]), (DISK, 512))
        self.assertIn("3 pings", self.good("ping", "-c", "3", self.url)[0])
        self.assertIn("was reset", self.good("reset", self.url)[0])

    def test_toFile(self) -> None:
        """A unit to a file, with holes, and verified."""
        path = self.mktemp()
        said = self.good("copy", "--verify", "--quiet", self.url, path)
        self.assertEqual(said, [f"{DISK} bytes copied, {PIECE} of them holes"])
        with open(path, "rb") as file:
            self.assertEqual(file.read(), self.content)

    def test_overFile(self) -> None:
        """A file that was longer, and full of something else, is as long as the unit, and the same."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"x" * (DISK + 100000))
        self.good("copy", "--quiet", self.url, path)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), self.content)

    def test_fromFile(self) -> None:
        """A file to a unit; the rest of the unit stays."""
        path = self.mktemp()
        data = os.urandom(PIECE + 512)
        with open(path, "wb") as file:
            file.write(data)
        self.good("copy", "--verify", path, self.url)
        self.assertEqual(bytes(self.device.read(0, DISK)), data + self.content[len(data) :])

    def test_units(self) -> None:
        """A unit to a larger one; to a smaller one it is refused before anything is written."""
        small = f"{HOST}/{self.target.name}/1"
        self.good("copy", "--verify", "--quiet", small, self.url)
        self.assertEqual(bytes(self.device.read(0, 1 << 20)), bytes(1 << 20))
        self.assertIn("are to be copied", self.bad(LocalError, "copy", self.url, small))

    def test_holes(self) -> None:
        """Where the unit says that it has nothing, nothing is read."""
        path = self.mktemp()
        self.assertEqual(
            self.good("copy", "--quiet", self.url, path), [f"{DISK} bytes copied, {PIECE} of them holes"]
        )
        with open(path, "rb") as file:
            self.assertEqual(file.read(), self.content)
        self.assertIn(2 * PIECE, self.device.reads)
        self.assertEqual([place for place in self.device.reads if PIECE <= place < 2 * PIECE], [])

    def test_untold(self) -> None:
        """A thin unit that does not tell where it has data is read whole."""

        def refuse(offset: int, length: int) -> None:
            raise CheckCondition(codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE)

        self.patch(self.device, "allocated", refuse)
        path = self.mktemp()
        self.good("copy", "--quiet", self.url, path)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), self.content)
        self.assertIn(PIECE, self.device.reads)

    def test_differs(self) -> None:
        """A copy that is not one is found."""
        real = self.device.write
        self.patch(self.device, "write", lambda offset, data: real(offset, bytes(len(data))))
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"\1" * 1024)
        self.assertIn("byte 0 of LUN 0 of", self.bad(Differs, "copy", "--verify", path, self.url))

    def test_partOfBlock(self) -> None:
        """A file that ends within a block."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"x" * 700)
        self.assertIn("whole blocks of 512", self.bad(LocalError, "copy", path, self.url))
        self.assertEqual(bytes(self.device.read(0, DISK)), self.content)

    def test_same(self) -> None:
        """A unit is not copied onto itself."""
        self.assertIn(
            "the same unit", self.bad(LocalError, "copy", self.url, self.url.replace("//", "//me@"))
        )

    def test_cut(self) -> None:
        """A file that becomes shorter while it is copied makes no copy that seems whole."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(os.urandom(2 * PIECE))
        real = self.device.write

        def write(offset: int, data: Any) -> Any:
            os.truncate(path, 5000)
            return real(offset, data)

        self.patch(self.device, "write", write)
        # More than are read at once.
        self.patch(copying, "DEPTH", 1)
        said = self.bad(LocalError, "copy", path, self.url)
        self.assertIn(f"{path} has no byte {PIECE} any more", said)

    def test_cutHole(self) -> None:
        """If what becomes shorter is a hole, which is not read, the comparison finds it."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.truncate(2 * PIECE)
        real = self.device.zero

        def zero(offset: int, length: int, *more: Any) -> Any:
            os.truncate(path, 5000)
            return real(offset, length, *more)

        self.patch(self.device, "zero", zero)
        said = self.bad(LocalError, "copy", "--verify", path, self.url)
        self.assertIn(f"{path} has no byte 5000 any more", said)

    def test_streams(self) -> None:
        """Standard input and output, in order."""
        read, write = os.pipe()
        with os.fdopen(write, "wb") as sink, os.fdopen(read, "rb") as source:
            self.patch(sys, "stdin", io.TextIOWrapper(source))
            data = os.urandom(8192)
            sink.write(data)
            sink.close()
            self.good("write", "--offset", "4096", self.url)
        self.assertEqual(bytes(self.device.read(4096, 8192)), data)
        self.patch(sys, "stdin", None)
        self.assertIn("standard input is closed", self.bad(LocalError, "write", self.url))
        path = self.mktemp()
        with open(path, "w+b") as said:
            self.patch(sys, "stdout", said)
            self.good("read", "--offset", "512", "--length", str(2 * PIECE), self.url)
            said.seek(0)
            self.assertEqual(said.read(), bytes(self.device.read(512, 2 * PIECE)))

    def test_tooMuch(self) -> None:
        """Standard input that does not fit is a failure; what exactly fits is none."""
        path = self.mktemp()
        for more in (0, 1):
            with open(path, "wb") as file:
                file.write(bytes(8192 + more))
            with open(path) as source:
                self.patch(sys, "stdin", source)
                arguments = ("write", "--offset", str(DISK - 8192), self.url)
                if more:
                    self.assertIn("takes 8192 bytes", self.bad(LocalError, *arguments))
                else:
                    self.good(*arguments)
            self.assertEqual(bytes(self.device.read(DISK - 8192, 8192)), bytes(8192))

    def test_unnamed(self) -> None:
        """Who has named no user where one is asked for is told how to."""
        verifier = partial(Verifier, Store(me=Account(SECRET)), os.urandom)
        self.target.authenticate = self.node.authenticate = verifier
        for command in ("ls", "inq"):
            self.assertIn("iscsi://USER@HOST", self.bad(LocalError, command, self.url))
            url = self.url.replace("//", "//me%a-secret-that-is-none@")
            self.assertNotIn("USER@", self.bad(LoginRefused, command, url))

    def test_unreached(self) -> None:
        """Where nobody listens is told, without secrets."""
        self.endpoint.refuses = True
        for command in ("ls", "inq"):
            said = self.bad(LocalError, command, self.url.replace("//", "//me%hush@"))
            self.assertTrue(said.startswith("iscsi://me@192.0.2.1:3260: "), said)

    def test_json(self) -> None:
        """Every command prints one JSON value, before or behind whose name --json stands."""
        path, empty, errors = self.mktemp(), self.mktemp(), io.StringIO()
        open(empty, "w").close()
        commands = {
            "ls": (HOST,), "inq": (self.url,), "capacity": (self.url,), "ping": ("-c", "1", self.url),
            "reset": (self.url,), "read": ("--length", "512", self.url), "write": (self.url,),
            "copy": (self.url, path), "bench": ("--count", "1", self.url),
        }  # fmt: skip
        words = {word for word in WORDS["tool"][1] if not word.startswith("-")}
        self.assertEqual(words, set(commands))
        for command, arguments in commands.items():
            for line in (("--json", command), (command, "--json")):
                with open(empty) as source, open(path, "w+b") as sink:
                    self.patch(sys, "stdin", source)
                    self.patch(sys, "stdout", sink)
                    self.patch(sys, "stderr", errors)
                    said = self.good(*line, *arguments)
                if command == "read":
                    said = [errors.getvalue().splitlines()[-1]]
                (text,) = said
                self.assertIsInstance(json.loads(text), list if command == "ls" else dict)

    def test_wrong(self) -> None:
        """URLs that name no unit, users without secrets, offsets that there are not."""
        self.assertIn("names no unit", self.bad(LocalError, "inq", HOST))
        self.patch(os, "environ", {})
        self.assertIn("no secret for me", self.bad(LocalError, "inq", self.url.replace("//", "//me@")))
        for command in ("read", "write"):
            said = self.bad(LocalError, command, "--offset", str(DISK + 512), self.url)
            self.assertIn(f"has {DISK} bytes", said)
        error = self.assertRaises(SystemExit, self.quietly, [])
        self.assertEqual(error.code, 2)

    def test_secret(self) -> None:
        """What is wrong with a command line is said without the secrets in it."""
        url = "iscsi://me%hush@h/iqn.2001-04.com.example:disk/0"
        for arguments in ([url], ["ping", url, url], ["copy", url], ["read", f"--offset={url}", url]):
            self.assertRaises(SystemExit, self.quietly, arguments)
            said = sys.stderr.getvalue()  # type: ignore[attr-defined]
            self.assertIn("error: ", said)
            self.assertNotIn("hush", said)

    def quietly(self, arguments: list[str]) -> None:
        """Run the command with what it says on standard error thrown away."""
        self.patch(sys, "stderr", io.StringIO())
        self.addCleanup(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        main(arguments)

    def test_leave(self) -> None:
        """A session whose logout goes wrong keeps nobody from logging out of the others."""
        tool = Tool(self.clock, parser().parse_args(["ls", HOST]), endpoint=self.endpoint)
        tool._sessions = [self.session(), self.session()]
        first, logout = tool._sessions[0].connection, asking.logout

        def refuse(connection: Any, done: Any) -> None:
            if connection is first:
                done(LogoutRefused(numbers.CLEANUP_FAILED))
            else:
                logout(connection, done)

        self.patch(asking, "logout", refuse)
        self.fails(LogoutRefused, tool._leave())
        self.assertEqual([session.connection for session in tool._sessions], [None, None])
        self.assertIn(("loggedOut",), self.diary.entries)

    def test_secrets(self) -> None:
        """A secret may be in the URL, a file, the environment, or an auths file."""
        path, auths = self.mktemp(), self.mktemp()
        with open(path, "w") as file:
            file.write("from-the-file\n")
        with open(auths, "w") as file:
            file.write("me:chap:from-the-auths\n")
        cases: list[tuple[list[str], str, dict[str, str], str]] = [
            ([], "me%in-the-url@", {}, "in-the-url"),
            (["--secret-file", path], "me@", {}, "from-the-file"),
            ([], "me@", {"ISCSI_SECRET": "from-the-environment"}, "from-the-environment"),
            (["--auths", auths], "me@", {}, "from-the-auths"),
        ]
        for options, user, environment, secret in cases:
            self.patch(os, "environ", environment)
            made = Tool(self.clock, parser().parse_args([*options, "ls", HOST]))
            found = made._credentials(parseURL(f"iscsi://{user}192.0.2.1/"))
            assert found is not None
            self.assertEqual((found.user, found.secret), ("me", secret.encode()))
            self.assertEqual((found.targetUser, found.targetSecret), ("", b""))
        with open(auths, "w") as file:
            file.write("me:chap:from-the-auths:it:of-the-target\n")
        found = made._credentials(parseURL("iscsi://me@192.0.2.1/"))
        assert found is not None
        self.assertEqual((found.targetUser, found.targetSecret), ("it", b"of-the-target"))
        self.assertEqual(found.oneWay(), Credentials("me", b"from-the-auths"))
