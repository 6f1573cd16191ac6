"""Where an initiator speaks TLS."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import ConfigurationError, LocalError
from iscsi_twisted.initiator import Initiator
from iscsi_twisted.initiator.remote import nameRemote
from iscsi_twisted.initiator.secure import TLSEndpoint, clientEndpoint
from tests.support.certificates import Authority

TARGET = "iqn.2001-04.com.example:disk/0"


class EndpointTests(SynchronousTestCase):
    """Tests of L{clientEndpoint}."""

    def test_parts(self) -> None:
        """Host and port, and the name that the certificate has to have."""
        for parts, words, expected in (
            (("host",), {}, ("host", 3260, "host")),
            (("192.0.2.1", "3261"), {}, ("192.0.2.1", 3261, "192.0.2.1")),
            (("localhost", "1"), {"name": "san.example.com"}, ("localhost", 1, "san.example.com")),
        ):
            made = clientEndpoint(None, *parts, **words)
            self.assertEqual((made.host, made.port, made.tls.name), expected)

    def test_faults(self) -> None:
        """What is wrong is told with what would be right; a file with its name."""
        faults: list[tuple[tuple[str, ...], dict[str, str], str]] = [
            ((), {}, "should read iscsi-tls:HOST:PORT"),
            (("h", "1", "2"), {}, "should read iscsi-tls:HOST:PORT"),
            (("h",), {"speed": "1"}, "should read iscsi-tls:HOST:PORT"),
            (("h", "0"), {}, "1 to 65535"),
            (("h", "http"), {}, "1 to 65535"),
            (("h",), {"key": "k"}, "key= without cert="),
            (("h",), {"name": "san example"}, "'san example' is no name that a certificate could have"),
            (("a" * 64,), {}, "is no name that a certificate could have"),
        ]
        for parts, words, fault in faults:
            self.assertIn(fault, str(self.assertRaises(LocalError, clientEndpoint, None, *parts, **words)))
        error = self.assertRaises(ConfigurationError, clientEndpoint, None, "h", caFile="/nonexistent/ca")
        self.assertEqual(str(error), "/nonexistent/ca: No such file or directory")

    def test_texts(self) -> None:
        """An initiator understands descriptions, and tells what is wrong with them."""
        initiator = Initiator(MemoryReactorClock())
        self.assertIsInstance(initiator.endpoint("iscsi-tls:localhost:3260"), TLSEndpoint)
        error = self.assertRaises(LocalError, initiator.endpoint, "iscsi-tls:h:1:caFile=/nonexistent/ca")
        self.assertEqual(
            str(error), "iscsi-tls:h:1:caFile=/nonexistent/ca: /nonexistent/ca: No such file or directory"
        )

    def test_elsewhere(self) -> None:
        """Whoever is sent elsewhere over TLS speaks it there, and looks for that host's certificate."""
        initiator = Initiator(MemoryReactorClock())
        authority = Authority(self.mktemp())
        made = clientEndpoint(None, "h", caFile=authority.path)
        there: Any = initiator._elsewhere(made, "[2001:db8::1]:3261")
        self.assertEqual((there.host, there.port, there.tls.name), ("2001:db8::1", 3261, "2001:db8::1"))
        self.assertRaises(LocalError, initiator._elsewhere, made, "tcp:h:1")
        self.assertNotIsInstance(initiator._elsewhere(initiator.endpoint("h"), "h2:1"), TLSEndpoint)

    def test_extents(self) -> None:
        """A unit of another target may be reached over TLS; files are looked at when the line is read."""
        authority = Authority(self.mktemp())
        url = f"iscsis://host/{TARGET}?ca={authority.path}"
        self.assertTrue(nameRemote(url).startswith(f"iscsis://host:3260/{TARGET}?ca=/"))
        error = self.assertRaises(ConfigurationError, nameRemote, f"iscsis://host/{TARGET}?ca=/nonexistent")
        self.assertEqual(str(error), "/nonexistent: No such file or directory")
