# -*- test-case-name: tests.target.test_permissions -*-
"""Whether others can use the file that says who gets in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from iscsi_twisted.errors import ConfigurationError

_ACL = "system.posix_acl_access"
"""Where Linux keeps an access control list; the group's bits are then the most that anybody in it has."""


def tooOpen(descriptor: int, path: str) -> ConfigurationError | None:
    """
    What is wrong with the permissions of an auths file, if anything is.

    @param descriptor: the open file, so that what is judged is what is read.
    @param path: its name, as it was opened.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    why = _whoUses(descriptor, status.st_mode) or next(_whoReplaces(path), None)
    if why is None:
        return None
    return ConfigurationError(f"{why}, or say --open-auths if you know better", path)


def _whoUses(descriptor: int, mode: int) -> str | None:
    # A group may read it that was made for that; whoever writes it lets himself in.
    if not mode & 0o027:
        return None
    who = "everybody on this machine can use it"
    if not mode & 0o007:
        listed = _listed(descriptor)
        who = "its group, or somebody in its access control list, can write it" if listed else ""
        who = who or "its group can write it"
    return f"{who} (mode {mode & 0o777:o}), and it says who gets in: chmod g-w,o= it"


def _listed(descriptor: int) -> bool:
    try:
        return bool(os.getxattr(descriptor, _ACL))
    except (OSError, AttributeError):
        return False


def _whoReplaces(path: str) -> Iterator[str]:
    """Directories in which everybody can put another file there: that of a link, that of the file."""
    for name in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
        folder = os.path.dirname(name)
        try:
            mode = os.stat(folder).st_mode
        except OSError:
            continue
        # In a directory like /tmp only its owner can replace a file.
        if mode & 0o002 and not mode & stat.S_ISVTX:
            yield (
                f"everybody on this machine can put another file in its place (mode {mode & 0o777:o} of"
                f" {folder}), and it says who gets in: chmod o-w {folder}"
            )
