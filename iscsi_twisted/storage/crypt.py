# -*- test-case-name: tests.storage.test_crypt -*-
"""
A device whose member holds nothing that can be read without a key.

AES-256 in XTS mode (IEEE 1619), each sector by its number: what C{cryptsetup} calls aes-xts-plain64.
Sectors of the member that are all zeros are holes, and read as zeros; of what is written by chance none
becomes that.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.threads import deferToThreadPool

from iscsi_twisted.durable import overwriteFile, readFile
from iscsi_twisted.errors import DeviceError, LocalError, NotReady, WriteError
from iscsi_twisted.interfaces import Buffer, Capabilities, Pending
from iscsi_twisted.storage.device import checkRange
from iscsi_twisted.storage.filters import Filter, shut
from iscsi_twisted.storage.fingerprint import fingerprintOf
from iscsi_twisted.storage.pending import whenDone

KEY: Final = 64
"""Bytes of a key: two of AES-256, one for data and one for the numbers of sectors."""
SECTOR: Final = 512
"""Bytes that sector numbers count in, whatever the size of a sector."""
SECTORS: Final = (512, 4096)
_OVERHANG: Final = 15
"""Bytes that the cipher wants room for beyond its output."""


class KeyFile:
    """
    A file that holds the key of one device, and nothing else.

    @ivar path: its name.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> bytes:
        """@raise DeviceError: saying what is wrong with it, and what would be right."""
        make = f"a key is {KEY} random bytes: (umask 077; head -c {KEY} /dev/urandom >{self.path})"
        try:
            status = os.stat(self.path)
            if not stat.S_ISREG(status.st_mode):
                raise DeviceError(f"the key {self.path} is not a regular file; {make}")
            if status.st_mode & 0o077:
                raise DeviceError(f"the key {self.path} can be read by others; chmod 600 {self.path}")
            key = readFile(self.path, KEY + 1)
        except FileNotFoundError:
            raise NotReady(
                f"the key {self.path} does not exist; without it nothing can be read.  For a new disk: {make}"
            ) from None
        except OSError as error:
            raise DeviceError(f"the key {self.path} cannot be read: {error.strerror}") from error
        if len(key) != KEY or key[: KEY // 2] == key[KEY // 2 :]:
            raise DeviceError(f"the key {self.path} is none; {make}")
        return key

    @property
    def writable(self) -> bool:
        """Whether another key could be written."""
        return os.access(self.path, os.W_OK)

    def write(self, key: bytes) -> None:
        """
        Put another key where the old one was, durably.

        @raise OSError: if that cannot be done.
        """
        overwriteFile(self.path, key)


class Crypt(Filter):
    """
    Encrypts what its member is given, and decrypts what it has.

    @ivar blockSize: bytes of a sector, one of L{SECTORS}, or what the member wants if that is more.
    """

    blockSize = SECTOR

    def __init__(self, member: Any, key: Any, *, sector: int = SECTOR, reactor: Any = None) -> None:
        """
        @param key: where the key is: a L{KeyFile}, or what has its methods.
        @param reactor: whose threads write a new key; without one that is done at once.
        @raise LocalError: for sectors of another size.
        """
        super().__init__(member)
        if sector not in SECTORS:
            raise LocalError(f"sectors of {sector} bytes; {' or '.join(map(str, SECTORS))} are possible")
        self._sector = sector
        self._key = key
        self._reactor = reactor
        self._zeros = bytes(sector)
        self._cipher: Callable[[bytes], Any]

    def rehearse(self) -> None:
        """
        Find out what stands against opening it, without doing so.

        @raise DeviceError: as L{open} does for the key.
        """
        self._key.read()

    def open(self, changed: Callable[[], None]) -> Pending | None:
        """@raise DeviceError: if there is no key, or the member does not consist of sectors."""
        self._use(self._key.read())
        return whenDone(self.member.open(changed), lambda _: self._fit())

    def _fit(self) -> Pending | None:
        size, block = self.member.size, self.member.blockSize
        if size % self._sector or (block % self._sector and self._sector % block):
            error = DeviceError(f"{self.member}: {size} bytes are no whole number of sectors")
            return shut(self.member, error)
        self.blockSize = max(block, self._sector)
        return None

    def _use(self, key: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        except ImportError:
            raise DeviceError(
                "encryption needs the package cryptography; pip install iscsi-twisted[crypt]"
            ) from None
        algorithm = algorithms.AES(key)
        self._cipher = lambda number: Cipher(algorithm, modes.XTS(number))

    def capabilities(self) -> Capabilities:
        able = self.member.capabilities()
        return able._replace(rekey=not able.readOnly and self._key.writable)

    def fingerprint(self) -> str | None:
        """It is not the other device: it holds other bytes."""
        below = fingerprintOf(self.member)
        return None if below is None else f"{below}, decrypted"

    def read(self, offset: int, length: int) -> Buffer | Pending:
        checkRange(self.size, offset, length)
        return whenDone(self.member.read(offset, length), lambda data: self._decrypt(offset, data))

    def write(self, offset: int, data: Buffer) -> Pending | None:
        checkRange(self.size, offset, len(data))
        return self.member.write(offset, self._encrypt(offset, data))

    def _encrypt(self, offset: int, data: Buffer) -> Buffer:
        size, step = self._sector, self._sector // SECTOR
        number = offset // SECTOR
        out = memoryview(bytearray(len(data) + _OVERHANG))
        for place in range(0, len(data), size):
            encryptor = self._cipher(number.to_bytes(16, "little")).encryptor()
            encryptor.update_into(data[place : place + size], out[place : place + size + _OVERHANG])
            number += step
        return out[: len(data)].toreadonly()

    def _decrypt(self, offset: int, data: Buffer) -> Buffer:
        size, step = self._sector, self._sector // SECTOR
        number = offset // SECTOR
        out = memoryview(bytearray(len(data) + _OVERHANG))
        data, zeros = bytes(data), self._zeros
        for place in range(0, len(data), size):
            sector = data[place : place + size]
            if sector != zeros:
                decryptor = self._cipher(number.to_bytes(16, "little")).decryptor()
                decryptor.update_into(sector, out[place : place + size + _OVERHANG])
            number += step
        return out[: len(data)].toreadonly()

    def rekey(self) -> Pending | None:
        """Forget the key, durably, and take another one: what was written before is noise."""
        key = os.urandom(KEY)
        if self._reactor is None:
            self._replace(key)
            self._use(key)
            return None
        done = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._replace, key)
        return whenDone(done, lambda _: self._use(key))

    def _replace(self, key: bytes) -> None:
        try:
            self._key.write(key)
        except OSError as error:
            raise WriteError(f"the key cannot be changed: {error.strerror}") from error
