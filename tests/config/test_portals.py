"""Our words in descriptions of endpoints."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.portals import Described, takeApart
from iscsi_twisted.errors import ConfigurationError

GOOD = [
    ("tcp:3260", "tcp:3260", "tcp", 1, None),
    ("tcp:3260:tpgt=2", "tcp:3260", "tcp", 2, None),
    ("tcp:tpgt=65535:3260:interface=127.0.0.1", "tcp:3260:interface=127.0.0.1", "tcp", 65535, None),
    ("tcp:3260:advertise=san.example.com:860", "tcp:3260", "tcp", 1, "san.example.com:860"),
    (r"tcp:3260:advertise=192.0.2.1\:860:tpgt=3", "tcp:3260", "tcp", 3, "192.0.2.1:860"),
    ("tcp:3260:advertise=[2001:db8::1]:860", "tcp:3260", "tcp", 1, "[2001:db8::1]:860"),
    (r"tcp:3260:advertise=[2001\:DB8\:\:1]\:860", "tcp:3260", "tcp", 1, "[2001:db8::1]:860"),
    (
        "tcp:3260:advertise=[2001:db8::1]:860:interface=x",
        "tcp:3260:interface=x",
        "tcp",
        1,
        "[2001:db8::1]:860",
    ),
    ("tcp:3260:advertise=192.0.2.1:860:99", "tcp:3260:99", "tcp", 1, "192.0.2.1:860"),
    (r"tcp6:3260:interface=\:\:1:tpgt=4", r"tcp6:3260:interface=\:\:1", "tcp6", 4, None),
    (
        "unix:/run/iscsi:advertise=127.0.0.1:3260:mode=600",
        "unix:/run/iscsi:mode=600",
        "unix",
        1,
        "127.0.0.1:3260",
    ),
    ("systemd:domain=INET:index=0:tpgt=2", "systemd:domain=INET:index=0", "systemd", 2, None),
    (r"unix:/run/a\:tpgt=2", r"unix:/run/a\:tpgt=2", "unix", 1, None),
    ("haproxy:tcp:3260:tpgt=2", "haproxy:tcp:3260", "haproxy", 2, None),
    ("ssl:3260:privateKey=k:tpgt=2:certKey=c", "ssl:3260:privateKey=k:certKey=c", "ssl", 2, None),
    ("", "", "", 1, None),
    ("tcp:1\\", "tcp:1\\", "tcp", 1, None),
]

BAD = [
    ("tcp:1:tpgt=0", "tpgt=: 1 to 65535 is wanted, not '0'"),
    ("tcp:1:tpgt=65536", "tpgt=: 1 to 65535"),
    ("tcp:1:tpgt=", "tpgt=: 1 to 65535"),
    ("tcp:1:tpgt=one", "tpgt=: 1 to 65535"),
    ("tcp:1:tpgt=1:tpgt=1", "tpgt= stands twice; remove one"),
    ("tcp:1:advertise=a:1:advertise=b:1", "advertise= stands twice"),
    ("tcp:1:advertise=", "advertise=: HOST:PORT or [IPV6]:PORT is wanted, not ''"),
    ("tcp:1:advertise=host", "advertise=: HOST:PORT or [IPV6]:PORT is wanted, not 'host'"),
    ("tcp:1:advertise=host:0", "advertise=: HOST:PORT"),
    ("tcp:1:advertise=host:65536", "advertise=: HOST:PORT"),
    ("tcp:1:advertise=a b:1", "advertise=: HOST:PORT"),
    ("tcp:1:advertise=a,b:1", "advertise=: HOST:PORT"),
    (r"tcp:1:advertise=2001\:db8\:\:1\:1", "advertise=: HOST:PORT"),
    ("tcp:1:advertise=[]:1", "advertise=: '[]' is no IPv6 address"),
    ("tcp:1:advertise=[192.0.2.1]:1", "advertise=: '[192.0.2.1]' is no IPv6"),
    ("tcp:1:advertise=[2001:db8::1", "advertise=: HOST:PORT"),
]


class TakeApartTests(SynchronousTestCase):
    """Tests of L{takeApart}."""

    def test_good(self) -> None:
        """The words are taken out wherever they stand, and the rest stays as it was written."""
        for text, endpoint, kind, tag, advertised in GOOD:
            with self.subTest(text=text):
                self.assertEqual(takeApart(text), Described(endpoint, kind, tag, advertised))

    def test_bad(self) -> None:
        """What cannot be meant is an error that says what would be right."""
        for text, message in BAD:
            with self.subTest(text=text):
                error = self.assertRaises(ConfigurationError, takeApart, text)
                self.assertEqual(str(error)[: len(message)], message)
