# -*- test-case-name: tests.scsi.test_origin -*-
"""
Of which medium something was kept: what goes on after a restart must not be done to another one that is
served in its place by then.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, Final

MARK: Final = 16
"""Bytes of a L{mark}."""
NO_MARK: Final = bytes(MARK)
"""That of a medium that cannot be told from others."""
_END: Final = re.compile(r" to \d+")
"""Where the part that is served ends: it may have grown."""


def mediumOf(device: Any) -> str | None:
    """
    Which medium an open device has.

    @return: None if that cannot be told (L{iscsi_twisted.storage.fingerprint}).
    """
    ask = getattr(device, "fingerprint", None)
    known: str | None = None if ask is None else ask()
    return known and _END.sub("", known)


def isAnother(kept: object, found: object) -> bool:
    """Whether something was kept of another medium (or L{mark}), as far as both can be told."""
    return bool(kept and found and NO_MARK not in (kept, found) and kept != found)


def mark(medium: str | None) -> bytes:
    """A medium in few bytes."""
    return NO_MARK if medium is None else sha256(medium.encode()).digest()[:MARK]
