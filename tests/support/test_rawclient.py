"""The raw client, by a peer that the test plays."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.support import rawclient
from tests.support.rawclient import Closed, RawClient, header


class RawClientTests(SynchronousTestCase):
    """What it sends, and what it makes of what comes."""

    def setUp(self) -> None:
        near, far = pair()
        self.client, self.peer = RawClient(near), RawClient(far)
        self.addCleanup(self.client.close)
        self.addCleanup(self.peer.close)

    def test_padding(self) -> None:
        """A data segment is padded to whole words, and its length is the true one."""
        made = self.client.encode(header(rawclient.NOP_OUT), b"hello")
        self.assertEqual((made[5:8], made[48:]), (b"\0\0\5", b"hello\0\0\0"))

    def test_digests(self) -> None:
        """Digests are CRC32C over the header and over the padded data, least significant byte first."""
        self.client.headerDigest = self.client.dataDigest = True
        made = self.client.encode(bytes(48), bytes(range(32)))
        # RFC 3720 B.4 gives 46dd794e for the numbers from 0 to 31.
        self.assertEqual(made[-4:], bytes.fromhex("4e79dd46"))
        self.assertEqual(len(made), 48 + 4 + 32 + 4)

    def test_roundTrip(self) -> None:
        """What one end sends the other receives, digests and additional headers included."""
        for digests in (False, True):
            self.client.headerDigest = self.client.dataDigest = digests
            self.peer.headerDigest = self.peer.dataDigest = digests
            self.client.sendPDU(header(rawclient.TEXT_ANSWER, at16=77), b"a=1\0b=2\0c", b"12345678")
            got = self.peer.recvPDU()
            self.assertEqual(
                (got.opcode, got.itt, got.ahs, got.data), (0x24, 77, b"12345678", b"a=1\0b=2\0c")
            )
            self.assertEqual(got.text, {"a": "1", "b": "2", "c": ""})

    def test_wrongDigest(self) -> None:
        """A digest that does not match is found."""
        self.client.headerDigest = True
        self.peer.send(bytes(48) + b"\0\0\0\0")
        self.assertRaises(AssertionError, self.client.recvPDU)

    def test_end(self) -> None:
        """The end of the connection is told from a PDU."""
        self.peer.send(bytes(48))
        self.assertFalse(self.client.ended())
        self.peer.send(bytes(20))
        self.peer.close()
        self.assertRaises(Closed, self.client.recvPDU)
        self.assertTrue(self.client.ended())

    def test_statusNumbers(self) -> None:
        """expStatSN follows status, and not Data-In without it."""
        self.peer.sendPDU(header(rawclient.NOP_IN, at24=0xFFFFFFFF))
        self.client.recvPDU()
        self.assertEqual(self.client.expStatSN, 0)
        self.peer.sendPDU(header(rawclient.DATA_IN, at24=55))
        self.client.recvPDU()
        self.assertEqual(self.client.expStatSN, 0)

    def test_read(self) -> None:
        """Data-In is put where its offset says, and the status of the last one ends the command."""
        self.peer.sendPDU(header(rawclient.DATA_IN, 0, at16=1, at40=0), b"abcd")
        self.peer.sendPDU(header(rawclient.DATA_IN, 0x83, at16=1, at40=4, at44=2), b"ef")
        outcome = self.client.command(bytes(6), read=8)
        self.assertEqual(outcome, (0, b"abcdef", b"", 2))
        self.assertEqual(self.peer.recvPDU().word(20), 8)

    def test_write(self) -> None:
        """What an R2T asks for is sent in segments, and sense data are understood."""
        sense = bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 1, 0, 0, 0, 0])
        self.peer.sendPDU(header(rawclient.R2T, at16=1, at20=9, at40=10, at44=70000))
        self.peer.sendPDU(
            header(rawclient.SCSI_RESPONSE, 0x80, at2=b"\0\2", at16=1), len(sense).to_bytes(2, "big") + sense
        )
        data = bytes(range(256)) * 300
        outcome = self.client.command(bytes(6), write=data, immediate=10)
        self.assertEqual((outcome.status, outcome.senseKey, outcome.asc), (2, 5, 0x2401))
        command, first, second = (self.peer.recvPDU() for _ in range(3))
        self.assertEqual(command.data, data[:10])
        self.assertEqual((first.flags, first.ttt, first.word(36), first.word(40)), (0, 9, 0, 10))
        self.assertEqual((second.flags, second.ttt, second.word(36), second.word(40)), (0x80, 9, 1, 65546))
        self.assertEqual(first.data + second.data, data[10:70010])


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]
