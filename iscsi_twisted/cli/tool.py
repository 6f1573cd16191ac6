# -*- test-case-name: tests.cli.test_tool -*-
"""C{iscsi-twisted}: look at targets and their units, and move data between units and files."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from iscsi_twisted import __version__
from iscsi_twisted.cli.copying import Copy, FileEnd
from iscsi_twisted.config.auths import loadAuths
from iscsi_twisted.errors import ConfigurationErrors, ISCSIError, LocalError
from iscsi_twisted.initiator import LUN, URL, Credentials, Initiator, Session, parseURL

SECRET: Final = "ISCSI_SECRET"
"""The environment variable that a secret may be in."""

URLS: Final = "iscsi://[USER@]HOST[:PORT]"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="iscsi-twisted", description="Use iSCSI targets and their disks.")
    made.add_argument("-V", "--version", action="version", version=f"iscsi-twisted {__version__}")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("--initiator-name", default="", metavar="NAME", help="this initiator's iSCSI name")
    made.add_argument("--secret-file", metavar="FILE", help="a file that holds the user's secret alone")
    made.add_argument("--auths", metavar="FILE", help="an auths file that has the user's secret")
    made.add_argument("--digest", choices=("no", "prefer", "yes"), default="no", help="CRC32C digests (no)")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    unit = f"{URLS}/TARGET/LUN"
    for name, words, where in (
        ("ls", "targets of a portal, their addresses and units", URLS),
        ("inq", "what a unit says of itself", unit),
        ("capacity", "how large a unit is", unit),
        ("ping", "how long a target takes to answer", unit),
        ("reset", "abort all commands of a unit, everybody's", unit),
    ):
        one = commands.add_parser(name, help=words, description=words)
        one.add_argument("url", metavar="URL", help=where)
        if name == "ping":
            one.add_argument("-c", dest="count", type=int, default=5, help="how often (5)")
    for name, words in (
        ("read", "write a unit's bytes to standard output"),
        ("write", "write standard input to a unit"),
    ):
        one = commands.add_parser(name, help=words, description=words)
        one.add_argument("url", metavar="URL", help=unit)
        one.add_argument("--offset", type=int, default=0, help="of the first byte (0)")
        if name == "read":
            one.add_argument("--length", type=int, help="bytes; to the end if not given")
    words = "copy a unit to a file, a file to a unit, or a unit to a unit"
    one = commands.add_parser("copy", help=words, description=words)
    one.add_argument("source", metavar="FROM", help=f"{unit}, or a file")
    one.add_argument("sink", metavar="TO", help=f"{unit}, or a file")
    one.add_argument("--verify", action="store_true", help="read back and compare")
    one.add_argument("--quiet", action="store_true", help="no progress")
    return made


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
        self.initiator = Initiator(reactor, options.initiator_name)
        self._sessions: list[Session] = []

    async def run(self) -> None:
        """
        Run it, and log out of whatever was logged in to.

        @raise ISCSIError: if it fails.
        """
        commands: dict[str, Callable[[], Awaitable[None]]] = {
            "ls": self.ls, "inq": self.inq, "capacity": self.capacity, "ping": self.ping, "reset": self.reset,
            "read": self.read, "write": self.write, "copy": self.copy,
        }  # fmt: skip
        try:
            await commands[self.options.command]()
        finally:
            for session in self._sessions:
                await session.logout()

    def _tell(self, value: Any, lines: Sequence[str]) -> None:
        """Print a value, as JSON or as lines."""
        for line in [json.dumps(value)] if self.options.json else lines:
            self.say(line)

    # Targets and units

    async def ls(self) -> None:
        """Targets, and the units of those that let us in."""
        url = parseURL(self.options.url)
        found = await self.initiator.discover(self._where(url), credentials=self._credentials(url))
        told: list[Any] = []
        lines: list[str] = []
        for target in found:
            lines.append(f"{target.name}  {' '.join(target.addresses)}")
            units, why = await self._units(url, target.name)
            lines += [
                f"  LUN {one['lun']}  {one['vendor']} {one['product']}  {_size(one['bytes'])}"
                for one in units
            ]
            lines += [f"  {why}"] if why else []
            told.append({"name": target.name, "addresses": target.addresses, "units": units, "error": why})
        self._tell(told, lines)

    async def _units(self, url: URL, name: str) -> tuple[list[dict[str, Any]], str]:
        """The units of a target, or why they cannot be had."""
        try:
            session = await self._login(url, name)
            units = []
            for lun in await self.initiator.units(session):
                await lun.open()
                found = lun.inquiry
                units.append(
                    {"lun": lun.number, "bytes": lun.size, "vendor": found.vendor, "product": found.product}
                )
        except ISCSIError as error:
            return [], str(error)
        return units, ""

    async def inq(self) -> None:
        """Standard INQUIRY data."""
        lun = await self._lun(self.options.url)
        found = lun.inquiry
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
        url = self._unit(self.options.url)
        session = await self._login(url, url.target)
        taken = []
        for _ in range(max(1, self.options.count)):
            began = time.perf_counter()
            await session.ping(b"iscsi-twisted")
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
        lun = await self._lun(self.options.url)
        await lun.reset()
        self._tell({"reset": str(lun)}, [f"{lun} was reset"])

    # Data

    async def read(self) -> None:
        """Bytes of a unit to standard output."""
        lun = await self._lun(self.options.url)
        offset = self.options.offset
        length = lun.size - offset if self.options.length is None else self.options.length
        await Copy(lun, FileEnd(sys.stdout.buffer), length, source=offset).run()

    async def write(self) -> None:
        """Standard input to a unit."""
        lun = await self._lun(self.options.url)
        copy = Copy(FileEnd(sys.stdin.buffer), lun, lun.size - self.options.offset, sink=self.options.offset)
        await copy.run()
        await lun.flush()

    async def copy(self) -> None:
        """Between units and files."""
        source = await self._end(self.options.source, "rb")
        size = source.size
        sink = await self._end(self.options.sink, "r+b" if os.path.exists(self.options.sink) else "w+b")
        if isinstance(sink, LUN) and sink.size < size:
            raise LocalError(f"{sink} has {sink.size} bytes, and {size} are to be copied")
        copy = Copy(source, sink, size, progress=None if self.options.quiet else _progress(size))
        await copy.run()
        await sink.flush()
        if self.options.verify:
            await copy.verify()
        value = {"bytes": copy.copied, "holes": copy.skipped, "verified": self.options.verify}
        self._tell(value, [f"{copy.copied} bytes copied, {copy.skipped} of them holes"])

    async def _end(self, text: str, mode: str) -> Any:
        """One end of a copy."""
        if text.startswith("iscsi:"):
            return await self._lun(text)
        file: Any = open(text, mode)  # noqa: SIM115  # it ends with the process
        return FileEnd(file)

    # Logins

    def _unit(self, text: str) -> URL:
        url = parseURL(text)
        if not url.target or url.lun is None:
            raise LocalError(f"{url} names no unit; right would be {URLS}/TARGET/LUN")
        return url

    async def _lun(self, text: str) -> LUN:
        url = self._unit(text)
        lun = LUN(await self._login(url, url.target), url.lun or 0)
        await lun.open()
        return lun

    async def _login(self, url: URL, target: str) -> Session:
        digest = self.options.digest
        session = await self.initiator.login(
            self._where(url), target, credentials=self._credentials(url), headerDigest=digest,
            dataDigest=digest, lasting=True,
        )  # fmt: skip
        self._sessions.append(session)
        return session

    def _where(self, url: URL) -> Any:
        if self._endpoint is not None:
            return self._endpoint
        return f"[{url.host}]:{url.port}" if ":" in url.host else f"{url.host}:{url.port}"

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
            entry = loadAuths(options.auths).find(url.user)
            secret = entry.secret or b"" if entry is not None else b""
        if not secret:
            raise LocalError(f"no secret for {url.user}: give it by --secret-file, {SECRET} or --auths")
        return Credentials(url.user, secret)


def _size(count: int) -> str:
    """Bytes for people."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _progress(size: int) -> Callable[[int], None]:
    """A line on standard error that tells how far it has come, how fast, and how long it still takes."""
    began = last = time.perf_counter()
    shown = sys.stderr.isatty()

    def progress(done: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if shown and (now - last > 0.2 or done >= size):
            last = now
            rate = done / max(now - began, 1e-9)
            left = (size - done) / max(rate, 1e-9)
            bar = "#" * int(30 * done / max(size, 1))
            end = "\n" if done >= size else ""
            text = (
                f"\r[{bar:30}] {100 * done / max(size, 1):5.1f} %  {rate / 1e6:.0f} MB/s  {left:.0f} s left"
            )
            print(f"{text}\x1b[K", end=end, file=sys.stderr, flush=True)

    return progress


async def command(reactor: Any, options: argparse.Namespace) -> None:
    """
    Run one, and tell of failures in one line.

    @raise SystemExit: with status 1, if it fails.
    """
    try:
        await Tool(reactor, options, lambda line: print(line, flush=True)).run()
    except (ISCSIError, ConfigurationErrors, OSError) as error:
        print(f"iscsi-twisted: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:  # what endpoints fail with has no common class
        print(f"iscsi-twisted: {str(error) or type(error).__name__}", file=sys.stderr)
        raise SystemExit(1) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = parser().parse_args(arguments)
    react(lambda reactor: Deferred.fromCoroutine(command(reactor, options)))
