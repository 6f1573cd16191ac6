# -*- test-case-name: tests.scsi.test_overhaul -*-
"""A unit that answers few commands for now: its medium is being remade, or that has failed."""

from __future__ import annotations

from typing import Final

import attrs

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.scsi import cdb, sense
from iscsi_twisted.scsi.cdb import MEDIUM, Command
from iscsi_twisted.scsi.work import Work

_ABOUT_COMMANDS: Final = frozenset((cdb.REPORT_OPCODES, cdb.REPORT_TASK_MANAGEMENT))
_TEMPERATURE: Final = 0x0D
"""The log page that may always be read (SBC-4 4.11.2)."""


@attrs.frozen
class Closure:
    """
    Why commands are refused, and which are not.  What is answered before a unit attention always is.

    @ivar key: sense key.
    @ivar code: additional sense code and qualifier.
    @ivar work: what is being done, or None if it has failed.
    @ivar but: commands that are allowed, those that end this state among them.
    @ivar whole: all commands but those are refused, not only those that need the medium.
    """

    key: int
    code: int
    work: Work | None = None
    but: frozenset[Command] = frozenset()
    whole: bool = True

    def condition(self) -> CheckCondition:
        """What is told, with progress if there is any (SPC-4 4.5.2.4.4)."""
        specific = None if self.work is None else sense.progress(self.work.progress)
        return CheckCondition(self.key, self.code, specific=specific)

    def refuses(self, command: Command | None, sent: bytes) -> bool:
        """Whether a command with this CDB is refused; what nobody knows is refused as that."""
        if command is None or command in _ABOUT_COMMANDS or command in self.but:
            return False
        if command is cdb.LOG_SENSE and sent[2] & 0x3F == _TEMPERATURE:
            return False
        return self.whole or bool(command.access & MEDIUM)
