"""CHAP, the target's side."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from iscsi_twisted.auth import chap
from iscsi_twisted.auth.chap import CHAP, MD5, SHA256, STRONGEST_FIRST, Credentials, encode, response
from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.errors import LocalError, NotAuthenticated, RemoteError, UnknownUser
from iscsi_twisted.interfaces import Account, ISecretStore

SECRET, OTHER = b"0123456789abcdef", b"fedcba9876543210"


@implementer(ISecretStore)
class Store:
    """Users in memory; later, if it is told to."""

    def __init__(self, **accounts: Account) -> None:
        self.accounts = accounts
        self.asked: list[Deferred[Account | None]] | None = None

    def find(self, user: str) -> Any:
        """The account, or a promise of one."""
        if self.asked is None:
            return self.accounts.get(user)
        self.asked.append(Deferred())
        return self.asked[-1]


STORE = Store(me=Account(SECRET, "it", OTHER), you=Account(OTHER), same=Account(SECRET, "it", SECRET))


def verifier(**how: Any) -> Verifier:
    """One with the users of this module."""
    return Verifier(STORE, os.urandom, **how)


class VerifierTests(SynchronousTestCase):
    """Tests of L{Verifier}."""

    def converse(self, credentials: Credentials, **how: Any) -> tuple[Verifier, CHAP]:
        """A whole conversation with an initiator."""
        ours, theirs = verifier(**how), CHAP(credentials, os.urandom)
        said = theirs.first("CHAP")
        for _ in range(2):
            answer = ours.answer(dict(said))
            assert isinstance(answer, list)
            said = theirs.answer(dict(answer))
        return ours, theirs

    def test_right(self) -> None:
        """Who knows the secret is let in, with every algorithm; the target too where it is asked."""
        for algorithm in STRONGEST_FIRST:
            ours, _ = self.converse(Credentials("me", SECRET), algorithms=(algorithm,))
            self.assertEqual((ours.complete(), ours.user), (True, "me"))
            ours, theirs = self.converse(Credentials("me", SECRET, "it", OTHER), algorithms=(algorithm,))
            self.assertEqual((ours.user, theirs.complete()), ("me", True))

    def test_choice(self) -> None:
        """The first of the initiator's list that is allowed is taken."""
        for allowed, offered, chosen in (
            (STRONGEST_FIRST, "5,7,8", "5"), ((SHA256,), "5,99,7,8", "7"), ((MD5,), "8,7,6,5", "5"),
        ):  # fmt: skip
            said: Any = verifier(algorithms=allowed).answer({"CHAP_A": offered})
            self.assertEqual(dict(said)["CHAP_A"], chosen)
        for offered in ("", "9", "x,y", "55"):
            self.assertRaises(NotAuthenticated, verifier().answer, {"CHAP_A": offered})
        self.assertRaises(LocalError, verifier, algorithms=(9,))

    def test_challenges(self) -> None:
        """A challenge is long and never the same."""
        said: list[Any] = [verifier().answer({"CHAP_A": "5"}) for _ in range(50)]
        challenges = {dict(each)["CHAP_C"] for each in said}
        self.assertEqual(len(challenges), 50)
        self.assertTrue(all(len(chap.decode("C", each)) >= 16 for each in challenges))

    def begun(self) -> tuple[Verifier, int, bytes]:
        """One that has sent its challenge."""
        ours = verifier()
        said: Any = dict(ours.answer({"CHAP_A": "5"}))  # type: ignore[arg-type]
        return ours, int(said["CHAP_I"]), chap.decode("C", said["CHAP_C"])

    def proof(self, identifier: int, challenge: bytes, secret: bytes = SECRET) -> str:
        """What proves it."""
        return encode(response(MD5, identifier, secret, challenge))

    def test_wrong(self) -> None:
        """A wrong secret and an unknown user are refused alike, and have one try a challenge."""
        for user, kind in (("me", NotAuthenticated), ("ME", UnknownUser), ("nobody", UnknownUser)):
            ours, identifier, challenge = self.begun()
            proof = self.proof(identifier, challenge, b"wrong")
            error = self.assertRaises(kind, ours.answer, {"CHAP_N": user, "CHAP_R": proof})
            self.assertEqual((error.status, ours.complete()), (0x0201, False))
            self.assertNotIn("0123", str(error))
            again = {"CHAP_N": "me", "CHAP_R": self.proof(identifier, challenge)}
            self.assertRaises(RemoteError, ours.answer, again)
            self.assertFalse(ours.complete())

    def test_replay(self) -> None:
        """The response of one login is worth nothing in another."""
        _, identifier, challenge = self.begun()
        ours, _, _ = self.begun()
        proof = self.proof(identifier, challenge)
        self.assertRaises(NotAuthenticated, ours.answer, {"CHAP_N": "me", "CHAP_R": proof})

    def test_reflection(self) -> None:
        """Our own challenge is not answered."""
        ours, identifier, challenge = self.begun()
        said = {"CHAP_N": "me", "CHAP_R": self.proof(identifier, challenge), "CHAP_I": "1"}
        self.assertRaises(NotAuthenticated, ours.answer, said | {"CHAP_C": encode(challenge)})

    def test_mutualWithout(self) -> None:
        """A target that has no secret for a user, or none of its own, does not let that user in half way."""
        for user, secret in (("you", OTHER), ("same", SECRET)):
            ours, identifier, challenge = self.begun()
            said = {"CHAP_N": user, "CHAP_R": self.proof(identifier, challenge, secret)}
            self.assertRaises(NotAuthenticated, ours.answer, said | {"CHAP_I": "1", "CHAP_C": "0x0102"})
            self.assertFalse(ours.complete())

    def test_order(self) -> None:
        """What comes out of order breaks the protocol."""
        self.assertRaises(RemoteError, verifier().answer, {"CHAP_N": "me", "CHAP_R": "0x00"})
        self.assertRaises(RemoteError, verifier().answer, {"CHAP_A": "5", "CHAP_N": "me"})
        ours, _, _ = self.begun()
        self.assertRaises(RemoteError, ours.answer, {"CHAP_A": "5"})

    def test_sizes(self) -> None:
        """Values that are too long, empty or none at all."""
        for bad in (
            {"CHAP_R": "0x" + "0" * 4000}, {"CHAP_R": "xyz"}, {"CHAP_R": ""}, {"CHAP_N": ""},
            {"CHAP_N": "x" * 300}, {"CHAP_I": "300", "CHAP_C": "0x01"}, {"CHAP_C": "0x"}, {"CHAP_I": "1"},
        ):  # fmt: skip
            ours, identifier, challenge = self.begun()
            said = {"CHAP_N": "me", "CHAP_R": self.proof(identifier, challenge)} | bad
            self.assertRaises(RemoteError, ours.answer, said)
            self.assertFalse(ours.complete())

    @given(st.lists(st.dictionaries(
        st.sampled_from(["CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C", "CHAP_X"]),
        st.text(max_size=40) | st.sampled_from(["5", "me", "0x00", "0bAA=="]),
    ), max_size=4))  # fmt: skip
    def test_anything(self, conversation: list[dict[str, str]]) -> None:
        """Whatever is said without the secret, nobody gets in, and nothing else is raised."""
        ours = verifier()
        for said in conversation:
            try:
                ours.answer(said)
            except RemoteError:
                break
        self.assertFalse(ours.complete())

    def test_sameWork(self) -> None:
        """An unknown user costs the same hashes and the same bytes as a wrong secret, mutual or not."""
        made: list[tuple[str, int]] = []

        def counting(name: str, data: bytes = b"", **how: Any) -> Any:
            made.append((name, len(data)))
            return new(name, data, **how)

        new = hashlib.new
        for more in ({}, {"CHAP_I": "7", "CHAP_C": "0x" + "11" * 16}):
            costs = []
            for user in ("me", "nobody"):
                ours, _, _ = self.begun()
                made.clear()
                self.patch(hashlib, "new", counting)
                said = {"CHAP_N": user, "CHAP_R": "0x" + "00" * 16} | more
                error = self.assertRaises(NotAuthenticated, ours.answer, said)
                self.patch(hashlib, "new", new)
                costs.append((len(made), [(name, size // 64) for name, size in made], error.status))
            self.assertEqual(costs[0], costs[1])
            self.assertEqual(costs[0][0], 1)

    def test_base64(self) -> None:
        """A response may come in base64."""
        import base64

        ours, identifier, challenge = self.begun()
        proof = response(MD5, identifier, SECRET, challenge)
        ours.answer({"CHAP_N": "me", "CHAP_R": "0b" + base64.b64encode(proof).decode()})
        self.assertTrue(ours.complete())

    def test_accounts(self) -> None:
        """An account shows no secret."""
        self.assertNotIn("0123", repr(Account(SECRET)))
