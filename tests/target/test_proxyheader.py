"""What proxies say, and what is no header of theirs."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import RemoteError
from iscsi_twisted.target.proxyheader import LONGEST, SIGNATURE, Ends, read

CLIENT, SERVER = "192.0.2.7", "198.51.100.1"
ENDS = Ends(False, (ip_address(CLIENT), 40000), (ip_address(SERVER), 3260))
LINE = f"PROXY TCP4 {CLIENT} {SERVER} 40000 3260\r\n".encode()


def binary(kind: int, addresses: bytes, command: int = 0x21, more: bytes = b"") -> bytes:
    """A header of version 2."""
    return SIGNATURE + struct.pack(">BBH", command, kind, len(addresses + more)) + addresses + more


FOUR = ip_address(CLIENT).packed + ip_address(SERVER).packed + struct.pack(">HH", 40000, 3260)


class HeaderTests(SynchronousTestCase):
    """Tests of L{read}."""

    def test_line(self) -> None:
        """Version 1 tells both ends, of IPv4 and IPv6; what follows is not looked at."""
        self.assertEqual(read(LINE + b"more\r\n"), (ENDS, len(LINE)))
        six = b"PROXY TCP6 2001:db8::7 2001:DB8::1 1 65535\r\n"
        ends = Ends(False, (ip_address("2001:db8::7"), 1), (ip_address("2001:db8::1"), 65535))
        self.assertEqual(read(six), (ends, len(six)))

    def test_binary(self) -> None:
        """Version 2 does too, with or without other things behind the addresses."""
        for more in (b"", b"\x20\0\3abc", bytes(LONGEST - 28)):
            header = binary(0x11, FOUR, more=more)
            self.assertEqual(read(header + b"more"), (ENDS, len(header)))
        pair = ip_address("2001:db8::7").packed + ip_address("2001:db8::1").packed
        found = read(binary(0x21, pair + struct.pack(">HH", 1, 2)))
        assert found is not None
        self.assertEqual(found[0].source, (ip_address("2001:db8::7"), 1))

    def test_mapped(self) -> None:
        """An IPv4 address in the clothes of IPv6 is one of IPv4."""
        mapped = [bytes(10) + b"\xff\xff" + ip_address(each).packed for each in (CLIENT, SERVER)]
        line = f"PROXY TCP6 ::ffff:{CLIENT} ::ffff:c633:6401 40000 3260\r\n".encode()
        for header in (line, binary(0x21, b"".join(mapped) + FOUR[8:])):
            self.assertEqual(read(header), (ENDS, len(header)))

    def test_unknown(self) -> None:
        """A proxy may not know who comes, or come by a UNIX socket; or speak for itself."""
        for header in (
            b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN 192.0.2.7 \xff\n whatever\r\n", binary(0, b""),
            binary(0x01, FOUR), binary(0x31, bytes(216)),
        ):  # fmt: skip
            self.assertEqual(read(header), (Ends(), len(header)), header)
        for kind, addresses in ((0, b""), (0x11, FOUR), (0xFF, b"what it likes")):
            header = binary(kind, addresses, 0x20)
            self.assertEqual(read(header), (Ends(own=True), len(header)))

    def test_pieces(self) -> None:
        """A header may come in any pieces, and is nothing before it is complete."""
        for header in (LINE, binary(0x11, FOUR, more=b"\x20\0\3abc")):
            for length in range(len(header)):
                self.assertIsNone(read(header[:length]), header[:length])

    def test_wrong(self) -> None:
        """Whatever is no header is refused as soon as that is seen, with the reason."""
        for data, why in (
            (b"\x43", "does not begin"), (b"PROXYTCP4", "does not begin"),
            (b"\r\n\r\n\0\r\nQUIT\r", "does not"),
            (b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "does not begin"),
            (b"PROXY " + b"x" * 101, "longer than 107"),
            (b"PROXY " + b"x" * 200 + b"\r\n", "longer than 107"),
            (b"PROXY \r\n", "line is none"), (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "line is none"),
            (b"PROXY UNKNOWNER\r\n", "line is none"), (b"PROXY TCP4 1.2.3.4\r\n", "line is none"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "line is none"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n", "line is none"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n", "line is none"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \xb2\r\n", "line is none"),
            (b"PROXY TCP4 here there 1 2\r\n", "line is none"),
            (b"PROXY TCP4 1.2.3.4\n 1.2.3.4 1 2\r\n", "line is none"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n", "line is none"),
            (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "line is none"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "0 to 65535"),
            (b"PROXY TCP4 1.2.3.400 1.2.3.4 1 2\r\n", "none of TCP4"),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", "none of TCP4"),
            (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "none of TCP6"),
            (binary(0x11, FOUR, 0x11), "version and command are 0x11"),
            (binary(0x11, FOUR, 0x22), "version and command are 0x22"),
            (binary(0x12, FOUR), "no stream"), (binary(0x41, FOUR), "no stream"),
            (binary(0x10, FOUR), "no stream"),
            (binary(0x11, FOUR[:11]), "within the addresses"), (binary(0x21, FOUR), "within the addresses"),
            (binary(0x31, bytes(215)), "within the addresses"),
            (binary(0x11, FOUR, more=bytes(LONGEST))[:16], "longer than 4096"),
        ):  # fmt: skip
            error = self.assertRaises(RemoteError, read, data)
            self.assertIn(why, str(error), data)
            self.assertTrue(str(error).isprintable())

    @given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(b"PROXY TCP4 ".__add__)))
    def test_anything(self, data: bytes) -> None:
        """Any bytes are a header, a part of one, or refused."""
        for begun in (data, binary(0x11, b"")[:13] + data):
            try:
                found = read(begun)
            except RemoteError:
                continue
            self.assertTrue(found is None or found[1] <= len(begun))
