"""
What an application may provide, and what the rooms of this package expect of one another.

Nothing here imports Twisted: where a method may answer later, its answer is I{pending}, which is
to say a L{twisted.internet.defer.Deferred} or something with the same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeGuard

from zope.interface import Attribute, Interface

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes that nobody changes any more."""


class Pending(Protocol):
    """The part of a L{twisted.internet.defer.Deferred} that this package relies on."""

    def addCallbacks(self, callback: Any, errback: Any = ..., /, *args: Any, **more: Any) -> Any: ...

    def addBoth(self, callback: Any, /) -> Any: ...

    def cancel(self) -> None: ...


def isPending(result: object) -> TypeGuard[Pending]:
    """Ask whether a result is still to come.  (Never ask whether it is bytes.)"""
    return hasattr(result, "addCallbacks")


class Capabilities(NamedTuple):
    """
    What a block device can do; asked once, when it has been opened.

    @ivar readOnly: writes, discards and zeroing raise L{iscsi_twisted.errors.WriteProtected}.
    @ivar volatileCache: a completed write may be lost in a power cut until C{flush} has completed.
    @ivar discard: C{discard} gives storage back.
    @ivar zero: C{zero} is cheaper than writing zeros.
    @ivar allocated: C{allocated} tells holes from data.
    @ivar discardZeroes: discarded bytes read as zeros.
    @ivar rotational: the medium rotates (seeks cost time).
    @ivar retains: what is overwritten or discarded stays somewhere (in what lies below an overlay, say).
    @ivar space: C{space} knows something.
    @ivar rekey: all that is stored is encrypted, and C{rekey} forgets the key.
    """

    readOnly: bool = False
    volatileCache: bool = False
    discard: bool = False
    zero: bool = False
    allocated: bool = False
    discardZeroes: bool = False
    rotational: bool = False
    retains: bool = False
    space: bool = False
    rekey: bool = False


class Space(NamedTuple):
    """
    What a device that takes storage only as it is written has taken, and could still take.

    @ivar used: bytes of storage that it has.
    @ivar available: bytes that are left where it takes them from, for it and perhaps for others.
    """

    used: int
    available: int


