# -*- test-case-name: tests.scsi.test_paths -*-
"""
Asymmetric access: how well a unit is reached through each target port group (SPC-4 5.15).

A portal group of iSCSI is one target port, and here a target port group with no other port in it: the portal
group tag, the relative target port identifier and the number of the target port group are one and the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from iscsi_twisted.errors import LocalError
from iscsi_twisted.scsi import codes

OPTIMIZED: Final = 0x0
NON_OPTIMIZED: Final = 0x1
STANDBY: Final = 0x2
UNAVAILABLE: Final = 0x3
OFFLINE: Final = 0xE
TRANSITIONING: Final = 0xF
"""Asymmetric access states; SPC-4 table 296.  (4h, LBA dependent, is not supported.)"""

STATES: Final = frozenset((OPTIMIZED, NON_OPTIMIZED, STANDBY, UNAVAILABLE, OFFLINE, TRANSITIONING))
SETTABLE: Final = STATES - {TRANSITIONING}
"""What SET TARGET PORT GROUPS may ask for."""

NONE, IMPLICIT, EXPLICIT, BOTH = range(4)
"""TPGS of INQUIRY data, SPC-4 table 144: who changes states: the unit itself, initiators, or both."""

UNCHANGED, BY_COMMAND, BY_ITSELF = range(3)
"""STATUS CODE of REPORT TARGET PORT GROUPS, SPC-4 table 298: what changed a state last."""

_ALWAYS: Final = frozenset({(0x03, None), (0x12, None), (0xA0, None)})
"""REQUEST SENSE, INQUIRY and REPORT LUNS are answered whatever there is behind the number."""
_REPORT: Final = frozenset({(0xA3, 0x0A)})
"""REPORT TARGET PORT GROUPS."""
_SET: Final = frozenset({(0xA4, 0x0A)})
"""SET TARGET PORT GROUPS."""
_BUFFERS: Final = frozenset({(0x3B, None), (0x3C, None), (0x9B, None)})
"""WRITE BUFFER and READ BUFFER."""
_LOOKING: Final = frozenset(
    {(opcode, None) for opcode in (0x15, 0x55, 0x1A, 0x5A, 0x4C, 0x4D, 0x1C, 0x1D, 0x25, 0x5E, 0x5F)}
    | {(0x9E, 0x10)}
)
"""
MODE SELECT and SENSE, LOG SELECT and SENSE, RECEIVE and SEND DIAGNOSTIC, PERSISTENT RESERVE IN and OUT; and,
as the standard allows, READ CAPACITY: hosts look at a disk before they know which path is which.
"""

REFUSALS: Final[Mapping[int, tuple[int, frozenset[tuple[int, int | None]]]]] = {
    # SPC-4 5.15.2.4.4 to 5.15.2.4.8
    STANDBY: (codes.IN_STANDBY, _ALWAYS | _REPORT | _SET | _BUFFERS | _LOOKING),
    UNAVAILABLE: (codes.IN_UNAVAILABLE, _ALWAYS | _REPORT | _SET | _BUFFERS),
    TRANSITIONING: (codes.IN_TRANSITION, _ALWAYS | _REPORT | _BUFFERS),
    OFFLINE: (codes.UNIT_OFFLINE, _ALWAYS),
}
"""For each state in which not all is answered: additional sense code of a refusal, and what is answered."""

_BY_ACTION: Final = frozenset((0xA3, 0xA4, 0x9E))
"""Operation codes of which the service action decides."""


class Paths:
    """
    The access states of one unit.

    @ivar groups: the target port groups, in order.
    @ivar states: of those that are not active/optimized.
    @ivar preferred: groups whose PREF bit is set.
    @ivar tpgs: who may change states.
    @ivar causes: STATUS CODE of those whose state was changed.
    @ivar uneven: through some group not everything is answered.
    """

    __slots__ = ("causes", "groups", "preferred", "states", "tpgs", "uneven")

    def __init__(
        self,
        groups: Iterable[int] = (),
        states: Mapping[int, int] | None = None,
        preferred: Iterable[int] = (),
        tpgs: int = BOTH,
    ) -> None:
        """
        @raise LocalError: for groups or states that there are not.
        """
        self.groups = tuple(groups)
        self.preferred = frozenset(preferred)
        self.tpgs = tpgs
        self.states: dict[int, int] = {}
        self.causes: dict[int, int] = {}
        self._check(dict.fromkeys(self.preferred, OPTIMIZED))
        self.change(states or {}, UNCHANGED)

    def state(self, group: int) -> int:
        """The state of a group."""
        return self.states.get(group, OPTIMIZED)

    def _check(self, states: Mapping[int, int]) -> None:
        for group, state in states.items():
            if group not in self.groups:
                raise LocalError(
                    f"no target port group {group}; there are {', '.join(map(str, self.groups))}"
                )
            if state not in STATES:
                raise LocalError(f"no access state {state:#x}")

    def change(self, states: Mapping[int, int], cause: int) -> bool:
        """
        Let groups have these states.

        @return: whether that changed anything.
        @raise LocalError: for groups or states that there are not; then nothing changes.
        """
        self._check(states)
        changed = {group: state for group, state in states.items() if state != self.state(group)}
        self.states |= changed
        self.causes |= dict.fromkeys(changed, cause)
        self.uneven = any(state in REFUSALS for state in self.states.values())
        return bool(changed)

    def refusal(self, group: int, cdb: bytes) -> int:
        """The additional sense code with which a command through a group is refused; 0 if it is not."""
        refusal = REFUSALS.get(self.state(group))
        if refusal is None:
            return 0
        opcode = cdb[0]
        key = (opcode, cdb[1] & 0x1F if opcode in _BY_ACTION else None)
        return 0 if key in refusal[1] else refusal[0]


SYMMETRIC: Final = Paths(tpgs=NONE)
"""Of a unit that says nothing of access states."""
