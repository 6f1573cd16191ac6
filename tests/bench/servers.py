"""The targets that are measured, each a process of its own that listens on loopback alone."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 60.0
"""Seconds that a server may take to listen, or to end."""

_TICK = 1e6 / os.sysconf("SC_CLK_TCK")


class Unavailable(Exception):
    """A server that this machine does not have, or that does not start."""


def freePort() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Server:
    """
    A target with one disk.

    @cvar name: what it is called in the tables.
    @cvar grace: seconds to end in when it is asked to; then it is killed.
    @ivar iqn: the target's name.
    @ivar lun: the disk's number.
    """

    name = "?"
    iqn = "iqn.2001-04.com.example:disk"
    lun = 0
    grace = 10.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.disk = self.folder / "disk"
        self.port = freePort()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"iscsi://127.0.0.1:{self.port}/{self.iqn}/{self.lun}"

    def arguments(self) -> list[str]:
        """The command that serves C{disk} in the foreground."""
        raise NotImplementedError

    def configure(self) -> None:
        """What is left to do once it runs, before it serves."""

    def start(self) -> float:
        """
        Start it, and wait until it serves.

        @return: seconds that took.
        @raise Unavailable: if it cannot be had.
        """
        began = time.monotonic()
        log = open(self.folder / "log", "wb")  # noqa: SIM115  # the process keeps it
        try:
            self.process = subprocess.Popen(
                self.arguments(), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        except FileNotFoundError as error:
            raise Unavailable(str(error)) from error
        finally:
            log.close()
        self._await()
        self.configure()
        return time.monotonic() - began

    def _await(self) -> None:
        """Wait until its port answers."""
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        tail = (self.folder / "log").read_text("utf-8", "replace").strip().splitlines()[-3:]
        self.stop()
        raise Unavailable(f"{self.name} does not serve: {' / '.join(tail)}")

    def kill(self) -> None:
        """End it as if it had crashed."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the process that was started."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(self.grace)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def cpu(self) -> float:
        """CPU time that its whole process tree has used, user and system, in microseconds."""
        return sum(ticks(pid) for pid in self.tree()) * _TICK

    def rss(self) -> float:
        """Resident memory of the whole process tree, in MiB."""
        return sum(residentKiB(pid) for pid in self.tree()) / 1024

    def tree(self) -> Iterator[int]:
        """The process and all its descendants."""
        assert self.process is not None
        todo = [self.process.pid]
        while todo:
            pid = todo.pop()
            yield pid
            for thread in Path(f"/proc/{pid}/task").iterdir():
                # A thread may end while we look.
                with suppress(FileNotFoundError, ProcessLookupError):
                    todo += map(int, (thread / "children").read_text().split())


def ticks(pid: int) -> int:
    """Clock ticks that a process with all its threads, also those that ended, has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def residentKiB(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


class Ours(Server):
    """
    The target of this project.

    @cvar command: what starts it, up to its own options.
    """

    name = "iscsi_twisted"
    iqn = "iqn.1994-04.org.netbsd.iscsi-target:target0"
    command = [sys.executable, "-m", "twisted", "iscsi"]

    def arguments(self) -> list[str]:
        return [*self.command, "--disk", f"{self.disk}:{self.disk.stat().st_size}", *self.where()]

    def where(self) -> list[str]:
        """The options that keep it on loopback and out of the way of others."""
        return ["-l", f"tcp:{self.port}:interface=127.0.0.1", "--state", str(self.folder / "state")]


class OursOf(Ours):
    """The target of this project with a targets file."""

    def __init__(self, folder: Path, lines: str) -> None:
        super().__init__(folder)
        self.file = self.folder / "targets"
        self.file.write_text(lines)

    def arguments(self) -> list[str]:
        return [*self.command, "-f", str(self.file), *self.where()]


class SlowAndFast(Ours):
    """A program that composes the target of three disks: LUN 1 takes 100 ms for an operation, LUN 2 hangs."""

    name = "slow-and-fast"

    def arguments(self) -> list[str]:
        return [sys.executable, "-m", "tests.bench.slowlun", str(self.port), str(self.disk)]


class Tgt(Server):
    """The Linux SCSI target framework's daemon."""

    name = "tgt"
    lun = 1
    grace = 0.2  # it does not end while it has targets
    making = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.control = str(1024 + self.port % 30000)  # the name of a UNIX socket; at most 32767

    def arguments(self) -> list[str]:
        return ["tgtd", "-f", "-C", self.control, "--iscsi", f"portal=127.0.0.1:{self.port}"]

    def configure(self) -> None:
        self._tell(f"--op new --mode target -T {self.iqn}")
        self._tell(f"--op new --mode logicalunit --lun 1 -b {shlex.quote(str(self.disk))} {self.making}")
        self._tell("--op update --mode target --name DataDigest --value CRC32C,None")
        self._tell("--op bind --mode target -I ALL")

    def _tell(self, words: str, target: str = "--tid 1") -> None:
        arguments = ["tgtadm", "-C", self.control, "--lld", "iscsi", *shlex.split(f"{target} {words}")]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=PATIENCE)
        if done.returncode:
            raise Unavailable(f"tgtadm {words}: {done.stderr.strip()}")


_ISTGT = """\
[Global]
  NodeBase "iqn.2001-04.com.example"
  PidFile {folder}/pid
  AuthFile {folder}/auth
  MediaDirectory {folder}
  LogFacility "local7"
  Timeout 30
  NopInInterval 0
  DiscoveryAuthMethod None
  MaxSessions 64
  MaxConnections 4
  MaxR2T 32
  MaxOutstandingR2T 16
  DefaultTime2Wait 2
  DefaultTime2Retain 60
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  DataPDUInOrder Yes
  DataSequenceInOrder Yes
  ErrorRecoveryLevel 0
[UnitControl]
  AuthMethod None
  Portal UC1 127.0.0.1:{control}
  Netmask 127.0.0.1
[PortalGroup1]
  Portal DA1 127.0.0.1:{port}
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.1
[LogicalUnit1]
  TargetName disk
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  QueueDepth 64
"""


class Istgt(Server):
    """The iSCSI target of FreeBSD's ports, as Debian has it."""

    name = "istgt"

    def arguments(self) -> list[str]:
        path = self.folder / "istgt.conf"
        (self.folder / "auth").touch()
        head = _ISTGT.format(folder=self.folder, port=self.port, control=freePort())
        path.write_text(head + self.units())
        return ["istgt", "-D", "-c", str(path), "-p", str(self.folder / "pid")]

    def units(self) -> str:
        """The lines of its disks."""
        return f"  LUN0 Storage {self.disk} Auto\n"


def fill(path: Path, size: int) -> None:
    """Write a file that has no zeros or repeats to be clever about, and bring it into the page cache."""
    block = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for number in range(size >> 20):
            file.write(number.to_bytes(8, "big") + block[8:])
    shutil.copyfile(path, os.devnull)
