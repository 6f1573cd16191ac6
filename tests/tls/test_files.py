"""Keys and certificates in files."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.tls.files import exposed, loadAuthorities, loadIdentity, names, subject
from tests.support.certificates import YEAR, Authority


class FilesTests(SynchronousTestCase):
    """Tests of L{loadIdentity} and L{loadAuthorities}."""

    def setUp(self) -> None:
        """An authority with one certificate."""
        self.authority = Authority(self.mktemp())
        self.certificate, self.key = self.authority.issue(
            "host.example.com", "alias.example.com", "192.0.2.1"
        )

    def fault(self, certificate: str, key: str, now: datetime | None = None) -> str:
        """What is wrong with a pair of files."""
        return str(self.assertRaises(ConfigurationError, loadIdentity, certificate, key, now))

    def join(self, *paths: str) -> str:
        """One file of several."""
        joined = self.mktemp()
        with open(joined, "w") as file:
            for path in paths:
                with open(path) as one:
                    file.write(one.read())
        return joined

    def test_identity(self) -> None:
        """A key goes with the first certificate of its file; others lead from it to an authority."""
        identity = loadIdentity(self.certificate, self.key)
        self.assertEqual([subject(each) for each in identity.chain], ["host.example.com"])
        self.assertNotIn("key=", repr(identity))
        both = self.join(self.key, self.certificate, self.authority.path)
        identity = loadIdentity(both, both)
        self.assertEqual([subject(each) for each in identity.chain], ["host.example.com", "authority"])

    def test_missing(self) -> None:
        """Files that are not there, or hold something else, are named."""
        none = self.mktemp()
        self.assertEqual(self.fault(none, self.key), f"{none}: No such file or directory")
        self.assertEqual(self.fault(self.certificate, none), f"{none}: No such file or directory")
        self.assertIn(f"{self.key}: holds no certificate in PEM form", self.fault(self.key, self.key))
        self.assertIn(
            f"{self.certificate}: holds no private key in PEM form",
            self.fault(self.certificate, self.certificate),
        )
        self.assertIn(": Is a directory", self.fault(self.authority.directory, self.key))

    def test_others(self) -> None:
        """The key of another certificate, and one with a passphrase, are told."""
        _, other = self.authority.issue("other")
        self.assertEqual(
            self.fault(self.certificate, other),
            f"{other}: is not the key of the certificate in {self.certificate}",
        )
        certificate, key = self.authority.issue("locked", passphrase=b"secret")
        self.assertIn(f"{key}: the key has a passphrase", self.fault(certificate, key))

    def test_time(self) -> None:
        """A certificate that has expired, or is not valid yet, is told with its time."""
        now = datetime.now(UTC)
        self.assertRegex(
            self.fault(self.certificate, self.key, now + YEAR),
            r"the certificate of host\.example\.com has expired, 20\d\d-\d\d-\d\d \d\d:\d\d UTC$",
        )
        self.assertIn("is not valid before 20", self.fault(self.certificate, self.key, now - YEAR))

    def test_authorities(self) -> None:
        """Of several authorities one that is valid suffices."""
        old = Authority(self.mktemp(), "old", age=2 * YEAR)
        error = self.assertRaises(ConfigurationError, loadAuthorities, old.path)
        self.assertIn(f"{old.path}: the certificate of old has expired, ", str(error))
        self.assertEqual(len(loadAuthorities(self.join(old.path, self.authority.path))), 2)
        self.assertRaises(ConfigurationError, loadAuthorities, self.key)

    def test_names(self) -> None:
        """A certificate has the common names of its subject, then its other names, but no addresses."""
        path, _ = self.authority.issue(
            "agc", "b.example.com", x509.RFC822Name("agc@example.com"), "192.0.2.1", "agc",
            x509.UniformResourceIdentifier("iqn:x"),
        )  # fmt: skip
        (certificate,) = loadAuthorities(path)
        self.assertEqual(names(certificate), ("agc", "b.example.com", "agc@example.com", "iqn:x"))
        self.assertEqual(subject(certificate), "agc")
        (nobody,) = loadAuthorities(self.authority.issue("")[0])
        self.assertEqual((names(nobody), subject(nobody)), ((), "nobody"))

    def test_exposed(self) -> None:
        """A key that everybody can read, and any file that everybody can write, is known."""
        for mode, private, public in (
            (0o640, None, None),
            (0o644, "everybody on this machine can read", None),
            (0o622, *2 * ("everybody on this machine can write",)),
        ):
            os.chmod(self.key, mode)
            self.assertEqual((exposed(self.key, True), exposed(self.key, False)), (private, public))

    def test_age(self) -> None:
        """The certificates of these tests can be made in the past."""
        path, key = self.authority.issue("late", age=timedelta(days=366))
        self.assertIn("has expired", self.fault(path, key))
