"""Tests for L{iscsi_twisted.session.management}: task management; ABORT TASK stands in the tests of tasks."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.session import IMMEDIATE_TASKS
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import TEST_UNIT_READY, Line, makeNode, makeTarget, read10, write10

LUN1 = b"\0\1" + bytes(6)
LUN5 = b"\0\5" + bytes(6)


class ManagementTests(SynchronousTestCase):
    """Two sessions with one target of two units."""

    def setUp(self) -> None:
        self.devices = [FakeDevice(), FakeDevice()]
        self.target = makeTarget(*self.devices)
        self.node, self.diary = makeNode(self.target)
        self.mine, self.other = Line(self.node), Line(self.node)
        self.mine.login()
        self.other.login(InitiatorName="iqn.2001-04.com.example:other")
        self.diary.entries.clear()
        self.tasks: dict[tuple[str, int], int] = {}
        for name, line in self.lines().items():
            for number, lun in enumerate((bytes(8), LUN1)):
                line.command(read10(0, 1), read=512, lun=lun)
                self.tasks[name, number] = line.itt

    def lines(self) -> dict[str, Line]:
        """Both sessions."""
        return {"mine": self.mine, "other": self.other}

    def manage(self, function: int, **options: Any) -> int:
        """Request a function; the response."""
        (answer,) = self.mine.say(pdus.taskManagement(function, itt=0x55, **options))
        self.assertEqual((answer["opcode"], answer["itt"]), (numbers.TASK_MANAGEMENT_RESPONSE, 0x55))
        response: int = answer["response"]
        return response

    def left(self) -> set[tuple[str, int]]:
        """The tasks that still answer when all devices have ended."""
        for device in self.devices:
            device.fire()
        answered = {name: {answer["itt"] for answer in line.take()} for name, line in self.lines().items()}
        return {key for key, itt in self.tasks.items() if itt in answered[key[0]]}

    def attention(self, line: Line, lun: bytes = bytes(8)) -> str:
        """The unit attention that a nexus is told next, or an empty string."""
        (answer,) = line.command(TEST_UNIT_READY, lun=lun)
        if not answer["status"]:
            return ""
        self.assertEqual(answer["data"][4] & 15, 6)
        code: str = answer["data"][14:16].hex()
        return code

    def attentions(self) -> dict[tuple[str, int], str]:
        """What every nexus is told by every unit."""
        return {
            (name, number): self.attention(line, lun)
            for name, line in self.lines().items()
            for number, lun in enumerate((bytes(8), LUN1))
        }

    def test_abortTaskSet(self) -> None:
        """ABORT TASK SET aborts this nexus' tasks on one unit, and nobody else hears of it."""
        self.assertEqual(self.manage(numbers.ABORT_TASK_SET), numbers.FUNCTION_COMPLETE)
        self.assertEqual(self.left(), {("mine", 1), ("other", 0), ("other", 1)})
        self.assertEqual(set(self.attentions().values()), {""})
        self.assertEqual(self.diary.entries, [])

    def test_clearTaskSet(self) -> None:
        """CLEAR TASK SET aborts all tasks on one unit; those of others who had any are told."""
        third = Line(self.node)
        third.login(InitiatorName="iqn.2001-04.com.example:third")
        self.diary.entries.clear()
        self.assertEqual(self.manage(numbers.CLEAR_TASK_SET, lun=LUN1), numbers.FUNCTION_COMPLETE)
        self.assertEqual(self.left(), {("mine", 0), ("other", 0)})
        told = {key for key, code in self.attentions().items() if code}
        self.assertEqual(told, {("other", 1)})
        self.assertEqual(self.attention(third, LUN1), "")
        self.assertEqual(self.diary.entries, [("reset", "clear task set", 1)])

    def test_clearTaskSetCode(self) -> None:
        """What they are told is COMMANDS CLEARED BY ANOTHER INITIATOR, once."""
        self.manage(numbers.CLEAR_TASK_SET)
        self.assertEqual((self.attention(self.other), self.attention(self.other)), ("2f00", ""))

    def test_clearACA(self) -> None:
        """CLEAR ACA has nothing to clear and harms nobody."""
        self.assertEqual(self.manage(numbers.CLEAR_ACA), numbers.FUNCTION_COMPLETE)
        self.assertEqual(self.left(), set(self.tasks))

    def test_clearedACA(self) -> None:
        """An error of a command with NACA lets all others wait until its nexus clears the condition."""
        beyond = bytes.fromhex("2800ffffffff00000104")
        (answer,) = self.mine.command(beyond, read=512)
        self.assertEqual(answer["status"], 2)
        self.assertEqual(self.other.command(TEST_UNIT_READY)[0]["status"], 0x08)
        self.assertEqual(self.mine.command(TEST_UNIT_READY)[0]["status"], 0x30)
        self.assertEqual(self.left(), {("mine", 1), ("other", 1)})
        answers = self.mine.say(pdus.taskManagement(numbers.CLEAR_ACA, itt=0x55))
        self.assertEqual({answer["itt"] for answer in answers}, {0x55, self.tasks["mine", 0]})
        self.assertEqual([answer["itt"] for answer in self.other.take()], [self.tasks["other", 0]])
        self.assertEqual(self.other.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_unitReset(self) -> None:
        """LOGICAL UNIT RESET aborts everybody's tasks on one unit, and everybody is told."""
        self.assertEqual(self.manage(numbers.LOGICAL_UNIT_RESET, lun=LUN1), numbers.FUNCTION_COMPLETE)
        self.assertEqual(self.left(), {("mine", 0), ("other", 0)})
        self.assertEqual(
            self.attentions(),
            {("mine", 0): "", ("mine", 1): "2903", ("other", 0): "", ("other", 1): "2903"},
        )
        self.assertEqual(self.diary.entries, [("reset", "logical unit reset", 1)])

    def test_warmReset(self) -> None:
        """TARGET WARM RESET aborts all tasks and resets all units; sessions stay."""
        self.assertEqual(self.manage(numbers.TARGET_WARM_RESET), numbers.FUNCTION_COMPLETE)
        self.assertEqual(self.left(), set())
        self.assertEqual(set(self.attentions().values()), {"2903"})
        self.assertEqual(self.diary.entries, [("reset", "target warm reset", None)])

    def test_coldReset(self) -> None:
        """TARGET COLD RESET is answered, then all sessions of the target end; others stay."""
        elsewhere = Line(self.node)
        elsewhere.login(SessionType="Discovery")
        self.assertEqual(self.manage(numbers.TARGET_COLD_RESET), numbers.FUNCTION_COMPLETE)
        self.assertEqual([line.closed for line in (self.mine, self.other, elsewhere)], [True, True, False])
        self.assertEqual((self.left(), self.target.sessions), (set(), {}))
        reasons = [entry[1] for entry in self.diary.entries if entry[0] == "lost"]
        self.assertEqual(reasons, ["target cold reset"] * 2)

    def test_places(self) -> None:
        """Aborted tasks keep their places in the window until their devices have ended."""
        assert self.mine.core.session is not None
        session = self.mine.core.session
        before = session.maxCmdSN
        self.manage(numbers.TARGET_WARM_RESET)
        self.assertEqual((session.maxCmdSN, session.tasks), (before, {}))
        self.left()
        self.assertEqual(session.maxCmdSN, before + 2)

    def test_noUnit(self) -> None:
        """Functions on a unit that is not there are answered so."""
        for function in (
            numbers.ABORT_TASK_SET,
            numbers.CLEAR_ACA,
            numbers.CLEAR_TASK_SET,
            numbers.LOGICAL_UNIT_RESET,
        ):
            for lun in (LUN5, b"\xff" * 8):
                self.assertEqual(self.manage(function, lun=lun), numbers.NO_SUCH_LUN)
        self.assertEqual(self.left(), set(self.tasks))

    def test_others(self) -> None:
        """TASK REASSIGN belongs to a higher recovery level; other functions do not exist."""
        self.assertEqual(self.manage(numbers.TASK_REASSIGN), numbers.REASSIGN_NOT_SUPPORTED)
        for function in (0, 9, 14, 127):
            self.assertEqual(self.manage(function), numbers.FUNCTION_NOT_SUPPORTED)
        self.assertEqual(self.left(), set(self.tasks))

    def test_numbered(self) -> None:
        """A request that is not immediate takes its CmdSN and is served in its turn."""
        cmdSN = self.mine.cmdSN
        later = pdus.taskManagement(numbers.ABORT_TASK_SET, cmdSN=cmdSN + 1, immediate=False)
        self.assertEqual(self.mine.say(later), [])
        self.mine.command(read10(0, 1), read=512)
        self.assertEqual(self.left(), {("mine", 1), ("other", 0), ("other", 1)})

    def test_lowerCommands(self) -> None:
        """An immediate function waits for the commands before it, and covers them (RFC 7143 4.2.3.3)."""
        cmdSN = self.mine.cmdSN
        for function in (numbers.ABORT_TASK_SET, numbers.CLEAR_TASK_SET, numbers.LOGICAL_UNIT_RESET):
            cmdSN = self.mine.cmdSN
            request = pdus.taskManagement(function, cmdSN=cmdSN + 2, itt=function)
            self.assertEqual(self.mine.say(request), [])
            self.assertEqual(self.mine.command(read10(0, 1), read=512, cmdSN=cmdSN), [])
            (answer,) = self.mine.command(read10(0, 1), read=512, cmdSN=cmdSN + 1)
            self.assertEqual((answer["itt"], answer["response"]), (function, numbers.FUNCTION_COMPLETE))
            assert self.mine.core.session is not None
            self.assertNotIn(0, [task.lun for task in self.mine.core.session.tasks.values()])
            self.assertEqual(self.mine.core.session.early, {})
            self.mine.cmdSN = cmdSN + 2
            self.attention(self.mine)

    def test_earlyCommand(self) -> None:
        """A command that came early, but before the function, is covered as well; one behind it is not."""
        cmdSN = self.mine.cmdSN
        self.mine.command(read10(0, 1), read=512, cmdSN=cmdSN + 1, itt=0x771)
        self.mine.say(pdus.taskManagement(numbers.ABORT_TASK_SET, cmdSN=cmdSN + 2, itt=0x55))
        self.mine.command(read10(0, 1), read=512, cmdSN=cmdSN + 2, itt=0x772)
        (answer,) = self.mine.command(read10(0, 1), read=512, cmdSN=cmdSN, itt=0x770)
        self.assertEqual((answer["itt"], answer["response"]), (0x55, numbers.FUNCTION_COMPLETE))
        self.devices[0].fire()
        self.assertEqual([answer["itt"] for answer in self.mine.take()], [0x772])

    def test_severalWait(self) -> None:
        """Several functions may wait, are served in order, and have a bound."""
        cmdSN = self.mine.cmdSN
        requests = [
            pdus.taskManagement(numbers.ABORT_TASK_SET, cmdSN=cmdSN + 1, itt=number)
            for number in range(IMMEDIATE_TASKS + 2)
        ]
        rejects = self.mine.say(b"".join(requests))
        self.assertEqual([reject["reason"] for reject in rejects], [numbers.REASON_IMMEDIATE] * 2)
        answers = self.mine.command(TEST_UNIT_READY, cmdSN=cmdSN)
        kinds = [answer["opcode"] for answer in answers]
        self.assertEqual(kinds, [0x21] + [numbers.TASK_MANAGEMENT_RESPONSE] * IMMEDIATE_TASKS)
        self.assertEqual([answer["itt"] for answer in answers[1:]], list(range(IMMEDIATE_TASKS)))

    def test_beyondWindow(self) -> None:
        """A number beyond the window is not waited for."""
        (answer,) = self.mine.say(
            pdus.taskManagement(numbers.LOGICAL_UNIT_RESET, cmdSN=self.mine.cmdSN + 0x10000)
        )
        self.assertEqual(answer["response"], numbers.FUNCTION_COMPLETE)

    def test_targetCovers(self) -> None:
        """For a reset of the target the commands before it count as received; they are not carried out."""
        assert self.mine.core.session is not None
        session, cmdSN = self.mine.core.session, self.mine.cmdSN
        room = session.maxCmdSN
        self.mine.command(read10(0, 1), read=512, cmdSN=cmdSN + 1)
        self.mine.command(read10(0, 1), read=512, cmdSN=cmdSN + 4, itt=0x774)
        (answer,) = self.mine.say(pdus.taskManagement(numbers.TARGET_WARM_RESET, cmdSN=cmdSN + 3))
        self.assertEqual((answer["response"], answer["expCmdSN"]), (0, cmdSN + 3))
        self.assertEqual((session.maxCmdSN, list(session.early)), (room + 3, [cmdSN + 4]))
        self.assertEqual(self.mine.command(read10(0, 1), read=512, cmdSN=cmdSN + 1), [])
        self.assertEqual(self.left(), set())

    def test_abortEarly(self) -> None:
        """ABORT TASK for a command that came before its turn drops it, data and all; others go on."""
        assert self.mine.core.session is not None
        session, cmdSN = self.mine.core.session, self.mine.cmdSN
        self.mine.command(write10(0, 8), write=4096, data=bytes(4096), cmdSN=cmdSN + 1, itt=0x771)
        self.assertEqual(session.earlyBytes, 48 + 4096)
        answer = self.manage(numbers.ABORT_TASK, referenced=0x771, cmdSN=cmdSN + 2, refCmdSN=cmdSN + 1)
        self.assertEqual((answer, session.earlyBytes), (numbers.FUNCTION_COMPLETE, 48))
        answers = self.mine.command(TEST_UNIT_READY, cmdSN=cmdSN)
        self.assertEqual([each["opcode"] for each in answers], [0x21])
        self.assertEqual((session.earlyBytes, session.expCmdSN), (0, cmdSN + 2))

    def test_reservedTag(self) -> None:
        """A request with the reserved task tag is rejected."""
        (reject,) = self.mine.say(pdus.taskManagement(numbers.TARGET_COLD_RESET, itt=numbers.NO_TAG))
        self.assertEqual((reject["opcode"], reject["reason"]), (numbers.REJECT, numbers.REASON_INVALID_FIELD))
        self.assertFalse(self.mine.closed)

    def test_idempotent(self) -> None:
        """Resets over and over leave one unit attention, not many."""
        for _ in range(50):
            self.manage(numbers.LOGICAL_UNIT_RESET)
        self.assertEqual((self.attention(self.other), self.attention(self.other)), ("2903", ""))

    def test_reader(self) -> None:
        """Who may only read ends nothing of those who may write."""
        (session,) = [
            each for each in self.target.sessions.values() if "other" not in each.nexus.initiatorName
        ]
        session.nexus.readOnly = True
        for function in (
            numbers.CLEAR_TASK_SET, numbers.LOGICAL_UNIT_RESET, numbers.TARGET_WARM_RESET,
            numbers.TARGET_COLD_RESET,
        ):  # fmt: skip
            self.assertEqual(self.manage(function), numbers.FUNCTION_NOT_AUTHORIZED)
        self.assertEqual(self.left(), set(self.tasks))
