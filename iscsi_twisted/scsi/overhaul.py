# -*- test-case-name: tests.scsi.test_overhaul -*-
"""
Remaking the whole medium: what SANITIZE and FORMAT UNIT have in common.

It runs in the background, a piece in each turn.  Meanwhile the unit answers few commands.  What is under
way, and what has failed, is kept durably, and goes on at the next start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from iscsi_twisted.errors import LocalError
from iscsi_twisted.interfaces import IStateStore, ITask
from iscsi_twisted.scsi import codes, selftest
from iscsi_twisted.scsi.cdb import Command
from iscsi_twisted.scsi.cdblong import (
    FORMAT_UNIT,
    SANITIZE_BLOCK_ERASE,
    SANITIZE_CRYPTO_ERASE,
    SANITIZE_EXIT_FAILURE_MODE,
    SANITIZE_OVERWRITE,
)
from iscsi_twisted.scsi.closure import Closure
from iscsi_twisted.scsi.operation import Step
from iscsi_twisted.scsi.origin import isAnother
from iscsi_twisted.scsi.provisioning import SLICE, slices
from iscsi_twisted.scsi.transfer import flushes, storing
from iscsi_twisted.scsi.work import Work

if TYPE_CHECKING:
    from iscsi_twisted.scsi.disk import DiskUnit

SANITIZE, FORMAT = "sanitize", "format"
WRITE, ERASE, REKEY, NOTHING = "write", "erase", "rekey", "nothing"

ERASE_SLICE: Final = 64 << 20
"""Bytes that are erased in one go: cheap for a device that need not write them."""
CHECKPOINT: Final = 1 << 30
"""Bytes after which it is noted how far it is: what is done again after a crash takes seconds."""

_ANEW: Final = frozenset((SANITIZE_OVERWRITE, SANITIZE_BLOCK_ERASE, SANITIZE_CRYPTO_ERASE))
_BUT: Final[dict[str, frozenset[Command]]] = {
    SANITIZE: _ANEW | {SANITIZE_EXIT_FAILURE_MODE},
    FORMAT: _ANEW | {FORMAT_UNIT},
}
"""What may still be done after it has failed."""


@attrs.frozen
class Plan:
    """
    What is to be done to all blocks.

    @ivar kind: L{SANITIZE} or L{FORMAT}.
    @ivar action: L{WRITE} a pattern, L{ERASE}, L{REKEY}, or L{NOTHING}.
    @ivar pattern: what every block begins with, over and over.
    @ivar passes: how often it is written.
    @ivar invert: every second time all bits are the others.
    @ivar unrestricted: EXIT FAILURE MODE is allowed if it fails (AUSE).
    @ivar size: bytes of the medium.
    @ivar done: bytes that are done.
    @ivar failed: it has failed.
    @ivar medium: to which it is done; None if that cannot be told from others.
    """

    kind: str = attrs.field(validator=attrs.validators.in_((SANITIZE, FORMAT)))
    action: str = attrs.field(validator=attrs.validators.in_((WRITE, ERASE, REKEY, NOTHING)))
    pattern: bytes = b"\0"
    passes: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    invert: bool = False
    unrestricted: bool = False
    size: int = 0
    done: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    failed: bool = False
    medium: str | None = None

    def encode(self) -> bytes:
        """As it is kept."""
        return json.dumps(attrs.asdict(self) | {"pattern": self.pattern.hex()}).encode()

    @classmethod
    def decode(cls, state: bytes) -> Plan:
        """@raise ValueError: if that is no plan."""
        try:
            fields = json.loads(state)
            return cls(**fields | {"pattern": bytes.fromhex(fields["pattern"])})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no plan: {error}") from None

    def block(self, size: int, number: int) -> bytes:
        """What each block of this size holds after a pass, counted from 0."""
        block = (self.pattern * -(-size // len(self.pattern)))[:size]
        return bytes(byte ^ 0xFF for byte in block) if self.invert and number % 2 else block


class Overhaul:
    """
    A plan that is being carried out.

    @ivar plan: what is to be done, and how much of it is.
    """

    def __init__(
        self, unit: DiskUnit, plan: Plan, *, cdb: bytes = bytes(16), asker: ITask | None = None,
        immediate: bool = False, resumed: bool = False,
    ) -> None:  # fmt: skip
        """
        @param asker: the task that is told of its end, or, if C{immediate}, that it is noted.
        @param resumed: it was noted before the start, and may have been begun.
        """
        self._unit = unit
        self._immediate = immediate
        self._size = unit.blockCount * unit.blockSize
        # Where the medium has another size than it had, one begins anew.
        done = plan.done if plan.size == self._size else 0
        now = attrs.evolve(plan, size=self._size, done=done, medium=unit.medium)
        self._noted, self._current = resumed, resumed and now == plan
        self.plan = plan = now
        passes = plan.passes if plan.action == WRITE else 1
        self._work = Work(unit, cdb, passes * self._size, self._ended, asker=asker)
        self._work.lasting = immediate or plan.kind == SANITIZE
        self._before = unit.failedPlan
        self._work.done = plan.done

    def begin(self) -> None:
        """Shut the unit; begin when what is being done there has ended."""
        code = codes.SANITIZE_IN_PROGRESS if self.plan.kind == SANITIZE else codes.FORMAT_IN_PROGRESS
        self._unit.failedPlan = None
        closure = Closure(codes.NOT_READY, code, self._work)
        self._unit.shut(closure)
        self._unit.stopCopies(closure.condition())
        if self._unit.testing is not None:
            selftest.stop(self._unit.testing, selftest.INTERRUPTED)
        self._unit.exclude(self._work, 0, self._size, self._work.begin, self._steps())

    def _steps(self) -> Iterator[Step]:
        if not self._current:
            yield from self._note()
        self._noted = True
        if self._immediate:
            self._work.answer()
        if self.plan.action == ERASE:
            yield from self._erasing()
        elif self.plan.action == WRITE:
            yield from self._writing()
        elif self.plan.action == REKEY:
            # What waits in a cache of the device is encrypted with the old key.
            yield from flushes(self._unit)
            yield 0, self._size, True, self._unit.device.rekey
        yield from flushes(self._unit)
        # Nobody may write before this is forgotten: it would be overwritten at the next start.
        yield from keeping(self._unit.unfinished, b"")

    def _note(self) -> Iterator[Step]:
        return keeping(self._unit.unfinished, self.plan.encode())

    def _reached(self) -> Iterator[Step]:
        """Note how far it is, if that is worth while."""
        if self._work.done - self.plan.done >= CHECKPOINT:
            done = self._work.done
            yield from flushes(self._unit)
            self.plan = attrs.evolve(self.plan, done=done)
            yield from self._note()

    def _erasing(self) -> Iterator[Step]:
        unit = self._unit
        start = self.plan.done
        size = ERASE_SLICE if unit.cheapZeroes else SLICE
        for offset, length in slices(start, self._size - start, size):
            yield offset, length, True, partial(unit.device.zero, offset, length, unit.thin)
            yield from self._reached()

    def _writing(self) -> Iterator[Step]:
        unit, plan = self._unit, self.plan
        first, start = divmod(plan.done, self._size)
        for number in range(first, plan.passes):
            piece = plan.block(unit.blockSize, number) * (min(SLICE, self._size) // unit.blockSize)
            for offset, length in slices(start, self._size - start, len(piece)):
                yield storing(unit, offset, piece[:length])
                yield from self._reached()
            start = 0
            if number + 1 < plan.passes:
                # Each pass has to reach the medium.
                yield from flushes(unit)

    def _ended(self, work: Work) -> None:
        unit = self._unit
        if unit.isClosing:
            # It goes on at the next start.
            return
        if work.condition is None and not work.aborted:
            unit.reopen()
            return
        if not self._noted:
            self._undo()
            return
        plan = attrs.evolve(self.plan, failed=True)
        forget(unit.unfinished, plan.encode())
        closure = failed(unit, plan)
        if work.condition is not None:
            work.condition = closure.condition()

    def _undo(self) -> None:
        """
        Nothing was done: the unit is as it was.

        It is not served while it may be that this would be done at the next start.
        """
        unit, store = self._unit, self._unit.unfinished
        if self._before is not None:
            forget(store, self._before.encode())
            failed(unit, self._before)
            return
        pending = None if store is None else store.save(b"")
        if pending is None:
            unit.reopen()
        else:
            pending.addCallbacks(
                lambda _: unit.reopen(), lambda _: failed(unit, attrs.evolve(self.plan, failed=True))
            )


def failed(unit: DiskUnit, plan: Plan) -> Closure:
    """Shut a unit because a plan has failed; how it answers from now on."""
    unit.failedPlan = plan
    closure = _failure(plan)
    unit.shut(closure)
    return closure


def _failure(plan: Plan) -> Closure:
    if plan.kind == SANITIZE:
        return Closure(codes.MEDIUM_ERROR, codes.SANITIZE_FAILED, but=_BUT[SANITIZE])
    return Closure(codes.MEDIUM_ERROR, codes.FORMAT_CORRUPTED, but=_BUT[FORMAT], whole=False)


def keeping(store: IStateStore | None, state: bytes) -> Iterator[Step]:
    """The step that keeps something, where there is a place for it."""
    if store is not None:
        yield 0, 0, False, lambda: store.save(state)


def forget(store: IStateStore | None, state: bytes = b"") -> None:
    """Keep something else, or nothing, and let nobody wait for it."""
    pending = None if store is None else store.save(state)
    if pending is not None:
        pending.addBoth(lambda _: None)


def goOn(unit: DiskUnit, plan: Plan) -> None:
    """
    Take up at the start what was not finished: a sanitize goes on, a format has failed.

    @raise LocalError: if it was another medium.
    """
    if isAnother(plan.medium, unit.medium):
        place = getattr(unit.unfinished, "path", "the state directory")
        raise LocalError(
            f"a {plan.kind} of another file or disk ({plan.medium}) is not finished: serve that one again, or"
            f" remove what {place} keeps of it"
        )
    if plan.failed or unit.readOnly or not unit.blockCount or plan.kind == FORMAT:
        failed(unit, attrs.evolve(plan, failed=True))
    else:
        Overhaul(unit, plan, resumed=True).begin()
