"""A target that answers as a test tells it: well, unless that says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.wire import layout, numbers, text
from tests.support.pdus import LAYOUTS, assemble

BLOCK = 512
BLOCKS = 2048
NO_TAG = numbers.NO_TAG


class Asked:
    """
    A PDU of the initiator.

    @ivar fields: of its header, by their names.
    """

    def __init__(self, record: layout.Layout, header: bytes, data: bytes) -> None:
        self.fields, self.header, self.data = record.asDict(header), header, data

    def __getattr__(self, name: str) -> Any:
        return self.fields[name]


REQUESTS = {
    numbers.NOP_OUT: layout.NOP_OUT,
    numbers.SCSI_COMMAND: layout.SCSI_COMMAND,
    numbers.TASK_MANAGEMENT_REQUEST: layout.TASK_MANAGEMENT_REQUEST,
    numbers.LOGIN_REQUEST: layout.LOGIN_REQUEST,
    numbers.TEXT_REQUEST: layout.TEXT_REQUEST,
    numbers.DATA_OUT: layout.DATA_OUT,
    numbers.LOGOUT_REQUEST: layout.LOGOUT_REQUEST,
}

Answer = Callable[["ScriptedConnection", Asked], Any]


class ScriptedTarget(Factory):
    """
    A target with one disk of zeros.

    @ivar answers: what is done with a request, by its opcode, instead of what is right.
    @ivar commands: what is done with a command, by the opcode of its CDB, before that: C{bytes} are its
        Data-In, and anything else is called.
    @ivar asked: opcodes of all requests; those of CDBs are 100h more.
    @ivar connections: all that were made.
    @ivar delta: how many commands more than it has seen it takes.
    """

    noisy = False

    def __init__(self, answers: dict[int, Answer] | None = None, **commands: bytes | Answer) -> None:
        """@param commands: by the names of L{iscsi_twisted.scsi.cdb}."""
        self.answers = answers or {}
        self.commands: dict[int, bytes | Answer] = {
            **{getattr(cdb, name).opcode: good for name, good in self.good().items()},
            **{getattr(cdb, name).opcode: each for name, each in commands.items()},
        }
        self.asked: list[int] = []
        self.connections: list[ScriptedConnection] = []
        self.delta = 64

    def good(self) -> dict[str, bytes | Answer]:
        """What a disk answers."""
        return {
            "TEST_UNIT_READY": b"",
            "INQUIRY": inquiry,
            "READ_CAPACITY_16": capacity(BLOCKS, BLOCK),
            "MODE_SENSE_6": bytes((3, 0, 0x10, 0)),
            "REPORT_LUNS": (8).to_bytes(4, "big") + bytes(12),
            "SYNCHRONIZE_CACHE_10": b"",
            "READ_10": lambda connection, asked: connection.dataIn(asked, bytes(asked.expectedLength)),
            "WRITE_10": lambda connection, asked: connection.status(asked),
        }

    def buildProtocol(self, addr: object) -> ScriptedConnection:
        connection = ScriptedConnection(self)
        self.connections.append(connection)
        return connection


class ScriptedConnection(Protocol):
    """
    One connection to it.

    @ivar statSN: of the next status.
    @ivar cmdSN: of the next command.
    """

    def __init__(self, target: ScriptedTarget) -> None:
        self.target = target
        self.statSN = self.cmdSN = 1
        self.lost = False
        self._buffer = bytearray()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    # Receiving

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 48:
            length = int.from_bytes(self._buffer[5:8], "big")
            end = 48 + length + -length % 4
            if len(self._buffer) < end:
                return
            header, segment = bytes(self._buffer[:48]), bytes(self._buffer[48 : 48 + length])
            del self._buffer[:end]
            self._answer(header, segment)

    def _answer(self, header: bytes, segment: bytes) -> None:
        opcode = header[0] & numbers.OPCODE_MASK
        asked = Asked(REQUESTS[opcode], header, segment)
        self.target.asked.append(opcode)
        if opcode == numbers.SCSI_COMMAND:
            self.cmdSN = asked.cmdSN + 1
            self.target.asked.append(0x100 | header[32])
        ordinary: dict[int, Answer] = {
            numbers.LOGIN_REQUEST: ScriptedConnection.login,
            numbers.SCSI_COMMAND: ScriptedConnection.command,
            numbers.NOP_OUT: ScriptedConnection.nop,
            numbers.TEXT_REQUEST: lambda self, asked: self.text(asked, []),
            numbers.LOGOUT_REQUEST: lambda self, asked: self.logout(asked),
            numbers.TASK_MANAGEMENT_REQUEST: lambda self, asked: self.managed(asked),
            numbers.DATA_OUT: lambda self, asked: None,
        }
        self.target.answers.get(opcode, ordinary[opcode])(self, asked)

    def command(self, asked: Asked) -> None:
        """A command, as the target was told."""
        answer = self.target.commands.get(asked.cdb[0])
        if answer is None:
            self.check(asked, codes.ILLEGAL_REQUEST, codes.INVALID_OPCODE)
        elif isinstance(answer, bytes):
            self.dataIn(asked, answer)
        else:
            answer(self, asked)

    def nop(self, asked: Asked) -> None:
        """A ping has an answer."""
        if asked.itt != NO_TAG:
            self.say(numbers.NOP_IN, asked.data, itt=asked.itt, ttt=NO_TAG)

    # Sending

    def say(self, opcode: int, data: bytes = b"", *, counts: bool = True, **fields: Any) -> None:
        """
        A PDU; what is not given is as it should be.

        @param counts: whether it has a StatSN of its own.
        """
        record = LAYOUTS[opcode]
        values: dict[str, Any] = {name: b"\0" * 8 if name == "lun" else 0 for name in record.fields}
        values |= {
            "opcode": opcode, "flags": numbers.FINAL, "expCmdSN": self.cmdSN, "statSN": self.statSN,
            "maxCmdSN": self.cmdSN + self.target.delta - 1 & 0xFFFFFFFF, **fields,
        }  # fmt: skip
        self.statSN += counts
        assert self.transport is not None
        self.transport.write(assemble(record.pack(*(values[name] for name in record.fields)), data))

    def login(self, asked: Asked, *pairs: tuple[str, str], method: str = "None", **fields: Any) -> None:
        """Whoever wants to come in may."""
        stage, following = asked.flags >> 2 & 3, asked.flags & 3
        said = [("AuthMethod", method)] if stage == numbers.SECURITY else []
        values = {
            "flags": asked.flags & 0x8F, "isid": asked.isid, "itt": asked.itt,
            "tsih": 1 if following == numbers.FULL_FEATURE else 0, **fields,
        }  # fmt: skip
        self.say(numbers.LOGIN_RESPONSE, text.encode([*said, *pairs]), **values)

    def refuse(self, asked: Asked, status: int, *pairs: tuple[str, str]) -> None:
        """A login fails."""
        self.login(asked, *pairs, status=status)

    def status(self, asked: Asked, status: int = 0, data: bytes = b"", **fields: Any) -> None:
        """A SCSI Response."""
        self.say(numbers.SCSI_RESPONSE, data, itt=asked.itt, status=status, **fields)

    def check(self, asked: Asked, key: int, code: int) -> None:
        """CHECK CONDITION."""
        sense = bytes((0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0)) + code.to_bytes(2, "big") + bytes(4)
        self.status(asked, codes.CHECK_CONDITION, len(sense).to_bytes(2, "big") + sense)

    def dataIn(self, asked: Asked, data: bytes, **fields: Any) -> None:
        """All Data-In that there is room for, with the status."""
        data = data[: asked.expectedLength]
        short = asked.expectedLength - len(data)
        if not data:
            self.status(asked, flags=numbers.FINAL | (numbers.UNDERFLOW if short else 0), residual=short)
            return
        flags = numbers.FINAL | numbers.STATUS | (numbers.UNDERFLOW if short else 0)
        values = {"flags": flags, "residual": short, **fields}
        self.say(numbers.DATA_IN, data, itt=asked.itt, ttt=NO_TAG, **values)

    def text(self, asked: Asked, pairs: list[tuple[str, str]], **fields: Any) -> None:
        """A Text Response."""
        values = {"itt": asked.itt, "ttt": NO_TAG, **fields}
        self.say(numbers.TEXT_RESPONSE, text.encode(pairs), **values)

    def managed(self, asked: Asked, response: int = 0) -> None:
        """A Task Management Function Response."""
        self.say(numbers.TASK_MANAGEMENT_RESPONSE, itt=asked.itt, response=response)

    def logout(self, asked: Asked, response: int = 0) -> None:
        """A Logout Response, and the end."""
        self.say(numbers.LOGOUT_RESPONSE, itt=asked.itt, response=response)
        assert self.transport is not None
        self.transport.loseConnection()


def inquiry(connection: ScriptedConnection, asked: Asked) -> None:
    """Standard INQUIRY data; no vital product data."""
    if asked.cdb[1] & 1:
        connection.check(asked, codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_CDB)
    else:
        connection.dataIn(asked, bytes((0, 0, 6, 2, 31, 0, 0, 2)) + b"EXAMPLE ".ljust(24) + b"1   ")


def capacity(blocks: int, blockSize: int, flags: int = 0) -> bytes:
    """READ CAPACITY (16) data; C{flags} are bytes 14 and 15."""
    last = (blocks - 1).to_bytes(8, "big") + blockSize.to_bytes(4, "big")
    return last + bytes(2) + flags.to_bytes(2, "big") + bytes(16)
