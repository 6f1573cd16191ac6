"""Tests for L{iscsi_twisted.target.upkeep}."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SkipTest, TestCase

from iscsi_twisted.config.targets import parse
from iscsi_twisted.errors import DeviceError, LocalError, OutOfSpace, ReadError, WriteError
from iscsi_twisted.initiator import LUN, Initiator
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.client import DataProtect, MediumError
from iscsi_twisted.session.names import complaint
from iscsi_twisted.storage import Delay, Faults, FileExtent, openrange
from iscsi_twisted.target import TargetService
from iscsi_twisted.target.assembly import Plan, plans

BASE = "iqn.2001-04.com.example"
NAME = f"{BASE}:target0"


class ServedTests(TestCase):
    """A service of a targets file, and an initiator beside it."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def path(self, name: str) -> str:
        """A file."""
        return os.path.join(self.directory, name)

    def make(self, name: str, size: int) -> str:
        """A file of so many bytes."""
        with open(self.path(name), "ab") as file:
            file.truncate(size)
        return self.path(name)

    def plans(self, text: str) -> list[Plan]:
        """What a targets file wants to be served."""
        configuration = parse(text, "targets", complaint, BASE, self.directory)
        return plans(configuration, base=BASE, blockSize=512, reactor=self.reactor)

    def serve(self, text: str) -> TargetService:
        """A service that runs."""
        service = TargetService(self.reactor, ["tcp:0:interface=127.0.0.1"])
        for plan in self.plans(text):
            service.addPlan(plan)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def login(self, service: TargetService, lun: int = 0) -> Any:
        """An open unit."""
        port = service.ports[0].getHost().port  # type: ignore[attr-defined]
        session = await Initiator(self.reactor).login(f"127.0.0.1:{port}", NAME)
        self.addCleanup(session.logout)
        unit = LUN(session, lun)
        await unit.open()
        return unit


