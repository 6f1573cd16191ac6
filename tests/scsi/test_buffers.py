"""Tests for L{iscsi_twisted.scsi.buffers}."""

from __future__ import annotations

from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.buffers import CAPACITY, ECHO_CAPACITY
from iscsi_twisted.scsi.cdbprimary import READ_BUFFER, WRITE_BUFFER
from tests.scsi.cases import DiskTests
from tests.support.tasks import Nexus, Task

DATA, DESCRIPTOR, ECHO, ECHO_DESCRIPTOR = 2, 3, 10, 11
FIRMWARE = (0x04, 0x05, 0x06, 0x07, 0x0D, 0x0E, 0x0F)
OTHERS = (0x00, 0x01, 0x1A, 0x1C)


class BufferTests(DiskTests):
    """READ BUFFER and WRITE BUFFER, SPC-4 6.17 and 6.49."""

    def write(self, data: bytes, offset: int = 0, mode: int = DATA, **how: int | Nexus) -> Task:
        """Write to a buffer."""
        length = len(data)
        return self.command(
            WRITE_BUFFER, data, mode=mode, offsetHigh=offset >> 16, offset=offset & 0xFFFF,
            lengthHigh=length >> 16, length=length & 0xFFFF, **how,  # type: ignore[arg-type]
        )  # fmt: skip

    def read(self, length: int, offset: int = 0, mode: int = DATA) -> bytes:
        """Read from a buffer."""
        return self.good(
            READ_BUFFER, mode=mode, offsetHigh=offset >> 16, offset=offset & 0xFFFF,
            allocationHigh=length >> 16, allocation=length & 0xFFFF,
        )  # fmt: skip

    def test_data(self) -> None:
        """What is written to places of the data buffer is there, for all, and zeros elsewhere."""
        self.assertEqual(self.read(16), bytes(16))
        self.assertEqual(self.write(b"abcdef", 10).status, codes.GOOD)
        self.assertEqual(self.write(b"XY", 12, nexus=Nexus()).status, codes.GOOD)
        self.assertEqual(self.read(20), bytes(10) + b"abXYef" + bytes(4))
        self.assertEqual(self.write(b"end", CAPACITY - 3).status, codes.GOOD)
        self.assertEqual(self.read(100, CAPACITY - 5), b"\0\0end")
        self.assertEqual(len(self.read(1 << 20)), CAPACITY)
        self.assertEqual(self.read(9, CAPACITY), b"")

    def test_descriptor(self) -> None:
        """The descriptor tells the capacity, and that any place is fit; other buffers have none."""
        self.assertEqual(self.read(255, mode=DESCRIPTOR).hex(), f"00{CAPACITY:06x}")
        self.assertEqual(self.good(READ_BUFFER, mode=DESCRIPTOR, buffer=1, allocation=4), bytes(4))

    def test_bounds(self) -> None:
        """Buffers and places that are not there are refused, and so is what does not fit."""
        for command in (READ_BUFFER, WRITE_BUFFER):
            self.assertInvalidField(self.command(command, mode=DATA, buffer=1), 2)
            self.assertInvalidField(self.command(command, mode=DATA, offsetHigh=1, offset=1), 3)
        for offset in (0, CAPACITY - 3):
            task = self.write(bytes(CAPACITY + 1 - offset), offset)
            self.assertInvalidField(task, 6)
            self.assertIsNone(task.wanted)
        self.assertEqual(self.write(b"").status, codes.GOOD)

    def test_echo(self) -> None:
        """Each nexus gets back what it has sent itself, and no more."""
        other = Nexus()
        self.write(b"mine", mode=ECHO)
        self.write(b"yours", mode=ECHO, nexus=other)
        self.assertEqual(self.read(255, mode=ECHO), b"mine")
        self.assertEqual(self.read(2, mode=ECHO), b"mi")
        self.write(b"new", mode=ECHO)
        self.assertEqual(self.read(255, mode=ECHO), b"new")

    def test_echoDescriptor(self) -> None:
        """The descriptor tells that nobody overwrites another's echo (EBOS), and the capacity."""
        self.assertEqual(self.read(255, mode=ECHO_DESCRIPTOR).hex(), f"0100{ECHO_CAPACITY:04x}")
        self.assertEqual(self.write(bytes(ECHO_CAPACITY), mode=ECHO).status, codes.GOOD)
        self.assertInvalidField(self.write(bytes(ECHO_CAPACITY + 1), mode=ECHO), 6)

    def test_noEcho(self) -> None:
        """Before anything was sent, after a reset and in a new session there is no echo."""

        def missing() -> None:
            task = self.command(READ_BUFFER, mode=ECHO, allocation=4)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.COMMAND_SEQUENCE_ERROR)

        missing()
        self.write(b"mine", mode=ECHO)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.unit.takeAttention(self.nexus)
        missing()
        self.write(b"mine", mode=ECHO)
        self.unit.nexusLost(self.nexus)
        self.assertEqual(self.unit.echoes, {})
        self.unit.nexusFound(self.nexus)
        self.unit.takeAttention(self.nexus)
        missing()

    def test_firmware(self) -> None:
        """There is no microcode to be loaded: those modes are refused, and nothing is fetched."""
        for mode in (*FIRMWARE, *OTHERS, DESCRIPTOR, ECHO_DESCRIPTOR):
            task = self.write(b"data", mode=mode)
            self.assertInvalidField(task, 1, 4)
            self.assertIsNone(task.wanted)
        for mode in (*FIRMWARE, *OTHERS):
            self.assertInvalidField(self.command(READ_BUFFER, mode=mode, allocation=4), 1, 4)
