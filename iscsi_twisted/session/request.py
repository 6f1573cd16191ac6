# -*- test-case-name: tests.session.test_client -*-
"""The initiator's side of a login, without its PDUs (RFC 7143 6.2, 6.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import attrs

from iscsi_twisted.errors import RemoteError
from iscsi_twisted.session.answers import MethodsRejected
from iscsi_twisted.session.keys import IRRELEVANT, KEYS, NOT_UNDERSTOOD, REJECT, Key, Value
from iscsi_twisted.session.parameters import Parameters
from iscsi_twisted.wire import numbers

Pair = tuple[str, str]
Pairs = list[Pair]

WANTED: Final[dict[str, Value]] = {
    "MaxConnections": 1,
    "InitialR2T": False,
    "ImmediateData": True,
    "MaxBurstLength": (1 << 24) - 1,
    "FirstBurstLength": 262144,
    "DefaultTime2Wait": 2,
    "DefaultTime2Retain": 0,
    "MaxOutstandingR2T": 8,
    "DataPDUInOrder": True,
    "DataSequenceInOrder": True,
    "ErrorRecoveryLevel": 0,
}
"""What a normal session asks for."""

DIGESTS: Final = ("HeaderDigest", "DataDigest")
DIGEST_CHOICES: Final = {
    "no": ("None",),
    "prefer no": ("None", "CRC32C"),
    "prefer": ("CRC32C", "None"),
    "yes": ("CRC32C",),
}

MAX_RECEIVE: Final = 1 << 20
"""Our MaxRecvDataSegmentLength, in bytes: the longest READ has one header, and one receive may do for it."""

ROUNDS: Final = 64
"""Answers after which a login that does not end is given up."""

LONGEST: Final = 65536
"""Bytes of text that one answer of several PDUs may have."""


class Authentication(Protocol):
    """One authentication method, the initiator's side (RFC 7143 12.1)."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of methods, the best first, as they are offered in AuthMethod."""

    def first(self, method: str) -> Pairs:
        """What the initiator says when the target has chosen a method."""

    def answer(self, pairs: Mapping[str, str]) -> Pairs:
        """
        What the initiator says to what the target has said.

        @raise RemoteError: if it does not authenticate itself as it should, or breaks the protocol.
        """

    def spoken(self) -> bool:
        """Whether the initiator has nothing left to say."""

    def complete(self) -> bool:
        """Whether it has not, and the target has proved what it had to prove."""


class Open:
    """No authentication."""

    methods: tuple[str, ...] = ("None",)

    def first(self, method: str) -> Pairs:
        """Nothing."""
        return []

    def answer(self, pairs: Mapping[str, str]) -> Pairs:
        """Nothing."""
        return []

    def spoken(self) -> bool:
        """At once."""
        return True

    complete = spoken


OPEN: Final = Open()


@attrs.frozen
class Wish:
    """
    What an initiator wants of a login.

    @ivar initiatorName: its own iSCSI name.
    @ivar targetName: the target's; None for a discovery session.
    @ivar isid: six bytes (RFC 7143 11.12.5); with the name this is the initiator port.
    @ivar headerDigest: 'no', 'prefer no', 'prefer' or 'yes'.
    @ivar dataDigest: the same.
    @ivar keys: values to ask for instead of those in L{WANTED}.
    @ivar alias: InitiatorAlias; empty for none.
    """

    initiatorName: str
    targetName: str | None
    isid: bytes
    headerDigest: str = "prefer no"
    dataDigest: str = "prefer no"
    keys: Mapping[str, Value] = attrs.field(factory=dict)
    alias: str = ""

    def names(self) -> Pairs:
        """What the first request begins with (RFC 7143 6.3)."""
        pairs = [("InitiatorName", self.initiatorName)]
        if self.alias:
            pairs.append(("InitiatorAlias", self.alias))
        if self.targetName is None:
            return [*pairs, ("SessionType", "Discovery")]
        return [*pairs, ("SessionType", "Normal"), ("TargetName", self.targetName)]