class UpkeepTests(ServedTests):
    """What is done to devices while they serve."""

    async def test_grown(self) -> None:
        """A file that has grown is a larger disk once the service looks; initiators are told once."""
        self.make("a", 1 << 20)
        service = self.serve("extent0 a 0 size\ndevice0 DELAY extent0 seconds=0\ntarget0 device0 any\n")
        unit, told = await self.login(service), []
        unit.attention = lambda condition: told.append(condition.code)
        self.assertEqual((unit.size, service.rescan()), (1 << 20, []))
        self.make("a", 3 << 20)
        self.assertEqual(service.rescan(), [self.path("a")])
        await unit.ready()
        self.assertEqual(told, [0x2A09])
        self.assertEqual((await unit.capacity()).blocks, (3 << 20) // 512)

    async def test_changed(self) -> None:
        """When a service is told to serve the same again it looks as well, below filters too."""
        self.make("a", 1 << 20)
        text = "extent0 a 0 size\ndevice0 DELAY extent0 seconds=0\ntarget0 device0 any\n"
        service = self.serve(text)
        unit, told = await self.login(service), []
        unit.attention = lambda condition: told.append(condition.code)
        self.make("a", 2 << 20)
        await service.change(self.plans(text))
        await unit.ready()
        self.assertEqual((told, (await unit.capacity()).blocks), ([codes.CAPACITY_CHANGED], (2 << 20) // 512))

    async def test_shrunk(self) -> None:
        """What a file lost cannot be read, and is logged; the rest can, and what is written again."""
        self.make("a", 1 << 20)
        service = self.serve("extent0 a 0 size\ntarget0 extent0 any\n")
        unit = await self.login(service)
        os.truncate(self.path("a"), 1000)
        with capturedLogs() as events:
            self.assertEqual(service.rescan(), [])
            self.assertEqual(service.rescan(), [])
            with self.assertRaises(ReadError) as caught:
                await unit.read(0, 2048)
        shrunk = [event for event in events if event.get("event") == "shrunk"]
        self.assertEqual([(event["left"], event["size"]) for event in shrunk], [(1000, 1 << 20)])
        self.assertEqual((caught.exception.offset, bytes(await unit.read(0, 512))), (512, bytes(512)))
        with self.assertRaises(WriteError):
            await unit.write(1024, b"x" * 512)
        await unit.write(512, b"y" * 512)
        await unit.write(1024, b"x" * 512)
        self.assertEqual(bytes(await unit.read(512, 1024)), b"y" * 512 + b"x" * 512)

    async def test_displaced(self) -> None:
        """
        A file that is exchanged is served on, and that is told when the service looks, of all parts; opened
        anew it is the new one.
        """
        text = (
            "extent0 a 0 1M\nextent1 b 0 1M\ndevice0 RAID0 extent0 extent1\nextent2 c 0 1M\n"
            "device1 DELAY extent2 seconds=0\ntarget0 device0 device1 any\n"
        )
        service = self.serve(text)
        unit, told = await self.login(service), []
        unit.attention = lambda condition: told.append(condition.code)
        await unit.write(1 << 20, b"old!" * 128)
        for name in ("b", "c"):
            os.rename(self.make(name + ".new", 1 << 20), self.path(name))
        with capturedLogs() as events:
            self.assertEqual(service.rescan(), [])
            await service.change(self.plans(text))
        displaced = [event["path"] for event in events if event.get("event") == "displaced"]
        self.assertEqual(displaced, [self.path("b"), self.path("c")])
        first, second = service.status().targets[0].units
        why = "another file has that name now"
        self.assertEqual([part.displaced for part in first.device.members], ["", why])
        self.assertEqual([part.displaced for part in second.device.members], [why])
        self.assertEqual(bytes(await unit.read(1 << 20, 512)), b"old!" * 128)
        await service.reopen(NAME, 0)
        self.assertEqual(bytes(await unit.read(1 << 20, 512)), bytes(512))
        self.assertEqual(told, [codes.MEDIUM_MAY_HAVE_CHANGED])
        self.assertEqual(
            [part.displaced for part in service.status().targets[0].units[0].device.members], ["", ""]
        )

    async def test_unmeasured(self) -> None:
        """If what is new is in use elsewhere the disk stays as it is, and that is logged; others grow."""
        self.make("a", 1 << 20)
        self.make("b", 1 << 20)
        service = self.serve(
            "extent0 a 0 size\nextent1 b 0 size\nextent2 c 0 1M\ntarget0 extent0 extent1 extent2 any\n"
        )
        self.make("a", 2 << 20)
        self.make("b", 2 << 20)
        other = FileExtent(self.path("a"), 1 << 20, 512, reactor=self.reactor)
        other.open(lambda: None)
        self.addCleanup(other.close)
        with capturedLogs() as events:
            self.assertEqual(service.rescan(), [self.path("b")])
        self.assertIn("unmeasured", [event.get("event") for event in events])

    async def test_reopened(self) -> None:
        """After a failed flush a disk answers with errors until it is opened anew; its neighbour goes on."""
        service = self.serve("extent0 a 0 1M\nextent1 b 0 1M\ntarget0 extent0 extent1 any\n")
        unit, neighbour, told = await self.login(service), await self.login(service, 1), []
        unit.attention = lambda condition: told.append(condition.code)
        await unit.write(0, b"a" * 512)
        real, broken = os.fdatasync, [True]

        def fail(fd: int) -> None:
            if broken:
                broken.clear()
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        self.patch(openrange.os, "fdatasync", fail)
        for _ in range(2):
            with self.assertRaises(WriteError):
                await unit.flush()
            with self.assertRaises(ReadError) as read:
                await unit.read(2048, 512)
            with self.assertRaises(WriteError) as write:
                await unit.write(4096, b"x" * 512)
            self.assertEqual((read.exception.offset, write.exception.offset), (2048, 4096))
        await neighbour.write(0, b"b" * 512)
        await neighbour.flush()
        await service.reopen(NAME, 0)
        await unit.write(512, b"y" * 512)
        await unit.flush()
        self.assertEqual(bytes(await unit.read(0, 1024)), b"a" * 512 + b"y" * 512)
        self.assertEqual(told, [codes.MEDIUM_MAY_HAVE_CHANGED])

    async def test_reopenFails(self) -> None:
        """One that cannot be opened anew goes on as it was, and can be tried again."""
        service = self.serve("extent0 a 0 1M\ntarget0 extent0 any\n")
        unit = await self.login(service)
        await unit.write(0, b"a" * 512)
        os.rename(self.path("a"), self.path("b"))
        os.mkdir(self.path("a"))
        await self.assertFailure(service.reopen(NAME, 0), DeviceError)
        self.assertEqual(bytes(await unit.read(0, 512)), b"a" * 512)
        os.rmdir(self.path("a"))
        os.rename(self.path("b"), self.path("a"))
        await service.reopen(NAME, 0)
        self.assertEqual(bytes(await unit.read(0, 512)), b"a" * 512)

    async def test_unknown(self) -> None:
        """There is nothing to be done about what is not there."""
        service = self.serve("extent0 a 0 1M\ndevice0 DELAY extent0 seconds=0\ntarget0 device0 any\n")
        self.assertRaises(LocalError, service.reopen, NAME, 1)
        error = self.assertRaises(LocalError, service.device, "device1")
        self.assertEqual(str(error), "there is no device 'device1'; there are device0, extent0")

    async def test_switched(self) -> None:
        """Filters of a targets file are found by the names of their lines, and switched while they serve."""
        service = self.serve(
            "extent0 a 0 1M\ndevice0 FAULTS extent0 kind=error on=read active=no\n"
            "device1 DELAY device0 seconds=1000 active=no\ntarget0 device1 any\n"
        )
        faults, delay = service.device("device0"), service.device("device1")
        self.assertEqual((isinstance(faults, Faults), isinstance(delay, Delay)), (True, True))
        unit = await self.login(service)
        await unit.read(0, 512)
        faults.active = True
        with self.assertRaises(ReadError):
            await unit.read(0, 512)
        faults.active, delay.active = False, True
        reading: Deferred[Any] = unit.read(0, 512)
        await unit.ready()
        self.assertFalse(reading.called)
        delay.active = False
        await unit.read(0, 512)
        reading.cancel()
        await self.assertFailure(reading, CancelledError)
        self.assertEqual(service.device("extent0").path, self.path("a"))


class FullTests(ServedTests):
    """A disk on a file system that is full."""

    def setUp(self) -> None:
        super().setUp()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", self.directory]
        done = subprocess.run(mount, capture_output=True, check=False)
        if done.returncode:
            raise SkipTest(f"no file system can be mounted: {done.stderr.decode()}")
        self.addCleanup(subprocess.run, ["umount", self.directory], check=True)

    async def test_full(self) -> None:
        """Only the command that needs space fails, with the right sense; when space returns all is well."""
        self.make("other", 0)
        with open(self.path("other"), "wb") as file:
            file.write(bytes(512 << 10))
        service = self.serve("extent0 a 0 64M\ntarget0 extent0 any\n")
        unit = await self.login(service)
        await unit.write(0, b"a" * (256 << 10))
        for _ in range(2):
            with self.assertRaises(OutOfSpace):
                await unit.write(1 << 20, bytes([1]) * (512 << 10))
            with self.assertRaises(DataProtect) as caught:
                head = cdb.WRITE_10.encode(lba=8192, length=1024)
                await unit.execute(head, data=bytes([1]) * (512 << 10))
            self.assertEqual(caught.exception.code, codes.SPACE_ALLOCATION_FAILED)
            self.assertEqual(bytes(await unit.read(4096, 4096)), b"a" * 4096)
            await unit.write(0, b"b" * 4096)
            await unit.flush()
        os.unlink(self.path("other"))
        await unit.write(1 << 20, b"c" * (512 << 10))
        self.assertEqual(bytes(await unit.read(1 << 20, 4096)), b"c" * 4096)
        await service.stopService()


class DiskTests(FullTests):
    """A disk whose own storage is on a file system that is full."""

    def setUp(self) -> None:
        super().setUp()
        self.backing = self.make("backing", 8 << 20)
        command = ["losetup", "--find", "--show", self.backing]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SkipTest(f"no loop device can be had: {done.stderr}")
        self.node = done.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", self.node], check=True)

    async def test_full(self) -> None:
        """
        The disk takes writes into the cache, and cannot keep them: the flush fails, and all else after it,
        until there is room and the disk is opened anew.
        """
        service = self.serve(f"extent0 {self.node} 0 size\ntarget0 extent0 any\n")
        unit = await self.login(service)
        await unit.write(0, b"a" * (64 << 10))
        await unit.flush()
        await unit.write(1 << 20, b"b" * (3 << 20))
        with self.assertRaises(DeviceError):
            await unit.flush()
        for _ in range(2):
            with self.assertRaises(ReadError) as caught:
                await unit.read(4096, 512)
            self.assertEqual(caught.exception.offset, 4096)
            with self.assertRaises(DeviceError):
                await unit.flush()
        subprocess.run(["mount", "-o", "remount,size=32m", self.directory], check=True)
        await service.reopen(NAME, 0)
        self.assertEqual(bytes(await unit.read(0, 65536)), b"a" * 65536)
        await unit.write(1 << 20, b"c" * (3 << 20))
        await unit.flush()
        self.assertEqual(bytes(await unit.read(1 << 20, 512)), b"c" * 512)
        with open(self.backing, "rb") as file:
            file.seek(1 << 20)
            self.assertTrue(file.read(3 << 20) == b"c" * (3 << 20))
        await service.stopService()

    async def test_unreadable(self) -> None:
        """What a disk cannot read is a medium error at its own block, past the page cache and not."""
        for option in ("", " direct=yes"):
            service = self.serve(f"extent0 {self.node} 0 size{option}\ntarget0 extent0 any\n")
            unit = await self.login(service)
            await unit.write(0, b"a" * (64 << 10))
            await unit.flush()
            os.truncate(self.backing, 32 << 10)
            with open(self.node, "rb") as node:
                os.posix_fadvise(node.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with self.assertRaises(ReadError) as caught:
                await unit.read(16 << 10, 64 << 10)
            self.assertEqual(caught.exception.offset, 32 << 10)
            with self.assertRaises(MediumError) as sense:
                await unit.execute(cdb.READ_10.encode(lba=100, length=1), expected=512)
            self.assertEqual((sense.exception.code, sense.exception.information), (0x1100, 100))
            self.assertEqual(bytes(await unit.read(0, 32 << 10)), b"a" * (32 << 10))
            os.truncate(self.backing, 8 << 20)
            await service.stopService()

    async def test_space(self) -> None:
        """What is discarded on a disk is given back to what the disk lies on; zeros are written as none."""
        service = self.serve(f"extent0 {self.node} 0 size\ntarget0 extent0 any\n")
        unit = await self.login(service)
        await unit.write(0, b"a" * (512 << 10))
        await unit.flush()
        before = os.stat(self.backing).st_blocks
        await unit.discard(0, 256 << 10)
        await unit.flush()
        self.assertEqual(before - os.stat(self.backing).st_blocks, 512)
        await unit.zero(4 << 20, 2 << 20, True)
        await unit.flush()
        self.assertEqual(before - os.stat(self.backing).st_blocks, 512)
        self.assertEqual(bytes(await unit.read(256 << 10, 512)), b"a" * 512)
        await service.stopService()