class IBlockDevice(Interface):
    """
    A flat array of bytes.

    Buffers: what C{read} returned never changes afterwards; what C{write} is given never changes
    and may be kept.  A pending result may be cancelled; a device that cannot cancel ignores it,
    and its result then arrives when the operation has really ended.
    Methods may raise L{iscsi_twisted.errors.DeviceError} or C{OSError}, at once or pending.

    L{iscsi_twisted.storage.BlockDevice} supplies all but C{size}, C{read} and C{write};
    L{iscsi_twisted.storage.asDevice} also accepts coroutine methods.
    """

    size: int = Attribute("Bytes that can be read and written; valid once the device is open.")
    blockSize: int = Attribute("Offsets and lengths are multiples of this many bytes; 1 if any will do.")

    def open(changed: Callable[[], None]) -> Pending | None:
        """
        Make the device ready.  Called once, before anything else, in the process that serves.

        @param changed: to be called when C{size}, health or mode have changed.
        @return: None, or pending None.
        @raise iscsi_twisted.errors.DeviceError: if it cannot be opened.
        """

    def close() -> Pending | None:
        """Let go of all resources, after what was written has been flushed."""

    def capabilities() -> Capabilities:
        """What this device can do; asked once after C{open}."""

    def read(offset: int, length: int) -> Buffer | Pending:
        """
        Read exactly C{length} bytes from byte C{offset}.

        @return: the bytes if they can be had without a long wait, else a pending result.
        @raise iscsi_twisted.errors.ReadError: if the medium could not be read.
        """

    def write(offset: int, data: Buffer) -> Pending | None:
        """
        Write all of C{data} at byte C{offset}; never beyond C{size}.

        @raise iscsi_twisted.errors.WriteError: if the medium could not be written.
        """

    def flush() -> Pending | None:
        """Make all writes that had completed before this call durable."""

    def discard(offset: int, length: int) -> Pending | None:
        """Tell that nobody needs these bytes any more; they may then read as anything that is stable."""

    def zero(offset: int, length: int, unmap: bool) -> Pending | None:
        """
        Make these bytes read as zeros.

        @param unmap: whether their storage may be given back.
        """

    def allocated(offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        """
        Which parts hold data.

        @return: runs of C{(length in bytes, has storage)}, in order, that add up to C{length}.
        """

    def space() -> Space | Pending | None:
        """How much storage there is for this device; None if nobody knows."""

    def rekey() -> Pending | None:
        """
        Make unreadable all that was written, by forgetting the key that it is encrypted with, durably.

        Called only if C{capabilities} says that it can, and while nothing else is under way.  What is read
        afterwards is of no use, but can be read.
        """


class IRangeCopier(Interface):
    """What a block device may provide besides L{IBlockDevice}: it copies without the data being carried."""

    def copiesFrom(source: object) -> bool:
        """Whether it can copy from another device; both are open.  Asked once for each segment of a copy."""

    def copy(source: Any, sourceOffset: int, offset: int, length: int) -> Pending | None:
        """
        Write C{length} bytes at C{offset} that are what C{source} has at C{sourceOffset}.

        The ranges never overlap.

        @raise iscsi_twisted.errors.ReadError: or L{WriteError<iscsi_twisted.errors.WriteError>}, as the two
            devices do.
        """


class INexus(Interface):
    """
    An I_T nexus (SAM-5 4.7): one initiator port and one target port.

    Units keep their state per nexus (unit attentions, reservations) keyed by this object, which is
    hashed by identity and lives as long as the session.
    """

    initiatorName: str = Attribute("iSCSI name of the initiator.")
    isid: bytes = Attribute("The six bytes of the ISID; with the name the initiator port (RFC 7143 4.4.1).")
    targetName: str = Attribute("iSCSI name of the target.")
    portalGroupTag: int = Attribute("With the target name, the target port.")
    readOnly: bool = Attribute("This nexus may not write.")
    luns: frozenset[int] | None = Attribute("The LUNs that it sees; None for all.")


class TargetPort(NamedTuple):
    """
    A SCSI target port (SAM-5 4.6.5): the portal group of an iSCSI target (RFC 7143 4.4.1).

    @ivar target: iSCSI name of the target.
    @ivar group: target portal group tag; it also is the relative target port identifier, 1 to 65535.
    """

    target: str
    group: int

    @property
    def name(self) -> str:
        """The SCSI port name (RFC 7143 4.2.7.5)."""
        return f"{self.target},t,0x{self.group:04x}"


class ITask(Interface):
    """
    One command on its way through a logical unit (an I_T_L_Q nexus, SAM-5 4.7).

    A unit ends each task exactly once with C{complete} or C{fail}.  After C{aborted} became true both
    send nothing; but one of them is still called when a device operation that was under way has ended,
    so that the task's place is counted until then.
    """

    cdb: bytes = Attribute("The command descriptor block; at least 16 bytes, zero-padded.")
    nexus: INexus = Attribute("Where the command came from.")
    lun: int = Attribute("The logical unit number that was addressed.")
    flags: int = Attribute("The second byte of the command PDU; its three lower bits are the task attribute.")
    attribute: int = Attribute("Task attribute as on the wire (RFC 7143 11.3.1): 0 untagged to 4 ACA.")
    expected: int = Attribute("Bytes that the initiator expects to send or to be sent (RFC 7143 11.3.4).")
    aborted: bool = Attribute("True once nothing may be sent for this task any more.")
    operation: Any = Attribute("For the unit alone: not None while a device works for this task.")

    def complete(data: Buffer = b"") -> None:
        """End with GOOD status and this Data-In."""

    def fail(status: int, sense: bytes = b"") -> None:
        """End with another status, and sense data for CHECK CONDITION."""

    def receive(length: int, then: Callable[..., None], *arguments: Any) -> bool:
        """
        Fetch the Data-Out ('Receive Data-Out', SAM-5 5.4.3.2), at most once per task.

        When it is there C{then(task, data, *arguments)} is called, perhaps at once, perhaps never
        (the task was aborted).  C{data} is shorter than C{length} if the initiator said that it
        has less.  What C{then} raises goes to L{ILogicalUnit.failed}.

        @param length: bytes wanted.
        @return: whether C{then} is still to be called.
        """

    def abort(tell: bool = False) -> None:
        """
        Abort this task, as a task management function would; comes back as L{ILogicalUnit.abort}.

        @param tell: whether the initiator is sent the status TASK ABORTED.
        """


class ILogicalUnit(Interface):
    """The server for one logical unit (SAM-5 4.8), as the transport protocol sees it."""

    tellsAborted: bool = Attribute("A task that another nexus clears ends with TASK ABORTED status.")

    def execute(task: ITask) -> None:
        """
        Begin a command.

        @raise Exception: anything; the caller hands it to C{failed}.
        """

    def failed(task: ITask, error: BaseException) -> None:
        """End the task with the status and sense that an exception stands for."""

    def abort(task: ITask) -> None:
        """
        The task was aborted (C{task.aborted} is already true): cancel its device operation.

        While that still runs, I/O that overlaps it waits, so that a late write never overwrites a newer one.
        """

    def clearACA(nexus: INexus) -> None:
        """CLEAR ACA (SAM-5 7.4): without effect unless this nexus met the error."""

    def nexusFound(nexus: INexus) -> None:
        """A session began."""

    def nexusLost(nexus: INexus) -> None:
        """A session ended (SAM-5 6.3.4): forget what belongs to it."""

    def attention(code: int, nexus: INexus | None = None, but: INexus | None = None) -> None:
        """
        Establish a unit attention condition.

        @param code: additional sense code and qualifier as one 16-bit number.
        @param nexus: for this nexus alone; None for all that are known.
        @param but: not for this one.
        """

    def reset(code: int, but: INexus | None = None) -> None:
        """
        Logical unit reset (SAM-5 6.3.3), after its tasks were aborted: release reservations, restore
        mode pages, and establish the unit attention C{code} for every nexus but one.
        """


class Account:
    """
    What a secret store knows of a user.  It never shows its secrets.

    @ivar secret: with which the user proves who it is.
    @ivar targetUser: the name that the target gives to this user, for mutual authentication.
    @ivar targetSecret: with which the target proves that; empty if it cannot.
    """

    __slots__ = ("secret", "targetSecret", "targetUser")

    def __init__(self, secret: bytes, targetUser: str = "", targetSecret: bytes = b"") -> None:
        self.secret = secret
        self.targetUser = targetUser
        self.targetSecret = targetSecret


class ISecretStore(Interface):
    """Knows the users that may log in, and their secrets."""

    def find(user: str) -> Account | Pending | None:
        """
        Look up a user.

        @param user: as the initiator gave it, upper and lower case told apart.
        @return: None if there is no such user; or a pending result of either.  A login waits for that, and
            nothing else does.
        """


class ICertificateStore(ISecretStore):
    """A secret store that knows users by their certificates, too."""

    def certified(names: tuple[str, ...]) -> str | None:
        """
        The user whom a certificate proves.

        @param names: those in the certificate, which an authority has signed that the portal trusts.
        @return: None if it proves nobody that is known; such a one needs a secret as everybody does.
        """


class IStateStore(Interface):
    """Keeps something of one unit through a loss of power."""

    def load() -> bytes:
        """What was saved last; empty if nothing was, or if nothing is to be kept."""

    def save(state: bytes) -> Pending | None:
        """
        Keep this, durably; calls are carried out in their order.

        @param state: empty for nothing.
        """


class IReservationStore(IStateStore):
    """Keeps the persistent reservations of one unit (SPC-4 5.13.5)."""


class IAccessPolicy(Interface):
    """Decides who may use a target."""

    def admits(address: str | None) -> bool:
        """
        Whether a peer at this address may see the target and log in to it.

        @param address: as the transport tells it, IPv4 or IPv6; None if there is none (a UNIX socket).
        """


class IJoinedPolicy(IAccessPolicy):
    """
    An access policy of which there are so many, one for each target, that asking all of them takes long.

    Whoever connects is asked for nothing if no target admits him; for that they are asked together.
    """

    def together(policies: Sequence[Any]) -> IAccessPolicy:
        """
        One policy that admits whom any of some admits; called without an instance.

        @param policies: all of this class.
        """


class Asker(NamedTuple):
    """
    Who wants to use a target.

    @ivar address: as L{IAccessPolicy.admits} gets it.
    @ivar initiatorName: in normal form.
    @ivar user: who was authenticated; empty if nobody was.
    @ivar certificate: the names in the TLS certificate that it has shown and that was verified: common names,
        then DNS names, mail addresses and URIs; empty if there is none.
    @ivar target: the target's name.
    """

    address: str | None
    initiatorName: str
    user: str
    certificate: tuple[str, ...]
    target: str


class Grant(NamedTuple):
    """
    What somebody may do with a target.

    @ivar readOnly: it may not write.
    @ivar luns: the LUNs that it sees; None for all.
    """

    readOnly: bool = False
    luns: frozenset[int] | None = None


class ILoginPolicy(IAccessPolicy):
    """Decides for each login, and for discovery, who may use a target, and how."""

    def decide(asker: Asker) -> Grant | None:
        """What may be done; None for nothing: logins are refused, and discovery does not list the target."""
