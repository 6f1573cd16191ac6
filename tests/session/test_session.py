"""Tests for L{iscsi_twisted.session.session}: nexus, window, and PDUs that come before their turn."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.session import EARLY, IMMEDIATE_TASKS, LUNS_CACHED, Session
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import (
    TARGET,
    TEST_UNIT_READY,
    Line,
    loggedIn,
    makeNode,
    makeTarget,
    read10,
    write10,
)


def sessionOf(line: Line) -> Session:
    """The session at the other end."""
    assert line.core.session is not None
    return line.core.session


class LifeTests(SynchronousTestCase):
    """From login to the end."""

    def test_begin(self) -> None:
        """A session that begins is known to node and target, and its nexus to the units."""
        line = loggedIn()
        session = sessionOf(line)
        self.assertEqual(line.node.sessions, {session})
        assert session.target is not None and session.nexus is not None
        self.assertIs(session.target.sessions[session.nexus.key], session)
        self.assertFalse(session.discovery)

    def test_end(self) -> None:
        """A session that ends is forgotten by all, and a new one is told that it has ended (SAM-5 6.3.4)."""
        line = loggedIn()
        session = sessionOf(line)
        line.core.lost("gone")
        assert session.target is not None
        self.assertEqual((line.node.sessions, session.target.sessions), (set(), {}))
        again = Line(line.node)
        again.say(pdus.loginRequest({"InitiatorName": session.initiatorName, "TargetName": TARGET}))
        (answer,) = again.command(TEST_UNIT_READY)
        self.assertEqual((answer["status"], answer["data"][14:16]), (2, b"\x29\7"))

    def test_endOfTheOld(self) -> None:
        """The end of a session whose nexus has a newer one leaves that alone."""
        line = loggedIn()
        old = sessionOf(line)
        new = Line(line.node)
        new.login()
        old.end()
        assert old.target is not None
        self.assertEqual(list(old.target.sessions.values()), [sessionOf(new)])

    def test_discovery(self) -> None:
        """A discovery session is known to the node alone."""
        target = makeTarget(MemoryDevice(512))
        node, _ = makeNode(target)
        line = Line(node)
        line.login(SessionType="Discovery")
        self.assertEqual((len(node.sessions), target.sessions), (1, {}))
        line.core.lost("gone")
        self.assertEqual(node.sessions, set())

    def test_pendingOperations(self) -> None:
        """Device operations of a session that has ended end quietly."""
        device = FakeDevice()
        line = loggedIn(device)
        session = sessionOf(line)
        line.command(read10(0, 1), read=512)
        line.command(write10(0, 1), write=512, data=bytes(512))
        line.core.lost("gone")
        self.assertEqual(session.tasks, {})
        device.fire()
        self.assertEqual(line.take(), [])
        self.assertEqual(device.operations, [])


class UnitTests(SynchronousTestCase):
    """LUN fields."""

    def test_remembered(self) -> None:
        """Fields that lead to units are remembered, others not, and all are forgotten on request."""
        line = loggedIn()
        session = sessionOf(line)
        self.assertEqual(list(session.units), [bytes(8)])
        line.command(TEST_UNIT_READY, lun=b"\0\5" + bytes(6))
        self.assertEqual(list(session.units), [bytes(8)])
        session.forgetUnits()
        self.assertEqual(session.units, {})
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_bounded(self) -> None:
        """No more than so many forms of LUN fields are remembered, and all of them work."""
        line = loggedIn()
        session = sessionOf(line)
        for number in range(LUNS_CACHED + 10):
            session.units[number.to_bytes(8, "big")] = session.units[bytes(8)]
        session.addressed(b"\x40\0" + bytes(6))
        self.assertNotIn(b"\x40\0" + bytes(6), session.units)
        self.assertEqual(line.command(TEST_UNIT_READY, lun=b"\x40\0" + bytes(6))[0]["status"], 0)


class WindowTests(SynchronousTestCase):
    """The CmdSN window (RFC 7143 4.2.2.1) while commands do not end."""

    def setUp(self) -> None:
        self.device = FakeDevice()
        self.node, self.diary = makeNode(makeTarget(self.device), depth=4)
        self.line = Line(self.node)
        self.line.login()
        self.session = sessionOf(self.line)

    def reads(self, count: int) -> list[dict[str, Any]]:
        """Send so many reads."""
        return self.line.say(b"".join(self.line.build(read10(0, 1), read=512) for _ in range(count)))

    def test_closes(self) -> None:
        """The window closes as commands are outstanding, and each that ends opens it by one."""
        self.reads(4)
        self.assertEqual(self.session.expCmdSN, self.session.maxCmdSN + 1)
        for _ in range(4):
            self.device.operations[0].fire()
            (answer,) = self.line.take()
            self.assertEqual(answer["expCmdSN"], self.session.expCmdSN)
        self.assertEqual(self.session.maxCmdSN - self.session.expCmdSN, 3)

    def test_ignoredWhileClosed(self) -> None:
        """A command beyond the closed window is ignored, though it is the next; it may come again."""
        self.reads(4)
        cmdSN = self.line.cmdSN
        self.assertEqual(self.reads(1), [])
        self.assertEqual(len(self.device.operations), 4)
        self.assertEqual((self.session.expCmdSN, self.session.early), (cmdSN, {}))
        self.device.operations[0].fire()
        self.line.take()
        self.line.cmdSN = cmdSN
        self.reads(1)
        self.assertEqual(len(self.device.operations), 4)

    def test_otherPDUsWhileClosed(self) -> None:
        """Other numbered PDUs beyond the closed window are ignored too; immediate ones are served."""
        self.reads(4)
        self.assertEqual(self.line.say(pdus.nopOut(cmdSN=self.line.cmdSN, immediate=False)), [])
        (pong,) = self.line.say(pdus.nopOut())
        self.assertEqual(pong["maxCmdSN"], self.line.cmdSN - 1)

    def test_around(self) -> None:
        """The window goes round the end of the numbers."""
        self.session.expCmdSN, self.session.maxCmdSN = 0xFFFFFFFE, 1
        self.device.synchronous = True
        for cmdSN, maxCmdSN in ((0xFFFFFFFE, 2), (0xFFFFFFFF, 3), (0, 4), (1, 5)):
            (answer,) = self.line.command(read10(0, 1), read=512, cmdSN=cmdSN)
            self.assertEqual(answer["maxCmdSN"], maxCmdSN)

    def test_immediateBound(self) -> None:
        """There is a bound of immediate commands, too; one more is rejected."""
        stream = b"".join(
            self.line.build(read10(0, 1), read=512, immediate=True) for _ in range(IMMEDIATE_TASKS + 1)
        )
        (reject,) = self.line.say(stream)
        self.assertEqual((reject["opcode"], reject["reason"]), (numbers.REJECT, numbers.REASON_IMMEDIATE))
        self.device.operations[0].fire()
        self.line.take()
        self.assertEqual(self.line.command(read10(0, 1), read=512, immediate=True), [])

    def test_abortedImmediates(self) -> None:
        """An aborted immediate command counts as long as its device works for it."""
        for _ in range(3):
            for _ in range(IMMEDIATE_TASKS):
                self.line.command(read10(0, 1), read=512, immediate=True)
            self.line.say(pdus.taskManagement(numbers.ABORT_TASK_SET))
        self.assertEqual(len(self.device.operations), IMMEDIATE_TASKS)
        self.device.fire()
        self.assertEqual(self.session.immediates, 0)


class EarlyTests(SynchronousTestCase):
    """PDUs that come before their turn."""

    def setUp(self) -> None:
        self.device = MemoryDevice(1 << 20)
        self.line = loggedIn(self.device)
        self.session = sessionOf(self.line)

    def test_wholeWindow(self) -> None:
        """A whole window may come backwards and is then served in order."""
        first = self.line.cmdSN
        for cmdSN in range(first + 127, first, -1):
            self.assertEqual(self.line.command(read10(0, 1), read=512, itt=cmdSN, cmdSN=cmdSN), [])
        answers = self.line.command(read10(0, 1), read=512, itt=first, cmdSN=first)
        self.assertEqual([answer["itt"] for answer in answers], list(range(first, first + 128)))

    def test_deepWindow(self) -> None:
        """However many wait, they do not pile up on the stack."""
        node, diary = makeNode(makeTarget(self.device), depth=2000)
        line = Line(node)
        line.login()
        first = line.cmdSN
        stream = b"".join(
            pdus.nopOut(itt=cmdSN, cmdSN=cmdSN, immediate=False)
            if cmdSN & 1
            else pdus.scsiCommand(TEST_UNIT_READY, itt=cmdSN, cmdSN=cmdSN)
            for cmdSN in range(first + 1999, first - 1, -1)
        )
        answers = line.say(stream)
        self.assertEqual([answer["itt"] for answer in answers], list(range(first, first + 2000)))
        self.assertEqual(diary.entries, [("loggedIn",)])

    def test_bounded(self) -> None:
        """Only PDUs within the window are kept, each number once: the first that came counts."""
        first = self.line.cmdSN
        for _ in range(3):
            for cmdSN in range(first + 1, first + 300):
                self.line.say(pdus.nopOut(b"%d" % cmdSN, itt=cmdSN, cmdSN=cmdSN, immediate=False))
        self.assertEqual(len(self.session.early), self.session.depth - 1)
        self.line.say(pdus.nopOut(b"late", itt=1, cmdSN=first + 1, immediate=False))
        answers = self.line.say(pdus.nopOut(itt=first, cmdSN=first, immediate=False))
        self.assertEqual(answers[1]["data"], b"%d" % (first + 1))
        self.assertEqual((len(answers), self.session.early), (self.session.depth, {}))

    def test_bytes(self) -> None:
        """A session that sends megabytes before their turn ends, and its memory is given back."""
        line = loggedIn(self.device, FirstBurstLength="262144")
        session, first = sessionOf(line), line.cmdSN
        for number in range(EARLY // 65584):
            line.command(write10(0, 128), write=65536, data=bytes(65536), cmdSN=first + 1 + number)
        self.assertFalse(line.closed)
        line.command(write10(0, 128), write=65536, data=bytes(65536), cmdSN=first + 120)
        self.assertEqual((line.closed, session.early, session.earlyBytes), (True, {}, 0))

    def test_bytesAgain(self) -> None:
        """What has had its turn is not counted any more."""
        for _ in range(EARLY // 30000):
            cmdSN = self.line.cmdSN
            self.line.command(write10(0, 64), write=32768, data=bytes(32768), cmdSN=cmdSN + 1)
            self.line.command(TEST_UNIT_READY, cmdSN=cmdSN)
            self.line.cmdSN += 2
        self.assertEqual((self.line.closed, self.session.earlyBytes), (False, 0))

    def test_withData(self) -> None:
        """What came early keeps its immediate data and its additional header segments."""
        data = bytes(range(256)) * 128
        cmdSN = self.line.cmdSN
        later = self.line.build(write10(0, 64), write=32768, data=data, cmdSN=cmdSN + 1)
        ahs = b"\0\x11\1\0" + bytes(16)
        last = self.line.build(b"\x7f" + bytes(15), ahs=ahs, cmdSN=cmdSN + 2)
        for part in (later[:100], later[100:], last):
            self.assertEqual(self.line.say(part), [])
        statuses = [answer["status"] for answer in self.line.command(TEST_UNIT_READY)]
        self.assertEqual(statuses, [0, 0, 2])
        self.assertEqual(self.device.read(0, 32768), data)

    def test_rejected(self) -> None:
        """A PDU that came early and is wrong is rejected in its turn, and the next ones are served."""
        cmdSN = self.line.cmdSN
        bad = self.line.build(TEST_UNIT_READY, ahs=b"\0\5\x2a\0\0\0\0\0", cmdSN=cmdSN + 1)
        good = self.line.build(TEST_UNIT_READY, cmdSN=cmdSN + 2)
        self.assertEqual(self.line.say(bad + good), [])
        kinds = [answer["opcode"] for answer in self.line.command(TEST_UNIT_READY)]
        self.assertEqual(kinds, [numbers.SCSI_RESPONSE, numbers.REJECT, numbers.SCSI_RESPONSE])

    def test_afterReject(self) -> None:
        """A PDU that is rejected and was the missing one lets those behind it go on."""
        for wrong in (
            lambda cmdSN: pdus.textRequest(b"", ttt=5, cmdSN=cmdSN, immediate=False),
            lambda cmdSN: pdus.scsiCommand(TEST_UNIT_READY, itt=1, cmdSN=cmdSN, ahs=bytes(4)),
        ):
            cmdSN = self.line.cmdSN
            self.line.say(pdus.nopOut(b"next", cmdSN=cmdSN + 1, immediate=False))
            reject, pong = self.line.say(wrong(cmdSN))
            self.assertEqual((reject["opcode"], pong["data"]), (numbers.REJECT, b"next"))
            self.line.cmdSN += 2

    def test_logout(self) -> None:
        """A logout that came early ends the session in its turn, and what came after it is not served."""
        cmdSN = self.line.cmdSN
        logout = bytearray(pdus.logoutRequest(cmdSN=cmdSN + 1))
        logout[0] &= ~numbers.IMMEDIATE
        ping = pdus.nopOut(cmdSN=cmdSN + 2, immediate=False)
        self.assertEqual(self.line.say(ping + bytes(logout)), [])
        kinds = [answer["opcode"] for answer in self.line.command(TEST_UNIT_READY)]
        self.assertEqual(kinds, [numbers.SCSI_RESPONSE, numbers.LOGOUT_RESPONSE])
        self.assertTrue(self.line.closed)

    def test_badPDU(self) -> None:
        """A rejected command gives its place in the window back at once."""
        before = self.session.maxCmdSN
        self.line.command(TEST_UNIT_READY, ahs=b"\0\5\x2a\0\0\0\0\0")
        self.assertEqual(self.session.maxCmdSN, before + 1)
        self.line.command(TEST_UNIT_READY, ahs=b"\0\5\x2a\0\0\0\0\0", immediate=True)
        self.assertEqual((self.session.maxCmdSN, self.session.immediates), (before + 1, 0))
