"""What most tests of the SCSI room share: a disk on the bench, and ways to look at answers."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.interfaces import ILogicalUnit, ITask
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.identity import Identity
from iscsi_twisted.scsi.luns import Inventory
from tests.scsi.devices import THIN, MemoryDisk, MemoryStore
from tests.support.tasks import Nexus, Task, run

IDENTITY = Identity(
    vendor="EXAMPLE",
    product="DISK",
    revision="1.0",
    serial="0123456789abcdef",
    naa=bytes.fromhex("3000000012345678"),
    deviceName="iqn.2001-04.com.example:disk,L,0x3000000012345678",
)

BLOCKS = 64
BLOCK = 512


class DiskTests(SynchronousTestCase):
    """
    Tests of a small thin disk that a nexus knows already.

    @ivar unit: the disk.
    @ivar nexus: the nexus; nothing is pending for it.
    @ivar surprises: what the unit has reported.
    """

    def setUp(self) -> None:
        """Make the disk."""
        self.surprises: list[BaseException] = []
        self.nexus = Nexus()
        self.device = MemoryDisk(BLOCKS * BLOCK, THIN)
        self.unit = self.makeUnit(self.device)

    def makeUnit(self, device: Any, **options: Any) -> DiskUnit:
        """A unit that is ready."""
        unit = DiskUnit(device, identity=IDENTITY, report=self.surprise, **options)
        unit.keepWrites(MemoryStore())
        unit.remember(MemoryStore())
        unit.keepPlans(MemoryStore())
        unit.opened()
        unit.inventory = Inventory({0: unit})
        unit.nexusFound(self.nexus)
        unit.takeAttention(self.nexus)
        return unit

    def surprise(self, error: BaseException, task: ITask | None) -> None:
        """What the unit reports."""
        self.surprises.append(error)

    def command(
        self,
        command: Command,
        dataOut: bytes = b"",
        *,
        unit: ILogicalUnit | None = None,
        nexus: Nexus | None = None,
        late: bool = False,
        **fields: int,
    ) -> Task:
        """Execute one command."""
        task = Task(command.encode(**fields), nexus or self.nexus, dataOut, late=late)
        return run(unit or self.unit, task)

    def good(self, command: Command, dataOut: bytes = b"", **fields: Any) -> bytes:
        """Execute one command that ends once, and well; its Data-In."""
        task = self.command(command, dataOut, **fields)
        self.assertEqual((task.status, task.endings), (codes.GOOD, 1), task.sense.hex())
        return task.data

    def assertSense(
        self, task: Task, key: int, code: int, pointer: object = False, information: object = False
    ) -> None:
        """
        The task ended once, with this sense.

        @param pointer: the field pointer, if it matters.
        @param information: INFORMATION, if it matters.
        """
        self.assertEqual((task.status, task.endings), (codes.CHECK_CONDITION, 1))
        self.assertEqual((task.key, hex(task.code)), (key, hex(code)))
        if pointer is not False:
            self.assertEqual(task.pointer, pointer)
        if information is not False:
            self.assertEqual(task.information, information)

    def assertInvalidField(self, task: Task, byte: int, bit: int | None = None) -> None:
        """The task was refused because of a byte of its CDB."""
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_CDB, (True, byte, bit))
