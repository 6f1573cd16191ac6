# -*- test-case-name: tests.target.test_stopping,tests.target.test_reload -*-
"""How sessions end that the target ends: they are asked first (RFC 7143 11.9.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList

from iscsi_twisted.session import notices
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.session import Session
from iscsi_twisted.target.protocol import TargetProtocol

LOGOUT: Final = 5.0
"""Seconds that initiators have to log out; half of it more for what is still to be sent to them."""


async def within(reactor: Any, ending: Deferred[Any], end: float) -> bool:
    """
    Wait for something, but no longer than to a time; it goes on in any case.

    @param end: by the reactor's clock.
    @return: whether it has ended.
    """
    answer: Deferred[bool] = Deferred()
    call = reactor.callLater(max(0.0, end - reactor.seconds()), answer.callback, False)

    def ended(result: object) -> object:
        if call.active():
            call.cancel()
            answer.callback(True)
        return result

    ending.addBoth(ended)
    try:
        return await answer
    finally:
        if call.active():
            call.cancel()


def ask(connections: Iterable[Connection], reason: str, grace: float) -> None:
    """Ask sessions to log out; connections that have none end at once."""
    for connection in connections:
        if connection.session is None:
            connection.abandon(reason)
        else:
            notices.requestLogout(connection, max(1, int(grace)))


async def farewell(
    reactor: Any,
    connections: Callable[[], list[Connection]],
    gone: Deferred[Any],
    reason: str,
    end: float,
    grace: float,
) -> bool:
    """
    Ask all sessions to log out; end those that do not, and connections that have none.

    @param connections: those that are still to end.
    @param gone: fires when there are none.
    @param end: when all this has to be over, by the reactor's clock.
    @param grace: seconds for logging out; half as many remain for what is still to be sent.
    @return: whether they have ended.
    """
    ask(connections(), reason, grace)
    if await within(reactor, gone, end - grace):
        return True
    for connection in connections():
        connection.abandon(reason)
    # What was queued for them is sent, if they take it.
    return await within(reactor, gone, end - grace / 2)


async def end(
    reactor: Any, protocols: Iterable[TargetProtocol], sessions: Iterable[Session], reason: str
) -> None:
    """
    Ask sessions to log out; end those that do not, and cut those that take nothing.

    @param protocols: all connections that there are.
    """
    connections = {session.connection for session in sessions}
    ending = [each for each in protocols if each.core in connections]
    if not ending:
        return
    gone = DeferredList([each.whenGone() for each in ending])
    if not await farewell(
        reactor,
        lambda: [each.core for each in ending if each.core is not None and each.connected],
        gone,
        reason,
        reactor.seconds() + 2 * LOGOUT,
        LOGOUT,
    ):
        for each in ending:
            if each.connected:
                each.transport.abortConnection()  # type: ignore[union-attr]
