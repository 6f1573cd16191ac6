"""Targets that come back with another disk in the place of one."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.initiator import LUN
from iscsi_twisted.initiator.dialling import FIRST_DELAY, LOGIN_TIME
from iscsi_twisted.initiator.identity import AnotherUnit, named
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdb import INQUIRY, READ_10, WRITE_10
from tests.support.attacks import AttackTestCase
from tests.support.scripted import BLOCK, Answer, Asked, ScriptedConnection, ScriptedTarget, inquiry


def page(code: int, body: bytes) -> bytes:
    """A page of vital product data."""
    return bytes((0, code)) + len(body).to_bytes(2, "big") + body


def designator(text: bytes, association: int = 0) -> bytes:
    """One of page 83h, of the unit itself or another's."""
    return bytes((2, association << 4 | 1, 0, len(text))) + text


def disk(*pages: bytes) -> Answer:
    """What a disk with these pages answers to INQUIRY."""
    there = {one[1]: one for one in pages}

    def answer(connection: ScriptedConnection, asked: Asked) -> None:
        wanted = there.get(asked.cdb[2])
        if asked.cdb[1] & 1 and wanted is not None:
            connection.dataIn(asked, wanted)
        else:
            inquiry(connection, asked)

    return answer


ANNA = page(0x83, designator(b"anna    disk") + designator(b"port", 1))
BERT = page(0x83, designator(b"bert    disk") + designator(b"port", 1))


class IdentityTests(AttackTestCase):
    """A session that lasts, and the disk that it finds when it is there again."""

    def lost(self, before: Answer, after: Answer, **options: Any) -> tuple[ScriptedTarget, LUN]:
        """A disk that is another when the session has logged in once more."""
        target = ScriptedTarget(INQUIRY=before)
        lun = self.lun(target, lasting=True, ping=0, **options)
        target.commands[INQUIRY.opcode] = after
        target.asked.clear()
        self.endpoint.transports[-1].abortConnection()
        return target, lun

    def back(self) -> None:
        """The session connects again."""
        self.clock.advance(FIRST_DELAY)
        self.turn()

    def test_another(self) -> None:
        """Nothing is written to it, neither what waits nor what comes later; the session ends."""
        for before, after in (
            (disk(ANNA), disk(BERT)),
            (disk(ANNA), disk(page(0x83, designator(b"anna    disk") + designator(b"more")))),
            (disk(page(0x80, b"0001")), disk(page(0x80, b"0002"))),
        ):
            target, lun = self.lost(before, after)
            writing = lun.write(0, bytes(BLOCK))
            self.back()
            error = self.failureResultOf(writing, AnotherUnit).value
            self.assertIn("LUN 0", str(error))
            self.fails(Exception, lun.write(0, bytes(BLOCK)), "is another unit")
            self.assertNotIn(0x100 | WRITE_10.opcode, target.asked)
            self.clock.advance(1000)
            self.assertEqual(len(target.connections), 2)
            self.assertTrue(target.connections[1].lost)

    def test_same(self) -> None:
        """One that is the same, or does not say, is gone on with; its port may be another."""
        port = page(0x83, designator(b"port 2", 1) + designator(b"anna    disk"))
        for before, after in (
            (disk(ANNA), disk(ANNA)),
            (disk(ANNA), disk(port)),
            (disk(ANNA), disk()),
            (disk(ANNA), disk(page(0x83, b""))),
            (disk(ANNA), lambda connection, asked: connection.status(asked, codes.BUSY)),
            (disk(), disk(ANNA)),
        ):
            target, lun = self.lost(before, after)
            reading = lun.read(0, BLOCK)
            self.back()
            self.assertEqual(self.successResultOf(reading), bytes(BLOCK))
            self.assertEqual(lun.session.logins, 2)
            if lun.session.known:
                self.assertLess(
                    target.asked.index(0x100 | INQUIRY.opcode), target.asked.index(0x100 | READ_10.opcode)
                )

    def test_silent(self) -> None:
        """One that does not answer is not waited for without end; nor one that hangs up."""
        for after in (
            lambda connection, asked: None,
            lambda connection, asked: connection.transport.loseConnection(),
        ):
            target, lun = self.lost(disk(ANNA), after)
            reading = lun.read(0, BLOCK)
            self.back()
            target.commands[INQUIRY.opcode] = disk(ANNA)
            for _ in range(3):
                self.clock.advance(LOGIN_TIME)
                self.turn()
            self.assertEqual(self.successResultOf(reading), bytes(BLOCK))

    def test_abandoned(self) -> None:
        """Whoever gives up meanwhile is not kept."""
        target, lun = self.lost(disk(ANNA), lambda connection, asked: None)
        self.back()
        lun.session.abandon()
        self.clock.advance(LOGIN_TIME)
        self.turn()
        self.assertTrue(target.connections[1].lost)

    def test_once(self) -> None:
        """A session that does not last asks nobody."""
        target = ScriptedTarget(INQUIRY=disk(ANNA))
        self.assertEqual(self.lun(target).session.known, {})

    def test_named(self) -> None:
        """What is not the page, or says nothing, is no name."""
        for code in (0x80, 0x83):
            for data in (b"", b"\0", bytes(40), page(code ^ 1, b"abcdefgh"), page(code, b"")):
                self.assertEqual(named(code, data), b"")
        self.assertEqual(named(0x80, page(0x80, b" 12 \0")), b"12")
