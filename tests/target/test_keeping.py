"""Files that keep persistent reservations."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors
from iscsi_twisted.interfaces import IReservationStore
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.closure import Closure
from iscsi_twisted.scsi.overhaul import Plan
from iscsi_twisted.scsi.sense import conditionOf
from iscsi_twisted.scsi.untorn import record
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target.keeping import (
    FOLDER,
    MemoryFile,
    NotKept,
    PlanFile,
    ReservationFile,
    StateFile,
    WriteFile,
    finishWrite,
)
from tests.scsi.devices import MemoryDisk, MemoryStore
from tests.support.served import MemoryService
from tests.support.threads import StepPool, StepReactor
from tests.support.wire import TARGET, makeUnit


def unitOf(memory: MemoryService) -> Any:
    """The only unit of a service."""
    (unit,) = memory.service.node.targets[TARGET].units.values()
    return unit


class Reactor(StepReactor):
    """A reactor with a pool that works when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = StepPool()

    def getThreadPool(self) -> StepPool:
        """The pool."""
        return self.pool


class FileTests(SynchronousTestCase):
    """Tests of L{ReservationFile}."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        self.reactor = Reactor()
        self.file = ReservationFile(self.directory, "u", self.reactor)

    def test_saved(self) -> None:
        """What was saved is there for the next one; nothing leaves no file."""
        verifyObject(IReservationStore, self.file)
        self.assertEqual(self.file.load(), b"")
        for state in (b"one", b"two", b"", b""):
            saving = self.file.save(state)
            self.reactor.pool.run()
            self.successResultOf(saving)
            self.assertEqual(ReservationFile(self.directory, "u", self.reactor).load(), state)
        self.assertEqual(os.listdir(os.path.join(self.directory, FOLDER)), [])

    def test_order(self) -> None:
        """Of several at once the last one stays."""
        savings = [self.file.save(state) for state in (b"1", b"2", b"3")]
        self.assertEqual(len(self.reactor.pool.waiting), 1)
        self.reactor.pool.run()
        for saving in savings:
            self.successResultOf(saving)
        self.assertEqual(self.file.load(), b"3")

    def test_cancelled(self) -> None:
        """A thread that writes goes on though nobody waits for it; the next one comes after it."""
        first = self.file.save(b"1")
        first.cancel()
        second = self.file.save(b"2")
        self.assertEqual(len(self.reactor.pool.waiting), 1)
        self.assertNoResult(first)
        self.reactor.pool.run()
        for saving in (first, second):
            self.successResultOf(saving)
        self.assertEqual(self.file.load(), b"2")
        first.cancel()

    def test_notKept(self) -> None:
        """What cannot be kept is not the fault of the disk; it is logged once until it can be again."""
        with open(self.directory, "w"):
            pass
        for _ in range(2):
            with capturedLogs() as events:
                saving = self.file.save(b"1")
                self.reactor.pool.run()
                error = self.failureResultOf(saving, NotKept).value
            condition = conditionOf(error, True, 512)
            assert condition is not None
            self.assertEqual(
                (condition.key, condition.code), (codes.HARDWARE_ERROR, codes.INTERNAL_TARGET_FAILURE)
            )
        self.assertEqual(events, [])
        os.unlink(self.directory)
        with capturedLogs() as events:
            saving = self.file.save(b"2")
            self.reactor.pool.run()
            self.successResultOf(saving)
        self.assertEqual([event["event"] for event in events], ["kept"])

    def test_unreadable(self) -> None:
        """What cannot be read is told: nobody knows who is to be kept out."""
        os.makedirs(os.path.join(self.directory, FOLDER, "u"))
        self.assertRaises(ConfigurationError, self.file.load)

    def test_damaged(self) -> None:
        """A service starts over what is damaged, says so, and lets nobody in whom it might keep out."""
        service = MemoryService(MemoryDevice(512), stateDirectory=self.directory)
        service.service.startService()
        unit = unitOf(service)
        service.service.stopService()
        path = os.path.join(self.directory, FOLDER, unit.identity.naa.hex())
        os.makedirs(os.path.dirname(path))
        with open(path, "w") as file:
            file.write("nonsense")
        again = MemoryService(MemoryDevice(512), stateDirectory=self.directory)
        with capturedLogs() as events:
            again.service.startService()
        told = [formatEvent(event) for event in events if event.get("event") == "reservations"]
        self.assertTrue(told[0].startswith(f"{path}: damaged ("), told)
        self.assertTrue(unitOf(again).registrations.lost)


class MemoryTests(SynchronousTestCase):
    """Tests of L{MemoryFile}."""

    def test_damaged(self) -> None:
        """A service does not start over what is damaged, and says which file it is."""
        directory = self.mktemp()
        service = MemoryService(MemoryDevice(512), stateDirectory=directory)
        service.service.startService()
        unit = unitOf(service)
        service.service.stopService()
        path = os.path.join(directory, MemoryFile.folder, unit.identity.naa.hex())
        os.makedirs(os.path.dirname(path))
        with open(path, "w") as file:
            file.write("nonsense")
        again = MemoryService(MemoryDevice(512), stateDirectory=directory)
        error = self.assertRaises(ConfigurationErrors, again.service.startService)
        self.assertIn(f"{path}: damaged", str(error))


class UnfinishedTests(SynchronousTestCase):
    """Tests of L{finishWrite}: what a crash has left of a WRITE ATOMIC."""

    def setUp(self) -> None:
        self.device = MemoryDisk(4096)
        self.store = MemoryStore()
        self.unit = makeUnit(self.device)
        self.unit.opened()
        self.unit.keepWrites(self.store)

    def finish(self) -> None:
        """As the service does when the device is open."""
        self.successResultOf(ensureDeferred(finishWrite(self.unit)))

    def test_finished(self) -> None:
        """It is written, made durable, and forgotten."""
        self.store.states.append(record(512, b"x" * 512))
        self.finish()
        self.assertEqual(bytes(self.device.content[:1536]), bytes(512) + b"x" * 512 + bytes(512))
        self.assertEqual(self.device.calls, [("write", 512, 512), ("flush",)])
        self.assertEqual(self.store.load(), b"")

    def test_otherMedium(self) -> None:
        """Nothing is written to another file or disk than it was for."""
        self.unit.medium = "inode 7"
        self.store.states.append(record(512, b"x" * 512, "inode 8"))
        finishing = ensureDeferred(finishWrite(self.unit))
        self.assertIn("another file or disk", str(self.failureResultOf(finishing, ConfigurationError).value))
        self.assertEqual(self.device.calls, [])
        self.store.states.append(record(512, b"x" * 512, "inode 7"))
        self.finish()
        self.assertEqual(bytes(self.device.content[512:1024]), b"x" * 512)

    def test_nothing(self) -> None:
        """Where nothing was left nothing is written, nor where nothing was kept."""
        self.finish()
        self.unit.journal = None
        self.finish()
        self.assertEqual(self.device.calls, [])

    def test_sanitized(self) -> None:
        """Nothing is written to a disk that is being sanitized, or whose sanitize has failed."""
        self.unit.shut(Closure(codes.MEDIUM_ERROR, codes.SANITIZE_FAILED))
        self.store.states.append(record(512, b"x" * 512))
        self.finish()
        self.assertEqual((self.device.calls, self.store.load()), ([], b""))

    def test_wrong(self) -> None:
        """What is damaged, or for a larger disk, is told and not written."""
        for state, message in ((b"nonsense", "damaged"), (record(4096, b"x"), "larger")):
            self.store.states.append(state)
            finishing = ensureDeferred(finishWrite(self.unit))
            self.assertIn(message, str(self.failureResultOf(finishing, ConfigurationError).value))
        self.assertEqual(self.device.calls, [])

    def test_service(self) -> None:
        """A service does not serve a disk with a damaged record, and says which file it is."""
        for kind in (WriteFile, PlanFile):
            directory = self.mktemp()
            path = self.start(directory, kind)
            os.makedirs(os.path.dirname(path))
            with open(path, "w") as file:
                file.write("nonsense")
            again = MemoryService(MemoryDevice(512), stateDirectory=directory)
            error = self.assertRaises(ConfigurationErrors, again.service.startService)
            self.assertIn(f"{path}: damaged", str(error))

    def test_resumed(self) -> None:
        """A service goes on with a SANITIZE before anybody can use the disk, one piece in a turn."""
        directory = self.mktemp()
        path = self.start(directory, PlanFile)
        os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(Plan("sanitize", "write", b"x").encode())
        device = MemoryDevice(3 << 20)
        again = MemoryService(device, stateDirectory=directory)
        again.reactor.getThreadPool = StepPool
        again.service.startService()
        unit = unitOf(again)
        self.assertEqual(unit.closure.code if unit.closure else 0, codes.SANITIZE_IN_PROGRESS)

    def start(self, directory: str, kind: type[StateFile]) -> str:
        """Start and stop a service; the file of its only unit."""
        service = MemoryService(MemoryDevice(512), stateDirectory=directory)
        service.service.startService()
        unit = unitOf(service)
        service.service.stopService()
        return os.path.join(directory, kind.folder, unit.identity.naa.hex())
