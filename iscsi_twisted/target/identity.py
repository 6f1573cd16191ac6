# -*- test-case-name: tests.target.test_identity -*-
"""
Who a unit is to the world: identities that outlive restarts and that no other installation has.

Two machines may serve the same targets file, with the same names, from copies of the same files.  An
initiator that saw the same identifier on both would take them for two paths to one disk and destroy
both.  So everything derives from a random number that is drawn once for each installation.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import attrs

from iscsi_twisted.durable import draftFile, makeDirectory, readFile, syncDirectory
from iscsi_twisted.errors import ConfigurationError

FILE_NAME: Final = "installation"
"""The file of the state directory that holds the number: 32 hexadecimal digits and a newline."""

ID_BYTES: Final = 16
MAX_READ: Final = 4096

ROOT_DIRECTORY: Final = "/var/lib/iscsi_twisted"

NAA_LOCAL: Final = 0x3 << 60
"""The NAA format 'locally assigned', whose other 60 bits are ours (SPC-5 7.7.6.6.4)."""

CONTENT = re.compile(rb"[0-9a-f]{32}\n?")


@attrs.frozen
class Installation:
    """
    The number that makes this installation different from all others.

    @ivar id: 16 random bytes.
    """

    id: bytes

    @classmethod
    def load(cls, stateDirectory: str) -> Installation:
        """
        Read the number, or draw it if there is none.

        The directory is made if it is missing.  Of several processes that begin at once all get the same.

        @raise ConfigurationError: if that is impossible, or what is there is damaged.
        """
        try:
            return cls.peek(stateDirectory) or cls._create(stateDirectory)
        except OSError as error:
            raise _fault(stateDirectory, error) from None

    @classmethod
    def peek(cls, stateDirectory: str) -> Installation | None:
        """
        Read the number; change nothing.

        @return: None if there is none.
        @raise ConfigurationError: if it cannot be read, or is damaged.
        """
        path = os.path.join(stateDirectory, FILE_NAME)
        try:
            data = readFile(path, MAX_READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault(path, error) from None
        if not CONTENT.fullmatch(data):
            raise ConfigurationError(
                f"damaged; it holds {2 * ID_BYTES} digits from 0 to f, lower case: restore it from a backup,"
                " or remove it and let initiators see new disks",
                path,
            )
        return cls(bytes.fromhex(data.decode("ascii")))

    @classmethod
    def _create(cls, stateDirectory: str) -> Installation:
        """Draw the number.  Whoever links the file first has drawn it for all."""
        makeDirectory(stateDirectory)
        path = os.path.join(stateDirectory, FILE_NAME)
        draft = draftFile(path, secrets.token_hex(ID_BYTES).encode("ascii") + b"\n")
        try:
            with suppress(FileExistsError):  # another process was first
                os.link(draft, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft)
        syncDirectory(stateDirectory)
        installation = cls.peek(stateDirectory)
        if installation is None:
            raise FileNotFoundError(errno.ENOENT, "another process removed the file just made", path)
        return installation


@attrs.frozen
class UnitIdentity:
    """
    What tells one logical unit from all others.

    @ivar serial: the unit serial number, ASCII.
    @ivar naa: the NAA designator, 8 or 16 bytes (SPC-5 7.7.6.6).
    @ivar designator: the same as text, in the form of an iSCSI name: C{naa.} and hexadecimal digits.
    """

    serial: str
    naa: bytes
    designator: str


def identify(
    installation: Installation,
    targetIQN: str,
    lun: int,
    serialOverride: str | None = None,
    naaOverride: bytes | None = None,
) -> UnitIdentity:
    """
    The identity of a unit.

    @param targetIQN: the target's iSCSI name, normalized: another spelling is another identity.
    @param lun: the logical unit number, 0 to 2**64 - 1.
    @param serialOverride: a serial number in place of the derived one.
    @param naaOverride: a designator in place of the derived one.
    """
    name = targetIQN.encode()
    parts = (b"iscsi_twisted unit\0", installation.id, len(name).to_bytes(4), name, lun.to_bytes(8))
    digest = hashlib.sha256(b"".join(parts)).digest()
    naa = naaOverride or (NAA_LOCAL | int.from_bytes(digest[:8]) >> 4).to_bytes(8)
    return UnitIdentity(serialOverride or digest[8:20].hex(), naa, "naa." + naa.hex())


def defaultStateDirectory(environ: Mapping[str, str], uid: int) -> str:
    """
    Where state is kept if nobody says otherwise.

    That is a system directory for root; for others a directory below C{XDG_STATE_HOME}, or below
    C{~/.local/state} if that is not set or not absolute (XDG Base Directory Specification).

    @raise ConfigurationError: if the user has no home directory.
    """
    if uid == 0:
        return ROOT_DIRECTORY
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        home = environ.get("HOME") or _home(uid)
        if not os.path.isabs(home):
            raise ConfigurationError("no home directory to keep state in; name a directory with --state")
        base = os.path.join(home, ".local", "state")
    return os.path.join(base, "iscsi_twisted")


def _home(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return ""


def _fault(path: str, error: OSError) -> ConfigurationError:
    where = error.filename if isinstance(error.filename, str) else path
    return ConfigurationError(f"{error.strerror or error}; name one that can be used with --state", where)
