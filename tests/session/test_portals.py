"""Which addresses initiators are told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.portals import Portal, addresses

HERE = "198.51.100.1:3260"

ALL = Portal(1, listening="0.0.0.0:3260")
ALL6 = Portal(1, listening="[::]:3260")
SECOND = Portal(2, listening="198.51.100.2:3261")
LOCAL = Portal(3, listening="127.0.0.1:3262")
OUTSIDE = Portal(4, "san.example.com:860", listening="0.0.0.0:3263")
SOCKET = Portal(5, carrier="unix")
TLS = Portal(6, carrier="tls", listening="198.51.100.1:3264")
TLS_OUTSIDE = Portal(6, "127.0.0.1:13260", "tls", "198.51.100.1:3265")
ANY = Portal(7, listening="0.0.0.0:3266")
PORTALS = (ALL, ALL6, SECOND, LOCAL, OUTSIDE, SOCKET, TLS, TLS_OUTSIDE, ANY)


class AddressesTests(SynchronousTestCase):
    """Tests of L{addresses}."""

    def told(self, came: Portal, here: str | None, *groups: int) -> list[str]:
        """What an initiator is told, as it is written on the wire."""
        wanted = frozenset(groups) if groups else None
        return [f"{address},{tag}" for address, tag in addresses(PORTALS, wanted, came, here)]

    def test_all(self) -> None:
        """All portals of the kind that it came by are told, its own first, in the family of its address."""
        self.assertEqual(
            self.told(ALL, HERE),
            [f"{HERE},1", "198.51.100.2:3261,2", "san.example.com:860,4", "198.51.100.1:3266,7"],
        )
        self.assertEqual(
            self.told(ALL6, "[2001:db8::1]:3260"),
            ["[2001:db8::1]:3260,1", "198.51.100.2:3261,2", "san.example.com:860,4"],
        )

    def test_groups(self) -> None:
        """Only portals of the target's groups are told."""
        self.assertEqual(self.told(ALL, HERE, 1, 2), [f"{HERE},1", "198.51.100.2:3261,2"])
        self.assertEqual(self.told(ALL, HERE, 2), ["198.51.100.2:3261,2"])

    def test_loopback(self) -> None:
        """A portal on loopback is told to those who came by loopback."""
        self.assertEqual(
            self.told(LOCAL, "127.0.0.1:3262", 3, 2), ["127.0.0.1:3262,3", "198.51.100.2:3261,2"]
        )
        self.assertEqual(
            self.told(ALL, "127.0.0.1:3260", 1, 3, 7),
            ["127.0.0.1:3260,1", "127.0.0.1:3262,3", "127.0.0.1:3266,7"],
        )

    def test_carrier(self) -> None:
        """Whoever came over TLS is told portals with TLS, and nobody else is."""
        self.assertEqual(self.told(TLS, "198.51.100.1:3264"), ["198.51.100.1:3264,6", "127.0.0.1:13260,6"])
        self.assertEqual(
            self.told(TLS_OUTSIDE, "198.51.100.1:3265"), ["127.0.0.1:13260,6", "198.51.100.1:3264,6"]
        )

    def test_withoutAddress(self) -> None:
        """Where there is no address and none is advertised, none is told."""
        self.assertEqual(self.told(SOCKET, None), [])
        self.assertEqual(
            [*addresses(PORTALS, None, Portal(5, "127.0.0.1:1", "unix"), None)], [("127.0.0.1:1", 5)]
        )

    def test_twice(self) -> None:
        """No address is told twice for one group."""
        twin = Portal(1, listening="198.51.100.1:3260")
        self.assertEqual([*addresses((ALL, twin), None, ALL, HERE)], [(HERE, 1)])

    def test_tags(self) -> None:
        """A tag is a number from 1 to 65535."""
        for tag in (0, -1, 65536):
            self.assertRaises(ValueError, Portal, tag)
        self.assertEqual(Portal(65535).tag, 65535)
