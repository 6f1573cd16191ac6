# -*- test-case-name: tests.config.test_auths -*-
"""The auths file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.auths import Auths, Credential, loadAuths, parseAuths
from iscsi_twisted.config.model import Where
from iscsi_twisted.errors import ConfigurationErrors

GOOD = """\
# user:method:secret
agc:CHAP:secret of some length
\t root:chap:with \\#, a\\:colon, a#sign and \\back\\\\slashes

iqn.1991-05.com.microsoft\\:ws2:Chap:twelve\\
 letters
nulltest
agc:none
Agc:none:
größe:CHAP:größer
agc:TLS
joe:tls:joe@example.com
"""

BAD = [
    ("a:chap:b:c:d:hidden", "6 fields where 5 is the most (USER:CHAP:SECRET[:TARGET-USER:TARGET-SECRET]); a"),
    (":chap:hidden", "a user name has 1 to 255 bytes; a line is: USER:CHAP:SECRET"),
    ("u" * 256 + ":chap:hidden", "a user name has 1 to 255 bytes"),
    ("a:hidden", "the second field is no method; write chap, tls or none: USER:CHAP:SECRET"),
    ("a:hidden:chap", "the second field is no method"),
    ("a::hidden", "the second field is no method"),
    ("a:", "the second field is no method"),
    ("a:chap", "no secret for method chap; write USER:CHAP:SECRET"),
    ("a:chap:", "no secret for method chap"),
    ("a:tls:", "no name for method tls; without one it is the user's: USER:TLS[:NAME]"),
    ("a:tls:b:hidden", "4 fields where 3 is the most for method tls"),
    ("a:none:hidden", "a secret that method none never asks for; write chap, or remove the secret"),
    ("a :chap:hidden", "white space before or after the user; there is none around ':'"),
    ("a: chap:hidden", "white space before or after the method"),
    ("a:chap: hidden", "white space before or after the secret"),
    ("a:chap:hidden\t", "white space before or after the secret"),
    (
        "a:chap:hidden # note",
        "'#' after white space; a comment has a line of its own here, and in a secret it is",
    ),
    ("a:chap:hid\0den", "a NUL character; the file has to be text"),
    ("a:chap:hid\udcffden", "byte 0xFF is not UTF-8"),
    ("a:chap:hidden\\", "the file ends in a backslash"),
]


class AuthsTests(SynchronousTestCase):
    """Tests of L{parseAuths}."""

    def test_good(self) -> None:
        """Each line is a user, with a method in any case and a secret that may hold blanks and signs."""
        self.assertEqual(
            parseAuths(GOOD, "F").users,
            (
                Credential("agc", "chap", b"secret of some length"),
                Credential("root", "chap", b"with #, a:colon, a#sign and \\back\\\\slashes"),
                Credential("iqn.1991-05.com.microsoft:ws2", "chap", b"twelve letters"),
                Credential("nulltest", "none", None),
                Credential("agc", "none", None),
                Credential("Agc", "none", None),
                Credential("größe", "chap", "größer".encode()),
                Credential("agc", "tls", None, certificate="agc"),
                Credential("joe", "tls", None, certificate="joe@example.com"),
            ),
        )

    def test_where(self) -> None:
        """Each credential knows its file and first line."""
        places = [credential.where for credential in parseAuths(GOOD, "F").users]
        self.assertEqual(places, [Where("F", line) for line in (2, 3, 5, 7, 8, 9, 10, 11, 12)])

    def test_certificates(self) -> None:
        """One certificate belongs to one user."""
        error = self.assertRaises(ConfigurationErrors, parseAuths, "b:tls\na:tls:b", "F")
        self.assertEqual(str(error), "F:2: the certificate of 'b' already is that of 'b', line 1; remove one")

    def test_find(self) -> None:
        """A user is found by exact name and method."""
        auths = parseAuths(GOOD, "F")
        self.assertIs(auths.find("agc"), auths.users[0])
        self.assertIs(auths.find("agc", "none"), auths.users[4])
        self.assertIs(auths.find("AGC"), None)
        self.assertIs(auths.find("nulltest"), None)

    def test_lineEnds(self) -> None:
        """Lines may end in CR LF, which is no part of a secret."""
        self.assertEqual(parseAuths("a:chap:b\r\nc:chap:d\r", "F").users[1].secret, b"d")
        self.assertEqual(parseAuths("a:chap:b\r\n", "F").users[0].secret, b"b")

    def test_empty(self) -> None:
        """A file without a user is no error."""
        self.assertEqual(parseAuths("# nobody \\\n\n", "F").users, ())
        self.assertEqual(Auths().users, ())

    def test_bad(self) -> None:
        """A malformed line is an error of its line that repeats nothing which might be a secret."""
        for line, message in BAD:
            with self.subTest(line=line):
                error = self.assertRaises(ConfigurationErrors, parseAuths, f"x\n{line}", "F")
                self.assertEqual(str(error)[: 5 + len(message)], f"F:2: {message}")
                self.assertNotIn("hidden", str(error))
                self.assertEqual(len(error.errors), 1)

    def test_duplicate(self) -> None:
        """One line for each user and method; all faults are told."""
        text = "a:chap:hidden\nb:x\na:CHAP:hidden2\nA:chap:c\na:none\n"
        error = self.assertRaises(ConfigurationErrors, parseAuths, text, "F")
        self.assertEqual(
            str(error).split("\n"),
            [
                "F:2: the second field is no method; write chap, tls or none: "
                "USER:CHAP:SECRET[:TARGET-USER:TARGET-SECRET]",
                "F:3: user 'a' already has a line for chap, line 1; remove one",
            ],
        )

    def test_mutual(self) -> None:
        """Two more fields are what the target proves to that user."""
        (user,) = parseAuths("me:chap:hidden:it:hidden\\:two\n", "F").users
        self.assertEqual((user.secret, user.targetUser, user.targetSecret), (b"hidden", "it", b"hidden:two"))
        self.assertNotIn("two", repr(user))
        for line, message in (
            ("me:chap:hidden:it", "for mutual authentication both"),
            ("me:chap:hidden::hidden2", "for mutual authentication both"),
            ("me:none::it:hidden2", "a target's name that method none"),
            ("me:chap:hidden:it:hidden", "one secret for both directions"),
        ):
            error = self.assertRaises(ConfigurationErrors, parseAuths, line, "F")
            self.assertTrue(str(error).startswith(f"F:1: {message}"), error)
            self.assertNotIn("hidden", str(error))

    def test_directions(self) -> None:
        """What the target proves itself with to one user is no other user's secret either."""
        lines = "a:chap:hidden-one:it:hidden-two\nb:chap:hidden-two\nc:chap:hidden-3:it:hidden-two\n"
        error = self.assertRaises(ConfigurationErrors, parseAuths, lines, "F")
        self.assertEqual(
            str(error).splitlines(),
            [
                f"F:{line}: the target's secret for '{user}' is also the secret of 'b', line 2;"
                " the target's has to be another (RFC 7143 12.1.3)"
                for line, user in ((1, "a"), (3, "c"))
            ],
        )
        both = parseAuths(lines.replace("b:chap:hidden-two", "b:chap:hidden-4"), "F")
        self.assertEqual(len(both.users), 3)

    def test_secrecy(self) -> None:
        """Nothing that is shown of a credential holds its secret."""
        auths = parseAuths("agc:chap:hidden\n", "F")
        for shown in (repr(auths.users[0]), str(auths.users), f"{auths.users[0]}", repr(auths), str(auths)):
            self.assertNotIn("hidden", shown)
        self.assertIn("agc", repr(auths.users[0]))
        self.assertEqual(repr(auths), "<Auths of 1 users>")

    def test_load(self) -> None:
        """A file is read from disk, and messages call it as the caller did."""
        path = self.mktemp()
        error = self.assertRaises(ConfigurationErrors, loadAuths, path)
        self.assertEqual(str(error), f"{path}: cannot be read: No such file or directory")
        with open(path, "wb") as file:
            file.write(b"agc:CHAP:abc\nx:y:z\n")
        error = self.assertRaises(ConfigurationErrors, loadAuths, path)
        self.assertIn(f"{path}:2: the second field", str(error))
        with open(path, "wb") as file:
            file.write(b"agc:CHAP:abc\n")
        self.assertEqual(loadAuths(path).users, (Credential("agc", "chap", b"abc"),))

    @given(st.text() | st.text("ab:\\# \t\n\r\0\udc80"))
    def test_anything(self, text: str) -> None:
        """Any text whatsoever loads or is a configuration error."""
        try:
            parseAuths(text, "F")
        except ConfigurationErrors as error:
            self.assertTrue(error.errors)
