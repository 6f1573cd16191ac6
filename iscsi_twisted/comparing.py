# -*- test-case-name: tests.test_comparing -*-
"""Where the contents of two buffers part."""

from __future__ import annotations

from iscsi_twisted.interfaces import Buffer


def mismatch(first: Buffer, second: Buffer) -> int | None:
    """Where two buffers of one length differ first, in bytes; None if they do not."""
    one, other = bytes(first), bytes(second)
    if one == other:
        return None
    low, high = 0, len(one)
    # The first difference is in low:high; comparing halves is a matter of C, looking at bytes is not.
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
