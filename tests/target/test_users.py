"""Users of the auths file."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from iscsi_twisted.config.auths import parseAuths
from iscsi_twisted.interfaces import ICertificateStore, ISecretStore
from iscsi_twisted.target.users import FileUsers, shortSecrets

TEXT = "me:chap:0123456789ab:it:ba9876543210\nyou:chap:short\nnobody\n"


class UsersTests(SynchronousTestCase):
    """Tests of C{iscsi_twisted.target.users}."""

    def setUp(self) -> None:
        self.auths = parseAuths(TEXT, "F")
        self.users = FileUsers(self.auths)

    def test_found(self) -> None:
        """Users with secrets are found by their exact names; others are not."""
        verifyObject(ISecretStore, self.users)
        self.assertEqual(len(self.users), 2)
        account = self.users.find("me")
        assert account is not None
        self.assertEqual(
            (account.secret, account.targetUser, account.targetSecret),
            (b"0123456789ab", "it", b"ba9876543210"),
        )
        for name in ("Me", "nobody", ""):
            self.assertIsNone(self.users.find(name))

    def test_certified(self) -> None:
        """A certificate proves the user of the first of its names that is some user's."""
        users = FileUsers(parseAuths("me:chap:0123456789ab\nyou:tls\nthem:tls:them@example.com", None))
        verifyObject(ICertificateStore, users)
        self.assertEqual(
            (len(users), "them" in users, "me" in users, "they" in users), (3, True, True, False)
        )
        for names, user in (
            (("them@example.com", "you"), "them"),
            (("x", "you"), "you"),
            (("me", "them", "You"), None),
            ((), None),
        ):
            self.assertEqual(users.certified(names), user)

    def test_short(self) -> None:
        """Who has a short secret is told with the line."""
        (line,) = shortSecrets(self.auths)
        self.assertTrue(line.startswith("F:2: the secret of 'you' has less than 12 bytes"), line)
