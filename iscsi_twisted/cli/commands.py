# -*- test-case-name: tests.cli.test_tool -*-
"""What C{iscsi-twisted} does: it looks at targets and their units, and moves data between units and files."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final, NoReturn, TypeVar

from attrs import evolve
from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

from iscsi_twisted.cli.checkpoint import Checkpoint
from iscsi_twisted.cli.copying import Copy, Record
from iscsi_twisted.cli.ends import FileEnd, StreamEnd, UnitEnd, unitEnd
from iscsi_twisted.cli.progress import Progress
from iscsi_twisted.cli.running import Running, runCommand, sayAloud, unbroken
from iscsi_twisted.cli.streams import Stream
from iscsi_twisted.errors import DeviceError, ISCSIError, LocalError
from iscsi_twisted.initiator import LUN, URL, Credentials, Initiator, Session, parseURL
from iscsi_twisted.initiator.remote import parseUnit
from iscsi_twisted.initiator.url import SECRET, isURL
from iscsi_twisted.session.answers import LoginRefused
from iscsi_twisted.wire import numbers

COPYING: Final = ".copying"
"""What is added to the name of a file that is copied to, for the one that tells how far the copy has come."""


DISK: Final = 0
"""The peripheral device type of disks (SPC-4 6.6.2)."""

PING_TIME: Final = 10.0
"""Seconds in which a target has to answer a ping."""

T = TypeVar("T")


class Tool:
    """
    One command.

    @ivar options: of the command line.
    @ivar say: prints a line.
    """

    def __init__(
        self,
        reactor: Any,
        options: argparse.Namespace,
        say: Callable[[str], Any] = print,
        endpoint: Any = None,
    ) -> None:
        """@param endpoint: where all targets are, instead of what URLs say."""
        self.options, self.say, self._endpoint = options, say, endpoint
        self.running = Running("iscsi-twisted", options.json)
        self.initiator = Initiator(reactor, options.initiator_name)
        self._reactor = reactor
        self._threads: Callable[..., Any] = maybeDeferred
        if IReactorThreads.providedBy(reactor):
            self._threads = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        self._sessions: list[Session] = []
        self._files: list[FileEnd] = []

    async def run(self) -> None:
        """
        Run it, and log out of whatever was logged in to.

        @raise ISCSIError: if it fails.
        """
        commands: dict[str, Callable[[], Awaitable[None]]] = {
            "ls": self.ls, "inq": self.inq, "capacity": self.capacity, "ping": self.ping, "reset": self.reset,
            "read": self.read, "write": self.write, "copy": self.copy,
            "bench": self.bench,
        }  # fmt: skip
        try:
            await commands[self.options.command]()
        finally:
            for file in self._files:
                file.close()
            await self._leave()

    async def _leave(self) -> None:
        """Log out of every session; what the first refusal said is told at the end."""
        refused = None
        for session in self._sessions:
            try:
                await session.logout()
            except ISCSIError as error:
                refused = refused or error
        if refused is not None:
            raise refused

    def _tell(self, value: Any, lines: Sequence[str]) -> None:
        """Print a value, as JSON or as lines."""
        for line in [json.dumps(value)] if self.options.json else lines:
            self.say(line)

    # Targets and units

    async def ls(self) -> None:
        """Targets, and the units of those that let us in."""
        url = parseURL(self.options.url)
        credentials = self._credentials(url)
        offered = None if credentials is None else credentials.oneWay()
        discovery = self.initiator.discover(self._where(url), credentials=offered)
        found = await _reached(url, unbroken(self._reactor, discovery, lambda found: None))
        told: list[Any] = []
        lines: list[str] = []
        for target in found:
            lines.append(f"{target.name}  {' '.join(target.addresses)}")
            units, why = await self._units(url, target.name)
            lines += [
                f"  LUN {one['lun']}  {one['vendor']} {one['product']}  {_described(one)}" for one in units
            ]
            lines += [f"  {why}"] if why else []
            told.append({"name": target.name, "addresses": target.addresses, "units": units, "error": why})
        self._tell(told, lines)

    async def _units(self, url: URL, name: str) -> tuple[list[dict[str, Any]], str]:
        """The units of a target, or why they cannot be had."""
        try:
            session = await self._login(url, name)
            units = [await self._about(lun) for lun in await self.initiator.units(session)]
        except ISCSIError as error:
            if self.running.signal:
                raise
            return [], str(error)
        return units, ""

    async def _about(self, lun: LUN) -> dict[str, Any]:
        """A unit in a list.  One that is no disk, or has no size now, does not hide the others."""
        found = await lun.identify()
        size, why = None, ""
        if found.kind == DISK:
            try:
                await lun.open()
                size = lun.size
            except DeviceError as error:
                if self.running.signal:
                    raise
                why = str(error)
        return {
            "lun": lun.number, "type": found.kind, "bytes": size, "vendor": found.vendor,
            "product": found.product, "error": why,
        }  # fmt: skip

    async def inq(self) -> None:
        """Standard INQUIRY data."""
        lun = await self._unopened(self.options.url)
        found = await lun.identify()
        if not found.present:
            raise LocalError(f"there is no unit {lun}")
        value = {
            "type": found.kind, "removable": found.removable, "vendor": found.vendor,
            "product": found.product, "revision": found.revision,
        }  # fmt: skip
        self._tell(value, [f"{name}: {each}" for name, each in value.items()])

    async def capacity(self) -> None:
        """READ CAPACITY."""
        found = (await self._lun(self.options.url)).capacityData
        value = {
            "blocks": found.blocks, "blockSize": found.blockSize,
            "physicalBlockSize": found.physicalBlockSize,
            "bytes": found.blocks * found.blockSize, "thin": found.thin,
        }  # fmt: skip
        self._tell(value, [f"{name}: {each}" for name, each in value.items()])

    async def ping(self) -> None:
        """NOP-Outs."""
        url = parseUnit(self.options.url)
        session = await self._login(url, url.target)
        taken = []
        for _ in range(self.options.count):
            began = time.perf_counter()
            await session.ping(b"iscsi-twisted", PING_TIME)
            taken.append((time.perf_counter() - began) * 1e3)
        value = {
            "count": len(taken),
            "least": min(taken),
            "mean": sum(taken) / len(taken),
            "most": max(taken),
        }
        self._tell(value, ["{count} pings: {least:.3f} / {mean:.3f} / {most:.3f} ms".format(**value)])

    async def reset(self) -> None:
        """LOGICAL UNIT RESET."""
        # A unit that is stuck would answer nothing else.
        lun = await self._unopened(self.options.url)
        await lun.reset()
        self._tell({"reset": str(lun)}, [f"{lun} was reset"])

    async def bench(self) -> None:
        """Reads and writes, several at once."""
        from iscsi_twisted.cli.bench import Bench, Plan, lines

        options = self.options
        seconds = 10.0 if options.seconds is None and options.count is None else options.seconds
        sequential = options.order == "sequential"
        plan = Plan(options.size, options.depth, options.writes, sequential, seconds, options.count)
        plan.check(options.destroy)
        bench = Bench([await self._lun(url) for url in options.urls], plan, time.perf_counter, Random())
        await bench.run()
        told = bench.told()
        self._tell(told, lines(told))

    # Data

    async def read(self) -> None:
        """Bytes of a unit to standard output."""
        unit = await self._unitEnd(self.options.url)
        offset = self._offset(unit)
        length = unit.size - offset if self.options.length is None else self.options.length
        copy = Copy(unit, self._stream(sys.stdout, "standard output"), length, source=offset)
        await copy.run()
        if self.options.json:
            print(json.dumps({"bytes": copy.copied}), file=sys.stderr)

    async def write(self) -> None:
        """Standard input to a unit."""
        unit = await self._unitEnd(self.options.url)
        offset = self._offset(unit)
        stream, room = self._stream(sys.stdin, "standard input"), unit.size - offset
        copy = Copy(stream, unit, room, sink=offset)
        await copy.run()
        await unit.flush()
        if copy.copied == room and await stream.read(0, memoryview(bytearray(1))):
            raise LocalError(
                f"{unit} takes {room} bytes from byte {offset} on: they are written, but more came"
            )
        self._tell({"bytes": copy.copied}, [])

    def _offset(self, unit: UnitEnd) -> int:
        """
        Where to begin.

        @raise LocalError: if no block begins there, and nothing ends.
        """
        offset: int = self.options.offset
        if offset > unit.size:
            raise LocalError(f"--offset {offset}: {unit} has {unit.size} bytes, so right would be 0 to that")
        if offset % unit.blockSize:
            raise LocalError(
                f"--offset {offset} is no multiple of the unit's blocks of {unit.blockSize} bytes"
            )
        return offset

    async def copy(self) -> None:
        """Between units and files."""
        options = self.options
        self._checkEnds()
        source = await self._end(options.source, True)
        sink = await self._end(options.sink, False)
        size = source.size
        if isinstance(sink, UnitEnd) and sink.size < size:
            raise LocalError(f"{sink} has {sink.size} bytes, and {size} are to be copied")
        if size % sink.blockSize:
            raise LocalError(
                f"{source} has {size} bytes: no whole blocks of {sink.blockSize} bytes, as {sink} has them"
            )
        checkpoint = self._checkpoint(source, sink)
        done, record = 0, None
        if checkpoint is not None:
            done = checkpoint.load() if options.resume else 0
            if not done:
                checkpoint.remove()
            if done and sink.size < size:
                raise LocalError(f"{sink} has {sink.size} bytes, and had {size}: it was changed meanwhile")
            record = Record(checkpoint, self._threads, self._reactor.seconds, options.checkpoint)
        with self._progress(size, done) as progress:
            copy = Copy(source, sink, size, done=done, progress=progress, record=record)
            await copy.run()
        if options.flush or options.verify:
            await sink.flush()
        if options.verify:
            with self._progress(size, 0, "verified: ") as progress:
                await copy.verify(progress)
        if checkpoint is not None:
            checkpoint.remove()
        value = {
            "bytes": copy.copied, "holes": copy.skipped, "resumed": done, "verified": options.verify,
        }  # fmt: skip
        there = f", {done} of them were there" if done else ""
        self._tell(value, [f"{copy.copied} bytes copied, {copy.skipped} of them holes{there}"])

    def _progress(self, size: int, done: int, words: str = "") -> Progress:
        file = None if self.options.quiet else sys.stderr
        return Progress(size, done, file, self._reactor.seconds, words)

    def _checkEnds(self) -> None:
        """
        What can be found wrong before anything is opened.

        @raise LocalError: for it.
        """
        options = self.options
        ends = (options.source, options.sink)
        if not any(map(isURL, ends)):
            raise LocalError("neither end is a unit: cp copies files to files")
        if _sameUnit(*ends):
            raise LocalError("both ends are the same unit")
        if options.resume and options.state is None and isURL(options.sink):
            raise LocalError("--resume wants --state FILE if a unit is copied to")
        states = () if options.state is None else (options.state,)
        for one in states:
            if any(not isURL(end) and os.path.abspath(end) == os.path.abspath(one) for end in ends):
                raise LocalError(f"--state {one} is an end of the copy itself")

    def _checkpoint(self, source: FileEnd | UnitEnd, sink: FileEnd | UnitEnd) -> Checkpoint | None:
        """Where it is kept how far the copy has come."""
        path = self.options.state
        if path is None and isinstance(sink, FileEnd):
            path = sink.path + COPYING
        if path is None:
            return None
        told = sink.identity(False) | {"bytes": source.size}
        return Checkpoint(path, source.identity(True), told, source.size)

    async def _end(self, text: str, reading: bool) -> FileEnd | UnitEnd:
        """One end of a copy."""
        if isURL(text):
            return await self._unitEnd(text)
        file = FileEnd(text, reading, self._threads)
        file.eager = self.options.flush
        self._files.append(file)
        return file

    async def _unitEnd(self, text: str) -> UnitEnd:
        return await unitEnd(await self._lun(text))

    def _stream(self, file: Any, name: str) -> StreamEnd:
        if file is None:
            raise LocalError(f"{name} is closed")
        return StreamEnd(Stream(self._reactor, file.fileno()), name)

    # Logins

    async def _lun(self, text: str) -> LUN:
        lun = await self._unopened(text)
        await lun.open()
        return lun

    async def _unopened(self, text: str) -> LUN:
        """A unit of which nothing was asked yet."""
        url = parseUnit(text)
        return LUN(await self._login(url, url.target), url.lun or 0)

    async def _login(self, url: URL, target: str) -> Session:
        digest = self.options.digest
        login = self.initiator.login(
            self._where(url), target, credentials=self._credentials(url), headerDigest=digest,
            dataDigest=digest, lasting=True,
        )  # fmt: skip
        return await _reached(url, unbroken(self._reactor, login, self._sessions.append))

    def _where(self, url: URL) -> Any:
        if self._endpoint is not None:
            return self._endpoint
        return url.description()

    def _credentials(self, url: URL) -> Credentials | None:
        """
        The user's, whose secret comes from the URL, a file, the environment or the auths file, in this order.

        @raise LocalError: if there is a user without a secret.
        """
        if not url.user:
            return None
        options = self.options
        secret = url.secret.encode()
        if not secret and options.secret_file:
            with open(options.secret_file, "rb") as file:
                secret = file.read(4096).rstrip(b"\r\n")
        secret = secret or os.environ.get(SECRET, "").encode()
        if not secret and options.auths:
            # Most commands need none, and should not start later for it.
            from iscsi_twisted.config.auths import loadAuths

            entry = loadAuths(options.auths).find(url.user)
            if entry is not None and entry.secret:
                return Credentials(url.user, entry.secret, entry.targetUser, entry.targetSecret or b"")
        if not secret:
            raise LocalError(f"no secret for {url.user}: give it by --secret-file, {SECRET} or --auths")
        return Credentials(url.user, secret)


async def _reached(url: URL, entering: Awaitable[T]) -> T:
    """
    The result of what makes a connection.

    @raise LocalError: if none can be made, with where to; and if it has to be told who we are, and was not.
    """
    try:
        return await entering
    except LoginRefused as error:
        if url.user or error.status != numbers.AUTHENTICATION_FAILURE:
            raise
        raise LocalError(f"{error}, as no user was named: right would be iscsi://USER@HOST") from error
    except (ISCSIError, CancelledError):
        raise
    except Exception as error:  # what endpoints fail with has no common class
        where = evolve(url, target="", lun=None, secret="", words=())
        raise LocalError(f"{where}: {str(error) or type(error).__name__}") from error


def _sameUnit(source: str, sink: str) -> bool:
    """Whether two ends are one unit, as far as their URLs tell."""
    if not (isURL(source) and isURL(sink)):
        return False
    one, other = (parseUnit(end) for end in (source, sink))
    return (one.host, one.port, one.target, one.lun) == (other.host, other.port, other.target, other.lun)


def _described(unit: dict[str, Any]) -> str:
    """How large a listed unit is, or why it has no size."""
    if unit["bytes"] is not None:
        return _size(unit["bytes"])
    return unit["error"] or f"no disk (peripheral device type {unit['type']})"


def _size(count: int) -> str:
    """Bytes for people."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def run(options: argparse.Namespace) -> NoReturn:
    """Run the command, and end the process."""

    async def command(reactor: Any) -> None:
        tool = Tool(reactor, options, sayAloud)
        tool.running = running
        await tool.run()

    running = Running("iscsi-twisted", options.json)
    runCommand(running, command)
