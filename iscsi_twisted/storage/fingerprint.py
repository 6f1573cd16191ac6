# -*- test-case-name: tests.storage.test_fingerprint -*-
"""
Which device it is, and whether anybody has changed it: asked of any device, also of one that does not know.

A device may have two methods for this beyond L{iscsi_twisted.interfaces.IBlockDevice}.  C{fingerprint()}
tells it from all others once it is open: the same text each time it is the same storage, and the same part of
it.  C{stamp()}, which may be pending, is a tuple of numbers that grow when it is written, durable ones.

Two more keep a number beside its data, where there is a place for that: C{keepWitness(key, number)} and
C{witness(key)}, 0 if there is none.  Both may be pending, and do nothing where that is impossible.  So a
record that is older than the members is told from one that is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from iscsi_twisted.interfaces import Pending
from iscsi_twisted.storage.pending import attempt, gather, whenDone

Stamp = tuple[int, ...]


def fingerprintOf(device: Any) -> str | None:
    """Which device it is; None if it cannot be told from others, so that it is a new one each time."""
    method: Callable[[], str | None] | None = getattr(device, "fingerprint", None)
    return None if method is None else method()


def stampOf(device: Any) -> Stamp | Pending:
    """How new it is; empty if it does not know."""
    method: Callable[[], Stamp | Pending] | None = getattr(device, "stamp", None)
    return () if method is None else method()


def witnessOf(device: Any, key: str) -> int | Pending:
    """The number that is kept beside its data; 0 if there is none."""
    method: Callable[[str], int | Pending] | None = getattr(device, "witness", None)
    return 0 if method is None else method(key)


def keepWitness(device: Any, key: str, number: int) -> Pending | None:
    """Keep a number beside its data, if that is possible; it need not be durable at once."""
    method: Callable[[str, int], Pending | None] | None = getattr(device, "keepWitness", None)
    return None if method is None else method(key, number)


def witnessKey(fingerprint: str | None) -> str:
    """Under which a device keeps its number: a part of it, or what is made of several, has another."""
    return "" if fingerprint is None else hashlib.sha256(fingerprint.encode()).hexdigest()[:16]


def restartsOf(device: Any) -> int:
    """
    How often what it stands on was started anew: a unit of another target counts that, and tells of a change.
    """
    own: int = getattr(device, "restarts", 0)
    return own + sum(map(restartsOf, getattr(device, "members", ())))


def replays(device: Any) -> bool:
    """Whether all that is started anew now and then writes again by itself what was not flushed then."""
    own = getattr(device, "replays", not hasattr(device, "restarts"))
    return own and all(map(replays, getattr(device, "members", ())))


def restored(device: Any) -> None:
    """Tell what stands on it that whatever was lost in a new start is written again."""
    method: Callable[[], None] | None = getattr(device, "restored", None)
    if method is not None:
        method()
    for member in getattr(device, "members", ()):
        restored(member)


def jointFingerprint(kind: str, devices: Iterable[Any]) -> str | None:
    """Which device it is that is made of these; None if one of them cannot be told from others."""
    prints = [fingerprintOf(device) for device in devices]
    return None if None in prints else f"{kind}({'; '.join(map(str, prints))})"


def jointStamp(devices: Iterable[Any]) -> Stamp | Pending:
    """How new they are, all of them."""
    return whenDone(
        gather([attempt(stampOf, device) for device in devices]),
        lambda stamps: tuple(number for stamp in stamps for number in stamp),
    )
