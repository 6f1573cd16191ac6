# -*- test-case-name: tests.target.test_mirrors -*-
"""Mirrors of a service, and the files that keep their records."""

from __future__ import annotations

import os
from typing import Any

import attrs
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from iscsi_twisted.config.targets import parse
from iscsi_twisted.durable import replaceFile
from iscsi_twisted.errors import ConfigurationErrors
from iscsi_twisted.storage import Concatenation, MemoryDevice, Mirror, ReadOnly
from iscsi_twisted.storage.record import Record
from iscsi_twisted.storage.regions import Regions
from iscsi_twisted.target import TargetService, mirrors
from iscsi_twisted.target.assembly import plans
from iscsi_twisted.target.mirrors import FOLDER, FRESH, MirrorFiles, adopt
from iscsi_twisted.target.status import DeviceStatus

BASE = "iqn.2001-04.com.example"
TEXT = "extent0 {0}/a 0 1M\nextent1 {0}/b 0 1M\ndevice0 RAID1 extent0 extent1\ntarget0 device0 any\n"


def tell(event: LogEvent, seen: list[str]) -> None:
    """Keep what is said of records."""
    if event.get("event") in ("record", "kept", "notKept"):
        seen.append(formatEvent(event))


class ReactorCase(TestCase):
    """Tests with the real reactor, for its threads."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)


class FileTests(ReactorCase):
    """Tests of L{MirrorFiles}."""

    async def test_kept(self) -> None:
        """What was saved last is there at the next start; drafts and other files are not looked at."""
        files = MirrorFiles(self.directory, self.reactor)
        self.assertEqual(dict(files.contents()), {})
        for data in (b"one", b"two"):
            await files.save("0" * 16, lambda data=data: data)  # type: ignore[misc]
        files.stop()
        for name in ("0" * 16 + ".abc", "README"):
            with open(os.path.join(self.directory, FOLDER, name), "wb"):
                pass
        self.assertEqual(dict(files.contents()), {"0" * 16: b"two"})

    async def test_shared(self) -> None:
        """What was read is shared for a second by mirrors that start; what is written here is seen."""
        clock = Clock()
        files = MirrorFiles(self.directory, self.reactor, clock.seconds)
        regions = Regions(1)
        record = Record("0" * 16, 1, 512, 18, regions, regions, ())
        await files.save("0" * 16, record.encode)
        await files.save("1" * 16, record.encode)
        first = files.records()
        path = os.path.join(files.folder, "0" * 16)
        with open(path, "wb") as file:
            file.write(attrs.evolve(record, generation=2).encode())
        self.assertIs(files.records(), first)
        self.assertEqual(first.generation, 1)
        await files.save("1" * 16, attrs.evolve(record, generation=3).encode)
        self.assertEqual(files.records().generation, 3)
        with open(path, "wb") as file:
            file.write(attrs.evolve(record, generation=4).encode())
        clock.advance(FRESH + 1)
        self.assertEqual(files.records().generation, 4)
        del first
        with open(path, "wb") as file:
            file.write(attrs.evolve(record, generation=5).encode())
        self.assertEqual(files.records().generation, 5, "nobody held it")
        files.stop()

    async def test_halfKept(self) -> None:
        """What may be there although it could not be made durable is looked for."""
        files = MirrorFiles(self.directory, self.reactor, Clock().seconds)
        regions = Regions(1)
        record = Record("0" * 16, 1, 512, 18, regions, regions, ())
        await files.save(record.name, record.encode)
        first = files.records()

        def replace(path: str, data: bytes) -> None:
            replaceFile(path, data)
            raise OSError(5, "the directory cannot be made durable")

        self.patch(mirrors, "replaceFile", replace)
        saving: Any = files.save(record.name, attrs.evolve(record, generation=2).encode)
        await self.assertFailure(saving, OSError)
        self.assertEqual((first.generation, files.records().generation), (1, 2))
        files.stop()

    async def test_notKept(self) -> None:
        """That a record cannot be kept is told once, and that it can be again."""
        seen: list[str] = []
        self.addCleanup(globalLogPublisher.removeObserver, observer := lambda event: tell(event, seen))
        globalLogPublisher.addObserver(observer)
        files = MirrorFiles(self.directory, self.reactor)
        await files.save("0" * 16, bytes)
        os.rename(files.folder, files.folder + "-away")
        with open(files.folder, "wb"):
            pass
        for _ in range(2):
            await self.assertFailure(files.save("0" * 16, bytes), OSError)  # type: ignore[arg-type]
        os.unlink(files.folder)
        for _ in range(2):
            await files.save("0" * 16, bytes)
        files.stop()
        path = os.path.join(files.folder, "0" * 16)
        first, second = seen
        self.assertIn(f"{path}: cannot be kept: ", first)
        self.assertIn("; until it can, writes to its mirror fail where nothing was written lately", first)
        self.assertEqual(second, f"{path}: can be kept again")


class AdoptTests(SynchronousTestCase):
    """Tests of L{adopt}."""

    def test_deep(self) -> None:
        """Mirrors get a store wherever they are in a device."""
        files = MirrorFiles(self.mktemp(), Clock())
        inner = Mirror([MemoryDevice(512), MemoryDevice(512)])
        outer = Mirror([Concatenation([ReadOnly(inner)]), MemoryDevice(512)])
        adopt(outer, files, Clock())
        self.assertEqual([inner.store, outer.store], [files, files])


class ServedTests(ReactorCase):
    """Mirrors of a targets file."""

    def service(self, trusted: str = "") -> TargetService:
        """A service that serves a mirror."""
        service = TargetService(self.reactor, [], stateDirectory=os.path.join(self.directory, "state"))
        configuration = parse(TEXT.format(self.directory), "F", checkName=lambda name: None)
        for plan in plans(configuration, base=BASE, blockSize=512, reactor=self.reactor, trusted={trusted}):
            service.addPlan(plan)
        service.startService()
        return service

    def device(self, service: TargetService) -> DeviceStatus:
        """The mirror."""
        return service.status().targets[0].units[0].device

    async def inSync(self, service: TargetService) -> None:
        """Wait until all members are, and nothing is in doubt."""
        await service.whenReady()
        for _ in range(500):
            mirror = self.device(service).mirror
            assert mirror is not None
            if not mirror.degraded and not mirror.unverified:
                return
            await deferLater(self.reactor, 0.01)
        self.fail(f"it never settles: {mirror}")

    def mirror(self, service: TargetService) -> Any:
        """The device itself."""
        return next(iter(service.node.targets.values())).units[0].device  # type: ignore[attr-defined]

    async def test_life(self) -> None:
        """A new mirror is in sync at once; one that loses a file goes on, and gets it back."""
        service = self.service()
        await self.inSync(service)
        await self.mirror(service).write(0, b"first" * 100)
        await service.stopService()
        os.rename(os.path.join(self.directory, "b"), os.path.join(self.directory, "away"))

        service = self.service()
        await service.whenReady()
        status = self.device(service).mirror
        assert status is not None
        self.assertEqual([member.state for member in status.members], ["in sync", "missing"])
        self.assertIn("extent1", status.members[1].name)
        await self.mirror(service).write(512, b"again" * 100)
        await service.stopService()
        self.assertFalse(os.path.exists(os.path.join(self.directory, "b")))
        os.rename(os.path.join(self.directory, "away"), os.path.join(self.directory, "b"))

        service = self.service()
        await self.inSync(service)
        await service.stopService()
        with (
            open(os.path.join(self.directory, "a"), "rb") as one,
            open(os.path.join(self.directory, "b"), "rb") as two,
        ):
            data = one.read()
            self.assertEqual(data, two.read())
        self.assertEqual((data[:5], data[512:517]), (b"first", b"again"))

    async def test_stale(self) -> None:
        """A stale member alone is not served, unless it is forced."""
        service = self.service()
        await self.inSync(service)
        await service.stopService()
        for here, away in (("b", "away"), ("a", "lost")):
            os.rename(os.path.join(self.directory, here), os.path.join(self.directory, away))
            if here == "b":
                service = self.service()
                await service.whenReady()
                await self.mirror(service).write(512, b"again" * 100)
                await service.stopService()
        os.rename(os.path.join(self.directory, "away"), os.path.join(self.directory, "b"))
        service = self.service()
        with self.assertRaises(ConfigurationErrors) as caught:
            await service.whenReady()
        self.assertIn("F:3: device0: ", str(caught.exception))
        self.assertIn("--force-member", str(caught.exception))
        await service.stopService()

        service = self.service("extent1")
        await service.whenReady()
        status = self.device(service).mirror
        assert status is not None
        self.assertEqual([member.state for member in status.members], ["missing", "in sync"])
        self.assertEqual(bytes(self.mirror(service).read(512, 5)), bytes(5))
        await service.stopService()

    async def test_tidy(self) -> None:
        """
        Records that newer ones cover go.  Those of mirrors that are not served stay and are told,
        and damaged ones.
        """
        service = self.service()
        await self.inSync(service)
        await service.stopService()
        files = MirrorFiles(os.path.join(self.directory, "state"), self.reactor)
        ((name, data),) = files.contents()
        record = Record.decode(data)
        first, second = record.members
        stranger = attrs.evolve(second, fingerprint="another", title="extent9")
        for number, members in ((1, (first, second)), (2, (first, stranger))):
            older = attrs.evolve(record, name=str(number) * 16, generation=number - 9, members=members)
            await files.save(older.name, older.encode)
        await files.save("4" * 16, lambda: b"rubbish")
        files.stop()
        seen: list[str] = []
        self.addCleanup(globalLogPublisher.removeObserver, observer := lambda event: tell(event, seen))
        globalLogPublisher.addObserver(observer)
        service = self.service()
        await self.inSync(service)
        await service.stopService()
        self.assertEqual([each for each, _ in files.contents()], sorted(["2" * 16, "4" * 16, name]))
        self.assertEqual(len(seen), 3)
        one, two, four = (f"{files.folder}/{number * 16}: " for number in "124")
        self.assertIn(four + "cannot be used (it is damaged, or no record of a mirror), and", seen[0])
        self.assertIn(one + "removed, as a newer record knows all of it", seen[1])
        self.assertIn(two + f"is of a mirror of {first.title}, extent9 that is not served", seen[2])

    async def test_record(self) -> None:
        """The record is in the state directory, and small."""
        service = self.service()
        await self.inSync(service)
        await service.stopService()
        (found,) = MirrorFiles(os.path.join(self.directory, "state"), self.reactor).contents()
        self.assertEqual(len(Record.decode(found[1]).members), 2)
        self.assertLess(len(found[1]), 2000)