class Negotiator:
    """
    What is said in one login, request by request.

    @ivar stage: the current one: SECURITY or OPERATIONAL (RFC 7143 11.12.3).
    @ivar next: the stage that the next request proposes, or None for staying.
    @ivar declared: what the target has declared.
    """

    def __init__(self, wish: Wish, authentication: Authentication) -> None:
        self._wish = wish
        self._authentication = authentication
        self._offered: dict[str, str] = {}
        self._rounds = 0
        self._method = ""
        self.results: dict[str, Value] = {key.name: key.default for key in KEYS.values()}
        self.declared: dict[str, str] = {}
        self.stage = numbers.SECURITY
        self.next: int | None = None

    def first(self) -> Pairs:
        """The first request: names and methods."""
        methods = self._authentication.methods
        if methods == ("None",):
            self.next = numbers.OPERATIONAL
        return [*self._wish.names(), ("AuthMethod", ",".join(methods))]

    def answer(self, pairs: Iterable[Pair], moved: int | None) -> Pairs | None:
        """
        The target has answered.

        @param moved: the stage that it has moved to, or None.
        @return: what to say next; None when the login is complete.
        @raise RemoteError: if it has broken the protocol, or did not authenticate itself.
        """
        self._rounds += 1
        if self._rounds > ROUNDS:
            raise RemoteError(f"the login is not complete after {ROUNDS} answers")
        if moved is not None and moved != self.next:
            raise RemoteError(f"the target moved to login stage {moved}, where {self.next} was proposed")
        said = self._read(pairs)
        if self.stage == numbers.SECURITY:
            return self._security(said, moved)
        replies = [reply for name, value in said.items() if (reply := self._settle(name, value)) is not None]
        if moved == numbers.FULL_FEATURE:
            return None
        self.next = numbers.FULL_FEATURE
        return replies

    def parameters(self) -> Parameters:
        """The outcome; C{maxSegment} is the longest data segment that the target takes."""
        results = self.results
        return Parameters(
            maxSegment=_number(
                "MaxRecvDataSegmentLength", self.declared.get("MaxRecvDataSegmentLength", "8192")
            ),
            maxBurst=int(results["MaxBurstLength"]),
            firstBurst=min(int(results["FirstBurstLength"]), int(results["MaxBurstLength"])),
            initialR2T=bool(results["InitialR2T"]),
            immediateData=bool(results["ImmediateData"]),
            maxOutstandingR2T=int(results["MaxOutstandingR2T"]),
            headerDigest=results["HeaderDigest"] == "CRC32C",
            dataDigest=results["DataDigest"] == "CRC32C",
        )

    def _read(self, pairs: Iterable[Pair]) -> dict[str, str]:
        said: dict[str, str] = {}
        for name, value in pairs:
            if name in said:
                raise RemoteError(f"the target said {name} twice")
            said[name] = value
            if name in KEYS and KEYS[name].kind == "declared":
                self.declared[name] = value
        return {name: value for name, value in said.items() if name not in self.declared}

    # Security negotiation

    def _security(self, said: dict[str, str], moved: int | None) -> Pairs:
        authentication = self._authentication
        if not self._method:
            self._method = said.pop("AuthMethod", "")
            if self._method == "Reject":
                raise MethodsRejected(authentication.methods)
            if self._method not in authentication.methods:
                raise RemoteError(
                    f"the target chose {self._method or 'no'} authentication method,"
                    f" where {','.join(authentication.methods)} was offered"
                )
            made = authentication.first(self._method)
        else:
            made = authentication.answer(said)
        if moved is not None:
            if not authentication.complete():
                raise RemoteError("the target left the security stage before it was authenticated")
            self.stage = numbers.OPERATIONAL
            self.next = numbers.FULL_FEATURE
            return self._operational()
        self.next = numbers.OPERATIONAL if self._method == "None" or authentication.spoken() else None
        return made

    # Operational negotiation

    def _operational(self) -> Pairs:
        wish = self._wish
        offers = {
            "HeaderDigest": ",".join(DIGEST_CHOICES[wish.headerDigest]),
            "DataDigest": ",".join(DIGEST_CHOICES[wish.dataDigest]),
        }
        wanted = {**WANTED, **wish.keys}
        offers |= {
            name: KEYS[name].text(value)
            for name, value in wanted.items()
            if wish.targetName is not None or KEYS[name].discovery
        }
        self._offered = offers
        return [*offers.items(), ("MaxRecvDataSegmentLength", str(MAX_RECEIVE))]

    def _settle(self, name: str, value: str) -> Pair | None:
        """
        One answer to an offer of ours, or an offer of the target's (RFC 7143 6.2).

        @return: our answer to an offer.
        """
        offered = self._offered.pop(name, None)
        key = KEYS.get(name)
        if offered is None or key is None:
            return self._reply(key, name, value)
        if value in (REJECT, NOT_UNDERSTOOD, IRRELEVANT):
            if name in DIGESTS and "None" not in offered.split(","):
                raise RemoteError(f"the target answered {name}={value}, where {offered} is required")
        elif key.kind == "list":
            self.results[name] = _listed(name, offered, value)
        else:
            self.results[name] = _agreed(key, offered, value)
        return None

    def _reply(self, key: Key | None, name: str, value: str) -> Pair:
        """The target has offered something that we did not: we take the default, where that is allowed."""
        if key is None:
            return name, NOT_UNDERSTOOD
        theirs = key.parse(value)
        if key.kind not in ("numerical", "boolean") or theirs is None:
            return name, REJECT
        result: Value = key.result(int(WANTED.get(name, key.default)), int(theirs))
        self.results[name] = result = bool(result) if key.kind == "boolean" else result
        return name, key.text(result)


def _listed(name: str, offered: str, value: str) -> str:
    if value not in offered.split(","):
        raise RemoteError(f"the target answered {name}={value}, where {offered} was offered")
    return value


def _agreed(key: Key, offered: str, value: str) -> Value:
    """A number or boolean, which has to be a result that our offer can have."""
    ours, theirs = key.parse(offered), key.parse(value)
    if ours is None or theirs is None or key.result(int(ours), int(theirs)) != theirs:
        raise RemoteError(f"the target answered {key.name}={value} to an offer of {offered}")
    return theirs


def _number(name: str, text: str) -> int:
    value = KEYS[name].parse(text)
    if value is None:
        raise RemoteError(f"the target declared {name}={text}, which is out of its bounds")
    return int(value)
