# -*- test-case-name: tests.storage.test_displaced -*-
"""Whether the name of a file that is open still leads to it."""

from __future__ import annotations

import os
import stat


def displacement(fd: int, path: str) -> str:
    """
    What has become of the name of an open file, or of the node of a disk.

    @return: empty if it leads to what is open, or if nobody can tell.
    """
    try:
        there = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "there is no file of that name any more"
    except OSError:
        return ""
    here = os.fstat(fd)
    if stat.S_ISBLK(here.st_mode) and stat.S_ISBLK(there.st_mode):
        # A node may be made anew at any time; what counts is the disk behind it.
        same = here.st_rdev == there.st_rdev
    else:
        same = os.path.samestat(here, there)
    return "" if same else "another file has that name now"
