"""What tests of connections and of logins share."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.connection import BATCH
from iscsi_twisted.session.node import Node
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers, text
from tests.support import pdus
from tests.support.wire import (
    INITIATOR,
    TARGET,
    Anybody,
    Diary,
    Line,
    makeNode,
    makeTarget,
    read10,
)

SIZE = 4 << 20
QUARTER = BATCH // 4
BLOCKS = QUARTER // 512


class ConnectionTests(SynchronousTestCase):
    """
    Tests of a session with a disk of 4 MiB.

    @ivar line: the session, which takes reads of a quarter of a batch in one PDU.
    """

    def setUp(self) -> None:
        self.device = MemoryDevice(SIZE)
        self.node, self.diary = makeNode(makeTarget(self.device))
        self.line = Line(self.node)
        self.line.login(MaxRecvDataSegmentLength=str(QUARTER))
        self.core = self.line.core
        assert self.core.session is not None
        self.session = self.core.session

    def reads(self, count: int) -> bytes:
        """So many reads of a quarter of a batch."""
        return b"".join(self.line.build(read10(0, BLOCKS), read=QUARTER) for _ in range(count))

    def sizes(self) -> list[int]:
        """The bytes of each batch that was sent."""
        return [sum(len(buffer) for buffer in batch) for batch in self.line.sent]


NAMES = {"InitiatorName": INITIATOR, "TargetName": TARGET}
DISCOVERY = {"InitiatorName": INITIATOR, "SessionType": "Discovery"}


class LoginTests(SynchronousTestCase):
    """
    Tests of a node with one target.

    @ivar line: a connection that has not said anything.
    """

    def setUp(self) -> None:
        """Serve a target."""
        self.serve()

    def serve(self, policy: Any = None, **options: Any) -> None:
        """Serve one target with this policy."""
        self.target = makeTarget(MemoryDevice(1 << 16), policy=policy or Anybody(), alias="A disk")
        self.node: Node
        self.diary: Diary
        self.node, self.diary = makeNode(self.target, **options)
        self.line = Line(self.node)

    def ask(self, pairs: dict[str, str] | bytes, line: Line | None = None, **fields: Any) -> dict[str, Any]:
        """Send one Login Request; the response, its text as C{keys}."""
        (response,) = (line or self.line).say(pdus.loginRequest(pairs, **fields))
        self.assertEqual(response["opcode"], numbers.LOGIN_RESPONSE)
        response["keys"] = dict(text.decode(response["data"]))
        return response

    def assertRefused(
        self, status: int, pairs: dict[str, str] | bytes, line: Line | None = None, **fields: Any
    ) -> None:
        """The login is refused with this status: nothing else in the response, connection closed, told."""
        line = line or self.line
        response = self.ask(pairs, line, **fields)
        self.assertEqual(hex(response["status"]), hex(status))
        self.assertEqual((response["flags"], response["data"]), (0, b""))
        self.assertTrue(line.closed)
        self.assertIsNone(line.core.session)
        kind, told, reason = self.diary.entries[-1]
        self.assertEqual((kind, told), ("refused", status))
        self.assertTrue(reason.isprintable() and reason)
        entries = len(self.diary.entries)
        line.core.lost("closed")
        self.assertEqual(len(self.diary.entries), entries)
