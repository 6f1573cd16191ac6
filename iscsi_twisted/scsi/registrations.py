# -*- test-case-name: tests.scsi.test_registrations -*-
"""
Persistent reservations of one logical unit: who has registered, and who holds what (SPC-4 5.13).

Registrations belong to pairs of ports, not to sessions: they outlive them, and resets.  Nothing here knows of
commands, or of sessions; every change tells whom it concerns.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from iscsi_twisted.interfaces import INexus
from iscsi_twisted.scsi import codes

WRITE_EXCLUSIVE: Final = 1
EXCLUSIVE_ACCESS: Final = 3
WRITE_EXCLUSIVE_REGISTRANTS: Final = 5
EXCLUSIVE_ACCESS_REGISTRANTS: Final = 6
WRITE_EXCLUSIVE_ALL: Final = 7
EXCLUSIVE_ACCESS_ALL: Final = 8
"""Types of reservations; SPC-4 table 221."""

TYPES: Final = frozenset((1, 3, 5, 6, 7, 8))
FOR_REGISTRANTS: Final = frozenset((5, 6, 7, 8))
"""All that have registered may do what the holder may."""
HELD_BY_ALL: Final = frozenset((7, 8))
"""All that have registered are holders."""
READABLE: Final = frozenset((1, 5, 7))
"""Others may read."""

MOST: Final = 1024
"""Registrations of one unit; more than a cluster has paths, and what a hostile initiator may have us keep."""
READERS: Final = MOST // 4
"""There may be so many registrations when one more of who may only read is accepted."""

ISID_SIZE: Final = 6


class Port(NamedTuple):
    """
    An initiator port and a target port: what a registration belongs to.

    @ivar isid: empty for all ports of the initiator, whatever their ISIDs (SPC-4 7.6.4.6).
    """

    initiatorName: str
    isid: bytes
    tag: int

    def anyISID(self) -> Port:
        """The same for all ports of the initiator."""
        return Port(self.initiatorName, b"", self.tag)


def portOf(nexus: INexus) -> Port:
    """The ports of a nexus."""
    return Port(nexus.initiatorName, nexus.isid, nexus.portalGroupTag)


def isOneOf(port: Port, ports: Collection[Port]) -> bool:
    """Whether a port is one of these, which may be all ports of an initiator."""
    return port in ports or port.anyISID() in ports


Told = dict[Port, int]
"""The unit attention that each of these is told."""


class Conflict(Exception):
    """The reservation, or the lack of a registration, forbids this: RESERVATION CONFLICT status."""


class Full(Exception):
    """There is no room for so many registrations."""


class Registrations:
    """
    The state.

    @ivar generation: PRGENERATION, counts changes of registrations.
    @ivar keys: by port, in the order in which they came.
    @ivar type: of the reservation, 0 for none.
    @ivar holder: who holds it; None if all registrants do.
    @ivar kept: whether all this outlives a loss of power (APTPL).
    @ivar lost: what was kept cannot be read: until it is replaced, nobody knows who is to be kept out.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.keys: dict[Port, int] = {}
        self.type = 0
        self.holder: Port | None = None
        self.kept = False
        self.lost = False

    # Through a loss of power

    def dump(self) -> bytes:
        """The state as text; nothing if it is not to be kept, or there is nothing to keep."""
        if not self.kept or not self.keys:
            return b""
        ports = list(self.keys)
        told = {
            "keys": [[port.initiatorName, port.isid.hex(), port.tag, key] for port, key in self.keys.items()],
            "type": self.type,
            "holder": None if self.holder is None else ports.index(self.holder),
        }
        return json.dumps(told).encode()

    def restore(self, state: bytes) -> None:
        """
        Take over what L{dump} gave.

        @raise ValueError: if it is not that.
        """
        if not state:
            return
        told = json.loads(state)
        try:
            keys = {
                Port(str(name), bytes.fromhex(isid), int(tag)): int(key)
                for name, isid, tag, key in told["keys"]
            }
            kind, place = int(told["type"]), told["holder"]
            holder = None if place is None else list(keys)[place]
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"no reservations: {error}") from error
        if len(keys) > MOST or not all(0 < key < 1 << 64 for key in keys.values()):
            raise ValueError("no reservations: keys that cannot be")
        if not all(len(port.isid) in (0, ISID_SIZE) for port in keys):
            raise ValueError("no reservations: ISIDs that cannot be")
        if kind not in TYPES | {0} or (holder is None) != (kind in HELD_BY_ALL | {0}):
            raise ValueError(f"no reservation: type {kind}")
        self.keys, self.type, self.holder, self.kept = keys, kind, holder, True

    # Asking

    def of(self, port: Port) -> Port:
        """The registration that a port has: its own, or that of all ports of its initiator; or would have."""
        if port in self.keys:
            return port
        shared = port.anyISID()
        return shared if shared in self.keys else port

    def keyOf(self, port: Port) -> int:
        """The key that this port has registered; 0 for none."""
        return self.keys.get(self.of(port), 0)

    def isTaken(self, port: Port) -> bool:
        """Whether this port, or for a name alone any port of that name, has registered."""
        if port.isid:
            return self.of(port) in self.keys
        return any(port == each.anyISID() for each in self.keys)

    def holds(self, port: Port) -> bool:
        """Whether this port holds the reservation."""
        port = self.of(port)
        return bool(self.type) and (port in self.keys if self.type in HELD_BY_ALL else port == self.holder)

    def restricts(self, port: Port) -> bool:
        """Whether the reservation keeps this port from anything."""
        if not self.type or self.holds(port):
            return False
        return self.type not in FOR_REGISTRANTS or self.of(port) not in self.keys

    def _check(self, port: Port, key: int) -> Port:
        """
        The registration of a port that knows its key.

        @raise Conflict: if it has none, or another key.
        """
        port = self.of(port)
        if self.keys.get(port) != key:
            raise Conflict
        return port

    # Registering

    def register(self, port: Port, key: int | None, new: int, also: Sequence[Port] = ()) -> Told:
        """
        REGISTER; SPC-4 5.13.7.

        @param key: the key that is there, 0 for none; None to ignore it.
        @param new: the key from now on; 0 to unregister.
        @param also: other ports for which the same is done: all or none.
        @raise Conflict: if C{key} is not the one that is there.
        @raise Full: if there would be too many registrations.
        """
        ports = {self.of(each): None for each in (port, *also)}
        if key is not None:
            if self.keyOf(port) != key:
                raise Conflict
            if any(self.keys.get(each, key) not in (key, new) for each in ports):
                raise Conflict
        if new and len(self.keys.keys() | ports) > max(MOST, len(self.keys)):
            raise Full
        self.generation += 1
        if new:
            self.keys.update(dict.fromkeys(ports, new))
            return {}
        told: Told = {}
        for each in ports:
            if each in self.keys:
                told |= self._forget(each)
        return {each: code for each, code in told.items() if each not in ports}

    def _forget(self, port: Port) -> Told:
        """Unregister; SPC-4 5.13.11.2.2: a reservation may go with it."""
        held, kind = self.holds(port), self.type
        del self.keys[port]
        if not held or (kind in HELD_BY_ALL and self.keys):
            return {}
        self._free()
        return dict.fromkeys(self.keys, codes.RESERVATIONS_RELEASED) if kind in FOR_REGISTRANTS else {}

    def _free(self) -> None:
        self.type, self.holder = 0, None

    def _hold(self, port: Port, kind: int) -> None:
        self.type, self.holder = kind, None if kind in HELD_BY_ALL else port

    # Reserving

    def reserve(self, port: Port, key: int, kind: int) -> None:
        """
        RESERVE; SPC-4 5.13.9.

        @raise Conflict: unless the unit is free, or held in the same way.
        """
        port = self._check(port, key)
        if not self.type:
            self._hold(port, kind)
        elif not (self.holds(port) and self.type == kind):
            raise Conflict

    def release(self, port: Port, key: int, kind: int) -> Told | None:
        """
        RELEASE; SPC-4 5.13.11.2.1.

        @return: None if it is held in another way.
        @raise Conflict: if C{key} is not the one that is there.
        """
        port = self._check(port, key)
        if not self.holds(port):
            return {}
        if self.type != kind:
            return None
        self._free()
        if kind not in FOR_REGISTRANTS:
            return {}
        return {each: codes.RESERVATIONS_RELEASED for each in self.keys if each != port}

    def clear(self, port: Port, key: int) -> Told:
        """CLEAR; SPC-4 5.13.11.2.6."""
        port = self._check(port, key)
        told = {each: codes.RESERVATIONS_PREEMPTED for each in self.keys if each != port}
        self.generation += 1
        self.keys.clear()
        self._free()
        return told

    def preempts(self, victim: int) -> bool:
        """Whether preempting a key takes the reservation too."""
        if self.type in HELD_BY_ALL:
            return victim == 0
        return self.holder is not None and self.keys.get(self.holder) == victim

    def preempt(self, port: Port, key: int, victim: int, kind: int) -> Told:
        """
        PREEMPT; SPC-4 5.13.11.2.4.

        @param victim: the key of those that lose their registrations; 0 for all others, where all hold it.
        @raise Conflict: if nobody has that key.
        """
        port = self._check(port, key)
        takes = self.preempts(victim)
        gone = [each for each, one in self.keys.items() if (takes and victim == 0) or one == victim]
        if not gone:
            raise Conflict
        self.generation += 1
        before = self.type
        told: Told = {}
        for each in gone:
            if takes and each == port:
                continue
            told |= self._forget(each) if not takes else {}
            self.keys.pop(each, None)
            told[each] = codes.REGISTRATIONS_PREEMPTED
        if takes:
            self._hold(port, kind)
            # Whoever keeps its registration is told of another type (SPC-4 5.13.11.2.4).
            if before != kind:
                told = {each: codes.RESERVATIONS_RELEASED for each in self.keys} | told
        told.pop(port, None)
        return told

    def move(self, port: Port, key: int, to: Port, new: int, unregister: bool) -> None:
        """
        REGISTER AND MOVE; SPC-4 5.13.8.

        @raise Conflict: unless C{port} alone holds the reservation.
        @raise Full: if there would be too many registrations.
        """
        port, to = self._check(port, key), self.of(to)
        if self.type in HELD_BY_ALL or not self.holds(port):
            raise Conflict
        if to not in self.keys and len(self.keys) >= MOST:
            raise Full
        self.generation += 1
        self.keys[to] = new
        self.holder = to
        if unregister:
            del self.keys[port]

    def replace(self, port: Port, new: int, kind: int) -> None:
        """REPLACE LOST RESERVATION; SPC-4 5.13.11.3: all that there is from now on."""
        self.generation += 1
        self.keys = {port: new}
        self._hold(port, kind)
        self.lost = False

    def codeFor(self, told: Told, port: Port) -> int | None:
        """What a change tells the nexus of a port."""
        code = told.get(port)
        return told.get(port.anyISID()) if code is None and port not in self.keys else code
