"""Connections that are reinstated (RFC 7143 6.3.4): one connection of a session takes another's place."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.interfaces import Asker, Grant
from iscsi_twisted.session.session import Session
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers, text
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import (
    INITIATOR,
    R2T,
    TARGET,
    TEST_UNIT_READY,
    Anybody,
    Line,
    makeNode,
    makeTarget,
    read10,
    write10,
)

NAMES = {"InitiatorName": INITIATOR, "TargetName": TARGET}
DISCOVERY = {"InitiatorName": INITIATOR, "SessionType": "Discovery"}


class ReinstatementTests(SynchronousTestCase):
    """
    A session with two units, the second of which takes its time.

    @ivar line: its connection.
    """

    def setUp(self) -> None:
        self.device = FakeDevice()
        self.target = makeTarget(MemoryDevice(1 << 20), self.device)
        self.node, self.diary = makeNode(self.target)
        self.line = Line(self.node)
        self.tsih = self.line.login(MaxRecvDataSegmentLength="65536", MaxBurstLength="8192")["tsih"]
        self.diary.entries.clear()

    @property
    def session(self) -> Session:
        """The one session."""
        (session,) = self.node.sessions
        return session

    def again(self, pairs: dict[str, str] | None = None, *, tag: int = 1, **fields: Any) -> tuple[Line, Any]:
        """Another connection that asks for the place of the first; it, and the response."""
        line = Line(self.node, tag=tag)
        line.cmdSN, line.itt = self.line.cmdSN, self.line.itt + 0x100
        options = {"tsih": self.tsih, "cmdSN": self.line.cmdSN} | fields
        (response,) = line.say(pdus.loginRequest(pairs or NAMES, **options))
        response["keys"] = dict(text.decode(response["data"]))
        return line, response

    def test_place(self) -> None:
        """The old connection is closed, the session goes on with the new one, with its handle and numbers."""
        session, expCmdSN, maxCmdSN = self.session, self.line.cmdSN, self.session.maxCmdSN
        line, response = self.again()
        self.assertEqual((response["status"], response["flags"], response["tsih"]), (0, 0x87, self.tsih))
        self.assertEqual((response["expCmdSN"], response["maxCmdSN"]), (expCmdSN, maxCmdSN))
        self.assertEqual((self.line.closed, line.closed), (True, False))
        self.assertIs(self.session, session)
        self.assertIs(session.connection, line.core)
        told = "the initiator reinstated the connection"
        self.assertEqual(self.diary.entries, [("lost", told), ("loggedIn",)])
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_refusedMeanwhile(self) -> None:
        """Who may not use the target any more does not get its connection back, and disturbs nothing."""

        class Closed(Anybody):
            def decide(self, asker: Asker) -> Grant | None:
                return None

        policy: Any = Closed()
        self.target.policy = policy
        _, response = self.again()
        self.assertEqual(response["status"], numbers.AUTHORIZATION_FAILURE)
        self.assertFalse(self.line.closed)

    def test_otherGrant(self) -> None:
        """Who gets its connection back may do what it may do now: read alone, and fewer LUNs, or more."""

        class Granting(Anybody):
            grant = Grant()

            def decide(self, asker: Asker) -> Grant | None:
                return self.grant

        policy: Any = Granting()
        self.target.policy = policy
        lun = b"\0\1" + bytes(6)
        for grant, status, codes in (
            (Grant(True), 2, ["2907", "2a01"]), (Grant(True, frozenset((0,))), 2, ["3f0e"]),
            (Grant(False, frozenset((0, 1))), 0, ["2a01", "3f0e"]),
        ):  # fmt: skip
            policy.grant = grant
            self.line, response = self.again()
            self.assertEqual(response["status"], 0)
            told = [self.line.command(TEST_UNIT_READY)[0]["data"][14:16].hex() for _ in codes]
            self.assertEqual(sorted(told), codes)
            written = self.line.command(write10(0, 1), write=512, data=bytes(512))[0]["status"]
            self.assertEqual(written, status)
            seen = self.line.command(TEST_UNIT_READY, lun=lun)[0]["data"][14:16].hex()
            self.assertEqual(seen == "2500", grant.luns == frozenset((0,)))

    def test_goneOld(self) -> None:
        """What becomes of the old transport afterwards does not touch the session."""
        line, _ = self.again()
        self.line.core.lost("closed at last")
        self.line.core.receive(pdus.logoutRequest())
        self.assertEqual(self.line.take(), [])
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)
        self.assertEqual(len(self.target.sessions), 1)

    def test_tasks(self) -> None:
        """Tasks of the old connection end without a word; each unit that had some says so once (11.14.5)."""
        lun = b"\0\1" + bytes(6)
        self.line.command(read10(0, 1), read=512, lun=lun)
        self.line.command(write10(0, 1), write=512, data=b"x" * 512, lun=lun)
        line, _ = self.again()
        self.device.fire()
        self.assertEqual((self.line.take(), line.take()), ([], []))
        told = [line.command(TEST_UNIT_READY, lun=lun)[0] for _ in range(2)]
        self.assertEqual((told[0]["status"], told[0]["data"][14:16].hex()), (2, "477f"))
        self.assertEqual(told[1]["status"], 0)
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_window(self) -> None:
        """The places of the ended tasks in the window are free when their devices have ended."""
        room = self.session.maxCmdSN - self.session.expCmdSN
        for _ in range(5):
            self.line.command(read10(0, 1), read=512, lun=b"\0\1" + bytes(6))
        self.again()
        self.device.fire()
        self.assertEqual(self.session.maxCmdSN - self.session.expCmdSN, room)

    def test_solicited(self) -> None:
        """What the old connection was asked for is not expected any more, and its reservation given back."""
        (r2t,) = self.line.command(write10(0, 256), write=131072)
        self.assertEqual(r2t["opcode"], R2T)
        line, _ = self.again()
        self.assertEqual((self.session.tasks, self.node.solicited.used), ({}, 0))
        self.assertEqual(line.say(pdus.dataOut(bytes(8192), itt=r2t["itt"], ttt=r2t["ttt"])), [])

    def test_early(self) -> None:
        """Commands that had come before their turn count as never received."""
        cmdSN = self.line.cmdSN
        self.line.command(TEST_UNIT_READY, cmdSN=cmdSN + 1)
        self.line.say(pdus.taskManagement(numbers.LOGICAL_UNIT_RESET, cmdSN=cmdSN + 2))
        line, _ = self.again()
        self.assertEqual((self.session.early, self.session.earlyBytes, self.session.postponed), ({}, 0, []))
        for _ in range(2):
            self.assertEqual([answer["opcode"] for answer in line.command(TEST_UNIT_READY)], [0x21])

    def test_parameters(self) -> None:
        """What belongs to the session stays, and is irrelevant now; what belongs to a connection is new."""
        keys = {
            "MaxBurstLength": "512", "InitialR2T": "No", "ErrorRecoveryLevel": "0", "HeaderDigest": "CRC32C",
            "MaxRecvDataSegmentLength": "4096",
        }  # fmt: skip
        before = self.session.parameters
        line, response = self.again(NAMES | keys)
        for name in ("MaxBurstLength", "InitialR2T", "ErrorRecoveryLevel"):
            self.assertEqual(response["keys"][name], "Irrelevant")
        self.assertEqual(response["keys"]["HeaderDigest"], "CRC32C")
        line.digests = (True, False)
        after = self.session.parameters
        self.assertEqual((after.maxBurst, after.initialR2T), (before.maxBurst, before.initialR2T))
        self.assertEqual((after.headerDigest, after.maxSegment), (True, 4096))
        self.assertEqual(len(line.command(read10(0, 16), read=8192)), 2)

    def test_otherConnection(self) -> None:
        """Another connection ID is a second connection, and one is all there may be (0206h)."""
        line, response = self.again(cid=1)
        self.assertEqual((response["status"], line.closed, self.line.closed), (0x0206, True, False))

    def test_otherPortalGroup(self) -> None:
        """A session does not span portal groups (0208h)."""
        line, response = self.again(tag=2)
        self.assertEqual((response["status"], line.closed, self.line.closed), (0x0208, True, False))

    def test_endedMeanwhile(self) -> None:
        """If the session ends during the login there is nothing to take a place in (020Ah)."""
        line, response = self.again(following=None)
        self.assertEqual((response["status"], self.line.closed), (0, False))
        self.line.say(pdus.logoutRequest())
        (response,) = line.say(pdus.loginRequest({}, tsih=self.tsih))
        self.assertEqual((response["status"], line.closed), (0x020A, True))

    def test_notBefore(self) -> None:
        """Until its login is complete the new connection changes nothing."""
        line, _ = self.again(following=None)
        self.assertEqual(self.line.command(TEST_UNIT_READY)[0]["status"], 0)
        line.core.lost("gave up")
        self.assertEqual(self.line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_overAndOver(self) -> None:
        """A connection may be reinstated again and again."""
        for _ in range(5):
            old = self.line
            self.line, response = self.again()
            self.assertEqual((response["status"], old.closed), (0, True))
            self.line.command(TEST_UNIT_READY)
        self.assertEqual((len(self.node.sessions), len(self.target.sessions)), (1, 1))


class DiscoveryTests(SynchronousTestCase):
    """The same for discovery sessions."""

    def setUp(self) -> None:
        self.node, self.diary = makeNode(makeTarget(MemoryDevice(512)))

    def discover(self, pairs: dict[str, str] = DISCOVERY, **fields: Any) -> tuple[Line, int]:
        """A discovery session; its line and TSIH."""
        line = Line(self.node)
        (response,) = line.say(pdus.loginRequest(pairs, **fields))
        self.assertEqual(response["status"], 0)
        tsih: int = response["tsih"]
        return line, tsih

    def test_session(self) -> None:
        """The same port again ends its discovery session and begins another."""
        old, first = self.discover()
        new, second = self.discover()
        self.assertEqual((old.closed, new.closed), (True, False))
        self.assertNotEqual(first, second)
        self.assertEqual(self.node.sessions, {new.core.session})
        old.core.lost("")
        self.assertEqual(list(self.node.discoveries.values()), [new.core.session])

    def test_connection(self) -> None:
        """With the session's handle it takes the place of its connection, and the session goes on."""
        old, tsih = self.discover()
        new, again = self.discover(tsih=tsih)
        self.assertEqual((old.closed, tsih), (True, again))
        self.assertIs(old.core.session, new.core.session)
        (answer,) = new.say(pdus.textRequest({"SendTargets": "All"}))
        self.assertIn(("TargetName", TARGET), text.decode(answer["data"]))

    def test_beside(self) -> None:
        """Another ISID, name or named target is another session, as is a normal one of the same port."""
        lines = [
            self.discover()[0],
            self.discover(isid=b"\x80\0\0\0\0\2")[0],
            self.discover(DISCOVERY | {"InitiatorName": INITIATOR + "2"})[0],
            self.discover(DISCOVERY | {"TargetName": TARGET})[0],
            self.discover(NAMES)[0],
        ]
        self.assertEqual([line.closed for line in lines], [False] * 5)
        self.assertEqual((len(self.node.sessions), len(self.node.discoveries)), (5, 4))
        handles = [session.tsih for session in self.node.discoveries.values()]
        self.assertEqual(len(set(handles)), 4)
        for line in lines:
            line.core.lost("")
        self.assertEqual((self.node.sessions, self.node.discoveries), (set(), {}))
