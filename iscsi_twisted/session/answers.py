# -*- test-case-name: tests.session.test_client -*-
"""What a target tells an initiator beside the outcome of a command: refusals, rejects, failures, events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import attrs

from iscsi_twisted.errors import ISCSIError, RemoteError
from iscsi_twisted.wire import numbers


class LoginRefused(ISCSIError):
    """
    The target has refused the login.

    @ivar status: status class and detail as one 16-bit number (RFC 7143 11.13.5).
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the login was refused: {STATUSES.get(status, 'status')} ({status:04x}h)")
        self.status = status


class Redirected(LoginRefused):
    """
    The target is elsewhere (RFC 7143 11.13.5).

    @ivar address: C{host:port} or C{host:port,tag}, as the target gave it.
    @ivar forever: whether it has moved for good.
    """

    def __init__(self, status: int, address: str) -> None:
        super().__init__(status)
        self.address = address
        self.forever = status == numbers.TARGET_MOVED_PERMANENTLY


class MethodsRejected(RemoteError):
    """
    The target takes none of the authentication methods that were offered (RFC 7143 12.1).

    @ivar methods: their names.
    """

    def __init__(self, methods: tuple[str, ...]) -> None:
        super().__init__(
            f"the target takes none of the authentication methods that were offered: {','.join(methods)}"
        )
        self.methods = methods


STATUSES: Final = {
    numbers.TARGET_MOVED_TEMPORARILY: "the target has moved for now",
    numbers.TARGET_MOVED_PERMANENTLY: "the target has moved for good",
    numbers.INITIATOR_ERROR: "initiator error",
    numbers.AUTHENTICATION_FAILURE: "authentication failure",
    numbers.AUTHORIZATION_FAILURE: "authorization failure: this initiator may not use this target",
    numbers.NOT_FOUND: "no such target",
    numbers.TARGET_REMOVED: "the target was removed",
    numbers.UNSUPPORTED_VERSION: "unsupported version",
    numbers.TOO_MANY_CONNECTIONS: "too many connections",
    numbers.MISSING_PARAMETER: "missing parameter",
    numbers.CANT_INCLUDE_IN_SESSION: "the connection cannot be included in the session",
    numbers.SESSION_TYPE_NOT_SUPPORTED: "session type not supported",
    numbers.SESSION_DOES_NOT_EXIST: "the session does not exist",
    numbers.INVALID_DURING_LOGIN: "invalid request during login",
    numbers.TARGET_ERROR: "target error",
    numbers.SERVICE_UNAVAILABLE: "service unavailable",
    numbers.OUT_OF_RESOURCES: "out of resources",
}


class Rejected(ISCSIError):
    """
    The target has rejected a PDU (RFC 7143 11.17).

    @ivar reason: the reason code.
    """

    def __init__(self, reason: int) -> None:
        words = REASONS.get(reason, "for a reason that is not defined")
        super().__init__(f"the target has rejected a PDU: {words} ({reason:02x}h)")
        self.reason = reason


REASONS: Final = {
    numbers.REASON_DATA_DIGEST: "data digest error",
    numbers.REASON_SNACK: "SNACK reject",
    numbers.REASON_PROTOCOL_ERROR: "protocol error",
    numbers.REASON_NOT_SUPPORTED: "command not supported",
    numbers.REASON_IMMEDIATE: "too many immediate commands",
    numbers.REASON_TASK_IN_PROGRESS: "task in progress",
    numbers.REASON_INVALID_DATA_ACK: "invalid data acknowledgement",
    numbers.REASON_INVALID_FIELD: "invalid PDU field",
    numbers.REASON_LONG_OPERATION: "long operation, out of resources",
    numbers.REASON_NEGOTIATION_RESET: "negotiation reset",
    numbers.REASON_WAITING_FOR_LOGOUT: "waiting for logout",
}
"""What the reasons of a Reject mean (RFC 7143 11.17.1)."""


RESPONSES: Final = {
    numbers.NO_SUCH_TASK: "the task does not exist",
    numbers.NO_SUCH_LUN: "the unit does not exist",
    numbers.TASK_STILL_ALLEGIANT: "the task is still allegiant",
    numbers.REASSIGN_NOT_SUPPORTED: "tasks cannot be reassigned",
    numbers.FUNCTION_NOT_SUPPORTED: "it is not supported",
    numbers.FUNCTION_NOT_AUTHORIZED: "this initiator may not do that",
    numbers.FUNCTION_REJECTED: "it was rejected",
}
"""What the responses to task management functions mean (RFC 7143 11.6.1)."""

LOGOUTS: Final = {
    numbers.CID_NOT_FOUND: "no such connection",
    numbers.RECOVERY_NOT_SUPPORTED: "connections cannot be recovered",
    numbers.CLEANUP_FAILED: "what was under way could not be cleaned up",
}
"""What the responses to a logout mean (RFC 7143 11.15.1)."""


class RequestRefused(RemoteError):
    """
    A request that the target has not carried out.

    @cvar what: the request, and that it failed.
    @cvar meanings: of response codes.
    @ivar response: the response code.
    """

    what: ClassVar[str]
    meanings: ClassVar[Mapping[int, str]]

    def __init__(self, response: int) -> None:
        words = self.meanings.get(response, "a response that is not defined")
        super().__init__(f"{self.what}: {words} ({response})")
        self.response = response


class FunctionRefused(RequestRefused):
    """A task management function was not carried out (RFC 7143 11.6)."""

    what = "the task management function was not carried out"
    meanings = RESPONSES


class LogoutRefused(RequestRefused):
    """The target has not logged out as it was asked to (RFC 7143 11.15.1)."""

    what = "the logout failed"
    meanings = LOGOUTS


class Aborted(ISCSIError):
    """A command was ended by a task management function of ours, and not answered."""


class NoRoom(RemoteError):
    """The target takes no command, though it has none to do."""


class ConnectionEnded(ISCSIError):
    """The connection is gone; whether the command was carried out is not known."""


@attrs.frozen
class Event:
    """
    An asynchronous message (RFC 7143 11.9).

    @ivar code: 0 for a SCSI event, 1 for a request to log out, 2 and 3 for dropped connections, 4 for a
        request to negotiate, 255 for a vendor's own.
    @ivar lunField: which unit, for a SCSI event.
    @ivar sense: its sense data.
    @ivar parameters: the three numbers that come with it.
    """

    code: int
    lunField: bytes
    sense: bytes
    parameters: tuple[int, int, int]


SURPRISE: Final = "a response that is the vendor's own, or not defined"


class TargetFailure(ISCSIError):
    """
    A command was not carried out: the target has failed (RFC 7143 11.4.3).

    @ivar response: the iSCSI service response.
    """

    def __init__(self, response: int) -> None:
        words = "the target has failed" if response == numbers.TARGET_FAILURE else SURPRISE
        super().__init__(f"the command was not carried out: {words} ({response:02x}h)")
        self.response = response
