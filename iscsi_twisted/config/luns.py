# -*- test-case-name: tests.config.test_targets -*-
"""The numbers of a target's units, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from iscsi_twisted.config.lines import quoted
from iscsi_twisted.config.model import Storage, Target, numbers

SHOWN: Final = 20
"""Numbers that a message lists."""


def lunFaults(target: Target) -> Iterator[str]:
    """Units with the same number, and numbers in C{luns=} that no unit has."""
    found: dict[int, Storage] = {}
    for lun, storage in zip(numbers(each.options for each in target.storages), target.storages, strict=True):
        other = found.setdefault(lun, storage)
        if other is not storage:
            yield (
                f"{quoted(other.name)} and {quoted(storage.name)} both are LUN {lun};"
                " lun= on the line of one of them gives it another number"
            )
    beyond = {lun for _, luns in target.options.luns or () for lun in luns}.difference(found)
    if beyond:
        there = ", ".join(map(str, sorted(found)[:SHOWN])) + (" and others" if len(found) > SHOWN else "")
        yield f"luns=: there is no LUN {min(beyond)}; there {'is' if len(found) == 1 else 'are'} {there}"
