"""RFC 7143 11.3 to 11.8: commands, their data, their responses, task management."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import (
    DATA_IN,
    R2T,
    SCSI_RESPONSE,
    TEST_UNIT_READY,
    Line,
    loggedIn,
    makeNode,
    makeTarget,
    read10,
    write10,
)

LENGTH = 8192


class ResponseTests(SynchronousTestCase):
    """SCSI Response."""

    def setUp(self) -> None:
        self.line = loggedIn(InitialR2T="No")

    def test_residualFlags(self) -> None:
        """
        RFC 7143 11.4.1: "For a response other than "Command Completed at Target", bits 3-6 MUST be 0."

        And O and U are never both set.
        """
        for expected in (1, 512, 1024):
            (answer,) = self.line.command(read10(0, 1), read=expected)
            self.assertIn(answer["flags"] & 0x7E, (0, numbers.OVERFLOW, numbers.UNDERFLOW))

    def test_dataStillExpected(self) -> None:
        """
        RFC 7143 11.4.2: "the target MUST wait until it receives a data PDU with the F bit set"

        In the last expected sequence, before it answers a command that has failed.
        """
        self.assertEqual(self.line.command(write10(99999, 16), write=LENGTH, final=False), [])
        first = pdus.dataOut(bytes(4096), itt=self.line.itt, final=False)
        self.assertEqual(self.line.say(first), [])
        (answer,) = self.line.say(pdus.dataOut(bytes(4096), itt=self.line.itt, dataSN=1, offset=4096))
        self.assertEqual((answer["opcode"], answer["status"]), (SCSI_RESPONSE, 2))

    def test_autosense(self) -> None:
        """
        RFC 7143 11.4.7: "iSCSI targets MUST support and enable Autosense."
        """
        (answer,) = self.line.command(read10(99999, 1), read=512)
        self.assertEqual((answer["status"], answer["data"][14:16]), (2, b"\x21\0"))

    def test_senseData(self) -> None:
        """
        RFC 7143 11.4.7: "then the data segment MUST contain sense data for the failed command"
        """
        (answer,) = self.line.command(b"\xff" + bytes(15))
        self.assertEqual(int.from_bytes(answer["data"][:2], "big"), len(answer["data"]) - 2)
        self.assertGreater(len(answer["data"]), 18)

    def test_expDataSN(self) -> None:
        """
        RFC 7143 11.4.8: "This field MUST be 0 if"

        No Data-In was sent for the command, else their number.
        """
        (answer,) = self.line.command(TEST_UNIT_READY)
        self.assertEqual(answer["expDataSN"], 0)


class DataInTests(SynchronousTestCase):
    """Data-In."""

    def reads(self, **keys: str) -> list[dict[str, Any]]:
        """Read eight blocks."""
        return loggedIn(**keys).command(read10(0, 8), read=4096)

    def test_statusIsFinal(self) -> None:
        """
        RFC 7143 11.7.3: "If the S bit is set to 1, the F bit MUST also be set to 1."
        """
        for answer in self.reads(MaxRecvDataSegmentLength="512", MaxBurstLength="1024"):
            self.assertTrue(not answer["flags"] & 1 or answer["flags"] & 0x80)

    def test_goodOnly(self) -> None:
        """
        RFC 7143 11.7.3: "status can be returned in the final Data-In PDU"

        Only where there is no sense.
        A command that fails is answered with a SCSI Response.
        """
        (answer,) = loggedIn().command(read10(99999, 1), read=512)
        self.assertEqual(answer["opcode"], SCSI_RESPONSE)

    def test_statSN(self) -> None:
        """
        RFC 7143 11.7.5: "This field MUST only be set if the S bit is set to 1."
        """
        answers = self.reads(MaxRecvDataSegmentLength="512")
        self.assertEqual([bool(answer["statSN"]) for answer in answers], [False] * 7 + [True])

    def test_noAcknowledgement(self) -> None:
        """
        RFC 7143 11.7.2: "For sessions with ErrorRecoveryLevel=1 or higher, the target sets this bit"

        At level 0 the A bit is never set, and the transfer tag is the reserved one.
        """
        for answer in self.reads(MaxRecvDataSegmentLength="512"):
            self.assertEqual((answer["flags"] & 0x40, answer["ttt"]), (0, numbers.NO_TAG))

    def test_segmentLength(self) -> None:
        """
        RFC 7143 11.7.7: "MUST NOT exceed MaxRecvDataSegmentLength for the direction it is sent"
        """
        for answer in self.reads(MaxRecvDataSegmentLength="600"):
            self.assertLessEqual(answer["lengths"], 600)

    def test_burstLength(self) -> None:
        """
        RFC 7143 11.7.7: "the total of all the DataSegmentLength of all PDUs in a sequence MUST NOT ..."
        """
        sequence = 0
        for answer in self.reads(MaxRecvDataSegmentLength="600", MaxBurstLength="1000"):
            sequence += answer["lengths"]
            self.assertLessEqual(sequence, 1000)
            if answer["flags"] & 0x80:
                sequence = 0

    def test_inOrder(self) -> None:
        """
        RFC 7143 13.18: "the data within PDUs is to be in continuously increasing order"

        With DataPDUInOrder=Yes.
        """
        answers = self.reads(MaxRecvDataSegmentLength="512", DataPDUInOrder="No")
        self.assertEqual([answer["bufferOffset"] for answer in answers], list(range(0, 4096, 512)))


class DataOutTests(SynchronousTestCase):
    """Data-Out and R2T."""

    def setUp(self) -> None:
        self.device = MemoryDevice(1 << 20)
        self.data = bytes(range(256)) * (LENGTH // 256)
        self.line = loggedIn(self.device, InitialR2T="Yes", ImmediateData="No", MaxBurstLength="4096")

    def dataOut(self, r2t: dict[str, Any], begin: int, end: int, **options: Any) -> list[dict[str, Any]]:
        """Send part of the data."""
        stream = pdus.dataOut(self.data[begin:end], itt=r2t["itt"], ttt=r2t["ttt"], offset=begin, **options)
        return self.line.say(stream)

    def test_emptySegments(self) -> None:
        """
        RFC 7143 11.7.7: "initiators and targets MUST be able to properly receive 0-length data segments"
        """
        (r2t,) = self.line.command(write10(0, 8), write=4096)
        for number in range(5):
            self.assertEqual(self.dataOut(r2t, 0, 0, dataSN=number, final=False), [])
        self.assertEqual(self.dataOut(r2t, 0, 4096, dataSN=5, final=False), [])
        (answer,) = self.dataOut(r2t, 4096, 4096, dataSN=6)
        self.assertEqual((answer["status"], self.device.read(0, 4096)), (0, self.data[:4096]))

    def test_desiredLength(self) -> None:
        """
        RFC 7143 11.8.4: "The Desired Data Transfer Length MUST NOT be 0 and MUST NOT exceed MaxBurstLength."
        """
        for length in (512, 4096, 4608, LENGTH):
            (r2t,) = self.line.command(write10(0, length // 512), write=length)
            wanted = [r2t["desiredLength"]]
            begin = 0
            while r2t["opcode"] == R2T:
                end = begin + r2t["desiredLength"]
                (r2t,) = self.dataOut(r2t, begin, end)
                begin = end
                wanted.append(r2t.get("desiredLength", 4096))
            self.assertTrue(all(0 < each <= 4096 for each in wanted))
            self.assertEqual(begin, length)

    def test_transferTag(self) -> None:
        """
        RFC 7143 11.8.5: "the value 0xffffffff is reserved and MUST NOT be sent by a target in an R2T"
        """
        self.line.core._transferTag = 0xFFFFFFFD
        tags = [self.line.command(write10(0, 1), write=512)[0]["ttt"] for _ in range(3)]
        self.assertEqual(tags, [0xFFFFFFFE, 0, 1])

    def test_statSN(self) -> None:
        """
        RFC 7143 11.8.2: "The StatSN for this connection is not advanced after this PDU is sent."
        """
        statSN = self.line.core.statSN
        (r2t,) = self.line.command(write10(0, 1), write=512)
        (answer,) = self.line.command(TEST_UNIT_READY)
        self.assertEqual((r2t["statSN"], answer["statSN"]), (statSN, statSN))

    def test_outstanding(self) -> None:
        """
        RFC 7143 13.17: "the maximum number of outstanding R2Ts per task"

        Is never exceeded.
        """
        for most in (1, 2, 3):
            line = loggedIn(ImmediateData="No", MaxBurstLength="512", MaxOutstandingR2T=str(most))
            self.assertEqual(len(line.command(write10(0, 16), write=LENGTH)), most)

    def test_initialR2T(self) -> None:
        """
        RFC 7143 13.10: "InitialR2T"

        Decides whether data may come unasked; with Yes all are asked for.
        """
        (r2t,) = self.line.command(write10(0, 8), write=4096, final=False)
        self.assertEqual((r2t["opcode"], r2t["bufferOffset"]), (R2T, 0))

    def test_immediateData(self) -> None:
        """
        RFC 7143 13.11: "ImmediateData"

        =No forbids data with the command.
        A command that brings some ends with the condition of unexpected unsolicited data (11.4.7.2).
        """
        (answer,) = self.line.command(write10(0, 1), write=512, data=bytes(512))
        self.assertEqual((answer["status"], answer["data"][14:16].hex()), (2, "0c0c"))

    def test_badDigest(self) -> None:
        """
        RFC 7143 7.8: "it MUST wait to receive all the data (signaled by a data PDU with the Final bit set"

        Before it ends a task one of whose data PDUs failed its digest.
        """
        self.line = loggedIn(self.device, ImmediateData="No", DataDigest="CRC32C")
        (r2t,) = self.line.command(write10(0, 8), write=4096)
        spoilt = bytearray(
            pdus.dataOut(bytes(2048), itt=r2t["itt"], ttt=r2t["ttt"], final=False, digests=(False, True))
        )
        spoilt[-1] ^= 1
        (reject,) = self.line.say(bytes(spoilt))
        self.assertEqual((reject["opcode"], reject["reason"]), (numbers.REJECT, 2))
        (answer,) = self.dataOut(r2t, 2048, 4096, dataSN=1, digests=(False, True))
        self.assertEqual((answer["status"], answer["data"][14:16].hex()), (2, "4705"))

    def test_outOfOrder(self) -> None:
        """
        RFC 7143 7.9: "The target MUST address these implied digest errors"

        When a DataSN is out of order.
        The task ends as for a digest error, when all its data have come.
        """
        (r2t,) = self.line.command(write10(0, 8), write=4096)
        self.assertEqual(self.dataOut(r2t, 0, 2048, dataSN=1, final=False), [])
        (answer,) = self.dataOut(r2t, 2048, 4096, dataSN=2)
        self.assertEqual((answer["status"], answer["data"][14:16].hex()), (2, "4705"))
        self.assertEqual(self.device.read(0, 4096), bytes(4096))


class ManagementTests(SynchronousTestCase):
    """Task management."""

    def setUp(self) -> None:
        self.device = FakeDevice()
        self.node, _ = makeNode(makeTarget(self.device))
        self.line, self.other = Line(self.node), Line(self.node)
        self.line.login()
        self.other.login(InitiatorName="iqn.2001-04.com.example:other")
        self.line.command(read10(0, 1), read=512)
        self.other.command(read10(0, 1), read=512)

    def manage(self, function: int, **options: Any) -> int:
        """Request a function; the response."""
        answer = self.line.say(pdus.taskManagement(function, **options))[-1]
        self.assertEqual(answer["opcode"], numbers.TASK_MANAGEMENT_RESPONSE)
        response: int = answer["response"]
        return response

    def test_nothingAfter(self) -> None:
        """
        RFC 7143 11.5.1: "The iSCSI target MUST ensure that no responses for the tasks covered by a task ..."

        Are delivered after the response to the function.
        """
        functions: list[tuple[int, dict[str, Any]]] = [
            (numbers.ABORT_TASK, {"referenced": self.line.itt}), (numbers.ABORT_TASK_SET, {}),
            (numbers.CLEAR_TASK_SET, {}), (numbers.LOGICAL_UNIT_RESET, {}), (numbers.TARGET_WARM_RESET, {}),
        ]  # fmt: skip
        for function, options in functions:
            self.line.command(read10(0, 1), read=512, itt=self.line.itt)
            self.manage(function, **options)
            self.device.fire()
            self.assertEqual(self.line.take(), [])
            while self.line.command(TEST_UNIT_READY, itt=0x999)[0]["status"]:
                pass

    def test_coldReset(self) -> None:
        """
        RFC 7143 11.5.1: "the target then MUST terminate all of its TCP connections to all initiators"

        On TARGET COLD RESET.
        """
        self.assertEqual(self.manage(numbers.TARGET_COLD_RESET), 0)
        self.assertEqual((self.line.closed, self.other.closed, self.node.sessions), (True, True, set()))

    def test_notYetReceived(self) -> None:
        """
        RFC 7143 11.6.1: "targets must consider the CmdSN received and return the "Function complete" ..."

        To ABORT TASK for a command within the window that has not come; it is then not carried out.
        """
        cmdSN = self.line.cmdSN
        response = self.manage(numbers.ABORT_TASK, referenced=0x888, refCmdSN=cmdSN, cmdSN=cmdSN + 1)
        self.assertEqual(response, numbers.FUNCTION_COMPLETE)
        self.assertEqual(self.line.command(read10(0, 1), read=512, itt=0x888, cmdSN=cmdSN), [])
        self.assertNotIn(0x888, self.line.core.session.tasks)  # type: ignore[union-attr]

    def test_outsideWindow(self) -> None:
        """
        RFC 7143 11.6.1: "targets must return the "Task does not exist" response"

        Outside the window.
        """
        response = self.manage(numbers.ABORT_TASK, referenced=0x888, refCmdSN=self.line.cmdSN - 1, cmdSN=99)
        self.assertEqual(response, numbers.NO_SUCH_TASK)

    def test_reassign(self) -> None:
        """
        RFC 7143 11.6.1: "Task allegiance reassignment not supported"

        Is the answer at level 0.
        """
        self.assertEqual(self.manage(numbers.TASK_REASSIGN), 4)

    def test_dataInKind(self) -> None:
        """
        RFC 7143 11.7: "The SCSI Data-In PDU"

        Carries all data of a read that nothing aborted.
        """
        self.device.fire()
        (answer,) = self.line.take()
        self.assertEqual((answer["opcode"], len(answer["data"])), (DATA_IN, 512))
