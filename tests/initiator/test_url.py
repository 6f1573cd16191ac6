"""URLs of portals, targets and units."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError
from iscsi_twisted.initiator.url import URL, isURL, masked, parseURL

NAME = "iqn.2001-04.com.example:disk"


class URLTests(SynchronousTestCase):
    """What libiscsi's tools take."""

    def test_right(self) -> None:
        """Everything that can be left out."""
        for text, url in (
            ("iscsi://host", URL("host")),
            ("iscsi://host/", URL("host")),
            ("iscsi://192.0.2.1:3261", URL("192.0.2.1", 3261)),
            ("iscsi://[2001:db8::1]:3261/", URL("2001:db8::1", 3261)),
            (f"iscsi://host/{NAME}", URL("host", target=NAME)),
            (f"iscsi://host:1/{NAME}/7", URL("host", 1, NAME, 7)),
            (f"iscsi://me@host/{NAME}/0", URL("host", 3260, NAME, 0, "me")),
            (f"iscsi://me%secret%40@host/{NAME}/0", URL("host", 3260, NAME, 0, "me", "secret@")),
        ):
            self.assertEqual(parseURL(text), url)
            if not url.secret and "?" not in text:
                self.assertEqual(parseURL(str(url)), url)

    def test_secure(self) -> None:
        """TLS has a scheme of its own, and may name files, whose paths hold in every directory."""
        self.assertEqual(parseURL(f"iscsis://me@host:1/{NAME}/0"), URL("host", 1, NAME, 0, "me", "", True))
        url = parseURL(f"iscsis://[::1]/{NAME}/0?ca=/etc/a%20b&name=san.example.com&cert=c")
        self.assertEqual(
            url.words, (("ca", "/etc/a b"), ("name", "san.example.com"), ("cert", os.path.abspath("c")))
        )
        self.assertEqual(parseURL(str(url)), url)
        self.assertIn("?ca=/etc/a%20b&name=san.example.com&cert=/", str(url))
        self.assertEqual(
            URL("::1", secure=True, words=(("ca", "/a:b"), ("name", "h"))).description(),
            r"iscsi-tls:host=\:\:1:port=3260:caFile=/a\:b:name=h",
        )
        self.assertTrue(isURL("iscsis://host") and isURL("iscsi://host"))
        self.assertFalse(isURL("iscsi.img"))

    def test_wrong(self) -> None:
        """What is wrong is told with what would be right, and without a secret."""
        for text, words in (
            ("http://host/", "iscsi://[USER@]HOST"),
            ("iscsi://", "iscsi://[USER@]HOST"),
            ("iscsi://host:99999/", "1 to 65535"),
            ("iscsi://me%hidden@host:0/", "1 to 65535"),
            ("iscsi://host/disk/0", "not of the form"),
            (f"iscsi://me%hidden@host/{NAME}/x", "iscsi://[USER@]HOST"),
            ("iscsi://host/?ca=x", "TLS is iscsis://"),
            ("iscsis://host/?cafile=x", "one of ca=, cert=, key=, name="),
            ("iscsis://host/?ca=", "and say something"),
            ("iscsis://host/?ca=a&ca=b", "each once"),
            ("iscsis://", "iscsis://[USER@]HOST"),
        ):
            error = str(self.assertRaises(LocalError, parseURL, text))
            self.assertIn(words, error)
            self.assertNotIn("hidden", error)

    def test_secret(self) -> None:
        """A secret is shown nowhere."""
        url = parseURL(f"iscsi://me%hidden@host/{NAME}/0")
        for text in (str(url), repr(url), masked(f"iscsi://me%hidden@host/{NAME}/0")):
            self.assertNotIn("hidden", text)
        self.assertIn("me%***@", str(url))
        self.assertEqual(masked("iscsi://me%hidden/x"), "iscsi://me%***")
        self.assertEqual(masked("iscsi://[fe80::1%eth0]/x y"), "iscsi://[fe80::1%eth0]/x y")

    def test_description(self) -> None:
        """The endpoint that leads there."""
        self.assertEqual(URL("2001:db8::1").description(), r"tcp:host=2001\:db8\:\:1:port=3260")
