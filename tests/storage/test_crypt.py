"""Tests for L{iscsi_twisted.storage.crypt}."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, LocalError, NotReady, WriteError
from iscsi_twisted.interfaces import Capabilities, Space
from iscsi_twisted.storage import (
    Concatenation,
    Crypt,
    Filter,
    KeyFile,
    MemoryDevice,
    Overlay,
    ReadOnly,
    Slice,
)
from iscsi_twisted.storage.crypt import KEY, SECTOR
from tests.support.devices import FakeDevice
from tests.support.threads import StepPool, StepReactor

SIZE = 64 * 1024
FIRST = bytes(range(KEY))


class MemoryKey:
    """
    A key in memory.

    @ivar key: what it is now.
    @ivar error: what a change fails with.
    @ivar writable: whether it can be changed.
    """

    writable = True

    def __init__(self, key: bytes = FIRST) -> None:
        self.key = key
        self.error: OSError | None = None

    def read(self) -> bytes:
        """See L{KeyFile}."""
        return self.key

    def write(self, key: bytes) -> None:
        """See L{KeyFile}."""
        if self.error is not None:
            raise self.error
        self.key = key


def opened(device: Any) -> Any:
    """The device, open."""
    device.open(lambda: None)
    return device


class CryptTests(SynchronousTestCase):
    """L{Crypt} over memory."""

    def setUp(self) -> None:
        """Make one."""
        self.member = FakeDevice(SIZE, synchronous=True)
        self.key = MemoryKey()
        self.device = opened(Crypt(self.member, self.key))

    def test_standard(self) -> None:
        """A sector is encrypted as IEEE 1619-2007 annex B has it: vector 10, data unit number FFh."""
        key = bytes.fromhex(
            "27182818284590452353602874713526" "62497757247093699959574966967627"
            "31415926535897932384626433832795" "02884197169399375105820974944592"
        )  # fmt: skip
        device = opened(Crypt(MemoryDevice(SIZE * 2 + SECTOR), MemoryKey(key)))
        device.write(0xFF * SECTOR, bytes(range(256)) * 2)
        stored = bytes(device.member.read(0xFF * SECTOR, SECTOR))
        self.assertEqual(
            stored[:32].hex(), "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
        )

    @given(st.lists(st.tuples(st.integers(0, 15), st.integers(1, 16), st.integers(0, 255)), max_size=12))
    def test_model(self, writes: list[tuple[int, int, int]]) -> None:
        """What was written is read, in pieces of any size; what was not are zeros."""
        for sector in (512, 4096):
            device = opened(Crypt(MemoryDevice(SIZE), MemoryKey(), sector=sector))
            wanted = bytearray(SIZE)
            for place, count, value in writes:
                count = min(count, 16 - place)
                data = bytes((value,)) * (count * 4096)
                device.write(place * 4096, memoryview(data))
                wanted[place * 4096 : (place + count) * 4096] = data
            self.assertEqual(bytes(device.read(0, SIZE)), wanted)
            pieces = [bytes(device.read(place, sector)) for place in range(0, SIZE, sector)]
            self.assertEqual(b"".join(pieces), wanted)

    def test_hidden(self) -> None:
        """The same bytes look different in each sector, and zeros that are written are no zeros below."""
        self.device.write(0, bytes(4 * SECTOR))
        stored = bytes(self.member.read(0, 4 * SECTOR))
        sectors = {stored[place : place + SECTOR] for place in range(0, 4 * SECTOR, SECTOR)}
        self.assertEqual((len(sectors), bytes(SECTOR) in sectors), (4, False))

    def test_holes(self) -> None:
        """What is given back or cleared reads as zeros, and is that below."""
        self.device.write(0, b"x" * 8192)
        self.device.discard(0, 4096)
        self.device.zero(4096, 2048, True)
        self.assertEqual(bytes(self.device.read(0, 8192)), bytes(6144) + b"x" * 2048)
        self.assertEqual(bytes(self.member.read(0, 6144)), bytes(6144))

    def test_rekey(self) -> None:
        """With another key what was written is noise, holes are holes, and new data are read."""
        self.device.write(0, b"x" * 4096)
        self.assertIsNone(self.device.rekey())
        self.assertNotEqual(self.key.key, FIRST)
        self.assertEqual(len(self.key.key), KEY)
        noise = bytes(self.device.read(0, 4096))
        self.assertLess(noise.count(b"x"), 100)
        self.assertEqual(bytes(self.device.read(4096, 4096)), bytes(4096))
        self.device.write(0, b"y" * 4096)
        again = opened(Crypt(self.member, self.key))
        self.assertEqual(bytes(again.read(0, 4096)), b"y" * 4096)

    def test_rekeyFails(self) -> None:
        """A key that cannot be changed stays, and what was written can be read."""
        self.device.write(0, b"x" * 4096)
        self.key.error = OSError(30, "Read-only file system")
        error = self.assertRaises(WriteError, self.device.rekey)
        self.assertEqual(str(error), "the key cannot be changed: Read-only file system")
        self.assertEqual(bytes(self.device.read(0, 4096)), b"x" * 4096)

    def test_thread(self) -> None:
        """With a reactor the new key is written in a thread, and used when it is durable."""
        reactor, pool = StepReactor(), StepPool()
        reactor.getThreadPool = lambda: pool  # type: ignore[attr-defined]
        device = opened(Crypt(self.member, self.key, reactor=reactor))
        device.write(0, b"x" * 512)
        done = device.rekey()
        self.assertNoResult(done)
        self.assertEqual(bytes(device.read(0, 512)), b"x" * 512)
        pool.run()
        self.assertIsNone(self.successResultOf(done))
        self.assertNotEqual(bytes(device.read(0, 512)), b"x" * 512)

    def test_later(self) -> None:
        """A member may answer later; its errors are passed on."""
        member = FakeDevice(SIZE)
        device = Crypt(member, self.key)
        device.open(lambda: None)
        writing = device.write(512, b"z" * 512)
        member.fire()
        self.assertIsNone(self.successResultOf(writing))
        self.assertNotIn(b"zz", bytes(member.contents))
        reading = device.read(512, 512)
        member.fire()
        self.assertEqual(bytes(self.successResultOf(reading)), b"z" * 512)

    def test_constant(self) -> None:
        """What was read stays as it is, and what is written may change nothing of it."""
        self.device.write(0, b"x" * 512)
        data = memoryview(self.device.read(0, 512))
        self.assertTrue(data.readonly)
        self.device.write(0, b"y" * 512)
        self.assertEqual(bytes(data), b"x" * 512)

    def test_range(self) -> None:
        """Beyond the end there is nothing."""
        self.assertRaises(LocalError, self.device.read, SIZE, 512)
        self.assertRaises(LocalError, self.device.write, SIZE - 512, bytes(1024))
        self.assertEqual(bytes(self.device.read(0, 0)), b"")

    def test_sectors(self) -> None:
        """Sectors have one of two sizes, and the member consists of them."""
        self.assertRaises(LocalError, Crypt, self.member, self.key, sector=1024)
        self.assertEqual(self.device.blockSize, 512)
        coarse = opened(Crypt(FakeDevice(8192, 4096, synchronous=True), self.key))
        self.assertEqual(coarse.blockSize, 4096)
        odd = Crypt(MemoryDevice(8192 + 512), self.key, sector=4096)
        error = self.failureResultOf(odd.open(lambda: None), DeviceError).value
        self.assertEqual(str(error), "MemoryDevice: 8704 bytes are no whole number of sectors")

    def test_fingerprint(self) -> None:
        """It is not the device below."""
        member = FakeDevice(SIZE)
        member.fingerprint = lambda: "disk 7"
        self.assertEqual(Crypt(member, self.key).fingerprint(), "disk 7, decrypted")


class CapabilityTests(SynchronousTestCase):
    """Who can have a key forgotten."""

    def test_own(self) -> None:
        """It can what the member can, and forget its key if it may be written at all."""
        able = Capabilities(volatileCache=True, discard=True, space=True, retains=True)
        member = FakeDevice(SIZE, capabilities=able)
        member.space = lambda: Space(1, 2)
        device = Crypt(member, MemoryKey())
        self.assertEqual(device.capabilities(), able._replace(rekey=True))
        self.assertEqual(device.space(), (1, 2))
        self.assertFalse(Crypt(ReadOnly(member), MemoryKey()).capabilities().rekey)
        fixed = MemoryKey()
        fixed.writable = False
        self.assertFalse(Crypt(member, fixed).capabilities().rekey)

    def test_above(self) -> None:
        """What stands on all of it passes it on; what holds other bytes as well, or a part, does not."""
        key = MemoryKey()
        device = Crypt(MemoryDevice(SIZE), key)
        above = opened(Filter(device))
        self.assertTrue(above.capabilities().rekey)
        above.rekey()
        self.assertNotEqual(key.key, FIRST)
        for other in (ReadOnly(device), Slice(device, 0, 512), Concatenation([device]), Overlay(device)):
            self.assertFalse(opened(other).capabilities().rekey, other)


class KeyFileTests(SynchronousTestCase):
    """L{KeyFile}"""

    def setUp(self) -> None:
        """Make a file with a key."""
        self.path = self.mktemp()
        self.key = KeyFile(self.path)

    def put(self, content: bytes, mode: int = 0o600) -> None:
        """Write the file."""
        with open(self.path, "wb") as file:
            file.write(content)
        os.chmod(self.path, mode)

    def test_changed(self) -> None:
        """A new key stands where the old one was: in the same file, and nowhere else."""
        self.assertFalse(self.key.writable)
        self.put(FIRST)
        self.assertEqual((self.key.read(), self.key.writable), (FIRST, True))
        number = os.stat(self.path).st_ino
        self.key.write(FIRST[::-1])
        self.assertEqual((self.key.read(), os.stat(self.path).st_ino), (FIRST[::-1], number))
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [os.path.basename(self.path)])

    def test_refused(self) -> None:
        """What is no key, or no secret, is told with what would be right."""
        error = self.assertRaises(NotReady, self.key.read)
        self.assertIn(f"the key {self.path} does not exist; without it nothing can be read", str(error))
        for content, mode, words in (
            (FIRST, 0o640, f"can be read by others; chmod 600 {self.path}"),
            (FIRST[1:], 0o600, "is none; a key is 64 random bytes: (umask 077; head -c 64 /dev/urandom"),
            (FIRST + b"\n", 0o600, "is none"),
            (FIRST[:32] * 2, 0o600, "is none"),
            (bytes(64), 0o600, "is none"),
        ):
            self.put(content, mode)
            self.assertIn(words, str(self.assertRaises(DeviceError, self.key.read)))
        os.unlink(self.path)
        os.mkdir(self.path)
        self.assertIn("is not a regular file", str(self.assertRaises(DeviceError, self.key.read)))

    def test_opening(self) -> None:
        """A device does not open without its key."""
        device = Crypt(MemoryDevice(SIZE), self.key)
        self.assertRaises(NotReady, device.open, lambda: None)
        self.assertRaises(NotReady, device.rehearse)
