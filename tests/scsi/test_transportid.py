"""Tests for L{iscsi_twisted.scsi.transportid}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.scsi.registrations import Port
from iscsi_twisted.scsi.transportid import parseTransportID, parseTransportIDs, transportID


class TransportIDTests(SynchronousTestCase):
    """TransportIDs of iSCSI, SPC-4 7.6.4.6."""

    def test_bytes(self) -> None:
        """Their two formats: one port, and all ports of an initiator."""
        self.assertEqual(
            transportID(Port("iqn.a", bytes.fromhex("80000000001a"), 1)),
            b"\x45\0\0\x18" + b"iqn.a,i,0x80000000001a" + bytes(2),
        )
        self.assertEqual(transportID(Port("iqn.a", b"", 1)), b"\x05\0\0\x14" + b"iqn.a" + bytes(15))

    def test_anyName(self) -> None:
        """Names of every length come back, with an ISID and without."""
        for length in range(1, 40):
            for isid in (bytes(range(6)), b""):
                text = transportID(Port("n" * length, isid, 1))
                self.assertEqual((len(text) % 4, parseTransportID(text)), (0, ("n" * length, isid)))

    def test_short(self) -> None:
        """An ISID may lack zeros at its beginning; names are compared in lower case."""
        text = b"\x45\0\0\x14" + b"IQN.A,i,0x23D".ljust(20, b"\0")
        self.assertEqual(parseTransportID(text), ("iqn.a", b"\0\0\0\0\x02\x3d"))

    def test_none(self) -> None:
        """What is none of iSCSI, or is cut off, is none."""
        good = transportID(Port("iqn.a", bytes(6), 1))
        for wrong in (
            b"",
            good[:3],
            good[:-1],
            b"\x06" + good[1:],
            b"\x05" + good[1:],
            b"\x45\0\0\x04iqn\0",
            b"\x05\0\0\x04" + bytes(4),
            b"\x45\0\0\x08,i,0x1\0\0",
            b"\x45\0\0\x14" + b"a,i,0x" + b"1" * 13 + b"\0",
            b"\x45\0\0\x08a,i,0xg\0",
            b"\x05\0\0\x04\xff\xff\xff\0",
            # Names that nobody can have: too long for RFC 7143 4.2.7.1, or not to be printed.
            transportID(Port("n" * 224, bytes(6), 1)),
            transportID(Port("\u00fc" * 112, b"", 1)),
            transportID(Port("iqn.\n", b"", 1)),
            transportID(Port("iqn. a", b"", 1)),
        ):
            self.assertIsNone(parseTransportID(wrong), wrong)

    def test_several(self) -> None:
        """A list of them is taken as a whole."""
        ports = [Port("iqn.a", bytes(6), 1), Port("iqn.bc", b"", 1)]
        data = b"".join(map(transportID, ports))
        self.assertEqual(parseTransportIDs(data), [(port.initiatorName, port.isid) for port in ports])
        self.assertIsNone(parseTransportIDs(data + b"\0"))
        self.assertEqual(parseTransportIDs(b""), [])

    @given(st.binary(max_size=60))
    def test_any(self, data: bytes) -> None:
        """Whatever comes is one or is none."""
        found = parseTransportID(data)
        self.assertTrue(found is None or len(found[1]) in (0, 6))
        parseTransportIDs(data)
