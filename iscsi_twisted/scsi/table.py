# -*- test-case-name: tests.scsi.test_table -*-
"""From the operation code to what is done about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from iscsi_twisted.errors import CheckCondition, LocalError
from iscsi_twisted.interfaces import ITask
from iscsi_twisted.scsi.cdb import STEERS, Command
from iscsi_twisted.scsi.codes import (
    DATA_PROTECT,
    ILLEGAL_REQUEST,
    INVALID_FIELD_IN_CDB,
    INVALID_OPCODE,
    NACA,
    WRITE_PROTECTED,
)

Handler: TypeAlias = Callable[[Any, ITask], None]
"""What carries out a command: called with the logical unit and the task."""


def unknown(unit: object, task: ITask) -> None:
    """Refuse an operation code that is not in the table (SPC-4 4.2.5.1)."""
    raise CheckCondition(ILLEGAL_REQUEST, INVALID_OPCODE, field=0)


class CommandSet:
    """The commands of one room, each with its handler."""

    def __init__(self) -> None:
        self.handlers: dict[Command, Handler] = {}

    def only(self, *commands: Command) -> CommandSet:
        """Some of the commands, for a unit that has not all of them."""
        some = CommandSet()
        some.handlers = {command: self.handlers[command] for command in commands}
        return some

    def handles(self, command: Command) -> Callable[[Handler], Handler]:
        """Decorate the handler of a command."""

        def register(handler: Handler) -> Handler:
            self.handlers[command] = handler
            return handler

        return register


class CommandTable:
    """
    All commands of one kind of logical unit.

    @ivar handlers: for each of the 256 operation codes, what to call.
    @param sets: the rooms that it is made of.
    @param otherwise: what to call for the other operation codes.
    @raise LocalError: if two rooms claim the same command.
    """

    def __init__(self, *sets: CommandSet, otherwise: Handler = unknown) -> None:
        self._commands: dict[tuple[int, int | None], Command] = {}
        self._actions: dict[int, dict[int, Handler]] = {}
        self.handlers: list[Handler] = [otherwise] * 256
        for each in sets:
            for command, handler in each.handlers.items():
                self._add(command, handler)

    def _add(self, command: Command, handler: Handler) -> None:
        opcode, action = command.opcode, command.serviceAction
        if (opcode, action) in self._commands:
            raise LocalError(f"two handlers for {command.name}")
        self._commands[opcode, action] = command
        checked = handler if command.fast else _checked(command, handler)
        if action is None:
            self.handlers[opcode] = checked
        else:
            actions = self._actions.setdefault(opcode, {})
            actions[action] = checked
            self.handlers[opcode] = _byServiceAction(actions)

    def find(self, cdb: bytes) -> Command | None:
        """The declaration of a command, or None if there is no such command."""
        opcode = cdb[0]
        return self._commands.get((opcode, cdb[1] & 0x1F if opcode in self._actions else None))

    def get(self, opcode: int, action: int | None) -> Command | None:
        """The declaration with this operation code and service action (None: it has none)."""
        return self._commands.get((opcode, action))

    def hasActions(self, opcode: int) -> bool:
        """Whether the commands of an operation code are told apart by service actions."""
        return opcode in self._actions

    def __iter__(self) -> Iterator[Command]:
        """All declarations, in the order of operation code and service action."""
        for _, command in sorted(self._commands.items(), key=lambda item: (item[0][0], item[0][1] or 0)):
            yield command


def _checked(command: Command, handler: Handler) -> Handler:
    """Do what is done before every command that is not on the data path."""
    control, condition = command.layout.offsets["control"], command.condition
    steers = command.access & STEERS

    def check(unit: Any, task: ITask) -> None:
        if condition is not None and not getattr(unit, condition):
            unknown(unit, task) if command.serviceAction is None else _unknownAction()
        if task.cdb[control] & NACA and not unit.normalACA:
            raise CheckCondition(ILLEGAL_REQUEST, INVALID_FIELD_IN_CDB, field=control, bit=2)
        if steers and unit.onlyReads(task.nexus):
            raise CheckCondition(DATA_PROTECT, WRITE_PROTECTED)
        handler(unit, task)

    return check


def _byServiceAction(actions: dict[int, Handler]) -> Handler:
    """Choose by the five lower bits of the second byte (SPC-4 4.2.5.2)."""

    def choose(unit: Any, task: ITask) -> None:
        handler = actions.get(task.cdb[1] & 0x1F)
        if handler is None:
            _unknownAction()
        else:
            handler(unit, task)

    return choose


def _unknownAction() -> None:
    raise CheckCondition(ILLEGAL_REQUEST, INVALID_FIELD_IN_CDB, field=1, bit=4)
