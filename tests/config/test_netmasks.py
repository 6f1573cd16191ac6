# -*- test-case-name: tests.config.test_netmasks -*-
"""Which hosts a netmask admits."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import classImplements
from zope.interface.verify import verifyObject

from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.interfaces import IAccessPolicy

ADMITTED = [
    ("0.0.0.0/0", "9.9.9.9"),
    ("0.0.0.0/0", "2001:db8::1"),
    ("0/0", "9.9.9.9"),
    ("0/0", "::1"),
    ("10.0.0.0/0.0.0.0", "9.9.9.9"),
    ("any", "9.9.9.9"),
    ("any", "::1"),
    ("any", None),
    ("any", "a peer of some other transport"),
    ("Any", "9.9.9.9"),
    ("all", "::1"),
    ("all", None),
    ("any4", "9.9.9.9"),
    ("any4", "::ffff:9.9.9.9"),
    ("any6", "2001:db8::1"),
    ("any4,any6", "2001:db8::1"),
    ("10.4.0.0/16", "10.4.1.5"),
    ("10.4/16", "10.4.1.5"),
    ("10.4/16", "::ffff:10.4.1.5"),
    ("10.4.1.5", "10.4.1.5"),
    ("10.4.1.5/32", "10.4.1.5"),
    ("10.4.3/8", "10.9.9.9"),
    ("127.0.0.0/8", "127.0.0.1"),
    ("127.0.0.0/8", "::1"),
    ("127/8", "::1"),
    ("126/7", "::1"),
    ("10.0.0.0/255.0.0.0", "10.1.1.1"),
    ("10.4.0.0/255.255.128.0", "10.4.127.1"),
    ("255.255.255.255", "255.255.255.255"),
    ("0.0.0.0", "0.0.0.0"),
    ("::1", "::1"),
    ("::1/128", "0:0:0:0:0:0:0:1"),
    ("2001:db8::/32", "2001:db8:ffff::1"),
    ("2001:db8::5/32", "2001:db8:1::"),
    ("2001:DB8::/32", "2001:db8::1"),
    ("::/0", "2001:db8::1"),
    ("fe80::/10", "fe80::1%eth0"),
    ("::ffff:10.4.0.0/112", "10.4.9.9"),
    ("::ffff:10.4.0.0/112", "::ffff:10.4.9.9"),
    ("10.4/16,::1,127/9", "::1"),
    ("10.4/16,::1,127/8", "127.3.3.3"),
    ("10.4/16,any", None),
    ("any,!10.4/16", "10.5.0.1"),
    ("any,!10.4/16", "2001:db8::1"),
    ("any,!10.4/16", None),
    ("!10.4.1.5,10.4/16", "10.4.1.6"),
    ("any6,!2001:db8::/32", "2001:db9::1"),
]

REFUSED = [
    ("none", "9.9.9.9"),
    ("none", "0.0.0.0"),
    ("none", "::1"),
    ("none", None),
    ("any4", "::1"),
    ("any4", None),
    ("any6", "9.9.9.9"),
    ("any6", "::ffff:9.9.9.9"),
    ("any4,any6", None),
    ("0/0", None),
    ("::/0", "9.9.9.9"),
    ("::/0", "::ffff:9.9.9.9"),
    ("10.4.0.0/16", "10.5.0.1"),
    ("10.4.0.0/16", "::1"),
    ("127.0.0.1", "::1"),
    ("127.0.0.0/9", "::1"),
    ("127.0.0.0/8", "::2"),
    ("127.0.0.0/8", "::"),
    ("10.4.0.0/16", "::ffff:10.5.0.1"),
    ("10.4.0.0/16", None),
    ("10.4.0.0/16", ""),
    ("10.4.0.0/16", "10.4"),
    ("10.4.0.0/16", "10.4.1.5\0"),
    ("10.4.0.0/16", "10.4.1.\u0665"),
    ("10.4.0.0/255.255.128.0", "10.4.128.1"),
    ("10.4.1.5", "10.4.1.6"),
    ("0.0.0.0", "0.0.0.1"),
    ("::1", "::2"),
    ("2001:db8::/32", "2001:db9::1"),
    ("2001:db8::/32", "10.4.1.5"),
    ("10.4/16,::1,127/8", "126.0.0.1"),
    ("any,!10.4/16", "10.4.1.5"),
    ("any,!10.4/16", "::ffff:10.4.1.5"),
    ("any,!10.4/16", "a peer of some other transport"),
    ("!10.4.1.5,10.4/16", "10.4.1.5"),
    ("10.4.1.5,!10.4/16", "10.4.1.5"),
    ("10.4/16,!10.4.1.5", "10.5.0.1"),
    ("10.4/16,!10.4.1.5", None),
    ("any,!127/8", "::1"),
    ("any,!::ffff:10.4.0.0/112", "10.4.1.5"),
    ("any6,!2001:db8::/32", "2001:db8::1"),
    ("any,!0/0", "::1"),
]

BAD = [
    ("", "an empty item"),
    ("any,", "an empty item"),
    (",any", "an empty item"),
    ("10/8,,any", "an empty item"),
    ("none,10/8", "'none' in the list 'none,10/8'; it can only stand alone"),
    ("10/8,None", "can only stand alone"),
    ("localhost", "'localhost' is not a netmask (names of hosts are not looked up); write ADDRESS/BITS"),
    ("any5", "is not a netmask"),
    ("*", "is not a netmask"),
    ("10.4.*.*", "is not a netmask"),
    ("10.4", "'10.4' is only part of an address; write 10.4/16 for that network, or 10.4.0.0 for one host"),
    ("10", "write 10/8 for that network, or 10.0.0.0 for one host"),
    ("10.4.3", "write 10.4.3/24"),
    ("10.4.", "is not a netmask"),
    ("10.4./16", "is not a netmask"),
    ("10.4.0.0.0/16", "is not a netmask"),
    ("256.0.0.0/8", "is not an IPv4 address"),
    ("10.04.0.0/16", "without leading zeros"),
    ("\u0661\u0660/8", "is not a netmask"),
    ("10.0.0.0/abc", "'abc' in '10.0.0.0/abc' is no number of bits; write 0 to 32"),
    ("10.0.0.0/33", "write 0 to 32"),
    ("10.0.0.0/-1", "write 0 to 32"),
    ("10.0.0.0/", "write 0 to 32"),
    ("10.0.0.0/8/8", "write 0 to 32"),
    ("10.0.0.0/\u0668", "write 0 to 32"),
    (
        "10.0.0.0/255.0.255.0",
        "'255.0.255.0' in '10.0.0.0/255.0.255.0' is not a mask; write one such as 255.255.0.0",
    ),
    ("10.0.0.0/0.255.255.255", "is not a mask"),
    ("10.0.0.0/255.0.0", "is not a mask"),
    ("::1/129", "write 0 to 128"),
    ("::1/ffff::", "write 0 to 128"),
    ("::1::", "is not an IPv6 address"),
    ("[::1]", "is not an IPv6 address"),
    ("fe80::1%eth0", "names a zone"),
    ("!10.4/16", "'!10.4/16' admits nobody; write any,!10.4/16 to admit all the others"),
    ("!", "an empty item"),
    ("any,!", "an empty item"),
    ("any,!any", "'!any' excludes everybody"),
    ("any,!none", "'!none' excludes nobody"),
    ("any,!!10.4/16", "is not a netmask"),
]


class NetmaskTests(SynchronousTestCase):
    """Tests of L{Netmask}."""

    def test_admitted(self) -> None:
        """Hosts within the mask are admitted, IPv4 ones also over IPv6 sockets."""
        for text, address in ADMITTED:
            with self.subTest(text=text, address=address):
                self.assertIs(Netmask(text).admits(address), True)

    def test_refused(self) -> None:
        """All others are refused, and so is what has no address unless everybody is meant."""
        for text, address in REFUSED:
            with self.subTest(text=text, address=address):
                self.assertIs(Netmask(text).admits(address), False)

    def test_together(self) -> None:
        """Some masks together admit whom any of them admits."""
        pairs = ADMITTED + REFUSED
        texts = sorted({text for text, _ in pairs})
        for number in range(0, len(texts), 3):
            few = [Netmask(text) for text in texts[number : number + 3]]
            for chosen in (few[:1], few[:2], few):
                joined = Netmask.together(chosen)
                for address in {address for _, address in pairs}:
                    with self.subTest(chosen=chosen, address=address):
                        wanted = any(mask.admits(address) for mask in chosen)
                        self.assertIs(joined.admits(address), wanted)

    def test_bad(self) -> None:
        """A mask that cannot be understood is an error that says what would be right."""
        for text, message in BAD:
            with self.subTest(text=text):
                error = self.assertRaises(ConfigurationError, Netmask, text)
                self.assertIn(message, str(error))

    def test_text(self) -> None:
        """A mask gives its text back, and is equal to another of the same text."""
        mask = Netmask("10.4.3/8,::1")
        self.assertEqual(str(mask), "10.4.3/8,::1")
        self.assertEqual(repr(mask), "Netmask('10.4.3/8,::1')")
        self.assertEqual({mask, Netmask("10.4.3/8,::1")}, {mask})
        self.assertNotEqual(mask, Netmask("any"))
        self.assertNotEqual(mask, "10.4.3/8,::1")

    def test_policy(self) -> None:
        """It has the shape of an access policy."""

        class Policy(Netmask):
            """A netmask that says so."""

        classImplements(Policy, IAccessPolicy)
        self.assertTrue(verifyObject(IAccessPolicy, Policy("any")))

    @given(st.integers(0, 2**32 - 1), st.integers(1, 32), st.integers(0, 2**32 - 1), st.integers(0, 32))
    def test_four(self, network: int, bits: int, host: int, shared: int) -> None:
        """IPv4 masks agree with the standard library's."""
        keep = ~(0xFFFFFFFF >> shared)
        host = network & keep | host & ~keep  # hosts near the network, at a random distance
        text = f"{ipaddress.IPv4Address(network)}/{bits}"
        address = ipaddress.IPv4Address(host)
        self.assertEqual(
            Netmask(text).admits(str(address)), address in ipaddress.ip_network(text, strict=False)
        )

    @given(st.integers(0, 2**128 - 1), st.integers(0, 128), st.integers(0, 2**128 - 1), st.integers(0, 128))
    def test_six(self, network: int, bits: int, host: int, shared: int) -> None:
        """IPv6 masks agree with the standard library's."""
        keep = ~((2**128 - 1) >> shared)
        network |= 1 << 127  # far from the mapped range, which means IPv4
        host = network & keep | host & ~keep | 1 << 127
        text = f"{ipaddress.IPv6Address(network)}/{bits}"
        address = ipaddress.IPv6Address(host)
        self.assertEqual(
            Netmask(text).admits(str(address)), address in ipaddress.ip_network(text, strict=False)
        )

    @given(st.text(max_size=40))
    def test_anything(self, text: str) -> None:
        """Any text is a mask or a configuration error, and as an address is admitted or not."""
        try:
            mask = Netmask(text)
        except ConfigurationError:
            mask = Netmask("10.4/16,2001:db8::/32")
        self.assertIn(mask.admits(text), (True, False))
