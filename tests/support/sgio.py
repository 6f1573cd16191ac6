"""The tools of sg3-utils, which want a kernel's device, over a session of our own initiator."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.utils import getProcessOutputAndValue

from iscsi_twisted.initiator import Session
from iscsi_twisted.scsi.lun import encodeLUN
from tests.support.clients import Outcome

SOURCE = Path(__file__).with_name("sgio.c")
_ASKED = struct.Struct("=4I")
_TOLD = struct.Struct("=3I")


class Carrier(Protocol):
    """One process; see L{SOURCE} for what it says."""

    factory: Carriers

    def __init__(self) -> None:
        self._bytes = b""

    def dataReceived(self, data: bytes) -> None:
        self._bytes += data
        if len(self._bytes) < _ASKED.size:
            return
        lun, size, wanted, follows = _ASKED.unpack_from(self._bytes)
        if len(self._bytes) == _ASKED.size + size + follows:
            command, self._bytes = self._bytes[_ASKED.size :], b""
            ensureDeferred(self._execute(lun, command[:size], wanted, command[size:]))

    async def _execute(self, lun: int, cdb: bytes, wanted: int, data: bytes) -> None:
        self.factory.commands.append(cdb)
        outcome = await self.factory.session.execute(encodeLUN(lun), cdb, expected=wanted, data=data)
        answer, sense = bytes(outcome.data), bytes(outcome.sense)
        self.transport.writeSequence([_TOLD.pack(outcome.status, len(sense), len(answer)), sense, answer])


class Carriers(Factory):
    """
    What tools find behind the socket.

    @ivar session: of the initiator.
    @ivar commands: the CDBs that they have sent.
    """

    protocol = Carrier

    def __init__(self, session: Session) -> None:
        self.session = session
        self.commands: list[bytes] = []


class Tools:
    """
    Tools of sg3-utils on the units that a session sees; C{lunN} stands for LUN N in their arguments.

    @ivar commands: the CDBs that they have sent.
    """

    def __init__(self, folder: Path, session: Session) -> None:
        """@param folder: for what this makes."""
        from twisted.internet import reactor

        self._folder = folder
        carriers = Carriers(session)
        self.commands = carriers.commands
        library = folder / "sgio.so"
        subprocess.run(
            ["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"],
            check=True,
        )
        socket = folder / "sgio"
        self._port = reactor.listenUNIX(str(socket), carriers)
        self._environment = os.environ | {"LD_PRELOAD": str(library), "SGIO_SOCKET": str(socket)}

    async def run(self, tool: str, *arguments: str) -> Outcome:
        """Run a tool to its end."""
        path = shutil.which(tool)
        assert path is not None, f"{tool} is not installed"
        told = [self._device(argument) for argument in arguments]
        result = getProcessOutputAndValue(path, told, self._environment)
        result.addErrback(lambda failure: (failure.value[0], failure.value[1], -failure.value[2]))
        out, err, status = await result
        return Outcome(status, out.decode(errors="replace"), err.decode(errors="replace"))

    async def good(self, tool: str, *arguments: str) -> str:
        """Run a tool that must succeed; what it printed."""
        outcome = await self.run(tool, *arguments)
        assert outcome.status == 0, f"{tool} {arguments}: status {outcome.status}\n{outcome.text}"
        return outcome.text

    def _device(self, argument: str) -> str:
        before, name, number = argument.rpartition("lun")
        if not name or not number.isdigit() or (before and not before.endswith("=")):
            return argument
        path = self._folder / f"lun{number}"
        path.touch()
        return f"{before}{path}"

    async def close(self) -> None:
        """Let go of the socket."""
        await self._port.stopListening()
