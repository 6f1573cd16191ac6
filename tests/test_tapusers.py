# -*- test-case-name: tests.test_tapusers -*-
"""The options of C{twistd iscsi} that say who may log in."""

from __future__ import annotations

import os
from typing import Any

from iscsi_twisted import tap
from tests.test_tap import OptionsTestCase


class AuthsTests(OptionsTestCase):
    """Tests of the auths file."""

    def test_missing(self) -> None:
        """The default file may be missing; one that is named may not."""
        self.options("-f", "F")
        for option in ("-a", "--auths"):
            self.assertEqual(
                self.refusal("-f", "F", option, "none"), ["none: cannot be read: No such file or directory"]
            )

    def users(self, text: str = "agc:chap:correct horse battery\n", mode: int = 0o600) -> None:
        """Write an auths file C{A}."""
        self.write("A", text)
        os.chmod("A", mode)

    def test_users(self) -> None:
        """Users are read, from the file that is named or the default one; the service asks for them."""
        self.users()
        options = self.options("-f", "F", "-a", "A")
        assert options.users is not None
        account = options.users.find("agc")
        assert account is not None
        self.assertEqual((account.secret, options.users.find("AGC")), (b"correct horse battery", None))
        os.makedirs(os.path.dirname(tap.AUTHS), exist_ok=True)
        os.rename("A", tap.AUTHS)
        service: Any = tap.makeService(self.options("-f", "F"))
        self.assertIsNotNone(service.node.authenticate)
        self.assertEqual(service.journal.auths, tap.AUTHS)
        service = tap.makeService(self.options("-f", "F", "--open-discovery"))
        self.assertIsNone(service.node.authenticate)
        self.users()
        service = tap.makeService(self.options("-f", "F", "-a", "A"))
        self.assertEqual(service.journal.auths, os.path.join(os.getcwd(), "A"))

    def test_hashes(self) -> None:
        """All hashes are allowed but for those that are left out; what is none is an error."""
        self.assertEqual(self.options("-f", "F").algorithms, (5, 6, 7, 8))
        self.assertEqual(self.options("-f", "F", "--chap", "SHA3-256,sha256").algorithms, (8, 7))
        for text in ("md4", "", "md5,"):
            (found,) = self.refusal("-f", "F", "--chap", text)
            self.assertIn("wanted are some of md5, sha1, sha256, sha3-256", found)

    def test_open(self) -> None:
        """A file of secrets that everybody can read is refused, unless somebody knows better."""
        self.users(mode=0o644)
        (found,) = self.refusal("-f", "F", "-a", "A")
        self.assertTrue(found.startswith("A: everybody on this machine can use it (mode 644)"), found)
        self.assertIsNotNone(self.options("-f", "F", "-a", "A", "--open-auths").users)

    def test_access(self) -> None:
        """What targets ask of users who are not there is told with its line."""
        text = (
            "extent0 a 0 1M\nextent1 b 0 1M\ntarget0 extent0 any auth=chap\ntarget1 extent1 any users=agc,x\n"
        )
        self.write("T", text)
        found = self.refusal("-f", "T")
        self.assertEqual([line[:5] for line in found], ["T:3: ", "T:4: "])
        self.assertIn("name an auths file", found[0])
        self.users()
        self.assertEqual(
            self.refusal("-f", "T", "-a", "A"),
            ["T:4: users=: 'x' has no secret and no certificate in the auths file"],
        )

    def test_short(self) -> None:
        """Secrets that are too short are warned of, and not told."""
        self.users("agc:chap:hidden\nme:chap:long enough it is:it:hidden2\nyou:chap:this is long enough\n")
        warnings = self.options("-f", "F", "-a", "A").warnings
        self.assertEqual(
            [line[:28] for line in warnings], ["A:1: the secret of 'agc' has", "A:2: the secret of 'me' has "]
        )
        self.assertNotIn("hidden", "".join(warnings))

    def test_nobody(self) -> None:
        """A file without such users is fine."""
        self.write("A", "# nobody\nagc:none\n")
        self.options("-f", "F", "-a", "A")
        self.options("-f", "F", "-a", "/dev/null")

    def test_wrong(self) -> None:
        """Faults of the file are told with its lines."""
        self.write("A", "a:b:c:d\n:chap:x\n")
        self.assertEqual([line[:4] for line in self.refusal("-f", "F", "-a", "A")], ["A:1:", "A:2:"])

    def test_unreadable(self) -> None:
        """A default file that cannot be read is a fault: it may hold users."""
        os.makedirs(tap.AUTHS)
        self.assertEqual(
            self.refusal("-f", "F"), [f"{tap.AUTHS}: cannot be read: Is a directory; wanted is a file"]
        )
