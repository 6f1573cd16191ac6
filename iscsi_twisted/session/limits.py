# -*- test-case-name: tests.session.test_limits -*-
"""
What initiators may cost all together: bounds of connections, logins and memory.

Each is one row: what it bounds, its default, and why that.  The defaults hold on a machine with 512 MB.
What one session, one unit or one PDU may cost is bounded where it is spent.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

COUNT: Final = "a number"
"""How an option is written: a whole number."""
SIZE: Final = "bytes"
"""... bytes, with a suffix such as K or MB if need be."""
TIME: Final = "seconds"


def row(default: float, kind: str, least: int, option: str, doc: str) -> Any:
    """
    One limit.

    @param least: the smallest that makes sense.
    @param option: what the command line calls it.
    @param doc: what the help of the command says of it.
    """
    return attrs.field(default=default, metadata={"kind": kind, "least": least, "option": option, "doc": doc})


@attrs.frozen(kw_only=True)
class Limits:
    """
    Bounds of one target.

    @ivar connections: all that there may be; one more takes the place of the oldest that is not logged in.
    @ivar halfOpen: those that are not logged in; one more takes the place of the oldest.
    @ivar sessions: 0 for as many as there may be connections.
    @ivar loginTime: seconds from the first byte to the end of the login.
    @ivar loginBytes: of text that a login sends.
    @ivar loginRequests: Login Request PDUs, and so rounds of negotiation, of a login.
    @ivar queued: bytes that wait for one connection whose peer does not read, before it is read from no more.
    @ivar reading: bytes that devices read for all sessions, or that wait for initiators to take them; beyond
        that each session may begin one command at a time.
    @ivar solicited: bytes that all sessions were asked for; more are asked for when these have come.
    """

    connections: int = row(2048, COUNT, 1, "max-connections", "Connections that there may be.")
    halfOpen: int = row(1000, COUNT, 1, "max-half-open", "Connections that may be logging in.")
    sessions: int = row(1024, COUNT, 0, "max-sessions", "Sessions that there may be; 0 for no limit.")
    loginTime: float = row(30, TIME, 1, "login-time", "Seconds that a login may take.")
    loginBytes: int = row(65536, SIZE, 1024, "max-login-bytes", "Bytes of text in one login.")
    loginRequests: int = row(64, COUNT, 4, "max-login-requests", "Requests, and so rounds, of one login.")
    queued: int = row(
        8 << 20, SIZE, 65536, "max-queued", "Bytes that wait for one initiator that does not read."
    )
    reading: int = row(
        128 << 20, SIZE, 1 << 20, "max-reading", "Bytes of reads under way, or not sent, in all."
    )
    solicited: int = row(
        128 << 20, SIZE, 1 << 20, "max-solicited", "Bytes of writes that initiators are asked for, in all."
    )


NO_CHANGES: Final = Limits()
"""The defaults."""
