# -*- test-case-name: tests.session.test_session -*-
"""A session: its nexus, its CmdSN window, its tasks (RFC 7143 4.2.2, 4.4.3)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from iscsi_twisted.interfaces import ILogicalUnit
from iscsi_twisted.session.node import LUNS_CACHED, Budget, Nexus, Node, Target
from iscsi_twisted.session.parameters import Parameters
from iscsi_twisted.wire.serial import MASK, within

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection
    from iscsi_twisted.session.task import Task

IMMEDIATE_TASKS: Final = 32
"""Immediate commands are outside the window, so they have a bound of their own."""

SOLICITED: Final = 32 << 20
"""Bytes that one session may be asked for at one time: two of the largest writes."""

Early = tuple[bytes, bytes, bytes]


class Session:
    """
    One session of a target; of a discovery session too, which has neither target nor nexus.

    The window: MaxCmdSN goes up by one as a numbered command ends, and by nothing else; so a
    session never has more than C{depth} of them, and MaxCmdSN never goes back.

    @ivar tsih: target session identifying handle.
    @ivar initiatorName: in normal form.
    @ivar target: None for discovery.
    @ivar nexus: None for discovery.
    @ivar tasks: those that may still answer, by initiator task tag.
    @ivar waiting: those that may not begin yet: the connection has enough to send.
    @ivar early: PDUs that came before their turn, by CmdSN.
    @ivar immediateLimit: bytes that may come with a command.
    @ivar immediates: immediate commands that have not ended; those too that were aborted while a device
        still works for them.
    @ivar catchingUp: PDUs that came early are being handled.
    """

    __slots__ = (
        "catchingUp",
        "connection",
        "depth",
        "early",
        "expCmdSN",
        "immediateLimit",
        "immediates",
        "initiatorName",
        "isid",
        "maxCmdSN",
        "nexus",
        "node",
        "parameters",
        "solicited",
        "target",
        "tasks",
        "tsih",
        "units",
        "waiting",
    )

    def __init__(
        self,
        node: Node,
        initiatorName: str,
        isid: bytes,
        tsih: int,
        cmdSN: int,
        parameters: Parameters,
        target: Target | None = None,
        nexus: Nexus | None = None,
    ) -> None:
        self.node = node
        self.initiatorName = initiatorName
        self.isid = isid
        self.tsih = tsih
        self.parameters = parameters
        self.target = target
        self.nexus = nexus
        self.depth = node.depth
        self.expCmdSN = cmdSN
        self.maxCmdSN = (cmdSN + self.depth - 1) & MASK
        self.connection: Connection | None = None
        self.tasks: dict[int, Task] = {}
        self.waiting: deque[Task] = deque()
        self.early: dict[int, Early] = {}
        self.immediates = 0
        self.catchingUp = False
        self.immediateLimit = parameters.firstBurst if parameters.immediateData else 0
        self.solicited = Budget(SOLICITED, node.solicited)
        self.units: dict[bytes, tuple[int, ILogicalUnit]] = {}

    @property
    def discovery(self) -> bool:
        """Whether this is a discovery session."""
        return self.target is None

    def begin(self, connection: Connection) -> None:
        """The login is complete."""
        self.connection = connection
        self.node.sessions.add(self)
        if self.target is not None and self.nexus is not None:
            self.target.sessions[self.nexus.key] = self
            for unit in self.target.units.values():
                unit.nexusFound(self.nexus)

    def end(self) -> None:
        """Nothing of this session is left, but what its aborted tasks still do to their devices."""
        self.abortAll()
        self.connection = None
        self.early.clear()
        self.node.sessions.discard(self)
        if self.target is not None and self.nexus is not None:
            if self.target.sessions.get(self.nexus.key) is self:
                del self.target.sessions[self.nexus.key]
            for unit in self.target.units.values():
                unit.nexusLost(self.nexus)

    def addressed(self, field: bytes) -> tuple[int, ILogicalUnit]:
        """The number and the unit that a LUN field names; the data path looks into C{units} first."""
        assert self.target is not None
        found = self.target.addressed(field)
        if len(self.units) < LUNS_CACHED and found[1] is not self.target.absent:
            self.units[field] = found
        return found

    def forgetUnits(self) -> None:
        """The target's units have changed."""
        self.units.clear()

    def expects(self, cmdSN: int) -> bool:
        """Whether a numbered command may still come (RFC 7143 4.2.2.1)."""
        return within(self.expCmdSN, cmdSN, self.maxCmdSN)

    def release(self) -> None:
        """A numbered command has ended."""
        self.maxCmdSN = (self.maxCmdSN + 1) & MASK

    def abortAll(self) -> None:
        """Abort all tasks of this session."""
        for task in list(self.tasks.values()):
            task.abort()
        self.waiting.clear()
