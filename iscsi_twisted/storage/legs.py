# -*- test-case-name: tests.storage.test_legs -*-
"""
The members of a mirror, and the states that they may be in.

All that is known of the states is here: L{TRANSITIONS} is the whole of it, and every transition is logged, as
an event C{member} with the mirror, the member, the state that it was in, the one that it is in, and the
reason.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
from twisted.logger import Logger

from iscsi_twisted.interfaces import Capabilities, IBlockDevice
from iscsi_twisted.storage.regions import Regions

NEW: Final = "new"
IN_SYNC: Final = "in sync"
RESYNCING: Final = "resyncing"
FAILED: Final = "failed"
MISSING: Final = "missing"
REPLACED: Final = "replaced"

OPEN: Final = frozenset((IN_SYNC, RESYNCING))
"""The states in which a member gets all that is written."""

TRANSITIONS: Final[dict[tuple[str, str], str]] = {
    (NEW, "current"): IN_SYNC,
    (NEW, "behind"): RESYNCING,
    (NEW, "absent"): MISSING,
    (IN_SYNC, "behind"): RESYNCING,
    (IN_SYNC, "failed"): FAILED,
    (IN_SYNC, "dropped"): REPLACED,
    (RESYNCING, "current"): IN_SYNC,
    (RESYNCING, "failed"): FAILED,
    (RESYNCING, "dropped"): REPLACED,
    (FAILED, "behind"): RESYNCING,
    (FAILED, "dropped"): REPLACED,
    (MISSING, "behind"): RESYNCING,
    (MISSING, "dropped"): REPLACED,
}
"""From a state and what has happened to the next state; what is not here does not happen."""

_log = Logger(namespace="iscsi_twisted")


@attrs.frozen
class MemberStatus:
    """
    How a member of a mirror is.

    @ivar name: what messages call it.
    @ivar state: C{in sync}, C{resyncing}, C{failed}, C{missing} or C{replaced}.
    @ivar behind: bytes that it lacks, in whole regions.
    @ivar reason: why it is in that state; empty if it is as it should be.
    @ivar repaired: places that could not be read and were written anew.
    @ivar hanging: operations that were waited for too long and have not ended.
    """

    name: str
    state: str
    behind: int
    reason: str
    repaired: int
    hanging: int = 0


class Leg:
    """
    One member of a mirror.

    @ivar device: the member itself.
    @ivar state: see L{TRANSITIONS}.
    @ivar behind: regions where it lacks something.
    @ivar void: regions that none of its own members has; see L{iscsi_twisted.storage.void}.
    @ivar rival: regions of these where it was as good as another member when the mirror started, since writes
        had been under way there, and the other was chosen; whatever was read there since is the same in both.
    @ivar unflushed: regions that were copied to it and may be lost in a power cut.
    @ivar mending: ranges of regions where something is being written anew, which a power cut may take back.
    @ivar isOpen: its device is open.
    @ivar isLeft: it is no member any more, or the mirror is closed: if it is open only now nobody needs it.
    @ivar fingerprint: which device it is; None if that is not known.
    @ivar stamp: how new it was when that was asked last.
    @ivar left: how new it was when it was closed since it had failed; empty if that is not known.
    @ivar witness: the generation of the newest record that it was told of.
    @ivar abilities: what it can do; valid when it has been opened.
    @ivar reason: why it is not in sync.
    @ivar head: where the last read of it ended.
    @ivar busy: reads of it that are pending.
    @ivar late: its last read was not answered at once.
    @ivar hanging: see L{MemberStatus}.
    @ivar shunned: until when it is not read since it did not answer, in seconds of the reactor's; 0 if it is.
    @ivar attempts: how often in a row it was tried again in vain.
    @ivar due: when it is tried again, in seconds of the reactor's.
    @ivar restarts: how often what it stands on was started anew, as far as that was noticed.
    @ivar suspect: it may stand on something else since then, so that it is not read before that is known.
    @ivar spoilt: grows whenever it comes to lack something.
    @ivar repaired: see L{MemberStatus}.
    @ivar successor: the leg that is to take its place.
    """

    def __init__(self, device: IBlockDevice) -> None:
        self.device = device
        self.state = NEW
        self.behind = Regions(0)
        self.void = Regions(0)
        self.rival = Regions(0)
        self.unflushed = Regions(0)
        self.mending: list[tuple[int, int]] = []
        self.isOpen = self.isLeft = False
        self.fingerprint: str | None = None
        self.stamp: tuple[int, ...] = ()
        self.left: tuple[int, ...] = ()
        self.witness = 0
        self.abilities = Capabilities()
        self.reason = ""
        self.head = -1
        self.busy = 0
        self.late = False
        self.hanging = 0
        self.shunned = 0.0
        self.attempts = 0
        self.due = 0.0
        self.spoilt = 0
        self.restarts = 0
        self.suspect = False
        self.repaired = 0
        self.successor: Leg | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        title: Any = getattr(self.device, "title", "")
        text = str(self.device)
        return text if not title or title == text else f"{title} ({text})"

    @property
    def gets(self) -> bool:
        """Whether it gets what is written."""
        return self.state in OPEN

    def lacks(self, first: int, last: int) -> bool:
        """Whether it lacks anything of these regions, or is not there at all."""
        return self.state not in OPEN or self.suspect or self.behind.has(first, last)

    def rivals(self, first: int, last: int) -> bool:
        """Whether what it has of these regions is as good as what others have."""
        flags = self.rival.flags
        return (
            self.gets
            and not self.suspect
            and all(flags[region] or not self.behind.flags[region] for region in range(first, last + 1))
        )

    def moment(self) -> tuple[int, int]:
        """Now, to be given to L{counts} when what was asked of it is there."""
        return self.restarts, self.spoilt

    def counts(self, since: tuple[int, int]) -> bool:
        """
        Whether what it answers now to what it was asked then is right: not if it was started anew meanwhile,
        and may have lost something or stand on something else.

        @param since: what L{moment} was then.
        """
        restarts, spoilt = since
        return self.restarts == restarts or not (self.suspect or self.spoilt != spoilt)

    def lacking(self) -> Regions:
        """What it lacks, or would after a power cut."""
        regions = self.behind.copy()
        regions.update(self.unflushed)
        for first, last in self.mending:
            regions.add(first, last)
        return regions

    def happens(self, event: str, mirror: object, reason: str = "") -> None:
        """
        Go into another state, and tell the log.

        @param event: of L{TRANSITIONS}.
        """
        before, self.state = self.state, TRANSITIONS[self.state, event]
        self.reason = reason
        tell = _log.warn if self.state in (FAILED, MISSING) else _log.info
        tell(
            "{mirror}: member {member} is {state}" + (": {reason}" if reason else ""),
            event="member", mirror=str(mirror), member=self.name, was=before, state=self.state, reason=reason,
        )  # fmt: skip

    def status(self, regionSize: int) -> MemberStatus:
        """A snapshot."""
        return MemberStatus(
            self.name, self.state, len(self.behind) * regionSize, self.reason, self.repaired, self.hanging
        )
