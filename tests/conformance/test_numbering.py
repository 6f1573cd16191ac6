"""RFC 7143 chapter 4: numbers, order, allegiance, tags."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import TEST_UNIT_READY, Line, loggedIn, makeNode, makeTarget, read10, write10


class CommandNumberTests(SynchronousTestCase):
    """Command numbering and acknowledging."""

    def setUp(self) -> None:
        self.device = MemoryDevice(1 << 20)
        self.line = loggedIn(self.device)

    def test_order(self) -> None:
        """
        RFC 7143 4.2.2.1: "the iSCSI target layer MUST deliver the commands for execution"

        In the order of CmdSN: a read that comes first but is numbered second sees what the write before
        it wrote.
        """
        cmdSN = self.line.cmdSN
        self.assertEqual(self.line.command(read10(0, 1), read=512, cmdSN=cmdSN + 1), [])
        written, read = self.line.command(write10(0, 1), write=512, data=b"w" * 512, cmdSN=cmdSN)
        self.assertEqual((written["status"], read["data"]), (0, b"w" * 512))

    def test_immediateNumber(self) -> None:
        """
        RFC 7143 4.2.2.1: "the CmdSN is not advanced"

        For commands marked for immediate delivery.
        The number that an immediate command carries is still the next one's.
        """
        cmdSN = self.line.cmdSN
        (answer,) = self.line.command(TEST_UNIT_READY, immediate=True)
        self.assertEqual(answer["expCmdSN"], cmdSN)
        (answer,) = self.line.command(TEST_UNIT_READY, cmdSN=cmdSN)
        self.assertEqual(answer["expCmdSN"], cmdSN + 1)

    def test_outsideWindow(self) -> None:
        """
        RFC 7143 4.2.2.1: "The target MUST silently ignore any non-immediate command outside of this range"

        No answer, and nothing done, below and above the window.
        """
        session = self.line.core.session
        assert session is not None
        for cmdSN in (session.expCmdSN - 1, session.maxCmdSN + 1, session.expCmdSN + 0x80000000):
            stream = self.line.build(write10(0, 1), write=512, data=b"x" * 512, cmdSN=cmdSN & 0xFFFFFFFF)
            self.assertEqual(self.line.say(stream), [])
        self.assertEqual(self.device.read(0, 512), bytes(512))

    def test_duplicates(self) -> None:
        """
        RFC 7143 4.2.2.1: "or non-immediate duplicates within the range"

        The first of two commands with one number counts.
        """
        cmdSN = self.line.cmdSN
        for byte in (b"1", b"2"):
            self.line.command(write10(0, 1), write=512, data=byte * 512, cmdSN=cmdSN + 1)
        answers = self.line.command(TEST_UNIT_READY, cmdSN=cmdSN)
        self.assertEqual((len(answers), self.device.read(0, 1)), (2, b"1"))

    def test_window(self) -> None:
        """
        RFC 7143 4.2.2.1: "the target MUST NOT transmit a MaxCmdSN that is less than ExpCmdSN - 1"

        Nor does MaxCmdSN ever go back, whatever ends in whatever order.
        """
        device = FakeDevice()
        line = loggedIn(device)
        answers = []
        for _ in range(200):
            answers += line.command(read10(0, 1), read=512)
            if len(device.operations) > 100:
                device.operations[-1].fire()
                device.operations[0].fire()
                answers += line.take()
        device.fire()
        answers += line.take()
        self.assertEqual(len(answers), 200)
        windows = [answer["maxCmdSN"] for answer in answers]
        self.assertEqual(windows, sorted(windows))
        for answer in answers:
            self.assertGreaterEqual(answer["maxCmdSN"], answer["expCmdSN"] - 1)

    def test_statSN(self) -> None:
        """
        RFC 7143 4.2.2.2: "StatSN ... MUST be"

        Advanced by one for every response that carries status.
        Responses of all kinds count together; what carries no status takes none.
        """
        first = self.line.core.statSN
        stream = self.line.build(TEST_UNIT_READY) + self.line.build(read10(0, 1), read=512)
        stream += pdus.nopOut() + pdus.textRequest({}) + pdus.taskManagement(numbers.ABORT_TASK)
        stream += b"\x1c" + bytes(47) + pdus.logoutRequest()
        answers = self.line.say(stream)
        self.assertEqual([answer["statSN"] for answer in answers], list(range(first, first + 7)))

    def test_dataSN(self) -> None:
        """
        RFC 7143 4.2.2.4: "For input (read) data PDUs, DataSN MUST start with 0 for the first data PDU"
        """
        line = loggedIn(MaxRecvDataSegmentLength="512", MaxBurstLength="1024")
        for _ in range(2):
            answers = line.command(read10(0, 6), read=3072)
            self.assertEqual([answer["dataSN"] for answer in answers], list(range(6)))

    def test_r2tSN(self) -> None:
        """
        RFC 7143 4.2.2.4: "R2TSN MUST start with 0"

        For the first R2T of a command, and advance by 1.
        """
        line = loggedIn(ImmediateData="No", MaxBurstLength="512", MaxOutstandingR2T="8")
        for _ in range(2):
            r2ts = line.command(write10(0, 6), write=3072)
            self.assertEqual([r2t["r2tSN"] for r2t in r2ts], list(range(6)))


class ConnectionTests(SynchronousTestCase):
    """Sessions and their connections."""

    def test_allegiance(self) -> None:
        """
        RFC 7143 4.2.5.1: "the corresponding response and/or other related PDU(s) MUST be sent over the ..."

        Two initiators with equal tags have their own answers.
        """
        device = FakeDevice()
        node, _ = makeNode(makeTarget(device))
        lines = [Line(node), Line(node)]
        for number, line in enumerate(lines):
            line.login(InitiatorName=f"iqn.2001-04.com.example:host{number}")
            device.contents[number * 512] = number + 1
            line.command(read10(number, 1), read=512, itt=0x77)
        device.fire()
        for number, line in enumerate(lines):
            (answer,) = line.take()
            self.assertEqual((answer["itt"], answer["data"][0]), (0x77, number + 1))

    def test_oneNexus(self) -> None:
        """
        RFC 7143 4.4.3.1: "there MUST NOT be more than one session with a given ISID"

        Between an initiator and a target portal group: the older one ends.
        """
        node, _ = makeNode(makeTarget(MemoryDevice(512)))
        lines = [Line(node) for _ in range(3)]
        for line in lines:
            line.login()
        self.assertEqual([line.closed for line in lines], [True, True, False])
        self.assertEqual(len(node.sessions), 1)


class ClearingTests(SynchronousTestCase):
    """The effects of the multi-task functions."""

    def test_commandsBefore(self) -> None:
        """
        RFC 7143 4.2.3.3: "MUST wait for all commands of the affected tasks to be received"

        Based on the CmdSN ordering: an immediate request is carried out when the last of them has come.
        """
        line = loggedIn(FakeDevice())
        cmdSN = line.cmdSN
        self.assertEqual(line.say(pdus.taskManagement(numbers.ABORT_TASK_SET, cmdSN=cmdSN + 1)), [])
        (answer,) = line.command(read10(0, 1), read=512, cmdSN=cmdSN)
        self.assertEqual(answer["opcode"], numbers.TASK_MANAGEMENT_RESPONSE)
        self.assertEqual(line.core.session.tasks, {})  # type: ignore[union-attr]
