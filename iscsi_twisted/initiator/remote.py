# -*- test-case-name: tests.initiator.test_remote -*-
"""A range of another target's unit, as a block device that logs in by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.auth.chap import Credentials
from iscsi_twisted.errors import (
    CheckCondition,
    ConfigurationError,
    DeviceError,
    LocalError,
    NotReady,
    ReadError,
    RemoteError,
    WriteError,
)
from iscsi_twisted.initiator.lun import LUN
from iscsi_twisted.initiator.node import Endpoint, Initiator
from iscsi_twisted.initiator.replaying import Replaying
from iscsi_twisted.initiator.session import Session
from iscsi_twisted.initiator.url import URL, WORDS, parseURL
from iscsi_twisted.interfaces import Buffer, Capabilities
from iscsi_twisted.storage.device import BlockDevice, checkRange

T = TypeVar("T")

PATIENCE: Final = 20.0
"""Seconds that I/O waits for a target to come back: less than the 30 after which others give up on us."""

COMMAND_TIME: Final = 60.0
"""Seconds in which a target that lives has to answer a command; a flush may take as long."""

_SERIAL_PAGE: Final = 0x80
"""Vital product data: the unit serial number."""

SecretOf = Callable[[str], bytes | None]
"""Given the name of a user: that user's secret, or None."""

_log = Logger(namespace="iscsi_twisted")


def parseUnit(text: str) -> URL:
    """
    The URL of a unit.

    @raise LocalError: if it is none, or lacks target or unit.
    """
    url = parseURL(text)
    if not url.target or url.lun is None:
        raise LocalError(f"{url} names no unit; right would be iscsi://[USER@]HOST[:PORT]/TARGET/LUN")
    return url


def nameRemote(text: str) -> str:
    """
    What to call the unit of a URL.

    @raise ConfigurationError: as C{parseUnit}, and for files that the URL names and that cannot be used.
    """
    try:
        url = parseUnit(text)
        if url.secure:
            from iscsi_twisted.initiator.secure import clientEndpoint

            clientEndpoint(None, url.host, str(url.port), **{WORDS[name]: value for name, value in url.words})
    except LocalError as error:
        raise ConfigurationError(str(error)) from None
    except ImportError as error:
        raise ConfigurationError(f"TLS needs pyOpenSSL: pip install iscsi-twisted[tls] ({error})") from None
    return str(url)


