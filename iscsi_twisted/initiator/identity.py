# -*- test-case-name: tests.initiator.test_identity -*-
"""
Whether a unit is still the one that it was before the connection was lost.

A target that is started anew may have another disk at the same number, and what is sent again, or comes from
whoever has noticed nothing, must not be written to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iscsi_twisted.errors import ISCSIError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.client import designators
from iscsi_twisted.scsi.lun import decodeLUN
from iscsi_twisted.session.client import ClientConnection
from iscsi_twisted.session.command import Command

DEVICE_IDENTIFICATION: Final = 0x83
SERIAL_NUMBER: Final = 0x80
PAGES: Final = (DEVICE_IDENTIFICATION, SERIAL_NUMBER)
"""Pages of vital product data that say who a unit is, the better one first (SPC-4 7.8.6, 7.8.15)."""

ALLOCATION: Final = 0xFFFF


class AnotherUnit(ISCSIError):
    """After a connection was lost there is another unit in the place of one: nothing was sent to it."""


Name = tuple[int, bytes]
"""A page, and what stands there that is the unit's alone."""


def named(page: int, data: Buffer) -> bytes:
    """What a page says of the unit; empty for nothing, and for what is not that page."""
    if len(data) < 4 or data[1] != page:
        return b""
    if page == DEVICE_IDENTIFICATION:
        return b"".join(sorted(designators(data)))
    return bytes(data[4 : 4 + int.from_bytes(data[2:4], "big")]).strip(b" \0")


class Probe(Command):
    """An INQUIRY over a connection that nobody else uses yet."""

    __slots__ = ("done", "name")

    def __init__(self, lunField: bytes, name: Name, done: Callable[[Probe, bytes], None]) -> None:
        asked = cdb.INQUIRY.encode(flags=1, page=name[0], allocation=ALLOCATION)
        super().__init__(lunField, asked[: cdb.INQUIRY.layout.size], ALLOCATION)
        self.name, self.done = name, done

    def ended(self, status: int, sense: Buffer, residual: int) -> None:
        """One that does not say who it is may be anyone."""
        self.done(self, b"" if status else named(self.name[0], self.whole()))

    def failed(self, error: ISCSIError) -> None:
        """The target does not do it any more."""
        self.done(self, b"")

    def lost(self, error: ISCSIError) -> None:
        """The connection has ended, of which the session hears."""


def recognise(
    connection: ClientConnection, known: dict[bytes, Name], done: Callable[[AnotherUnit | None], None]
) -> None:
    """
    Ask units for their names.

    @param known: their names before, by their numbers.
    @param done: called when all have answered: with what is wrong, or None.
    """
    waiting = set(known)
    wrong: list[int] = []

    def answered(probe: Probe, name: bytes) -> None:
        waiting.discard(probe.lunField)
        if name and name != probe.name[1]:
            wrong.append(decodeLUN(probe.lunField))
        if not waiting:
            done(_error(connection, sorted(wrong)))

    for lunField, name in known.items():
        if connection.full:
            connection.execute(Probe(lunField, name, answered))


def _error(connection: ClientConnection, wrong: list[int]) -> AnotherUnit | None:
    if not wrong:
        return None
    units = ", ".join(f"LUN {number}" for number in wrong)
    return AnotherUnit(
        f"{units} of {connection.wish.targetName} is another unit than before the connection was lost, and"
        " says so by its name: nothing more is sent to it"
    )
