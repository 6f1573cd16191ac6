# -*- test-case-name: tests.auth.test_verifier -*-
"""CHAP, the target's side (RFC 7143 12.1.3): initiators prove who they are, and so does the target."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any

from iscsi_twisted.auth.chap import (
    CHALLENGE,
    STRONGEST_FIRST,
    Pairs,
    decode,
    encode,
    identifierIn,
    response,
    usable,
)
from iscsi_twisted.errors import NotAuthenticated, RemoteError, UnknownUser
from iscsi_twisted.interfaces import Account, ISecretStore, Pending, isPending

USUAL_SECRET = 16
"""Bytes of what stands for the secret of a user that is not there: a hash of it costs as much as others."""

LONGEST_NAME = 255
"""Bytes of a text value (RFC 7143 6.1)."""


class Verifier:
    """
    The target's side of one login; see L{iscsi_twisted.session.target.Authenticator}.

    An unknown user costs the same work and gets the same answer as a wrong secret.

    @ivar methods: what is accepted in AuthMethod.
    @ivar user: who has proved to be there; empty until then.
    """

    methods: tuple[str, ...] = ("CHAP",)

    def __init__(
        self,
        store: ISecretStore,
        random: Callable[[int], bytes],
        algorithms: tuple[int, ...] = STRONGEST_FIRST,
    ) -> None:
        """
        @param random: gives so many bytes that nobody can foresee, such as C{os.urandom}.
        @param algorithms: those that are allowed.
        @raise LocalError: if none of the algorithms is there.
        """
        self._store, self._random = store, random
        self._algorithms = usable(algorithms)
        self.user = ""
        self._algorithm = 0
        self._identifier = 0
        self._challenge = b""
        self._over = False

    def complete(self) -> bool:
        """Whether the initiator has proved who it is, and been told who the target is if it asked."""
        return bool(self.user)

    def answer(self, pairs: Mapping[str, str]) -> Pairs | Pending:
        """
        To a list of algorithms our choice and a challenge; to a response nothing, or our own response.

        @return: what is said, or a pending result of it.
        @raise NotAuthenticated: if the initiator does not prove who it is.
        @raise RemoteError: if it breaks the protocol.
        """
        if self._over:
            raise RemoteError("CHAP goes on after its end")
        if not self._algorithm:
            return self._begin(pairs)
        self._over = True
        return self._verify(pairs)

    def _begin(self, pairs: Mapping[str, str]) -> Pairs:
        offered = pairs.get("CHAP_A", "").split(",")
        chosen = next((each for each in offered if each in map(str, self._algorithms)), None)
        if set(pairs) != {"CHAP_A"}:
            raise RemoteError("CHAP begins with CHAP_A, and nothing else")
        if chosen is None:
            raise NotAuthenticated("it offers no CHAP algorithm that is allowed here")
        self._algorithm = int(chosen)
        self._identifier = self._random(1)[0]
        self._challenge = self._random(CHALLENGE)
        return [
            ("CHAP_A", chosen),
            ("CHAP_I", str(self._identifier)),
            ("CHAP_C", encode(self._challenge)),
        ]

    def _verify(self, pairs: Mapping[str, str]) -> Pairs | Pending:
        user = pairs.get("CHAP_N", "")
        proof = decode("CHAP_R", pairs.get("CHAP_R", ""))
        if not 0 < len(user.encode()) <= LONGEST_NAME:
            raise RemoteError(f"CHAP_N has 1 to {LONGEST_NAME} bytes")
        counter = self._counter(pairs) if "CHAP_I" in pairs or "CHAP_C" in pairs else None
        found: Any = self._store.find(user)
        if isPending(found):
            found.addCallbacks(lambda account: self._judge(user, account, proof, counter))
            pending: Pending = found
            return pending
        return self._judge(user, found, proof, counter)

    def _counter(self, pairs: Mapping[str, str]) -> tuple[int, bytes]:
        """The initiator's own challenge."""
        challenge = decode("CHAP_C", pairs.get("CHAP_C", ""))
        if not challenge:
            raise RemoteError("CHAP_C is empty")
        # Whoever gets our challenge answered by us could answer it without a secret.
        if challenge == self._challenge:
            raise NotAuthenticated("it sends our own challenge back")
        return identifierIn(pairs), challenge

    def _judge(
        self, user: str, account: Account | None, proof: bytes, counter: tuple[int, bytes] | None
    ) -> Pairs:
        secret = self._challenge[:USUAL_SECRET] if account is None else account.secret
        expected = response(self._algorithm, self._identifier, secret, self._challenge)
        right = hmac.compare_digest(expected, proof)
        if account is None:
            raise UnknownUser(user)
        if not right:
            raise NotAuthenticated(f"the user {user!r} did not prove to know the secret")
        said = [] if counter is None else self._introduce(user, account, *counter)
        self.user = user
        return said

    def _introduce(self, user: str, account: Account, identifier: int, challenge: bytes) -> Pairs:
        """The target proves who it is."""
        if not account.targetSecret:
            raise NotAuthenticated(
                f"{user!r} wants mutual CHAP, and there is no secret with which the target could answer"
            )
        if hmac.compare_digest(account.targetSecret, account.secret):
            raise NotAuthenticated(f"one secret for both directions of {user!r} (RFC 7143 12.1.3)")
        proof = response(self._algorithm, identifier, account.targetSecret, challenge)
        return [("CHAP_N", account.targetUser), ("CHAP_R", encode(proof))]
