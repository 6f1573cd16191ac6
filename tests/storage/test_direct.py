"""Tests for L{iscsi_twisted.storage.direct}."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from iscsi_twisted.errors import DeviceError, OutOfSpace, ReadError, WriteError
from iscsi_twisted.storage import FileExtent, direct
from iscsi_twisted.storage.direct import KEPT, PIECE, Buffers, Claims, DirectRange
from iscsi_twisted.storage.opening import Opening
from iscsi_twisted.storage.pace import Never
from tests.support.devicecontract import SIZE, DeviceContract
from tests.support.extents import ExtentCase


class DirectCase(SynchronousTestCase):
    """A range of a real file, past the page cache."""

    def open(self, start: int = 0, length: int | None = SIZE, **how: Any) -> DirectRange:
        """An open range."""
        how = {"readOnly": False, "create": True, "durable": False} | how
        opened = Opening(self.path, start, length, direct=True, **how).open()
        assert isinstance(opened, DirectRange)
        self.addCleanup(opened.close)
        return opened

    def setUp(self) -> None:
        self.path = self.mktemp()

    def content(self) -> bytes:
        """What is in the file."""
        with open(self.path, "rb") as file:
            return file.read()


class RangeTests(DirectCase):
    """L{DirectRange}."""

    def test_direct(self) -> None:
        """The system is asked for aligned pieces alone, from memory that begins at a page."""
        opened = self.open(start=4096)
        calls: list[tuple[int, int]] = []
        real = os.pwrite

        def pwrite(fd: int, data: memoryview, offset: int) -> int:
            calls.append((len(data), offset))
            return real(fd, data, offset)

        self.patch(direct.os, "pwrite", pwrite)
        opened.write(0, b"x" * 8192)
        self.assertEqual(calls, [(8192, 4096)])
        self.assertEqual(opened.read(bytearray(8192), 0, 0), b"x" * 8192)
        self.assertEqual(self.content()[4096:12288], b"x" * 8192)

    def test_pastTheCache(self) -> None:
        """The file is really opened so, and its alignment is one that the system takes."""
        opened = self.open()
        self.assertTrue(fcntl.fcntl(opened.fd, fcntl.F_GETFL) & os.O_DIRECT)
        self.assertIn(opened.alignment, (512, 1024, 2048, 4096))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 5 * 8192), st.integers(0, 5 * 8192), st.integers(0, 99))
    def test_anyPieces(self, one: int, other: int, seed: int) -> None:
        """So can any bytes of several pieces, and what is there already of a buffer is not read again."""
        size = 5 * 8192
        before = random.Random(seed).randbytes(size)
        with open(self.path, "wb") as file:
            file.write(before)
        first, end = sorted((one, other))
        data = random.Random(seed + 1).randbytes(end - first)
        patches = self.patch(direct, "PIECE", 8192), self.patch(direct, "BUFFERS", Buffers())
        opened = Opening(self.path, 0, size, readOnly=False, create=False, durable=False, direct=True).open()
        try:
            opened.write(first, data)
            model = before[:first] + data + before[end:]
            self.assertEqual(opened.read(bytearray(end - first), 0, first), data)
            self.assertEqual(opened.read(bytearray(size), 0, 0), model)
            half = len(data) // 2
            buffer = bytearray(b"!" * half + bytes(len(data) - half))
            self.assertEqual(opened.read(buffer, half, first), b"!" * half + data[half:])
        finally:
            opened.close()
            for patch in patches:
                patch.restore()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, SIZE), st.integers(0, SIZE), st.sampled_from([512, 1024, 4096]), st.integers(0, 99))
    def test_anyBytes(self, one: int, other: int, alignment: int, seed: int) -> None:
        """Any bytes can be written and read, and those around them stay."""
        before = random.Random(seed).randbytes(SIZE)
        with open(self.path, "wb") as file:
            file.write(before)
        opened = Opening(self.path, 0, SIZE, readOnly=False, create=False, durable=False, direct=True).open()
        try:
            opened.alignment = alignment
            first, end = sorted((one, other))
            opened.write(first, b"w" * (end - first))
            model = before[:first] + b"w" * (end - first) + before[end:]
            self.assertEqual(opened.read(bytearray(end - first), 0, first), model[first:end])
            self.assertEqual(opened.read(bytearray(SIZE), 0, 0), model)
        finally:
            opened.close()

    def test_pieces(self) -> None:
        """What is longer than a buffer goes piece by piece."""
        opened = self.open(length=4 * PIECE)
        data = random.Random(1).randbytes(3 * PIECE + 100)
        opened.write(700, data)
        self.assertEqual(opened.read(bytearray(len(data)), 0, 700), data)
        opened.write(700, b"y" * 1000, 400)
        self.assertEqual(self.content()[690:1710], bytes(10) + data[:400] + b"y" * 600 + data[1000:1010])

    def test_cutShort(self) -> None:
        """A file that has become shorter is an error at the first byte that is missing, and no more."""
        opened = self.open()
        opened.write(0, b"x" * SIZE)
        os.truncate(self.path, 3000)
        self.assertEqual(opened.read(bytearray(3000), 0, 0), b"x" * 3000)
        for offset in (0, 2999, 3000, 3100, 8192):
            error = self.assertRaises(ReadError, opened.read, bytearray(4096), 0, offset)
            self.assertEqual((error.offset, opened.short), (max(3000, offset), True))

    def test_noGap(self) -> None:
        """A write that would make zeros of bytes that are missing is refused; others make the file longer."""
        opened, block = self.open(), 4096
        opened.write(0, b"x" * SIZE)
        os.truncate(self.path, 3000)
        for offset, length in ((3500, 10), (2990, 10), (2990, 20), (block, block)):
            error = self.assertRaises(WriteError, opened.write, offset, bytes(length))
            self.assertIn("it was cut short", str(error))
            self.assertEqual((error.offset, os.stat(self.path).st_size), (offset, 3000))
        opened.write(100, b"z" * 10)
        opened.write(2048, b"y" * 2048)
        opened.write(block, b"y" * (SIZE - block))
        self.assertEqual((os.stat(self.path).st_size, opened.short), (SIZE, True))
        opened.write(0, b"x" * SIZE)
        self.assertFalse(opened.short)

    def test_badPlace(self) -> None:
        """A place that cannot be read is found; what is before it can be."""
        opened = self.open()
        bad = 5 * opened.alignment
        real = os.preadv

        def preadv(fd: int, buffers: Any, offset: int) -> int:
            if offset <= bad < offset + len(buffers[0]):
                raise OSError(errno.EIO, "bad")
            return real(fd, buffers, offset)

        self.patch(direct.os, "preadv", preadv)
        error = self.assertRaises(ReadError, opened.read, bytearray(SIZE), 0, 0)
        self.assertEqual(error.offset, bad)
        error = self.assertRaises(ReadError, opened.read, bytearray(10), 0, bad + 100)
        self.assertEqual(error.offset, bad + 100)
        opened.read(bytearray(bad), 0, 0)
        self.assertRaises(WriteError, opened.write, bad + 1, b"x")

    def test_badWrite(self) -> None:
        """A write that fails tells where; a part of a block is none."""
        opened = self.open()
        for answer, kind in ((OSError(errno.ENOSPC, "full"), OutOfSpace), (100, WriteError)):

            def pwrite(fd: int, data: memoryview, offset: int, answer: Any = answer) -> int:
                if isinstance(answer, OSError):
                    raise answer
                return int(answer)

            self.patch(direct.os, "pwrite", pwrite)
            error = self.assertRaises(kind, opened.write, 1000, b"x" * 5000)
            self.assertEqual(error.offset, 1000)

    def test_shortWrites(self) -> None:
        """What the system does not take at once it is given again."""
        opened = self.open()
        real = os.pwrite
        self.patch(direct.os, "pwrite", lambda fd, data, offset: real(fd, data[:4096], offset))
        data = random.Random(2).randbytes(20000)
        opened.write(4096, data)
        self.assertEqual(self.content()[4096:24096], data)

    def test_zero(self) -> None:
        """Zeroing and discarding work for any bytes."""
        opened = self.open()
        opened.write(0, b"x" * SIZE)
        opened.zero(100, 5000, False)
        opened.discard(10000, 3)
        model = bytearray(b"x" * SIZE)
        model[100:5100] = bytes(5000)
        model[10000:10003] = bytes(3)
        self.assertEqual(opened.read(bytearray(SIZE), 0, 0), model)

    def test_sideBySide(self) -> None:
        """Writes to the same block from several threads lose nothing of one another."""
        opened = self.open()
        with ThreadPoolExecutor(8) as pool:
            places = list(range(0, 4096, 8))
            random.Random(3).shuffle(places)
            list(pool.map(lambda place: opened.write(place, place.to_bytes(8, "big")), places))
        expected = b"".join(place.to_bytes(8, "big") for place in range(0, 4096, 8))
        self.assertEqual(opened.read(bytearray(4096), 0, 0), expected)


class OpeningTests(DirectCase):
    """What can be opened so."""

    def refused(self, **how: Any) -> str:
        """Why it cannot."""
        return str(self.assertRaises(DeviceError, self.open, **how))

    def test_crooked(self) -> None:
        """A range that begins or ends within a block is refused, and no file is left behind."""
        for how in ({"start": 100}, {"length": 5000}):
            self.assertIn("begins and ends at a multiple of 512 bytes", self.refused(**how))
            self.assertFalse(os.path.exists(self.path))
        attempt = Opening(self.path, 0, 5000, readOnly=False, create=True, durable=False, direct=True)
        with open(self.path, "wb") as file:
            file.truncate(5000)
        self.assertRaises(DeviceError, attempt.rehearse)

    def test_readOnly(self) -> None:
        """What is read only, or durable, works as well."""
        with open(self.path, "wb") as file:
            file.write(b"x" * SIZE)
        self.assertEqual(self.open(readOnly=True).read(bytearray(5), 0, 3), b"xxxxx")
        self.assertTrue(self.open(start=SIZE, durable=True).durable)

    def test_memory(self) -> None:
        """A file system in memory has no direct I/O; that is said when the file is opened."""
        if not os.access("/dev/shm", os.W_OK):
            raise SkipTest("no tmpfs")
        self.path = f"/dev/shm/direct.{os.getpid()}"
        self.assertIn("its file system has no direct I/O; leave direct=yes out", self.refused())
        self.assertFalse(os.path.exists(self.path))

    def test_refused(self) -> None:
        """So has one whose system call refuses it, or which tells of no alignment."""
        self.patch(direct, "_told", lambda fd: 0)
        self.assertIn("no direct I/O", self.refused())
        self.patch(direct.fcntl, "fcntl", self.invalid)
        self.assertIn("no direct I/O", self.refused())

    def invalid(self, *arguments: Any) -> int:
        """A system call that refuses."""
        raise OSError(errno.EINVAL, "no")

    def test_tried(self) -> None:
        """Where the system does not tell an alignment it is tried."""
        self.patch(direct, "_told", lambda fd: None)
        self.assertEqual(self.open().alignment, 512)
        real = os.preadv

        def coarse(fd: int, buffers: Any, offset: int) -> int:
            if offset % 2048 or len(buffers[0]) % 2048:
                raise OSError(errno.EINVAL, "no")
            return real(fd, buffers, offset)

        self.patch(direct.os, "preadv", coarse)
        self.assertEqual(self.open(start=SIZE).alignment, 2048)
        self.patch(direct.os, "preadv", self.invalid)
        self.assertIn("no direct I/O", self.refused(start=2 * SIZE))

    def test_nothingTold(self) -> None:
        """A C library without these calls tells nothing."""

        class Bare:
            pass

        self.patch(direct.ctypes, "CDLL", lambda name: Bare())
        direct._function.cache_clear()
        self.addCleanup(direct._function.cache_clear)
        self.assertEqual(self.open().alignment, 512)


class BuffersTests(SynchronousTestCase):
    """L{Buffers} and L{Claims}."""

    def test_kept(self) -> None:
        """Buffers begin at a page and are used again; no more than so many are kept."""
        buffers = Buffers()
        with buffers.one() as first:
            self.assertEqual(len(first), PIECE)
        self.assertEqual(len(buffers._free), 1)
        contexts = [buffers.one() for _ in range(KEPT + 5)]
        for context in contexts:
            context.__enter__()
        for context in contexts:
            context.__exit__(None, None, None)
        self.assertEqual(len(buffers._free), KEPT)
        self.assertIsInstance(buffers._free[0], mmap.mmap)

    def test_alone(self) -> None:
        """Who has a range alone is waited for by all that overlaps, and waits for all; others do not wait."""
        claims, entered, leave = Claims(), Event(), Event()
        order: list[str] = []

        def overlap() -> None:
            with claims.claim(5, 15, False):
                order.append("overlap")

        with claims.claim(0, 10, False), claims.claim(5, 20, False), claims.claim(30, 40, True):
            order.append("beside")
        with claims.claim(0, 10, True):
            thread = Thread(target=overlap)
            thread.start()
            with claims.claim(10, 20, True):
                order.append("next")
            order.append("alone")
        thread.join()
        self.assertEqual(order, ["beside", "next", "alone", "overlap"])
        self.assertEqual((claims._held, entered.is_set(), leave.is_set()), ([], False, False))


class DirectContract(DeviceContract, ExtentCase):
    """An extent past the page cache keeps the contract of all devices."""

    START = 4096

    def makeDevice(self) -> Any:
        self.path = self.mktemp()
        return self.makeExtent(direct=True)

    def settle(self) -> None:
        self.pool.run()


class ThreadTests(ExtentCase):
    """Where it works."""

    START = 4096

    def test_threads(self) -> None:
        """All of its I/O is in threads, whatever it has cost."""
        device = self.opened(direct=True)
        self.assertIsInstance(device._readPace, Never)
        self.assertIsInstance(device._writePace, Never)
        self.assertIsNone(self.outcome(device.write(7, b"abc")))
        self.assertEqual(self.outcome(device.read(6, 5)), b"\0abc\0")
        self.assertEqual(device.threaded, 2)

    def test_grown(self) -> None:
        """A file that has grown to the middle of a block is taken up to its last whole one."""
        with open(self.path, "wb") as file:
            file.truncate(self.START + 8192)
        device = self.opened(direct=True, length=None)
        os.truncate(self.path, self.START + 20000)
        self.assertTrue(device.measure())
        self.assertEqual(device.size, 20000 - 20000 % 512)
        self.assertFalse(device.measure())


class CoarseTests(TestCase):
    """A disk with sectors of 4096 bytes, where there may be one."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.truncate(4 << 20)
        command = ["losetup", "--find", "--show", "--sector-size", "4096", self.path]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SkipTest(f"no loop device can be had: {error}") from error
        self.node = done.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", self.node], check=True)

    def test_sectors(self) -> Any:
        """Blocks of 512 bytes are written into sectors of 4096 and lose nothing of them."""
        return ensureDeferred(self.exercise())

    async def exercise(self) -> None:
        """The test above."""
        from twisted.internet import reactor

        device: Any = FileExtent(self.node, 0, direct=True, reactor=reactor)  # type: ignore[arg-type]
        device.open(lambda: None)
        try:
            writes = [device.write(512 * number, bytes([number]) * 512) for number in range(64)]
            for write in writes:
                await write
            await device.flush()
            expected = b"".join(bytes([number]) * 512 for number in range(64))
            self.assertEqual(await device.read(0, 32768), expected)
            self.assertEqual(device._range.alignment, 4096)
        finally:
            await device.close()
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(32768), expected)
        wrong = FileExtent(self.node, 512, direct=True, reactor=reactor)  # type: ignore[arg-type]
        error = self.assertRaises(DeviceError, wrong.open, lambda: None)
        self.assertIn("multiple of 4096 bytes", str(error))