class RemoteExtent(BlockDevice):
    """
    A range of a unit of another target.

    Its session lasts: when the connection is lost, what waits is sent again over the next one, and fails only
    after L{PATIENCE}.  A command that a living target does not answer is aborted after L{COMMAND_TIME}.
    """

    def __init__(
        self,
        initiator: Initiator,
        url: str,
        start: int = 0,
        length: int | None = None,
        *,
        readOnly: bool = False,
        writeCache: bool = True,
        secretOf: SecretOf = lambda user: None,
        endpoint: Endpoint | None = None,
    ) -> None:
        """
        @param start: the first byte of the unit; a multiple of its block size.
        @param length: bytes; None for all up to the end of the unit, however large that becomes.
        @param writeCache: whether a write is done before it is durable there.
        @param secretOf: for a user whose secret is not in the URL.
        @param endpoint: where the target is, instead of what the URL says.
        @raise LocalError: if the URL names no unit.
        """
        self.url = parseUnit(url)
        self._initiator, self._secretOf = initiator, secretOf
        self._endpoint = endpoint or self.url.description()
        self._isid: bytes | None = None
        self._start, self._length = start, length
        self._readOnly, self._fua = readOnly, not writeCache
        self._session: Session | None = None
        self._serial = ""
        self.restarts = 0
        # What was not flushed then; see Replaying.
        self.replays = True
        self._lun: LUN
        self._unit: Replaying
        self._changed: Callable[[], None]

    def __str__(self) -> str:
        return str(self.url)

    # Its life

    def open(self, changed: Callable[[], None]) -> Deferred[None]:
        """
        Log in, and learn what the unit is.

        @raise DeviceError: if that is impossible, or it is not that large.
        """
        self._changed = changed
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        try:
            if self._isid is None:
                self._isid = self._initiator.isids.claim(self._use())
            self._session = await self._initiator.login(
                self._endpoint,
                self.url.target,
                credentials=self._credentials(),
                lasting=True,
                patience=PATIENCE,
                isid=self._isid,
            )
            self._lun = LUN(self._session, self.url.lun or 0, timeout=COMMAND_TIME)
            self._unit = Replaying(self._lun, str(self.url), durable=self._fua)
            await self._lun.open(self._remoteChanged)
            self._serial = await self._serialNumber()
            self._measure()
        except Exception as error:  # what endpoints fail with has no common class
            await self._leave()
            if isinstance(error, DeviceError):
                raise
            raise NotReady(f"{self.url}: {str(error) or type(error).__name__}") from error

    async def _serialNumber(self) -> str:
        """What the unit calls itself (SPC-4 7.8.15); empty if it does not say."""
        try:
            page = await self._lun.page(_SERIAL_PAGE)
        except (CheckCondition, RemoteError):
            return ""
        return page[4 : 4 + int.from_bytes(page[2:4])].decode("ascii", "replace").strip(" \0")

    def fingerprint(self) -> str | None:
        """
        Which unit it is, wherever its target is, and which part of it.  (Some targets give all their units
        one serial number, so it does not tell enough alone.)
        """
        if not self._serial:
            return None
        about = self._lun.inquiry
        return (
            f"unit {self.url.lun} of {self.url.target}:"
            f" {about.vendor} {about.product} {self._serial}"
            f" bytes {self._start} to {self._start + self.size}"
        )

    def _credentials(self) -> Credentials | None:
        if not self.url.user:
            return None
        secret = self.url.secret.encode() or self._secretOf(self.url.user)
        if not secret:
            raise NotReady(f"{self.url}: there is no secret for {self.url.user}")
        return Credentials(self.url.user, secret)

    def _measure(self) -> None:
        """@raise DeviceError: if the unit does not have these bytes as whole blocks."""
        block, whole, start = self._lun.blockSize, self._lun.size, self._start
        size = whole - start if self._length is None else self._length
        if size <= 0 or start + size > whole:
            raise DeviceError(f"{self.url} has {whole} bytes, and {start} to {start + size} are wanted")
        if start % block or size % block:
            raise DeviceError(
                f"bytes {start} to {start + size} of {self.url} are not whole blocks of {block} bytes"
            )
        self.size, self.blockSize = size, block

    def _remoteChanged(self) -> None:
        """The unit told that its capacity or its mode has changed; or it was started anew, with any."""
        if self._lun.restarts:
            self.restarts += self._lun.restarts
            self._lun.restarts = 0
            # It has all that may be lost, and flushes that are under way are done again.
            self._unit.restarted()
            self._lun.restored()
            self._changed()
        Deferred.fromCoroutine(self._relearn()).addErrback(
            lambda why: _log.error(
                "{url} has changed, and cannot be used: {error}", url=self.url, error=why.value
            )
        )

    async def _relearn(self) -> None:
        before = self.size, self.capabilities()
        await self._lun.relearn()
        self._measure()
        if (self.size, self.capabilities()) != before:
            self._changed()

    def close(self) -> Deferred[None]:
        """Make all durable there, and log out."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        try:
            if self._lun.cached and not self._lun.capabilities().readOnly:
                await self._unit.flush()
        finally:
            await self._leave()

    async def _leave(self) -> None:
        session, self._session = self._session, None
        try:
            if session is not None:
                await session.logout()
        finally:
            isid, self._isid = self._isid, None
            if isid is not None:
                self._initiator.isids.release(isid)

    def _use(self) -> str:
        """What it uses, always told in the same way."""
        url, length = self.url, "" if self._length is None else self._length
        return f"{url.host}:{url.port} {url.target} {url.lun} {self._start} {length}"

    # The block device

    def capabilities(self) -> Capabilities:
        """As the unit has told, but for what this extent is not to do."""
        able = self._lun.capabilities()
        return able._replace(
            readOnly=able.readOnly or self._readOnly, volatileCache=able.volatileCache and not self._fua
        )

    def read(self, offset: int, length: int) -> Deferred[Buffer]:
        checkRange(self.size, offset, length)
        return self._guard(ReadError, self._unit.read, self._start + offset, length)

    def write(self, offset: int, data: Buffer) -> Deferred[None]:
        checkRange(self.size, offset, len(data))
        return self._guard(WriteError, self._unit.write, self._start + offset, data)

    def flush(self) -> Deferred[None]:
        return self._guard(WriteError, self._unit.flush)

    def discard(self, offset: int, length: int) -> Deferred[None]:
        checkRange(self.size, offset, length)
        return self._guard(WriteError, self._unit.discard, self._start + offset, length)

    def zero(self, offset: int, length: int, unmap: bool) -> Deferred[None]:
        checkRange(self.size, offset, length)
        return self._guard(WriteError, self._unit.zero, self._start + offset, length, unmap)

    def allocated(self, offset: int, length: int) -> Deferred[list[tuple[int, bool]]]:
        checkRange(self.size, offset, length)
        return self._guard(ReadError, self._lun.allocated, self._start + offset, length)

    def _guard(
        self, otherwise: type[DeviceError], method: Callable[..., Deferred[T]], *arguments: Any
    ) -> Deferred[T]:
        """Whatever a session fails with becomes an error of the device."""
        return maybeDeferred(method, *arguments).addErrback(self._fault, otherwise)

    def _fault(self, why: Failure, otherwise: type[DeviceError]) -> Failure:
        error = why.value
        if isinstance(error, DeviceError):
            if error.offset is not None:
                error.offset = max(0, error.offset - self._start)
            return why
        if isinstance(error, (CancelledError, LocalError)):
            return why
        raise otherwise(f"{self.url}: {error}") from error
