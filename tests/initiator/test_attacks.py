"""Targets that answer what they should not: a clear error, little memory, and no hang."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import NotReady, RemoteError, WriteProtected
from iscsi_twisted.initiator import LUN, Initiator, MemoryEndpoint, Session, lun
from iscsi_twisted.initiator.lun import LARGEST
from iscsi_twisted.initiator.node import LUNS, collect, numbersOf
from iscsi_twisted.initiator.parts import DEPTH
from iscsi_twisted.initiator.session import FIRST_DELAY
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.cdb import READ_CAPACITY_16, UNMAP, WRITE_SAME_16
from iscsi_twisted.wire import numbers
from tests.support.scripted import (
    BLOCK,
    Answer,
    Asked,
    ScriptedConnection,
    ScriptedTarget,
    capacity,
    inquiry,
)
from tests.support.wire import TARGET

T = TypeVar("T")


class AttackTestCase(SynchronousTestCase):
    """
    An initiator, and a target that a test makes.

    @ivar clock: when it advances, what was sent arrives.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.initiator = Initiator(self.clock, "iqn.2001-04.com.example:initiator")

    def turn(self, turns: int = 60) -> None:
        """Let what was sent arrive, and be answered."""
        for _ in range(turns):
            self.clock.advance(0)

    def login(self, target: ScriptedTarget, **options: Any) -> Deferred[Session]:
        """A login at a target."""
        self.endpoint = MemoryEndpoint(self.clock, target)
        made = Deferred.fromCoroutine(self.initiator.login(self.endpoint, TARGET, **options))
        self.turn()
        return made

    def session(self, target: ScriptedTarget, **options: Any) -> Session:
        """A session with it."""
        return self.successResultOf(self.login(target, **options))

    def lun(self, target: ScriptedTarget, **options: Any) -> LUN:
        """Its disk, open."""
        lun = LUN(self.session(target, **options))
        self.now(lun.open())
        return lun

    def now(self, waiting: Any) -> Any:
        """The result of what needs no time to pass."""
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        self.turn()
        return self.successResultOf(deferred)

    def fails(self, kind: type[BaseException], waiting: Any, words: str = "") -> Any:
        """What it fails with, which says these words."""
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        self.turn()
        error = self.failureResultOf(deferred, kind).value
        self.assertIn(words, str(error))
        return error


def moved(address: str) -> ScriptedTarget:
    """A target that is elsewhere."""
    return ScriptedTarget(
        {
            numbers.LOGIN_REQUEST: lambda connection, asked: connection.refuse(
                asked, numbers.TARGET_MOVED_TEMPORARILY, ("TargetAddress", address)
            )
        }
    )


class RedirectionTests(AttackTestCase):
    """Targets that say that they are elsewhere."""

    def test_good(self) -> None:
        """The target of these tests does what it should, if it is not told otherwise."""
        lun = self.lun(ScriptedTarget())
        self.now(lun.write(0, bytes(4096)))
        self.assertEqual(self.now(lun.read(0, 8192)), bytes(8192))
        self.assertEqual([one.number for one in self.now(self.initiator.units(lun.session))], [0])
        self.assertEqual(self.now(lun.session.ping(b"here")), b"here")
        self.assertEqual(self.now(lun.session.text([("X-a", "b")])), [])
        self.now(lun.session.logout())

    def test_nowhere(self) -> None:
        """Nobody is sent to anything but a host and a port: not to sockets of this machine, for one."""
        for address in (
            "unix:/run/secrets", "tcp:127.0.0.1:3260", "systemd:domain=INET:index=0", "host:\u00b2",
            "127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:-1", "a" * 300, "x y:3260", "\x1b[2J:3260", "::1",
            "[::1]:1x", "[::1]1", "[zz]:3260", "[]:3260", ":3260", " ", "host:", "[::1", "192.0.2.1:3260:1",
        ):  # fmt: skip
            error = self.fails(RemoteError, self.login(moved(address)), "where nobody can go")
            self.assertTrue(str(error).isprintable(), address)

    def test_again(self) -> None:
        """Where a target was moved may be out of reach for long; it is followed there each time."""
        there = ScriptedTarget()
        session = self.session(there, lasting=True, patience=1000.0, ping=0)
        back = MemoryEndpoint(self.clock, there)
        back.refuses = True
        session._endpoint = MemoryEndpoint(self.clock, moved("192.0.2.1:3260,1"))
        session._elsewhere = lambda address: back
        self.endpoint.transports[-1].abortConnection()
        for _ in range(20):
            self.clock.advance(10 * FIRST_DELAY)
            self.turn()
        back.refuses = False
        for _ in range(40):
            self.clock.advance(1)
            self.turn()
        self.assertEqual(session.logins, 2)


class ListTests(SynchronousTestCase):
    """Lists of targets and units."""

    def test_unprintable(self) -> None:
        """No target writes to the terminal of whoever looks for it."""
        name = ("TargetName", "iqn.2001-04.com.example:\x1b[2J")
        address = ("TargetAddress", "\x1b]0;x\a:3260,1")
        for pairs in ([name], [("TargetName", TARGET), address]):
            error = self.assertRaises(RemoteError, collect, pairs)
            self.assertTrue(str(error).isprintable())

    def test_messages(self) -> None:
        """What a target says may be in an error, in one line that is not endless."""
        text = str(RemoteError("\x1b[2J\r\n" + "x" * 100000))
        self.assertTrue(text.isprintable() and len(text) < 2000)

    def test_units(self) -> None:
        """Units are listed once, those of unknown kinds are told of, and a list is as long as it says."""
        fields = [b"\0\2", b"\x40\5", b"\0\2", b"\x01\2", b"\0\1\0\1"]
        data = b"".join(one.ljust(8, b"\0") for one in fields)
        with capturedLogs() as logged:
            self.assertEqual(numbersOf(len(data).to_bytes(4, "big") + bytes(4) + data), [2, 5])
        self.assertEqual([event["count"] for event in logged], [2])
        for lying in (b"\xff\xff\xff\xf0" + bytes(12), b"\0\0\0\x10" + bytes(12), b"\0\0\0\x08"):
            self.assertRaises(RemoteError, numbersOf, lying)
        self.assertEqual(numbersOf(b""), [])
        self.assertEqual(numbersOf((1 << 20).to_bytes(4, "big") + bytes(LUNS - 4)), [0])


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
