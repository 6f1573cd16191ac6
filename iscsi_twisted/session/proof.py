# -*- test-case-name: tests.session.test_authentication,tests.session.test_verdicts -*-
"""Who an initiator proves to be while it logs in, by a secret or by a certificate (RFC 7143 12.1)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from iscsi_twisted.errors import LoginError
from iscsi_twisted.interfaces import Pending, isPending
from iscsi_twisted.session.target import Authenticate, Authenticator
from iscsi_twisted.session.verdicts import Asked, Held
from iscsi_twisted.wire import numbers

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection

Pairs = list[tuple[str, str]]

PREFIX: Final = "CHAP_"
"""What the keys of an authentication begin with."""


class Proof:
    """One authentication, from what is asked for to what was proved; nothing is, where nobody asks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._authenticator: Authenticator | None = None
        self._certified = ""
        self._waiting: Pending | Held | Asked | None = None

    @property
    def waits(self) -> bool:
        """Whether what the initiator said last is not answered yet."""
        return self._waiting is not None

    @property
    def asked(self) -> bool:
        """Whether the initiator was asked to say who it is."""
        return self._authenticator is not None

    @property
    def authenticating(self) -> bool:
        """Whether the initiator has to say who it is, or has said so by a certificate."""
        return self.asked or bool(self._certified)

    @property
    def user(self) -> str:
        """Who was authenticated, by a secret or by a certificate; empty if nobody was."""
        proved = "" if self._authenticator is None else self._authenticator.user
        return proved or self._certified

    def abandon(self) -> None:
        """The connection is closing: nobody wants to know any more who comes."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()

    def require(self, begin: Authenticate | None, initiatorName: str, stage: int | None) -> tuple[str, ...]:
        """
        Find out whether the initiator has to authenticate itself.

        @param begin: begins an authentication, if one is wanted here.
        @return: the values of AuthMethod that are accepted; empty if nobody asks.
        @raise LoginError: if it has to, and begins behind the stage for that.
        """
        node, shown = self._connection.node, self._connection.peer.certificate
        if shown and node.certified is not None:
            self._certified = node.certified(shown) or ""
        if begin is None:
            return ()
        if node.verdicts is not None and not self._certified:
            # Who could not be judged anyway is refused before anything is done for him.
            node.verdicts.admit(self._connection.peer.address, initiatorName)
        self._authenticator = begin()
        methods = self._authenticator.methods
        if self._certified:
            return (*methods, "None")
        if stage != numbers.SECURITY:
            raise LoginError(numbers.AUTHENTICATION_FAILURE, "it skips the authentication that is required")
        return methods

    def take(
        self,
        said: dict[str, str],
        initiatorName: str,
        then: Callable[[Pairs], object],
        failed: Callable[[Exception], object],
    ) -> Pairs | None:
        """
        Take what the initiator says.

        @param then: called with what is answered, if that comes later and still matters.
        @param failed: likewise, with what is wrong.
        @return: what is answered; None if it comes later.
        @raise LoginError: or another L{RemoteError}, if the initiator does not prove who it is.
        """
        verdicts = self._connection.node.verdicts
        if verdicts is not None and "CHAP_R" in said:
            turn = partial(self._turn, said, then, failed)
            self._waiting = verdicts.hold(self._connection.peer.address, initiatorName, turn)
            if self._waiting is not None:
                return None
        return self._judge(said, then, failed)

    def _turn(
        self,
        said: dict[str, str],
        then: Callable[[Pairs], object],
        failed: Callable[[Exception], object],
    ) -> None:
        """An attempt has waited long enough."""
        self._waiting = None
        try:
            answer = self._judge(said, then, failed)
        except Exception as error:
            failed(error)
            return
        if answer is not None:
            then(answer)

    def _judge(
        self,
        said: dict[str, str],
        then: Callable[[Pairs], object],
        failed: Callable[[Exception], object],
    ) -> Pairs | None:
        assert self._authenticator is not None
        answer: Any = self._authenticator.answer(said)
        if not isPending(answer):
            pairs: Pairs = answer
            return pairs
        later = partial(self._judged, then), partial(self._unjudged, failed)
        verdicts, self._waiting = self._connection.node.verdicts, answer
        if verdicts is None:
            answer.addCallbacks(*later)
        else:
            self._waiting = verdicts.ask(self._connection.peer.address, answer, *later)
        return None

    def _judged(self, then: Callable[[Pairs], object], answer: Pairs) -> None:
        """The authentication could be judged, after a while."""
        self._waiting = None
        if not self._connection.closing:
            then(answer)

    def _unjudged(self, failed: Callable[[Exception], object], why: Any) -> None:
        """The authentication has failed, or nobody could judge it."""
        self._waiting = None
        if not self._connection.closing:
            failed(why.value)

    def binds(self, agreed: str) -> bool:
        """Whether the authentication has to be gone through; C{agreed} is the AuthMethod."""
        return self.asked and not (self._certified and agreed == "None")

    def complete(self, agreed: str) -> bool:
        """
        Whether the initiator has proved all that it has to.

        @raise LoginError: if it never can.
        """
        authenticator = self._authenticator
        assert authenticator is not None
        if not authenticator.complete() and agreed not in authenticator.methods:
            methods = ",".join(authenticator.methods)
            raise LoginError(
                numbers.AUTHENTICATION_FAILURE, f"it offers none of the AuthMethods required here: {methods}"
            )
        return authenticator.complete()
