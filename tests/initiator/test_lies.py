"""Disks that say of themselves what cannot be: they cost neither memory nor time without end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from iscsi_twisted.errors import NotReady, RemoteError, WriteProtected
from iscsi_twisted.initiator import LUN, lun
from iscsi_twisted.initiator.lun import LARGEST
from iscsi_twisted.initiator.parts import DEPTH
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdb import READ_CAPACITY_16, UNMAP, WRITE_SAME_16
from tests.support.attacks import AttackTestCase
from tests.support.scripted import (
    BLOCK,
    Answer,
    Asked,
    ScriptedConnection,
    ScriptedTarget,
    capacity,
    inquiry,
)

B0 = 0xB0
UNMAPS = 0x8000
"""READ CAPACITY: logical block provisioning is enabled."""


def limits(**fields: int) -> bytes:
    """VPD page B0h (SBC-3 6.6.4)."""
    page = bytearray((0, B0, 0, 60)).ljust(64, b"\0")
    page[8:12] = fields.get("transfer", 0).to_bytes(4, "big")
    page[20:24] = fields.get("unmap", 0).to_bytes(4, "big")
    page[36:44] = fields.get("same", 0).to_bytes(8, "big")
    return bytes(page)


def thin(blocks: int, page: bytes = b"", status: Answer | None = None, **commands: Any) -> ScriptedTarget:
    """A target with a thin disk, which has that page of vital product data for all."""

    def pages(connection: ScriptedConnection, asked: Asked) -> None:
        if asked.cdb[1] & 1 and page:
            connection.dataIn(asked, page)
        else:
            inquiry(connection, asked)

    def serviceAction(connection: ScriptedConnection, asked: Asked) -> None:
        if asked.cdb[1] == 0x12 and status is not None:
            status(connection, asked)
        else:
            connection.dataIn(asked, capacity(blocks, BLOCK, UNMAPS))

    def done(connection: ScriptedConnection, asked: Asked) -> None:
        connection.status(asked)

    return ScriptedTarget(
        INQUIRY=pages, READ_CAPACITY_16=serviceAction, UNMAP=done, WRITE_SAME_16=done, **commands
    )


class UnitTests(AttackTestCase):
    """Disks that say of themselves what cannot be."""

    def opening(self, target: ScriptedTarget) -> Deferred[None]:
        """Open its disk."""
        return LUN(self.session(target)).open()

    def test_blocks(self) -> None:
        """Blocks that no disk has are refused: they could be as large as our memory."""
        for size in (0, 1, 3, 100, 513, LARGEST + 8, 0xFFFFFFFF):
            target = ScriptedTarget(READ_CAPACITY_16=capacity(100, size))
            self.fails(NotReady, self.opening(target), f"blocks of {size} bytes")
        for size in (512, 520, 4096, 4160):
            self.now(self.opening(ScriptedTarget(READ_CAPACITY_16=capacity(100, size))))

    def test_size(self) -> None:
        """So are more bytes than there are."""
        target = ScriptedTarget(READ_CAPACITY_16=capacity(1 << 64, BLOCK))
        self.fails(NotReady, self.opening(target), "at most 9223372036854775807 can be used")
        self.fails(NotReady, self.opening(ScriptedTarget(READ_CAPACITY_16=b"")), "blocks of 0 bytes")

    def test_other(self) -> None:
        """A disk may become smaller or larger, but not one with other blocks."""
        target = ScriptedTarget()
        lun = self.lun(target)
        for blocks in (100, 3000):
            target.commands[READ_CAPACITY_16.opcode] = capacity(blocks, BLOCK)
            self.now(lun.relearn())
            self.assertEqual(lun.size, blocks * BLOCK)
        for blocks, size in ((3000, 4096), (1 << 60, BLOCK)):
            target.commands[READ_CAPACITY_16.opcode] = capacity(blocks, size)
            self.fails(NotReady, lun.relearn())
            self.assertEqual((lun.size, lun.blockSize), (3000 * BLOCK, BLOCK))

    def test_modes(self) -> None:
        """One without mode pages can be used."""
        target = ScriptedTarget(
            MODE_SENSE_6=lambda connection, asked: connection.check(
                asked, codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE
            )
        )
        lun = self.lun(target)
        self.assertEqual((lun.cached, lun.forced, lun.capabilities().readOnly), (False, False, False))

    def test_pages(self) -> None:
        """Another page than was asked for, and one that is shorter than it says, are none."""
        for page in (b"\0", bytes(64), bytes((0, B0, 0xFF, 0xFF)) + bytes(60), b"\0\x80\0\x3c" + bytes(60)):
            lun = self.lun(thin(100, page))
            self.fails(RemoteError, lun.page(B0), "page B0h")
            self.assertFalse(lun.capabilities().discard)
        lun = self.lun(thin(100, limits(unmap=1) + b"more"))
        self.assertEqual(self.now(lun.page(B0)), limits(unmap=1))

    def test_manyParts(self) -> None:
        """However small the parts that a unit takes, or however large it is, few are under way at once."""
        for change in (
            lambda lun: lun.discard(0, lun.size),
            lambda lun: lun.zero(0, lun.size),
            lambda lun: lun.zero(0, lun.size, True),
        ):
            target = thin(1 << 40, limits(unmap=1, same=1))
            lun = self.lun(target)
            most = 0

            def some(connection: ScriptedConnection, asked: Asked, lun: LUN = lun) -> None:
                nonlocal most
                assert lun.session.connection is not None
                most = max(most, len(lun.session.connection.commands))
                if len(connection.target.asked) < 2000:
                    connection.status(asked)

            target.commands |= {UNMAP.opcode: some, WRITE_SAME_16.opcode: some}
            waiting = change(lun)
            self.turn()
            self.assertNoResult(waiting)
            self.assertEqual(most, DEPTH)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            self.turn()
            assert lun.session.connection is not None
            self.assertEqual(lun.session.connection.commands, {})

    def test_allParts(self) -> None:
        """All are done, in the lengths that the unit takes."""
        target = thin(1000, limits(unmap=7, same=64))
        done: list[tuple[int, int]] = []

        def unmap(connection: ScriptedConnection, asked: Asked) -> None:
            done.append((int.from_bytes(asked.data[8:16], "big"), int.from_bytes(asked.data[16:20], "big")))
            connection.status(asked)

        def same(connection: ScriptedConnection, asked: Asked) -> None:
            done.append((int.from_bytes(asked.cdb[2:10], "big"), int.from_bytes(asked.cdb[10:14], "big")))
            connection.status(asked)

        target.commands |= {UNMAP.opcode: unmap, WRITE_SAME_16.opcode: same}
        lun = self.lun(target)
        for change, step in ((lun.discard, 7), (lun.zero, 64)):
            done.clear()
            waiting = change(3 * BLOCK, 900 * BLOCK)
            self.turn(200)
            self.successResultOf(waiting)
            self.assertEqual(sorted(done), [(at, min(step, 903 - at)) for at in range(3, 903, step)])

    def test_failedPart(self) -> None:
        """When one fails the others are not begun."""
        target = thin(1 << 30, limits(unmap=1))
        target.commands[UNMAP.opcode] = lambda connection, asked: connection.check(
            asked, codes.DATA_PROTECT, 0x2700
        )
        lun = self.lun(target)
        self.fails(WriteProtected, lun.discard(0, lun.size))
        self.assertLessEqual(target.asked.count(0x100 | UNMAP.opcode), 2 * DEPTH)

    def test_oneBlockEach(self) -> None:
        """A unit that tells of one block at a time is not asked for ever; what it has not told is stored."""

        def status(connection: ScriptedConnection, asked: Asked) -> None:
            lba = int.from_bytes(asked.cdb[2:10], "big")
            told = lba.to_bytes(8, "big") + (1).to_bytes(4, "big") + bytes((0 if lba > 2 else 1, 0, 0, 0))
            connection.dataIn(asked, (20).to_bytes(4, "big") + bytes(4) + told)

        self.patch(lun, "ROUNDS", 50)
        unit = self.lun(thin(1 << 40, limits(unmap=1), status))
        waiting = unit.allocated(0, unit.size)
        self.turn(150)
        self.assertEqual(self.successResultOf(waiting), [(3 * BLOCK, False), (unit.size - 3 * BLOCK, True)])

    def test_noProgress(self) -> None:
        """One that tells of nothing, of no blocks, or of others, has not answered."""
        head = (20).to_bytes(4, "big") + bytes(4)
        other = (7).to_bytes(8, "big") + (1).to_bytes(4, "big") + bytes(4)
        for told in (b"", bytes(8), head + bytes(16), head + other, b"\xff\xff\xff\xff" + bytes(12)):
            unit = self.lun(
                thin(1000, limits(unmap=1), lambda link, asked, told=told: link.dataIn(asked, told))
            )
            self.fails(RemoteError, unit.allocated(0, unit.size), "GET LBA STATUS tells of")
