# -*- test-case-name: tests.storage.test_openrange -*-
"""Tests for L{iscsi_twisted.storage.openrange}."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import NotReady, OutOfSpace, ReadError, WriteError, WriteProtected
from iscsi_twisted.storage import openrange
from iscsi_twisted.storage.fallocate import Abilities
from iscsi_twisted.storage.openrange import OpenRange, deviceError

START, SIZE = 1000, 60000


class OpenRangeTests(SynchronousTestCase):
    """L{OpenRange} on a range in the middle of a file."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(b"<" * START + b"-" * SIZE + b">" * 1000)
        self.range = self.opened()

    def opened(self, abilities: Abilities = Abilities(), durable: bool = False) -> OpenRange:  # noqa: B008
        """The range, closed when the test ends."""
        opened = OpenRange(
            self.path,
            os.open(self.path, os.O_RDWR),
            START,
            SIZE,
            isBlock=False,
            locked=True,
            durable=durable,
            abilities=abilities,
            rotational=False,
        )
        self.addCleanup(opened.close)
        return opened

    def test_space(self) -> None:
        """What a range has is counted in it alone; what it can have is what the volume has left."""
        volume = os.statvfs(self.path)
        space = self.range.space()
        self.assertEqual(space.used, SIZE)
        self.assertTrue(0 < space.available <= volume.f_blocks * volume.f_frsize)
        sparse = OpenRange(
            self.path, os.open(self.mktemp(), os.O_RDWR | os.O_CREAT), 0, 1 << 62, isBlock=False, locked=True,
            durable=False, abilities=Abilities(), rotational=False,
        )  # fmt: skip
        self.addCleanup(sparse.close)
        os.pwrite(sparse.fd, b"x" * 8192, 1 << 20)
        used, available = sparse.space()
        self.assertEqual(used, 512 * os.fstat(sparse.fd).st_blocks)
        self.assertTrue(0 < available <= volume.f_blocks * volume.f_frsize)
        sparse.start, sparse.size = 4096, 1 << 20
        self.assertEqual(sparse.space().used, 4096)

    def content(self) -> bytes:
        """What the file holds; its surroundings must be as they were."""
        with open(self.path, "rb") as file:
            whole = file.read()
        self.assertEqual(whole[:START] + whole[START + SIZE :], b"<" * START + b">" * 1000)
        return whole[START : START + SIZE]

    def raising(self, name: str, number: int, after: int = 0) -> list[int]:
        """
        Let a system call fail after it was made some times.

        @return: a list that grows by one with every call.
        """
        real, calls = getattr(os, name), list[int]()

        def call(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) > after:
                raise OSError(number, os.strerror(number))
            return real(*arguments)

        self.patch(openrange.os, name, call)
        return calls

    def inPieces(self, name: str, piece: int) -> None:
        """Let a system call transfer only so many bytes at a time."""
        real = getattr(os, name)

        def call(fd: int, data: Any, offset: int) -> Any:
            if name == "preadv":
                return real(
                    fd,
                    [data[0][:piece] if isinstance(data[0], memoryview) else memoryview(data[0])[:piece]],
                    offset,
                )
            return real(fd, data[:piece], offset)

        self.patch(openrange.os, name, call)

    def test_readWrite(self) -> None:
        """What is written is read again, and lies where it should."""
        self.range.write(10, b"hello")
        self.assertEqual(self.range.read(bytearray(7), 0, 9), b"-hello-")
        self.assertEqual(self.content()[9:16], b"-hello-")

    def test_readRest(self) -> None:
        """A buffer that is partly filled already is completed."""
        self.assertEqual(self.range.read(bytearray(b"abc\0\0"), 3, 0), b"abc--")
        self.assertEqual(self.range.read(bytearray(), 0, 0), b"")

    def test_writeRest(self) -> None:
        """Data that are partly written already are completed."""
        self.range.write(0, b"abcde", 3)
        self.assertEqual(self.content()[:6], b"---de-")

    def test_shortCalls(self) -> None:
        """Short reads and writes are repeated until all is done."""
        data = bytes(range(256)) * 4
        self.inPieces("pwrite", 100)
        self.range.write(5, memoryview(data))
        self.inPieces("preadv", 77)
        self.assertEqual(self.range.read(bytearray(1024), 0, 5), data)

    def test_cutShort(self) -> None:
        """Where the file ends inside of the range reading is an error: no zeros are made up."""
        os.truncate(self.path, START + 5000)
        error = self.assertRaises(ReadError, self.range.read, bytearray(2000), 0, 4000)
        self.assertEqual(error.offset, 5000)
        self.assertEqual(self.assertRaises(ReadError, self.range.read, bytearray(1), 0, 9000).offset, 9000)
        self.assertEqual(os.stat(self.path).st_size, START + 5000)

    def test_noGap(self) -> None:
        """In a file that was cut short nothing is written behind its end: what is missing would be zeros."""
        os.truncate(self.path, START + 5000)
        for change in (
            partial(self.range.write, 5001, b"x"),
            partial(self.range.zero, 6000, 10, True),
            partial(self.opened(Abilities(True, True)).zero, 6000, 10, False),
            partial(self.opened(Abilities(True, True)).discard, 5001, 10),
        ):
            error = self.assertRaises(WriteError, change)
            self.assertIn("ends at byte 5000 of 60000 of the extent: it was cut short", str(error))
            self.assertGreater(error.offset, 5000)
            self.assertEqual(os.stat(self.path).st_size, START + 5000)
        self.assertTrue(self.range.short)

    def test_writtenAgain(self) -> None:
        """What is missing may be written from the end on, and be zeroed so; then the file is whole again."""
        os.truncate(self.path, START + 5000)
        self.range.write(4990, b"x" * 20)
        self.opened(Abilities(True, True)).zero(5010, 1000, True)
        self.assertEqual(os.stat(self.path).st_size, START + 6010)
        self.range.write(6010, b"y" * (SIZE - 6010))
        self.assertTrue(self.range.short)
        self.range.write(0, b"z")
        self.assertFalse(self.range.short)
        with open(self.path, "rb") as file:
            file.seek(START)
            self.assertEqual(file.read(), b"z" + b"-" * 4989 + b"x" * 20 + bytes(1000) + b"y" * (SIZE - 6010))

    def test_lessThanNothing(self) -> None:
        """A file that ends before the range begins is one that has nothing of it."""
        os.truncate(self.path, 10)
        error = self.assertRaises(WriteError, self.range.write, 0, b"x")
        self.assertIn("ends at byte 0 of 60000", str(error))

    def test_diskCutShort(self) -> None:
        """A disk that has become smaller cannot be written behind its end, and that is no lack of space."""
        os.truncate(self.path, START + 5000)
        self.range.isBlock = True
        error = self.assertRaises(WriteError, self.range.write, 4990, b"x" * 20)
        self.assertEqual((type(error), error.offset), (WriteError, 5000))
        self.range.write(4990, b"x" * 10)

    def test_noHole(self) -> None:
        """What is missing is no hole either: whoever takes that for zeros would not even ask for it."""
        os.truncate(self.path, 0)
        os.truncate(self.path, START + 5000)
        self.assertEqual(self.range.allocated(0, SIZE), [(5000, False), (SIZE - 5000, True)])
        self.assertEqual(self.range.allocated(6000, 10), [(10, True)])
        self.assertEqual(self.range.allocated(10, 10), [(10, False)])

    def test_readError(self) -> None:
        """A bad spot is a read error that names its first byte and the file."""
        self.inPieces("preadv", 100)
        self.raising("preadv", errno.EIO, after=2)
        error = self.assertRaises(ReadError, self.range.read, bytearray(500), 0, 50)
        self.assertEqual(error.offset, 250)
        self.assertIn(self.path, str(error))

    def test_writeError(self) -> None:
        """So it is for writing."""
        self.inPieces("pwrite", 100)
        self.raising("pwrite", errno.EIO, after=2)
        self.assertEqual(self.assertRaises(WriteError, self.range.write, 50, b"x" * 500).offset, 250)

    def test_full(self) -> None:
        """A full file system, or a quota, is told as that."""
        for number in (errno.ENOSPC, errno.EDQUOT):
            self.raising("pwrite", number)
            self.assertEqual(self.assertRaises(OutOfSpace, self.range.write, 7, b"x").offset, 7)

    def test_kinds(self) -> None:
        """Other errors that mean something else are told as that."""
        for number, kind in (
            (errno.ENODEV, NotReady),
            (errno.ESTALE, NotReady),
            (errno.EROFS, WriteProtected),
            (errno.EIO, WriteError),
        ):
            error = deviceError(WriteError, "p", "write", OSError(number, "why"), None)
            self.assertIs(type(error), kind)
            self.assertEqual(str(error), "p: cannot write: why")
        self.assertIs(type(deviceError(ReadError, "p", "read", OSError(errno.ENOSPC, ""), 0)), ReadError)

    def test_modified(self) -> None:
        """When a file was changed last is durable before it is told, so that it never looks older later."""
        calls: list[int] = []
        self.patch(openrange.os, "fsync", calls.append)
        before = self.range.modified()
        os.utime(self.path, ns=(0, before[0] + 5))
        self.assertEqual((self.range.modified(), calls), ((before[0] + 5,), [self.range.fd] * 2))

    def test_witness(self) -> None:
        """A number is kept beside the content, each under its key, where the file system can do that."""
        kept: dict[str, bytes] = {}

        def find(fd: int, name: str) -> bytes:
            if name not in kept:
                raise OSError(errno.ENODATA, "none")
            return kept[name]

        self.patch(openrange.os, "setxattr", lambda fd, name, value: kept.update({name: value}))
        self.patch(openrange.os, "getxattr", find)
        self.range.keepWitness("a", 17)
        self.assertEqual((self.range.witness("a"), self.range.witness("b")), (17, 0))
        self.assertEqual(kept, {"user.iscsi_twisted.a": b"17"})
        kept["user.iscsi_twisted.b"] = b"none of ours"
        self.assertEqual(self.range.witness("b"), 0)
        self.raising("setxattr", errno.EOPNOTSUPP)
        self.range.keepWitness("a", 18)
        self.assertEqual(self.range.witness("a"), 17)

    def test_flushFailed(self) -> None:
        """Once a flush has failed every later one fails too: the system forgets which data it lost."""
        self.range.flush()
        calls = self.raising("fdatasync", errno.EIO)
        self.assertRaises(WriteError, self.range.flush)
        self.assertRaises(WriteError, self.range.flush)
        self.assertEqual(len(calls), 1)

    def test_writeZeros(self) -> None:
        """Where nothing cheaper works zeros are written."""
        self.range.zero(10, 20000, True)
        self.range.zero(30000, 10, False)
        self.assertEqual(
            self.content(), b"-" * 10 + bytes(20000) + b"-" * 9990 + bytes(10) + b"-" * (SIZE - 30010)
        )

    def test_zeroNothing(self) -> None:
        """Zeroing no bytes does nothing."""
        for name in ("punchHole", "zeroRange"):
            self.patch(openrange, name, self.fail)
        self.opened(Abilities(True, True)).zero(10, 0, True)
        self.content()

    def record(self) -> list[tuple[str, int, int]]:
        """Note punched holes and zeroed ranges instead of making them."""
        calls: list[tuple[str, int, int]] = []
        for name in ("punchHole", "zeroRange"):
            self.patch(
                openrange, name, lambda fd, offset, length, name=name: calls.append((name, offset, length))
            )
        return calls

    def test_cheapest(self) -> None:
        """Storage is given back only if that is wanted; it is kept otherwise."""
        calls = self.record()
        opened = self.opened(Abilities(True, True))
        opened.zero(0, 10, True)
        opened.zero(0, 10, False)
        opened.discard(5, 10)
        self.assertEqual(
            calls, [("punchHole", START, 10), ("zeroRange", START, 10), ("punchHole", START + 5, 10)]
        )

    def test_noPunching(self) -> None:
        """Without punching a zeroed range must do; without that zeros are written, never holes made."""
        calls = self.record()
        self.opened(Abilities(punch=False, zero=True)).zero(0, 10, True)
        self.opened(Abilities(punch=True, zero=False)).zero(0, 10, False)
        self.assertEqual(calls, [("zeroRange", START, 10)])
        self.assertEqual(self.content()[:11], bytes(10) + b"-")

    def test_refusedLater(self) -> None:
        """What the system refuses after all is done by writing, and is not tried again."""
        calls: list[int] = []

        def refuse(*arguments: object) -> None:
            calls.append(1)
            raise OSError(errno.EOPNOTSUPP, "no")

        self.patch(openrange, "punchHole", refuse)
        opened = self.opened(Abilities(punch=True, zero=False))
        opened.discard(0, 10)
        opened.discard(10, 10)
        self.assertEqual((len(calls), opened.abilities), (1, Abilities()))
        self.assertEqual(self.content()[:21], bytes(20) + b"-")

    def test_refusedBadly(self) -> None:
        """Any other error is told, with the offset."""

        def refuse(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        self.patch(openrange, "zeroRange", refuse)
        error = self.assertRaises(OutOfSpace, self.opened(Abilities(True, True)).zero, 77, 10, False)
        self.assertEqual(error.offset, 77)

    def test_durable(self) -> None:
        """Without a write cache a hole is made durable at once."""
        calls = self.raising("fdatasync", errno.EIO)
        self.record()
        self.opened(Abilities(True, True)).zero(0, 10, True)
        self.assertEqual(calls, [])
        self.assertRaises(WriteError, self.opened(Abilities(True, True), durable=True).zero, 0, 10, True)

    def test_allocated(self) -> None:
        """Holes and data are told apart, cut to what was asked for."""
        os.truncate(self.path, 0)
        os.truncate(self.path, START + SIZE)
        self.assertEqual(self.range.allocated(0, SIZE), [(SIZE, False)])
        block = os.stat(self.path).st_blksize
        first = -(-START // block) * block - START
        self.range.write(first, b"x" * block)
        self.assertEqual(
            self.range.allocated(0, SIZE), [(first, False), (block, True), (SIZE - first - block, False)]
        )
        self.assertEqual(self.range.allocated(first + 5, 10), [(10, True)])
        self.assertEqual(self.range.allocated(first + block - 1, 3), [(1, True), (2, False)])
        self.assertEqual(self.range.allocated(7, 0), [])

    def test_allocatedError(self) -> None:
        """An error while looking for holes is a read error."""
        self.raising("lseek", errno.EIO)
        self.assertRaises(ReadError, self.range.allocated, 0, 10)


class BlockRangeTests(SynchronousTestCase):
    """L{OpenRange} on a block device whose sectors have 4096 bytes, acted by a file."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(b"-" * 65536)
        self.patch(openrange, "sectorSize", lambda fd: 4096)
        self.calls: list[tuple[str, int, int]] = []
        for name in ("discardBlocks", "zeroBlocks"):
            self.patch(
                openrange,
                name,
                lambda fd, offset, length, name=name: self.calls.append((name, offset, length)),
            )

    def opened(self, start: int, abilities: Abilities) -> OpenRange:
        """A range of the device, closed when the test ends."""
        opened = OpenRange(
            self.path,
            os.open(self.path, os.O_RDWR),
            start,
            32768,
            isBlock=True,
            locked=True,
            durable=False,
            abilities=abilities,
            rotational=False,
        )
        self.addCleanup(opened.close)
        return opened

    def test_discard(self) -> None:
        """Only whole sectors of the device are discarded."""
        opened = self.opened(512, Abilities(True, True))
        opened.discard(0, 8192)
        opened.discard(3584, 4096)
        opened.discard(0, 4096)
        self.assertEqual(self.calls, [("discardBlocks", 4096, 4096)] * 2)

    def test_zero(self) -> None:
        """Whole sectors are zeroed by the device; zeros are written before and after them."""
        self.opened(512, Abilities(True, True)).zero(100, 10000, False)
        self.assertEqual(self.calls, [("zeroBlocks", 4096, 4096)])
        with open(self.path, "rb") as file:
            whole = file.read()
        expected = b"-" * 612 + bytes(3484) + b"-" * 4096 + bytes(10612 - 8192) + b"-" * (65536 - 10612)
        self.assertEqual(whole, expected)

    def test_zeroGivenBack(self) -> None:
        """Where storage may be given back a device is asked for holes first, which read as zeros."""
        self.patch(openrange, "punchHole", lambda fd, *where: self.calls.append(("punchHole", *where)))
        self.opened(0, Abilities(True, True)).zero(0, 8192, True)
        self.opened(0, Abilities(False, True)).zero(0, 8192, True)
        self.assertEqual(self.calls, [("punchHole", 0, 8192), ("zeroBlocks", 0, 8192)])

    def test_zeroNotGivenBack(self) -> None:
        """A device that makes no such holes is zeroed, and not asked again; another error is none of that."""
        numbers = [errno.EIO, errno.EOPNOTSUPP]

        def refuse(fd: int, *where: int) -> None:
            raise OSError(numbers.pop(0), "no")

        self.patch(openrange, "punchHole", refuse)
        opened = self.opened(0, Abilities(True, True))
        for _ in range(3):
            opened.zero(0, 8192, True)
        self.assertEqual((self.calls, numbers), ([("zeroBlocks", 0, 8192)] * 3, []))

    def test_zeroSmall(self) -> None:
        """Less than a sector is written."""
        self.opened(0, Abilities(True, True)).zero(100, 4000, True)
        self.assertEqual(self.calls, [])
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(4200), b"-" * 100 + bytes(4000) + b"-" * 100)

    def test_refused(self) -> None:
        """A device that cannot zero is written in full."""

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "no")

        self.patch(openrange, "zeroBlocks", refuse)
        self.opened(0, Abilities(True, True)).zero(4000, 8192, True)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(13000), b"-" * 4000 + bytes(8192) + b"-" * 808)
