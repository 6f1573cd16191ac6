"""
The error family.  Each class carries what goes on the wire.

Faults of the peer (L{RemoteError}) are kept apart from faults of our own caller (L{LocalError}),
from what a storage device reports (L{DeviceError}) and from faults in files (L{ConfigurationError}).
"""

from __future__ import annotations


class ISCSIError(Exception):
    """Anything that this package raises on purpose."""


class LocalError(ISCSIError):
    """This side was used wrongly: a bug in the application or in this package."""


# What the peer did wrong


_LONGEST = 1000
"""Characters of a message that may come from the network."""


def _shown(message: str) -> str:
    """One line without control characters."""
    shown = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
    return shown if shown.isprintable() else "".join(c if c.isprintable() else "?" for c in shown)


class RemoteError(ISCSIError):
    """The peer broke the protocol; the connection cannot go on."""

    def __init__(self, message: str = "") -> None:
        """@param message: it may have words of the peer's in it, and is made fit for terminals and logs."""
        super().__init__(_shown(message))


class FramingError(RemoteError):
    """The byte stream is no longer a sequence of PDUs (RFC 7143 11.2)."""


class HeaderDigestError(RemoteError):
    """A header does not match its digest: at recovery level 0 the connection ends (RFC 7143 7.8)."""


class RejectError(RemoteError):
    """
    A PDU that is answered with a Reject; the connection lives on.

    @ivar reason: the Reject reason code, RFC 7143 11.17.1.
    """

    def __init__(self, reason: int, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LoginError(RemoteError):
    """
    A login that is refused.

    @ivar status: status class and detail as one 16-bit number, RFC 7143 11.13.5.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotAuthenticated(LoginError):
    """An initiator has not proved who it is (RFC 7143 11.13.5, 0201h)."""

    def __init__(self, message: str) -> None:
        super().__init__(0x0201, message)


class UnknownUser(NotAuthenticated):
    """
    An initiator gave a user's name that nobody has; it is not told that.

    @ivar user: the name.
    """

    def __init__(self, user: str) -> None:
        super().__init__(f"there is no user {user!r}")
        self.user = user


class TextError(RemoteError):
    """Text keys that cannot be understood (RFC 7143 6.1)."""


# What SCSI answers


class CheckCondition(ISCSIError):
    """
    A command ends with CHECK CONDITION status (SAM-5 5.3).

    @ivar key: the sense key, 0 to 15 (SPC-5 4.4.8).
    @ivar code: additional sense code and qualifier as one 16-bit number.
    @ivar information: what stands in the INFORMATION field, or None for 'not valid'.
    @ivar field: the offending byte of the CDB or parameter list, or None.
    @ivar bit: the offending bit in that byte, or None.
    @ivar inData: True if C{field} points into the parameter list, False if into the CDB.
    @ivar specific: the three sense key specific bytes, in place of a field pointer; or None.
    @ivar commandSpecific: what stands in the COMMAND-SPECIFIC INFORMATION field.
    @ivar forwarded: what another device has said: 1 for the source of a copy or 2 for its destination, its
        status, and its sense data in fixed format (SPC-4 4.5.2.7); or None.
    @ivar deferred: it is an error of an earlier command (SPC-4 4.5.5).
    """

    def __init__(
        self,
        key: int,
        code: int,
        *,
        information: int | None = None,
        field: int | None = None,
        bit: int | None = None,
        inData: bool = False,
        specific: bytes | None = None,
        commandSpecific: int = 0,
        forwarded: tuple[int, int, bytes] | None = None,
        deferred: bool = False,
    ) -> None:
        super().__init__(f"sense {key:X}h {code >> 8:02X}h/{code & 255:02X}h")
        self.key = key
        self.code = code
        self.information = information
        self.field = field
        self.bit = bit
        self.inData = inData
        self.specific = specific
        self.commandSpecific = commandSpecific
        self.forwarded = forwarded
        self.deferred = deferred


# What a block device reports


class DeviceError(ISCSIError):
    """
    A block device could not do what it was asked.

    @cvar key: the sense key that an initiator is told.
    @cvar code: additional sense code and qualifier as one 16-bit number.
    @ivar offset: the first byte of the device that could not be had, or None if unknown.
    """

    key = 0x4
    code = 0x4400

    def __init__(self, message: str = "", offset: int | None = None) -> None:
        super().__init__(message or self.__class__.__doc__)
        self.offset = offset


class ReadError(DeviceError):
    """The device could not read some bytes."""

    key = 0x3
    code = 0x1100


class WriteError(DeviceError):
    """The device could not write some bytes."""

    key = 0x3
    code = 0x0C00


class OutOfSpace(DeviceError):
    """There is no room left behind a thin device."""

    key = 0x7
    code = 0x2707


class WriteProtected(DeviceError):
    """The device is read-only."""

    key = 0x7
    code = 0x2700


class NotReady(DeviceError):
    """The device is not open, or is gone for now."""

    key = 0x2
    code = 0x0400


class InUse(DeviceError):
    """Another process, or another extent, holds the same range of a file."""


# What an administrator wrote


class ConfigurationError(ISCSIError):
    """
    One fault of a configuration.

    @ivar path: the file's name as it was given, or None if the fault is in no file.
    @ivar line: the number of the line, from 1; None where no one line is at fault.
    """

    def __init__(self, message: str, path: str | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(where + message)
        self.path = path
        self.line = line


class ConfigurationErrors(ISCSIError):
    """All faults of a configuration, in the order of the file."""

    def __init__(self, errors: list[ConfigurationError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors
