"""Ranges of other targets' units as block devices."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from iscsi_twisted.auth.chap import Credentials
from iscsi_twisted.errors import (
    ConfigurationError,
    DeviceError,
    LocalError,
    NotReady,
    ReadError,
    WriteError,
    WriteProtected,
)
from iscsi_twisted.initiator import Initiator, RemoteExtent
from iscsi_twisted.initiator.memory import CLIENT, SERVER, MemoryTransport
from iscsi_twisted.initiator.remote import COMMAND_TIME, PATIENCE, nameRemote
from iscsi_twisted.interfaces import IBlockDevice
from iscsi_twisted.scsi import codes
from iscsi_twisted.storage import MemoryDevice, Mirror
from tests.support.devices import FakeDevice
from tests.support.initiator import NAME, SIZE, InitiatorTests
from tests.support.wire import TARGET

URL = f"iscsi://10.4.0.9/{TARGET}/0"
START, LENGTH = 4096, 64 << 10


class NameTests(SynchronousTestCase):
    """Tests of C{nameRemote}."""

    def test_masked(self) -> None:
        """A secret is not told, in names and in complaints."""
        self.assertEqual(
            nameRemote("iscsi://me%hush@h/iqn.2001-04.com.example:t/3"),
            "iscsi://me%***@h:3260/iqn.2001-04.com.example:t/3",
        )
        for bad in ("iscsi://me%hush@h/iqn.2001-04.com.example:t", "iscsi://me%hush@h:0/iqn.x/0", "iscsi:x"):
            error = self.assertRaises(ConfigurationError, nameRemote, bad)
            self.assertNotIn("hush", str(error))

    def test_incomplete(self) -> None:
        """What lacks a target or a unit is told what it should be."""
        error = self.assertRaises(ConfigurationError, nameRemote, "iscsi://h/iqn.2001-04.com.example:t")
        self.assertIn("names no unit; right would be iscsi://", str(error))


class RemoteTests(InitiatorTests):
    """A range in the middle of a unit."""

    def extent(
        self, start: int = START, length: int | None = LENGTH, url: str = URL, **how: Any
    ) -> RemoteExtent:
        """One that is not open."""
        return RemoteExtent(self.initiator, url, start, length, endpoint=self.endpoint, **how)

    def opened(self, *where: Any, **how: Any) -> RemoteExtent:
        """One that is open."""
        extent = self.extent(*where, **how)
        self.changes: list[int] = []
        self.now(extent.open(lambda: self.changes.append(extent.size)))
        return extent

    def test_interface(self) -> None:
        """It is a block device."""
        verifyObject(IBlockDevice, self.opened())

    def test_range(self) -> None:
        """It is this range of the unit and nothing else."""
        extent = self.opened()
        self.assertEqual((extent.size, extent.blockSize), (LENGTH, 512))
        self.now(extent.write(512, b"x" * 1024))
        self.now(extent.flush())
        self.assertEqual(bytes(self.device.read(START + 512, 1024)), b"x" * 1024)
        self.assertEqual(bytes(self.now(extent.read(0, 1024))), bytes(512) + b"x" * 512)
        self.now(extent.zero(512, 512, True))
        self.assertEqual(bytes(self.now(extent.read(512, 1024))), bytes(512) + b"x" * 512)
        self.assertEqual(sum(length for length, _ in self.now(extent.allocated(0, LENGTH))), LENGTH)
        self.now(extent.discard(1024, 512))
        for method, arguments in ((extent.read, (LENGTH, 512)), (extent.write, (LENGTH - 512, bytes(1024)))):
            self.assertRaises(LocalError, method, *arguments)

    def test_whole(self) -> None:
        """Without a length it is all up to the end."""
        self.assertEqual(self.opened(START, None).size, SIZE - START)

    def test_sizes(self) -> None:
        """What the unit does not have, or not as whole blocks, is refused, and the session ended."""
        for start, length, words in (
            (SIZE - 512, 1024, f"has {SIZE} bytes"),
            (SIZE, None, f"has {SIZE} bytes"),
            (100, 512, "not whole blocks"),
            (0, 700, "not whole blocks"),
        ):
            error = self.fails(DeviceError, self.extent(start, length).open(lambda: None))
            self.assertIn(words, str(error))
        self.turn()
        self.assertEqual(self.target.sessions, {})

    def test_unreachable(self) -> None:
        """A target that is not there, or is another, is told with its URL."""
        self.assertIn(
            "no such target",
            str(
                self.fails(
                    NotReady, self.extent(url="iscsi://h/iqn.2001-04.com.example:none/0").open(lambda: None)
                )
            ),
        )
        self.endpoint.refuses = True
        error = self.fails(NotReady, self.extent().open(lambda: None))
        self.assertIn("iscsi://10.4.0.9:3260/", str(error))

    def test_fingerprint(self) -> None:
        """It is known by target, unit, serial number and range; without a serial number it is not."""
        prints = [self.opened(length=length).fingerprint() for length in (512, 512, 1024)]
        self.assertEqual([prints[0] == other for other in prints], [True, True, False])
        self.assertIn("serial0", str(prints[0]))
        unit: Any = self.target.units[0]
        unit.identity = attrs.evolve(unit.identity, serial="")
        self.assertIsNone(self.opened(length=512).fingerprint())

    def test_close(self) -> None:
        """Closing logs out."""
        extent = self.opened()
        self.assertEqual(len(self.target.sessions), 1)
        self.now(extent.close())
        self.assertEqual(self.target.sessions, {})

    def test_readOnly(self) -> None:
        """A range that is not to be written says so."""
        self.assertTrue(self.opened(readOnly=True).capabilities().readOnly)
        self.assertFalse(self.opened().capabilities().readOnly)

    def test_lostConnection(self) -> None:
        """When the connection is lost, I/O goes on over the next one."""
        extent = self.opened()
        self.endpoint.transports[-1].abortConnection()
        reading = extent.read(0, 512)
        self.clock.advance(1)
        self.assertEqual(bytes(self.now(reading)), bytes(512))

    def test_restarted(self) -> None:
        """That the target was started anew, or the session, is counted and told of."""
        extent = self.opened()
        self.assertEqual((extent.restarts, self.changes), (0, []))
        self.target.units[0].attention(0x2900)
        self.now(extent.read(0, 512))
        self.assertEqual((extent.restarts, self.changes), (1, [LENGTH]))

    def test_otherMode(self) -> None:
        """A unit that is not to be written any more makes a device that is not either."""
        extent = self.opened()
        unit: Any = self.target.units[0]
        unit.settings.softwareProtected = True
        unit.attention(codes.MODE_PARAMETERS_CHANGED)
        self.now(extent.read(0, 512))
        self.turn()
        self.assertTrue(extent.capabilities().readOnly)
        self.assertEqual(self.changes, [LENGTH])

    def test_lostTarget(self) -> None:
        """When the target does not come back, I/O fails as that of a broken disk."""
        extent = self.opened()
        self.endpoint.refuses = True
        self.endpoint.transports[-1].abortConnection()
        reading, writing = extent.read(0, 512), extent.write(0, bytes(512))
        self.clock.pump([1] * int(PATIENCE))
        for waiting, kind in ((reading, ReadError), (writing, WriteError)):
            self.assertIn("iscsi://10.4.0.9", self.failureResultOf(waiting, kind).getErrorMessage())

    def test_sever(self) -> None:
        """
        A target that has not noticed the end of a session ends it when the range is opened again: what comes
        late on the old connection is done no more.
        """
        extent = self.opened()
        (before,) = self.target.sessions.values()
        near = self.endpoint.transports[-1]
        old = near.other
        near.other = MemoryTransport(self.clock, SERVER, CLIENT)
        near.other.protocol = Protocol()
        self.endpoint.refuses = True
        near.abortConnection()
        writing = extent.write(0, b"x" * 512)
        self.clock.pump([1] * int(PATIENCE))
        self.failureResultOf(writing, WriteError)
        self.assertEqual(list(self.target.sessions.values()), [before])
        self.endpoint.refuses = False
        self.now(extent.open(lambda: None))
        (after,) = self.target.sessions.values()
        self.assertIsNot(after, before)
        self.assertTrue(old.disconnecting)

    def ports(self) -> list[bytes]:
        """The ISIDs of the sessions that the target has."""
        return [session.isid for session in self.target.sessions.values()]

    def test_port(self) -> None:
        """
        Whoever was killed leaves a session that the target may still have: it ends when the next process uses
        the same range, and no other.
        """
        self.initiator = Initiator(self.clock, NAME, seed=lambda: b"machine 1")
        self.opened()
        (isid,) = self.ports()
        self.initiator = Initiator(self.clock, NAME, seed=lambda: b"machine 1")
        again = self.opened()
        self.assertEqual(self.ports(), [isid])
        self.opened(START + LENGTH)
        self.assertEqual(len(set(self.ports())), 2)
        self.initiator = Initiator(self.clock, NAME, seed=lambda: b"machine 2")
        self.opened()
        self.assertEqual(len(set(self.ports())), 3)
        self.assertEqual(bytes(self.now(again.read(0, 512))), bytes(512))

    def test_portTwice(self) -> None:
        """Two that use the same range have a session each; a port that is free is taken again."""
        first, second = self.opened(), self.opened()
        before = self.ports()
        self.assertEqual(len(set(before)), 2)
        self.now(first.close())
        third = self.opened()
        self.assertEqual(set(self.ports()), set(before))
        for extent in (second, third):
            self.assertEqual(bytes(self.now(extent.read(0, 512))), bytes(512))

    def test_portUnknown(self) -> None:
        """If it cannot be known from where to log in that is told."""

        def seed() -> bytes:
            raise ConfigurationError("damaged")

        self.initiator = Initiator(self.clock, NAME, seed=seed)
        self.assertIn("damaged", str(self.fails(NotReady, self.extent().open(lambda: None))))

    def test_mirror(self) -> None:
        """A mirror of memory and a remote unit holds the same in both."""
        mirror = Mirror([MemoryDevice(SIZE), self.extent(0, None)], reactor=self.clock)
        self.now(mirror.open(lambda: None))
        self.now(mirror.write(0, b"m" * 4096))
        self.assertEqual(bytes(self.device.read(0, 4096)), b"m" * 4096)

    def test_credentials(self) -> None:
        """A user's secret is that of the URL or the one that is known; without one there is no login."""
        wanted = []

        def login(endpoint: object, target: str, **options: Any) -> Any:
            wanted.append(options["credentials"])
            raise NotReady("refused")

        self.patch(self.initiator, "login", login)
        there = f"h/{TARGET}/0"
        for user in ("me%hush@", "you@", "nobody@", ""):
            extent = self.extent(url=f"iscsi://{user}{there}", secretOf={"you": b"known"}.get)
            self.fails(NotReady, extent.open(lambda: None))
        self.assertEqual(wanted, [Credentials("me", b"hush"), Credentials("you", b"known"), None])

    def test_changed(self) -> None:
        """A unit that has grown makes the device grow that goes to its end."""
        extent = self.opened(0, None)
        self.device.size = 2 * SIZE
        self.target.units[0].changed()  # type: ignore[attr-defined]
        self.now(extent.read(0, 512))
        self.turn()
        self.assertEqual((extent.size, self.changes), (2 * SIZE, [2 * SIZE]))


