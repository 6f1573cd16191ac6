# -*- test-case-name: tests.cli.test_harness -*-
"""What the harness has a target do, section by section."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, TimeoutError

from iscsi_twisted.errors import ISCSIError
from iscsi_twisted.initiator import LUN
from iscsi_twisted.interfaces import Buffer

PAYLOADS: Final = (0, 4, 16, 64, 256, 1024, 4096)
"""Bytes that pings carry."""

GREETING: Final = b"Hello, world!"

PATIENCE: Final = 30.0
"""Seconds in which a ping has to be answered, where commands have no limit."""

NUDGE: Final = 0.002
SLOWER: Final = 1.25
"""Seconds after which a ping behind NOP-Outs without ping is repeated, and what they grow by each time."""

UNANSWERED: Final = 10
"""NOP-Outs without ping in a row, so that no more than these wait anywhere."""

AREA: Final = 8 << 20
"""Bytes from the beginning of the disk that are written and read."""

INTEGRITY: Final = 256 << 10
REQUESTS: Final = tuple(1 << shift for shift in range(13, 19))
"""Bytes of one request in the throughput tests: 8 KiB to 256 KiB."""


class Failed(ISCSIError):
    """A test has failed."""


@attrs.frozen
class Exercises:
    """
    The tests of one unit.

    @ivar lun: which; it is open.
    @ivar say: prints a line.
    @ivar seconds: the time.
    @ivar repeat: how often a latency is measured.
    @ivar destructive: what is on the disk need not be put back.
    @ivar again: opens the unit over another session, for what has to be put back when this one has ended.
    """

    lun: LUN
    say: Callable[[str], Any]
    seconds: Callable[[], float]
    repeat: int = 1000
    destructive: bool = False
    again: Callable[[], Awaitable[LUN]] | None = None

    async def all(self) -> None:
        """
        Run every test.

        @raise Failed: at the first that fails.
        """
        await self._section("INITIAL TESTS", self.initial)
        await self._section("iSCSI LATENCY TESTS", self.pings)
        await self._section("SCSI LATENCY TESTS", self.commands)
        if self.lun.inquiry.kind == 0:
            await self._section("DEVICE-SPECIFIC TESTS", self.disk)

    async def _section(self, name: str, tests: Callable[[], Awaitable[None]]) -> None:
        mark = f"{name}[{self.lun.session.wish.targetName}:{self.lun.number}]"
        self.say(f"##BEGIN {mark}##")
        try:
            await tests()
        except Failed:
            raise
        except Exception as error:
            raise Failed(f"{name}: {error}") from error
        self.say(f"##END {mark}##")

    async def initial(self) -> None:
        """A NOP-Out without a ping and with one, and who the unit is."""
        self.lun.session.nop(GREETING)
        await self._settle()
        self.say(f"NOP-Out of {len(GREETING)} bytes without ping PASSED")
        echo = await self._ping(GREETING)
        if echo != GREETING:
            raise Failed(f"a ping of {GREETING!r} came back as {echo!r}")
        self.say(f"NOP-Out of {len(GREETING)} bytes with ping PASSED")
        found = await self.lun.identify()
        self.say(
            f"INQUIRY PASSED (device type {found.kind:#04x}, {found.vendor} {found.product} {found.revision})"
        )

    def _ping(self, data: bytes) -> Deferred[bytes]:
        return self.lun.session.ping(data, self.lun.timeout)

    async def _settle(self) -> None:
        """
        Wait until the target has taken NOP-Outs that it does not answer, as its answer to a ping says.

        tgt looks at two of them each time that something more comes, so the ping is repeated.
        """
        left, pause = self.lun.timeout or PATIENCE, NUDGE
        while True:
            try:
                await self.lun.session.ping(b"", min(pause, left))
                return
            except TimeoutError:
                left -= pause
                pause *= SLOWER
                if left <= 0:
                    raise Failed("no answer to pings after NOP-Outs without ping") from None

    async def pings(self) -> None:
        """How long NOP-Outs take: first without ping, then with it."""
        for size in PAYLOADS:
            data = bytes(size)
            with self._timed() as passed:
                for number in range(1, self.repeat + 1):
                    self.lun.session.nop(data)
                    if number % UNANSWERED == 0 or number == self.repeat:
                        await self._settle()
            self._latency(f"NOP-Out with {size} bytes without ping", passed[0])
            await self._time(f"NOP-Out with {size} bytes with ping", partial(self._ping, data))

    async def commands(self) -> None:
        """How long commands without a medium take."""
        await self._time("TEST UNIT READY (0x00)", self.lun.ready)
        await self._time("INQUIRY (0x12)", self.lun.identify)

    async def disk(self) -> None:
        """A disk: its capacity, blocks, integrity, latency and throughput."""
        lun = self.lun
        capacity = await lun.capacity()
        if capacity.blocks < 2 or capacity.blockSize % 2:
            raise Failed(f"READ CAPACITY tells of {capacity.blocks} blocks of {capacity.blockSize} bytes")
        self.say(f"READ CAPACITY PASSED ({capacity.blocks} blocks of {capacity.blockSize} bytes)")
        if lun.capabilities().readOnly:
            self.say("the disk is read-only: what writes is left out")
            await self._time("READ (0x28)", lambda: lun.read(0, lun.blockSize))
            return
        area = min(AREA, lun.size - lun.size % REQUESTS[-1]) or lun.size
        if self.destructive:
            await self._write(area)
            return
        last = lun.size - lun.blockSize
        saved = [(0, await lun.read(0, area)), (last, await lun.read(last, lun.blockSize))]
        # Before anything is written: whoever ends this process by force has the file.
        kept = _keep(saved)
        try:
            self.say(f"what is on the disk is kept in {kept} as well, until it is there again")
            await self._write(area)
        except BaseException:
            # What has failed first is what is told.
            with contextlib.suppress(Failed):
                await self._putBack(saved, kept)
            raise
        await self._putBack(saved, kept)

    async def _putBack(self, saved: list[tuple[int, Buffer]], kept: str) -> None:
        """
        Write back what was on the disk; if this session has ended, over another one.

        @param kept: the file that has it, which is removed then.
        @raise Failed: if that cannot be done.
        """
        try:
            try:
                await _store(self.lun, saved)
            except (ISCSIError, TimeoutError):
                if self.again is None:
                    raise
                await _store(await self.again(), saved)
        except Exception as error:  # what endpoints fail with has no common class
            places = ", ".join(f"{len(data)} bytes from byte {place}" for place, data in saved)
            why = f"what was on the disk is not there again ({error}): {kept} has it, {places}"
            with contextlib.suppress(OSError):
                self.say(why)
            raise Failed(why) from error
        os.unlink(kept)
        self.say("what was on the disk is there again")

    async def _write(self, area: int) -> None:
        lun = self.lun
        await self._blocks()
        await self.integrity()
        block = bytes(lun.blockSize)
        await self._time("READ (0x28)", lambda: lun.read(0, lun.blockSize))
        await self._time("WRITE (0x2a)", lambda: lun.write(0, block))
        await self._time("READ CAPACITY (0x9e)", lun.capacity)
        for request in REQUESTS:
            if request <= area:
                await self._throughput(area, request)

    async def _blocks(self) -> None:
        """The first block and the last."""
        lun = self.lun
        for place in (0, lun.size - lun.blockSize):
            pattern = bytes((place // lun.blockSize + byte) & 255 for byte in range(lun.blockSize))
            await lun.write(place, pattern)
            await self._compare(place, pattern, f"block {place // lun.blockSize}")
        self.say("first and last block PASSED")

    async def integrity(self) -> None:
        """
        What is written is read, byte by byte.

        @raise Failed: if it is not, with the first byte that differs.
        """
        length = min(INTEGRITY, self.lun.size)
        step = max(1, length // 1024)
        data = b"".join(bytes((piece + 1 & 255,)) * step for piece in range(length // step))
        data = data.ljust(length, b"\0")
        await self.lun.write(0, data)
        await self._compare(0, data, "the integrity test")
        self.say(f"integrity of {length} bytes PASSED")

    async def _compare(self, place: int, data: bytes, what: str) -> None:
        found = bytes(await self.lun.read(place, len(data)))
        if found != data:
            wrong = next(at for at, (one, other) in enumerate(zip(found, data, strict=True)) if one != other)
            raise Failed(
                f"{what}: byte {place + wrong} is {found[wrong]:#04x}, where {data[wrong]:#04x} was written"
            )

    async def _throughput(self, area: int, request: int) -> None:
        lun, data = self.lun, bytes(request)
        count = area // request
        with self._timed() as passed:
            for number in range(count):
                await lun.write(number * request, data)
        self._rate("written", count, request, passed[0])
        with self._timed() as passed:
            for number in range(count):
                await lun.read(number * request, request)
        self._rate("read", count, request, passed[0])

    def _rate(self, done: str, count: int, request: int, passed: float) -> None:
        size = count * request / 1e6
        rate = size / max(passed, 1e-9)
        self.say(f"{size:.1f} MB {done} by {request >> 10} KiB: {passed:.3f} s, {rate:.1f} MB/s")

    async def _time(self, name: str, test: Callable[[], Awaitable[Any]]) -> None:
        with self._timed() as passed:
            for _ in range(self.repeat):
                await test()
        self._latency(name, passed[0])

    def _latency(self, name: str, passed: float) -> None:
        each = passed / self.repeat * 1e6
        self.say(f"{name}: {self.repeat} iterations, {passed:.3f} s, {each:.1f} us each")

    @contextlib.contextmanager
    def _timed(self) -> Iterator[list[float]]:
        """The seconds that something took, when it is over."""
        passed: list[float] = []
        began = self.seconds()
        yield passed
        passed.append(self.seconds() - began)


async def _store(lun: LUN, saved: list[tuple[int, Buffer]]) -> None:
    for place, data in saved:
        await lun.write(place, data)
    await lun.flush()


def _keep(saved: list[tuple[int, Buffer]]) -> str:
    """
    Write a new file with these bytes, one after the other.

    @return: its name.
    @raise Failed: if that cannot be done.
    """
    path = ""
    try:
        with tempfile.NamedTemporaryFile(prefix="iscsi-harness-", delete=False) as file:
            path = file.name
            for _, data in saved:
                file.write(data)
    except OSError as error:
        if path:
            os.unlink(path)
        raise Failed(
            f"there is no room in {tempfile.gettempdir()} for what is on the disk ({error.strerror});"
            " TMPDIR names another place, and with --destructive none is needed"
        ) from error
    return path
