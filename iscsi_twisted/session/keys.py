# -*- test-case-name: tests.session.test_keys -*-
"""
The text keys of RFC 7143 chapter 13 (and RFC 7144 section 7), as a table.

Every key says which kind of value it takes and how two sides come to one result; the negotiation
itself (L{iscsi_twisted.session.negotiation}) knows no key by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import attrs

Value = int | bool | str

REJECT: Final = "Reject"
NOT_UNDERSTOOD: Final = "NotUnderstood"
IRRELEVANT: Final = "Irrelevant"
NONE: Final = "None"

_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})\Z")


@attrs.frozen
class Key:
    """
    One key.

    @ivar name: as on the wire.
    @ivar kind: one of C{numerical}, C{boolean}, C{list}, C{declared} (no answer), C{obsolete}.
    @ivar default: in force when it is not negotiated.
    @ivar lowest: of a number.
    @ivar highest: of a number.
    @ivar result: of our value and the peer's.
    @ivar bound: the key whose result this one's never exceeds, or an empty string.
    @ivar leading: negotiated on the leading connection of a session only (LO).
    @ivar fullFeature: may also be given in full feature phase (RFC 7143 table in chapter 13).
    @ivar discovery: means something in a discovery session.
    @ivar forTarget: an initiator has nothing to say here: only a target declares it.
    @ivar forLogin: may be given during login.
    @ivar section: of RFC 7143.
    """

    name: str
    kind: str
    default: Value
    section: str
    lowest: int = 0
    highest: int = 0
    result: Callable[[int, int], int] = min
    bound: str = ""
    leading: bool = True
    fullFeature: bool = False
    discovery: bool = True
    forTarget: bool = False
    forLogin: bool = True

    def parse(self, text: str) -> Value | None:
        """The value that a peer's text stands for, or None if it is out of the key's bounds."""
        if self.kind == "boolean":
            return {"Yes": True, "No": False}.get(text)
        if self.kind == "numerical" or (self.kind == "declared" and self.highest):
            number = int(text, 0 if text[:2] in ("0x", "0X") else 10) if _NUMBER.match(text) else -1
            return number if self.lowest <= number <= self.highest else None
        return text

    def text(self, value: Value) -> str:
        """How a value stands on the wire."""
        if isinstance(value, bool):
            return "Yes" if value else "No"
        return str(value)


def _both(a: int, b: int) -> int:
    return a and b


def _either(a: int, b: int) -> int:
    return a or b


def _number(name: str, default: int, lowest: int, highest: int, section: str, **more: object) -> Key:
    return Key(name, "numerical", default, section, lowest, highest, **more)  # type: ignore[arg-type]


def _boolean(name: str, default: bool, result: Callable[[int, int], int], section: str) -> Key:
    return Key(name, "boolean", default, section, result=result, discovery=False)


def _declared(name: str, section: str, **more: object) -> Key:
    return Key(name, "declared", "", section, **more)  # type: ignore[arg-type]


SEGMENT_MAX: Final = 0xFFFFFF

KEYS: Final[dict[str, Key]] = {
    key.name: key
    for key in (
        Key("AuthMethod", "list", NONE, "12.1", leading=False),
        Key("HeaderDigest", "list", NONE, "13.1", leading=False),
        Key("DataDigest", "list", NONE, "13.1", leading=False),
        _number("MaxConnections", 1, 1, 65535, "13.2", discovery=False),
        _declared("SendTargets", "13.3", fullFeature=True, forLogin=False),
        _declared("TargetName", "13.4"),
        _declared("InitiatorName", "13.5"),
        _declared("TargetAlias", "13.6", fullFeature=True, forTarget=True),
        _declared("InitiatorAlias", "13.7", fullFeature=True),
        _declared("TargetAddress", "13.8", fullFeature=True, forTarget=True),
        _declared("TargetPortalGroupTag", "13.9", forTarget=True),
        _boolean("InitialR2T", True, _either, "13.10"),
        _boolean("ImmediateData", True, _both, "13.11"),
        _declared(
            "MaxRecvDataSegmentLength",
            "13.12",
            lowest=512,
            highest=SEGMENT_MAX,
            leading=False,
            fullFeature=True,
        ),
        _number("MaxBurstLength", 262144, 512, SEGMENT_MAX, "13.13", discovery=False),
        _number(
            "FirstBurstLength", 65536, 512, SEGMENT_MAX, "13.14", bound="MaxBurstLength", discovery=False
        ),
        _number("DefaultTime2Wait", 2, 0, 3600, "13.15", result=max),
        _number("DefaultTime2Retain", 20, 0, 3600, "13.16"),
        _number("MaxOutstandingR2T", 1, 1, 65535, "13.17", discovery=False),
        _boolean("DataPDUInOrder", True, _either, "13.18"),
        _boolean("DataSequenceInOrder", True, _either, "13.19"),
        _number("ErrorRecoveryLevel", 0, 0, 2, "13.20"),
        _declared("SessionType", "13.21"),
        Key("TaskReporting", "list", "RFC3720", "13.23", discovery=False),
        _number("iSCSIProtocolLevel", 1, 0, 31, "13.24", discovery=False),
        # Markers are gone; they may still be offered (RFC 7143 13.25).
        Key("OFMarker", "obsolete", "No", "13.25"),
        Key("IFMarker", "obsolete", "No", "13.25"),
        Key("OFMarkInt", "obsolete", REJECT, "13.25"),
        Key("IFMarkInt", "obsolete", REJECT, "13.25"),
    )
}
