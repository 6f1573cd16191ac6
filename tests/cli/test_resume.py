"""Copies that end before they are complete, and go on later."""

from __future__ import annotations

import json
import os
from typing import Any

from iscsi_twisted.cli.copying import PIECE
from iscsi_twisted.errors import LocalError, ReadError, WriteError
from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.storage import MemoryDevice
from tests.cli.test_tool import ToolCase

DISK = 20 * PIECE


class Failing(MemoryDevice):
    """
    A disk that fails from some place on.

    @ivar good: bytes that are good.
    @ivar reads: where it was read.
    @ivar flushes: how many bytes had been written at each flush.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.good = size
        self.reads: list[int] = []
        self.written = 0
        self.flushes: list[int] = []

    def capabilities(self) -> Capabilities:
        """Flushes do something."""
        return Capabilities(volatileCache=True)

    def read(self, offset: int, length: int) -> Any:
        """Until there."""
        self.reads.append(offset)
        if offset + length > self.good:
            raise ReadError("worn out", offset)
        return super().read(offset, length)

    def write(self, offset: int, data: Any) -> None:
        """Until there."""
        if offset + len(data) > self.good:
            raise WriteError("worn out", offset)
        self.written = max(self.written, offset + len(data))
        super().write(offset, data)

    def flush(self) -> None:
        """Nothing has to be done."""
        self.flushes.append(self.written)


class ResumeTests(ToolCase):
    """C{copy --resume}."""

    def setUp(self) -> None:
        super().setUp()
        self.content = os.urandom(DISK)
        self.device.write(0, self.content)
        self.path = self.mktemp()
        self.state = f"{self.path}.copying"

    def makeDevice(self) -> Any:
        """Twenty pieces."""
        return Failing(DISK)

    def half(self, kind: type[BaseException] = ReadError, *arguments: str) -> int:
        """Copy what is good of the disk to the file; the bytes that are said to be there."""
        self.device.good = 12 * PIECE
        self.bad(kind, "copy", "--checkpoint", "0", self.url, self.path, *arguments)
        self.device.good = DISK
        self.device.reads.clear()
        return self.done(self.state)

    def done(self, path: str) -> int:
        """What a state file says."""
        with open(path, "rb") as file:
            done: int = json.load(file)["done"]
        return done

    def test_goesOn(self) -> None:
        """What is there is not read again; at the end the file is equal, and nothing is left of the state."""
        done = self.half()
        self.assertGreater(done, 0)
        said = self.good("copy", "--resume", "--json", self.url, self.path)
        self.assertEqual(json.loads(said[0])["resumed"], done)
        self.assertEqual(min(self.device.reads), done)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), self.content)
        self.assertFalse(os.path.exists(self.state))

    def test_behind(self) -> None:
        """What lies behind the bytes that are said to be there does not survive."""
        done = self.half()
        with open(self.path, "r+b") as file:
            file.seek(done)
            file.write(b"x" * (DISK - done))
        self.device.write(DISK - 2 * PIECE, bytes(2 * PIECE))
        self.good("copy", "--resume", self.url, self.path)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), self.content[: -2 * PIECE] + bytes(2 * PIECE))

    def test_again(self) -> None:
        """Without --resume all is copied, and what is left of an earlier state is gone first."""
        self.half()
        self.device.good = 0
        self.bad(ReadError, "copy", self.url, self.path)
        self.assertFalse(os.path.exists(self.state))
        self.device.good = DISK
        self.good("copy", self.url, self.path)
        self.assertEqual(min(self.device.reads), 0)

    def test_nothing(self) -> None:
        """With --resume and nothing to go on with, all is copied."""
        self.good("copy", "--resume", self.url, self.path)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), self.content)

    def test_toUnit(self) -> None:
        """To a unit, the state is where --state says; it is never ahead of what was flushed."""
        with open(self.path, "wb") as file:
            file.write(os.urandom(DISK))
        state = self.mktemp()
        self.device.good = 12 * PIECE
        self.device.written = 0
        copy = ("copy", "--checkpoint", "0", "--state", state, self.path, self.url)
        self.bad(WriteError, *copy)
        self.assertLessEqual(self.done(state), max(self.device.flushes))
        self.device.good = DISK
        self.good(*copy, "--resume", "--verify")
        self.assertFalse(os.path.exists(state))
        self.assertIn("--resume wants --state", self.bad(LocalError, "copy", "--resume", self.path, self.url))

    def test_others(self) -> None:
        """A state of other ends is refused, with what is different."""
        self.half()
        other = self.url[:-1] + "1"
        self.assertIn("from: ", self.bad(LocalError, "copy", "--resume", other, self.path))
        os.rename(self.path, self.path + ".old")
        self.assertIn("inode was", self.bad(LocalError, "copy", "--resume", self.url, self.path))
        self.assertTrue(os.path.exists(self.state))

    def test_cut(self) -> None:
        """A file that was cut meanwhile is not gone on with."""
        self.half()
        os.truncate(self.path, PIECE)
        self.assertIn("changed meanwhile", self.bad(LocalError, "copy", "--resume", self.url, self.path))

    def test_changed(self) -> None:
        """A file that is read, and was changed meanwhile, is not gone on with."""
        with open(self.path, "wb") as file:
            file.write(os.urandom(DISK))
        copy = ("copy", "--checkpoint", "0", "--state", self.mktemp(), self.path, self.url)
        self.device.good = 12 * PIECE
        self.bad(WriteError, *copy)
        os.utime(self.path, ns=(0, 0))
        self.device.good = DISK
        self.assertIn("changed was", self.bad(LocalError, *copy, "--resume"))

    def test_ends(self) -> None:
        """Two files, and a state that is an end of the copy, are refused."""
        self.assertIn("neither end", self.bad(LocalError, "copy", "/dev/null", self.path))
        wrong = ("copy", "--state", self.path, self.url, self.path)
        self.assertIn("is an end", self.bad(LocalError, *wrong))
