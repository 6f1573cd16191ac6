"""What TLS says when it fails."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.tls.protocol import GuardedTLS


class WhyTests(SynchronousTestCase):
    """Tests of L{GuardedTLS.why}."""

    def why(self, error: Exception, complaint: str = "") -> str | None:
        """The words for an error."""
        guarded = GuardedTLS.__new__(GuardedTLS)
        guarded.complaint = complaint
        return guarded.why(Failure(error))

    def test_errors(self) -> None:
        """What can be helped is told in words, other things as OpenSSL tells them."""
        for said, words in (
            ("tlsv13 alert certificate required", "TLS: the other side refuses it: certificate required"),
            ("peer did not return a certificate", "TLS: it shows no certificate, and one is required"),
            ("wrong version number", "TLS: it speaks no TLS"),
            ("unsupported protocol", "TLS: it speaks no TLS 1.3"),
            ("something new", "TLS: something new"),
            ("", "TLS: the handshake failed"),
        ):
            self.assertEqual(self.why(SSL.Error([("SSL routines", "", said)])), words)
        self.assertEqual(self.why(SSL.Error()), "TLS: the handshake failed")
        self.assertEqual(self.why(SSL.Error([("a", "b", "c")]), "TLS: its name"), "TLS: its name")

    def test_others(self) -> None:
        """The end of a connection is nothing that TLS did."""
        self.assertIsNone(self.why(ConnectionDone()))
