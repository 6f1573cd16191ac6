# -*- test-case-name: tests.storage.test_extent -*-
"""
A range of a file, or of a block device node, as a block device.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from iscsi_twisted.errors import ReadError, WriteError, WriteProtected
from iscsi_twisted.interfaces import Buffer, IRangeCopier, Pending, Space
from iscsi_twisted.storage.copying import copyRange, together
from iscsi_twisted.storage.device import checkRange, outOfRange
from iscsi_twisted.storage.extentlife import NOWAIT, ExtentLife
from iscsi_twisted.storage.openrange import OpenRange
from iscsi_twisted.storage.pace import QUICK, Pace, Trust
from iscsi_twisted.storage.threads import Operation, Threads


@implementer(IRangeCopier)
class FileExtent(ExtentLife):
    """
    A range of a regular file or a block device node.

    Where things run: reads and writes of a file inline while that is quick, else in threads (L{Pace},
    L{Trust}); flushes, discards, zeroing, the search for holes, writes without a write cache, and all I/O of
    block device nodes or past the page cache in threads, always.  Whatever goes wrong inline, a thread does
    again and tells.

    Order: operations that are pending at the same time run side by side, and a later one may
    be inline while an earlier one is in a thread: so of two pending writes to the same bytes either may win.
    What has completed has been applied: a read that begins then sees it, and a flush makes it durable.

    Once a flush has failed nobody knows what the medium holds: then reads and writes fail too, until the
    extent is opened anew (L{reopen}).
    """

    # Reading

    def read(self, offset: int, length: int) -> Buffer | Pending:
        if not 0 <= offset <= offset + length <= self.size:
            raise outOfRange(self.size, offset, length)
        if self._readPace.inline:
            clock = self._clock
            began = clock()
            try:
                data = os.pread(self._fd, length, self.start + offset)
            except OSError:
                return self._readInThread(bytearray(length), 0, offset)
            elapsed = clock() - began
            if elapsed > QUICK:
                self._readPace.late(elapsed, length, self.reads)
            if len(data) == length:
                self.reads += 1
                self.bytesRead += length
                return data
        return self._readCarefully(offset, length)

    def _readCarefully(self, offset: int, length: int) -> Buffer | Pending:
        """Read what is cached, or in a thread."""
        self._usable(ReadError, offset)
        pace = self._readPace
        if not isinstance(pace, Trust):
            if pace.mayTry(self.reads):
                return self.read(offset, length)
            return self._readInThread(bytearray(length), 0, offset)
        buffer = bytearray(length)
        try:
            got = os.preadv(self._fd, (buffer,), self.start + offset, NOWAIT)
        except OSError:
            got = 0
        if got < length:
            pace.missed()
            return self._readInThread(buffer, got, offset)
        pace.hit()
        self.reads += 1
        self.bytesRead += length
        return buffer

    def _readInThread(self, buffer: bytearray, got: int, offset: int) -> Pending:
        operation = self._threads.run(self._usable(ReadError, offset).read, buffer, got, offset)
        operation.addCallbacks(self._hasRead, self._failed, callbackArgs=(operation,))
        return operation

    def _hasRead(self, data: bytearray, operation: Operation) -> bytearray:
        self.reads += 1
        self.bytesRead += len(data)
        if isinstance(self._readPace, Pace):
            self._readPace.threaded(operation.elapsed)
        return data

    # Writing

    def write(self, offset: int, data: Buffer) -> Pending | None:
        length = len(data)
        if not 0 <= offset <= offset + length <= self.size:
            raise outOfRange(self.size, offset, length)
        done = 0
        if self._writePace.inline:
            clock = self._clock
            began = clock()
            if began >= self._lookAt and self._cut(began):
                return self._writeInThread(offset, data, 0)
            try:
                done = os.pwrite(self._fd, data, self.start + offset)
            except OSError:
                return self._writeInThread(offset, data, 0)
            elapsed = clock() - began
            if elapsed > QUICK:
                self._writePace.late(elapsed, length, self.writes)
            if done == length:
                self.writes += 1
                self.bytesWritten += length
                return None
        elif self._writePace.mayTry(self.writes):
            return self.write(offset, data)
        return self._writeInThread(offset, data, done)

    def _writeInThread(self, offset: int, data: Buffer, done: int) -> Pending:
        operation = self._threads.run(self._writable(offset).write, offset, data, done)
        operation.addCallbacks(self._hasWritten, self._failed, callbackArgs=(operation, len(data)))
        return operation

    def _writable(self, offset: int) -> OpenRange:
        opened = self._usable(WriteError, offset)
        if self._opening.readOnly:
            raise WriteProtected(f"{self.path}: is read-only")
        return opened

    def _hasWritten(self, result: None, operation: Operation, length: int) -> None:
        self.writes += 1
        self.bytesWritten += length
        self._writePace.threaded(operation.elapsed)
        self._noticed()

    # All else

    def flush(self) -> Pending | None:
        """Make completed writes durable; see L{OpenRange.flush} about what happens after a failure."""
        opened = self._ready()
        if self._opening.readOnly:
            return None
        return self._alter(opened.flush, "flushes")

    def discard(self, offset: int, length: int) -> Pending | None:
        checkRange(self.size, offset, length)
        opened = self._writable(offset)
        if not opened.abilities.punch or not length:
            return None
        return self._alter(opened.discard, "discards", offset, length)

    def zero(self, offset: int, length: int, unmap: bool) -> Pending | None:
        checkRange(self.size, offset, length)
        return self._alter(self._writable(offset).zero, "zeroes", offset, length, unmap)

    def copiesFrom(self, source: object) -> bool:
        """See L{IRangeCopier}: from files of the same file system."""
        if not isinstance(source, FileExtent):
            return False
        return not self._opening.readOnly and together(source._ready(), self._ready())

    def copy(self, source: FileExtent, sourceOffset: int, offset: int, length: int) -> Pending | None:
        """See L{IRangeCopier}."""
        checkRange(source.size, sourceOffset, length)
        checkRange(self.size, offset, length)
        if not length:
            return None
        operation = self._threads.run(
            copyRange,
            source._usable(ReadError, sourceOffset),
            self._writable(offset),
            sourceOffset,
            offset,
            length,
        )
        # While that runs the source's file must stay open.
        source._threads.hold()
        operation.addBoth(_releasing, source._threads)
        return operation.addCallbacks(self._hasCopied, self._failed, callbackArgs=(source, length))

    def _hasCopied(self, result: None, source: FileExtent, length: int) -> None:
        source.reads += 1
        source.bytesRead += length
        self.writes += 1
        self.bytesWritten += length

    def _alter(self, function: Callable[..., None], counter: str, *arguments: Any) -> Pending:
        operation = self._threads.run(function, *arguments)
        return operation.addCallbacks(
            self._hasAltered, self._failed, callbackArgs=(counter, self._ready().abilities)
        )

    def _hasAltered(self, result: None, counter: str, before: object) -> None:
        setattr(self, counter, getattr(self, counter) + 1)
        if self._range is not None and self._range.abilities != before:
            self._changed()

    def allocated(self, offset: int, length: int) -> list[tuple[int, bool]] | Pending:
        """Ask the file system; a block device is all data."""
        checkRange(self.size, offset, length)
        opened = self._usable(ReadError, offset)
        if opened.isBlock:
            return super().allocated(offset, length)
        return self._threads.run(opened.allocated, offset, length).addErrback(self._failed)

    def space(self) -> Space | Pending | None:
        """Ask the file system; what a block device has of a thin volume it does not tell."""
        opened = self._ready()
        return None if opened.isBlock else self._threads.run(opened.space).addErrback(self._failed)


def _releasing(result: Any, threads: Threads) -> Any:
    threads.release()
    return result