class FaultTests(InitiatorTests):
    """Errors of the unit behind it."""

    def makeDevice(self) -> FakeDevice:
        return FakeDevice(SIZE)

    def test_offset(self) -> None:
        """The first bad byte is told as one of this device."""
        extent = RemoteExtent(self.initiator, URL, START, LENGTH, endpoint=self.endpoint)
        self.now(extent.open(lambda: None))
        reading = extent.read(512, 1024)
        self.turn()
        self.device.operations[0].fail(ReadError("bad", START + 1024))
        self.turn()
        self.assertEqual(self.failureResultOf(reading, ReadError).value.offset, 1024)

    def test_deaf(self) -> None:
        """A target that answers pings and no commands does not hold up I/O for ever."""
        extent = RemoteExtent(self.initiator, URL, START, LENGTH, endpoint=self.endpoint)
        self.now(extent.open(lambda: None))
        reading = extent.read(512, 1024)
        self.clock.pump([1] * int(COMMAND_TIME - 1))
        self.turn()
        self.assertNoResult(reading)
        self.clock.advance(1)
        self.assertIn("iscsi://10.4.0.9", self.failureResultOf(reading, ReadError).getErrorMessage())

    def test_protected(self) -> None:
        """A unit that turns out to be protected stays that."""
        extent = RemoteExtent(self.initiator, URL, START, LENGTH, endpoint=self.endpoint)
        self.now(extent.open(lambda: None))
        writing = extent.write(512, bytes(512))
        self.turn()
        self.device.operations[0].fail(WriteProtected("no"))
        self.turn()
        self.failureResultOf(writing, WriteProtected)
