"""The models of mirrors, each time in another way, and for longer than the tests have time for."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.logger import globalLogBeginner

from tests.storage.test_patiencemodel import HangingMachine, HangingThreeMachine
from tests.support.mirrormachine import MirrorMachine
from tests.support.mirrormodels import (
    ComposedMachine,
    NestedMachine,
    RecordMachine,
    RemoteMachine,
    RosterMachine,
    ScrubMachine,
    run,
    small,
)

MACHINES = (
    MirrorMachine,
    ComposedMachine,
    NestedMachine,
    RosterMachine,
    RecordMachine,
    RemoteMachine,
    ScrubMachine,
)

HANGING = (HangingMachine, HangingThreeMachine)

EXAMPLES = 25
"""Of one machine, before it is the next one's turn."""

STEPS = 80


def mirrormodel(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Run the machines in turns for so long, each once at least.

    @return: what was done, and what went wrong: the steps that show it again.
    """
    return _turns(MACHINES, seconds, seed)


def hangingmodel(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """The same with those whose members hang."""
    return _turns(HANGING, seconds, seed)


def _turns(machines: Sequence[Any], seconds: float, seed: int) -> tuple[list[str], list[str]]:
    deadline = time.monotonic() + seconds
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    turns, faults = 0, []
    with _smaller():
        while (turns < len(machines) or time.monotonic() < deadline) and not faults:
            machine = machines[turns % len(machines)]
            try:
                run(machine, EXAMPLES, STEPS, seed=seed + turns)
            except Exception as error:
                notes = "\n".join(getattr(error, "__notes__", []))
                faults.append(f"{machine.__name__}: {traceback.format_exc()}\n{notes}")
            turns += 1
    return [f"{turns * EXAMPLES} histories of up to {STEPS} steps"], faults


@contextmanager
def _smaller() -> Iterator[None]:
    before = [(module, name, getattr(module, name)) for module, name, _ in small()]
    try:
        for module, name, value in small():
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
