# -*- test-case-name: tests.target.test_floods -*-
"""After a flood nothing of it is left in memory."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.config.auths import parseAuths
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.failures import ADDRESSES
from iscsi_twisted.session.limits import Limits
from iscsi_twisted.session.login import Login
from iscsi_twisted.session.verdicts import ASKED
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target.protocol import LINGER, TargetProtocol
from iscsi_twisted.target.users import FileUsers
from iscsi_twisted.wire.framer import Framer
from tests.auth.test_verifier import Store
from tests.support import pdus
from tests.support.served import MemoryLine, MemoryService
from tests.support.wire import INITIATOR, TARGET

KINDS = (Connection, Login, TargetProtocol, Framer, Verifier)
MANY = 300


class FloodTests(SynchronousTestCase):
    """A service for users, with room for 20 logins at a time."""

    def setUp(self) -> None:
        self.users = FileUsers(parseAuths("joe:chap:correct-horse-battery\n", None))
        self.memory = MemoryService(MemoryDevice(1 << 20), secrets=self.users, limits=Limits(halfOpen=20))
        self.memory.service.startService()
        gc.collect()
        self.before = self.alive()

    def alive(self) -> list[int]:
        """How many objects there are of each kind."""
        return [sum(isinstance(each, kind) for each in gc.get_objects()) for kind in KINDS]

    def checkNothingLeft(self, lines: list[MemoryLine]) -> None:
        """When all connections are gone so is all that they were."""
        node = self.memory.service.node
        self.assertLessEqual(len(node.unfinished), 20)
        self.assertGreater(self.alive()[0], self.before[0])
        while lines:
            lines.pop().lose()
        self.memory.reactor.pump([1] * int(LINGER + 5))
        gc.collect()
        self.assertEqual(self.alive(), self.before)
        self.assertEqual((node.unfinished, node.silent, node.sessions, node.connections), ({}, {}, set(), 0))
        self.assertLessEqual(len(self.memory.reactor.getDelayedCalls()), 1)  # the service's own clock
        self.assertEqual(self.memory.service.factories[0].protocols, set())

    def test_slowStore(self) -> None:
        """Logins that a slow store is asked about, or that wait for that; when the service ends, all end."""
        slow = Store()
        asked = slow.asked = []
        self.users.find = slow.find  # type: ignore[method-assign]
        lines = [self.wrong() for _ in range(MANY)]
        self.assertEqual(len(asked), ASKED)
        verdicts = self.memory.service.node.verdicts
        assert verdicts is not None
        while lines:
            lines.pop().lose()
        self.memory.reactor.pump([1] * int(LINGER + 5))
        self.assertEqual(len(verdicts._gone), ASKED)
        self.memory.reactor.pump([1] * 40)
        self.assertEqual((verdicts._gone, verdicts._queues), ({}, {}))
        self.wrong().lose()
        self.memory.service.stopService()
        self.memory.reactor.pump([1] * 40)
        self.assertEqual({each.called for each in asked}, {True})

    def wrong(self) -> MemoryLine:
        """A connection that has sent a wrong secret."""
        line = self.memory.line()
        names = {"InitiatorName": INITIATOR, "TargetName": TARGET, "AuthMethod": "CHAP"}
        for pairs in (names, {"CHAP_A": "7"}, {"CHAP_N": "joe", "CHAP_R": "0x" + "00" * 32}):
            line.protocol.dataReceived(pdus.loginRequest(pairs, stage=0, following=1))
        return line

    def test_silent(self) -> None:
        """Connections that say nothing, or a part of something."""
        lines = [self.memory.line() for _ in range(MANY)]
        for number in range(10):
            lines[number - 10].say(bytes(47))
        self.checkNothingLeft(lines)

    def test_wrong(self) -> None:
        """Logins with wrong secrets, those too that wait for their answer when their connection goes."""
        lines = [self.wrong() for _ in range(MANY)]
        verdicts = self.memory.service.node.verdicts
        assert verdicts is not None
        self.assertGreater(verdicts.failures.delay("192.0.2.7"), 0)
        self.checkNothingLeft(lines)

    def test_addresses(self) -> None:
        """Of those that have failed so many addresses are remembered at most."""
        verdicts = self.memory.service.node.verdicts
        assert verdicts is not None
        failures = verdicts.failures
        for number in range(2 * ADDRESSES):
            failures.failed(f"10.0.{number >> 8}.{number & 255}")
        self.assertEqual(len(failures._counts), ADDRESSES)
