"""URLs of portals, targets and units."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError
from iscsi_twisted.initiator.url import URL, masked, parseURL

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
            if not url.secret:
                self.assertEqual(parseURL(str(url)), url)

    def test_wrong(self) -> None:
        """What is wrong is told with what would be right, and without a secret."""
        for text, words in (
            ("http://host/", "iscsi://[USER@]HOST"),
            ("iscsi://", "iscsi://[USER@]HOST"),
            ("iscsi://host:99999/", "1 to 65535"),
            ("iscsi://me%hidden@host:0/", "1 to 65535"),
            ("iscsi://host/disk/0", "not of the form"),
            (f"iscsi://me%hidden@host/{NAME}/x", "iscsi://[USER@]HOST"),
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

    def test_description(self) -> None:
        """The endpoint that leads there."""
        self.assertEqual(URL("2001:db8::1").description(), r"tcp:host=2001\:db8\:\:1:port=3260")
