"""Data that are spoilt on their way to the target, which finds that out by its digests."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.errors import ISCSIError
from iscsi_twisted.initiator.dialling import FIRST_DELAY
from iscsi_twisted.initiator.lun import LUN
from iscsi_twisted.wire import numbers
from tests.support.initiator import InitiatorTests
from tests.support.mangling import split

BLOCK = 512
LONG = 1 << 20
"""Bytes of which the target asks for the most."""


class SpoiltTests(InitiatorTests):
    """Data-Out, and immediate data, with a bit that is another."""

    def spoil(self, lun: LUN, opcode: int) -> None:
        """Spoil the next data segment of such a PDU."""
        far: Any = self.endpoint.transports[-1].other.protocol
        received, done = far.dataReceived, []

        def receive(data: bytes) -> None:
            for pdu in split(data, 4, 4):
                if pdu[0] & numbers.OPCODE_MASK == opcode and len(pdu) > 52 and not done:
                    done.append(pdu)
                    pdu = pdu[:60] + bytes((pdu[60] ^ 1,)) + pdu[61:]
                received(pdu)

        far.dataReceived = receive

    def write(self, opcode: int, length: int, lasting: bool) -> tuple[LUN, Any]:
        """Write when that has happened."""
        lun = self.lun(headerDigest="yes", dataDigest="yes", lasting=lasting, ping=0)
        self.spoil(lun, opcode)
        waiting = lun.write(0, b"x" * length)
        self.turn()
        return lun, waiting

    def test_immediate(self) -> None:
        """
        A command whose immediate data were spoilt leaves the target waiting for its number, for ever: the
        session goes on over another connection, and one that cannot ends, and tells why.
        """
        lun, waiting = self.write(numbers.SCSI_COMMAND, BLOCK, True)
        self.clock.advance(FIRST_DELAY)
        self.turn()
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(bytes(self.now(lun.read(0, BLOCK))), b"x" * BLOCK)
        self.assertEqual(lun.session.logins, 2)
        lun, waiting = self.write(numbers.SCSI_COMMAND, BLOCK, False)
        self.assertIn("data digest", str(self.failureResultOf(waiting, ISCSIError).value))
        self.fails(ISCSIError, lun.read(0, BLOCK))

    def test_solicited(self) -> None:
        """Where Data-Out were spoilt the target says so in the status of the command; others go on."""
        lun, waiting = self.write(numbers.DATA_OUT, LONG, False)
        self.failureResultOf(waiting, ISCSIError)
        self.assertIsNone(self.now(lun.write(0, b"y" * LONG)))
        self.assertEqual(bytes(self.now(lun.read(0, LONG))), b"y" * LONG)
        self.assertEqual(lun.session.logins, 1)
