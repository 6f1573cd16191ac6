# -*- test-case-name: tests.initiator.test_node -*-
"""An initiator: discovery, logins, and the units that it may use."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import attrs
from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from iscsi_twisted.auth.chap import CHAP, MD5, STRONGEST_FIRST, Credentials
from iscsi_twisted.errors import CheckCondition, ConfigurationError, LocalError, RemoteError
from iscsi_twisted.initiator.isids import ISIDs
from iscsi_twisted.initiator.lun import LUN
from iscsi_twisted.initiator.session import Session
from iscsi_twisted.initiator.url import PORT
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.client import parseLUNs
from iscsi_twisted.scsi.lun import decodeLUN
from iscsi_twisted.session.answers import LoginRefused, Redirected
from iscsi_twisted.session.keys import Value
from iscsi_twisted.session.names import complaint
from iscsi_twisted.session.request import Authentication, Wish
from iscsi_twisted.transport import vectoring
from iscsi_twisted.wire import numbers

BASE: Final = "iqn.1994-04.org.netbsd.iscsi-initiator"

LUNS: Final = 8 + 8 * (1 << 14)
"""Bytes of REPORT LUNS data that are asked for: of as many units as flat space addressing can tell apart."""

ONLY_MD5: Final = (MD5,)

_HOST: Final = re.compile(r"[A-Za-z0-9_.-]{1,253}\Z")
"""What a target may call the host that it sends us to: a name or an address (RFC 7143 13.8)."""

_PORT: Final = re.compile(r"[0-9]{1,5}\Z")

Endpoint = str | IStreamClientEndpoint

_log = Logger()


@attrs.frozen
class Found:
    """
    A target that discovery has found.

    @ivar name: its iSCSI name.
    @ivar addresses: its portals, as C{host:port,tag}.
    """

    name: str
    addresses: tuple[str, ...]


class Initiator:
    """
    An initiator node.

    @ivar name: its iSCSI name.
    @ivar reactor: in which it runs.
    @ivar isids: what tells its ports from one another.
    """

    def __init__(
        self,
        reactor: Any,
        name: str = "",
        *,
        isid: bytes | None = None,
        seed: Callable[[], bytes] | None = None,
    ) -> None:
        """
        @param name: an iSCSI name; one made of this machine's name if there is none.
        @param isid: see L{ISIDs}; so is C{seed}.
        @raise LocalError: for a name that is none.
        """
        self.reactor = reactor
        self.name = name or f"{BASE}:{_hostName()}"
        why = complaint(self.name)
        if why is not None:
            raise LocalError(f"{self.name!r}: {why}")
        self.isids = ISIDs(isid, seed)

    async def discover(
        self,
        endpoint: Endpoint,
        *,
        credentials: Credentials | None = None,
        algorithms: tuple[int, ...] = STRONGEST_FIRST,
    ) -> list[Found]:
        """
        Ask a portal for its targets (RFC 7143 appendix C).

        @param endpoint: C{host}, C{host:port}, a Twisted client endpoint description, or an endpoint.
        @param credentials: for CHAP; None for no authentication.
        @param algorithms: of CHAP, the best first.
        """
        session = await self._login(endpoint, None, (credentials, algorithms), {}, {})
        try:
            pairs = await session.text([("SendTargets", "All")])
        finally:
            await session.logout()
        return collect(pairs)

    async def login(
        self,
        endpoint: Endpoint,
        target: str,
        *,
        credentials: Credentials | None = None,
        algorithms: tuple[int, ...] = STRONGEST_FIRST,
        headerDigest: str = "prefer no",
        dataDigest: str = "prefer no",
        keys: Mapping[str, Value] | None = None,
        lasting: bool = False,
        patience: float = 120.0,
        ping: float = 30.0,
        isid: bytes | None = None,
    ) -> Session:
        """
        Log in to a target; a redirection is followed.

        @param endpoint: as for C{discover}.
        @param credentials: for CHAP; None for no authentication.
        @param algorithms: of CHAP, the best first.  If the target takes no list of them, MD5 alone is tried,
            unless it is not among them.
        @param headerDigest: 'no', 'prefer no', 'prefer' or 'yes'; C{dataDigest} likewise.
        @param keys: operational keys to ask for (RFC 7143 chapter 13), as C{{"InitialR2T": True}}.
        @param lasting: whether the session connects again when its connection is lost.
        @param patience: seconds without a connection after which it gives up.
        @param ping: seconds of silence after which the target is asked whether it lives; 0 for never.
        @param isid: of an earlier session, whose place this one takes: the target ends that first, with
            all that it still had to do (RFC 7143 6.3.5); one that no session had if None.
        @raise iscsi_twisted.session.answers.LoginRefused: by the target.
        """
        options = {"headerDigest": headerDigest, "dataDigest": dataDigest, "keys": keys or {}}
        lasts = {"lasting": lasting, "patience": patience, "ping": ping}
        return await self._login(endpoint, target, (credentials, algorithms), options, lasts, isid)

    async def _login(
        self,
        endpoint: Endpoint,
        target: str | None,
        identity: tuple[Credentials | None, tuple[int, ...]],
        options: dict[str, Any],
        lasts: dict[str, Any],
        isid: bytes | None = None,
    ) -> Session:
        wish = Wish(self.name, target, isid or self.isids.next(), **options)
        credentials, algorithms = identity
        there = self.endpoint(endpoint)
        while True:
            authenticate = partial(_authentication, credentials, algorithms)
            session = Session(
                self.reactor, there, wish, authenticate, elsewhere=partial(self._elsewhere, there), **lasts
            )
            try:
                await session.connect()
            except Redirected as error:
                raise RemoteError(
                    f"{target} was moved to {error.address}, where nobody can go, or too often"
                ) from error
            except LoginRefused as error:
                # Some targets choose an algorithm that they then get wrong; MD5 all of them know.
                last = credentials is None or MD5 not in algorithms or algorithms == ONLY_MD5
                if last or error.status != numbers.INITIATOR_ERROR:
                    raise
                algorithms = ONLY_MD5
            else:
                return session

    async def units(self, session: Session, *, timeout: float | None = None) -> list[LUN]:
        """
        The units that a target lists (REPORT LUNS; SPC-4 6.33), in order.

        Those whose numbers are of a kind that nobody here can write are left out, and the log tells.

        @param timeout: seconds for this, and of each unit; None for as long as the target lives.
        @raise RemoteError: for a list that is shorter than it says.
        """
        command = cdb.REPORT_LUNS.encode(allocation=LUNS)[: cdb.REPORT_LUNS.layout.size]
        outcome = await LUN(session, 0, timeout=timeout).execute(command, expected=LUNS, replay=True)
        return [LUN(session, number, timeout=timeout) for number in numbersOf(outcome.data)]

    def endpoint(self, endpoint: Endpoint) -> IStreamClientEndpoint:
        """
        The endpoint for a text.

        @raise LocalError: if it cannot be understood.
        """
        if not isinstance(endpoint, str):
            return endpoint
        host, port = _hostAndPort(endpoint)
        if host:
            return HostnameEndpoint(vectoring(self.reactor), host, port)
        try:
            made: IStreamClientEndpoint = clientFromString(vectoring(self.reactor), endpoint)
        except (LocalError, ConfigurationError) as error:
            raise LocalError(f"{endpoint}: {error}") from error
        except ImportError as error:
            raise LocalError(f"{endpoint}: TLS needs pyOpenSSL: pip install iscsi-twisted[tls]") from error
        except Exception as error:  # a plugin may raise anything
            raise LocalError(f"{endpoint!r} is neither HOST:PORT nor a client endpoint: {error}") from error
        return made

    def _elsewhere(self, there: IStreamClientEndpoint, address: str) -> IStreamClientEndpoint:
        """
        Where a target sends us; one that was reached over TLS is reached so there, too.

        Nowhere but to a host: no target is to have us connect to sockets of this machine's.

        @raise LocalError: for anything else (RFC 7143 13.8).
        """
        host, port = _hostAndPort(address)
        if not (isIPv6Address(host) if address.startswith("[") else _HOST.match(host)):
            raise LocalError(f"{address!r} is not HOST:PORT")
        to = getattr(there, "to", None)
        if to is None:
            return self.endpoint(address)
        made: IStreamClientEndpoint = to(host, port)
        return made


def _authentication(credentials: Credentials | None, algorithms: tuple[int, ...]) -> Authentication | None:
    return None if credentials is None else CHAP(credentials, os.urandom, algorithms)


def collect(pairs: list[tuple[str, str]]) -> list[Found]:
    """
    The targets in the answer to SendTargets.

    @raise RemoteError: for an address that belongs to no target, and for what no terminal should be shown.
    """
    found: dict[str, list[str]] = {}
    name = ""
    for key, value in pairs:
        if not value.isprintable():
            raise RemoteError(f"{key}={value} in the answer to SendTargets is not printable")
        if key == "TargetName":
            name = value
            found.setdefault(name, [])
        elif key == "TargetAddress":
            if not name:
                raise RemoteError("an address without a target in the answer to SendTargets")
            found[name].append(value)
    return [Found(name, tuple(addresses)) for name, addresses in found.items()]


def numbersOf(data: Buffer) -> list[int]:
    """
    The logical unit numbers in REPORT LUNS data, in order.

    @raise RemoteError: if they are fewer than the data say, though there was room for more.
    """
    said, came = int.from_bytes(data[:4], "big"), max(0, len(data) - 8)
    if said > came and len(data) < LUNS:
        raise RemoteError(f"REPORT LUNS tells of {said} bytes of numbers, and sends {came}")
    found: set[int] = set()
    strange = 0
    for field in parseLUNs(data):
        try:
            found.add(decodeLUN(field))
        except CheckCondition:
            strange += 1
    if strange:
        _log.warn("{count} units are left out, whose numbers are of an unknown kind", count=strange)
    return sorted(found)


def _hostAndPort(text: str) -> tuple[str, int]:
    """C{host}, C{host:port} or C{[address]:port}; an empty host for anything else."""
    host, colon, port = text.rpartition(":")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", 0
        port = rest[1:] if rest else str(PORT)
    elif not colon:
        host, port = text, str(PORT)
    elif ":" in host:
        return "", 0
    if not _PORT.match(port) or not 0 < int(port) < 65536:
        return "", 0
    return host, int(port)


def _hostName() -> str:
    name = socket.gethostname().lower()
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "-" for c in name) or "localhost"
