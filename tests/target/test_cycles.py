"""What a connection leaves behind is freed as it ends, and not when cycles are looked for."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.auths import parseAuths
from iscsi_twisted.interfaces import Account
from iscsi_twisted.session.failures import FREE, LONGEST
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target.protocol import LINGER
from iscsi_twisted.target.users import FileUsers
from tests.support import pdus
from tests.support.served import MemoryLine, MemoryService
from tests.support.wire import INITIATOR, TARGET, read10, write10

NAMES = {"InitiatorName": INITIATOR, "TargetName": TARGET, "AuthMethod": "CHAP"}


class Slow:
    """Finds users later, or never."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Account | None]] = []

    def find(self, user: str) -> Deferred[Account | None]:
        self.asked.append(Deferred())
        return self.asked[-1]


class CycleTests(SynchronousTestCase):
    """Connections of a service, of all kinds."""

    def serve(self, secrets: Any = None) -> MemoryService:
        """A service; what was made so far is left aside."""
        memory = MemoryService(MemoryDevice(1 << 20), secrets=secrets)
        memory.service.startService()
        self.addCleanup(memory.service.stopService)
        return memory

    def assertFreed(self, talk: Callable[[MemoryLine], object], secrets: Any = None) -> None:
        """When a connection has ended that talked so, nothing of it is left for the garbage collector."""
        memory = self.serve(secrets)
        self.end(memory, memory.line(), lambda line: None)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.end(memory, memory.line(), talk)
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            found = [type(each) for each in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
        self.assertEqual([each for each in found if each.__module__.startswith("iscsi_twisted")], [])

    def end(self, memory: MemoryService, line: MemoryLine, talk: Callable[[MemoryLine], object]) -> None:
        """Talk, then lose the connection, as a transport does that keeps nothing."""
        talk(line)
        memory.reactor.pump([LONGEST] * 3)
        line.lose()
        line.transport.producer = None
        memory.reactor.pump([1.0] * int(LINGER + 1))

    def wrong(self, line: MemoryLine) -> None:
        """Give a wrong secret."""
        for pairs in (NAMES, {"CHAP_A": "7"}, {"CHAP_N": "joe", "CHAP_R": "0x" + "00" * 32}):
            line.say(pdus.loginRequest(pairs, stage=0, following=1))

    def users(self) -> FileUsers:
        """One user."""
        return FileUsers(parseAuths("joe:chap:correct-horse-battery\n", None))

    def test_silent(self) -> None:
        """One that says nothing."""
        self.assertFreed(lambda line: None)

    def test_half(self) -> None:
        """One that says half of a request."""
        self.assertFreed(lambda line: line.say(pdus.loginRequest(NAMES)[:60]))

    def test_refused(self) -> None:
        """One whose login is refused."""
        self.assertFreed(lambda line: line.login("iqn.2001-04.com.example:none"))

    def test_nonsense(self) -> None:
        """One that speaks another language."""
        self.assertFreed(
            lambda line: line.say(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n")
        )

    def test_wrong(self) -> None:
        """Wrong secrets, those too that have to wait, and those for which there is no room."""
        users = self.users()
        self.assertFreed(self.wrong, users)

        def flood(line: MemoryLine) -> None:
            for _ in range(FREE + 10):
                self.wrong(line)
                line.lose()
                line.transport.producer = None
                line.__init__(line.protocol.factory)  # type: ignore[misc]

        self.assertFreed(flood, users)

    def test_later(self) -> None:
        """A login whose user is never found."""
        self.assertFreed(self.wrong, Slow())

    def test_discovery(self) -> None:
        """A discovery session."""

        def talk(line: MemoryLine) -> None:
            line.login(None)
            line.say(pdus.textRequest({"SendTargets": "All"}))

        self.assertFreed(talk)

    def test_session(self) -> None:
        """A session with digests that reads and writes, asks and is asked for data, and logs out."""

        def talk(line: MemoryLine) -> None:
            line.login(HeaderDigest="CRC32C", DataDigest="CRC32C", InitialR2T="Yes", ImmediateData="No")
            for number in range(3):
                line.say(pdus.scsiCommand(bytes(6), itt=number, cmdSN=1 + number, digests=line.digests))
            line.say(pdus.scsiCommand(read10(0, 8), itt=5, cmdSN=4, read=4096, digests=line.digests))
            line.say(pdus.scsiCommand(write10(0, 8), itt=6, cmdSN=5, write=4096, digests=line.digests))

        self.assertFreed(talk)
        self.assertFreed(lambda line: (line.login(), line.say(pdus.logoutRequest())))
