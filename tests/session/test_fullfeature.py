"""The full feature phase over a core without sockets (RFC 7143 chapters 4 and 11)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.wire import (
    DATA_IN,
    R2T,
    SCSI_RESPONSE,
    TEST_UNIT_READY,
    everySplit,
    loggedIn,
    read10,
    write10,
)


class ReadTests(SynchronousTestCase):
    """Data-In."""

    def test_collapsed(self) -> None:
        """A read that fits one PDU is answered with one Data-In that carries GOOD status."""
        device = MemoryDevice(1 << 20)
        line = loggedIn(device)
        device.write(4096, b"x" * 4096)
        (answer,) = line.command(read10(8, 8), read=4096)
        self.assertEqual(answer["opcode"], DATA_IN)
        self.assertEqual(answer["flags"], 0x81)
        self.assertEqual(answer["data"], b"x" * 4096)
        self.assertEqual((answer["dataSN"], answer["bufferOffset"], answer["residual"]), (0, 0, 0))

    def test_oneSend(self) -> None:
        """All commands of one receive are answered with one send, payloads as they came from the device."""
        line = loggedIn()
        line.core.receive(b"".join(line.build(read10(0, 8), read=4096) for _ in range(16)))
        self.assertEqual(len(line.sent), 1)
        self.assertEqual([len(buffer) for buffer in line.sent[0]], [48, 4096] * 16)

    def test_segments(self) -> None:
        """Longer data come in PDUs no longer than the initiator takes, F ends each burst, S the last."""
        device = MemoryDevice(1 << 20)
        data = bytes(range(256)) * 16
        line = loggedIn(device, MaxRecvDataSegmentLength="1024", MaxBurstLength="2048")
        device.write(0, data)
        answers = line.command(read10(0, 8), read=4096)
        self.assertEqual([a["flags"] for a in answers], [0, 0x80, 0, 0x81])
        self.assertEqual([a["dataSN"] for a in answers], [0, 1, 2, 3])
        self.assertEqual([a["bufferOffset"] for a in answers], [0, 1024, 2048, 3072])
        self.assertEqual(b"".join(a["data"] for a in answers), data)

    def test_underflow(self) -> None:
        """Less data than expected is an underflow of exactly the rest."""
        (answer,) = loggedIn().command(read10(0, 1), read=1024)
        self.assertEqual(answer["flags"], 0x81 | numbers.UNDERFLOW)
        self.assertEqual((answer["residual"], len(answer["data"])), (512, 512))

    def test_overflow(self) -> None:
        """More data than expected is cut, an overflow of exactly what was cut."""
        (answer,) = loggedIn().command(read10(0, 2), read=600)
        self.assertEqual(answer["flags"], 0x81 | numbers.OVERFLOW)
        self.assertEqual((answer["residual"], len(answer["data"])), (424, 600))

    def test_withoutReadFlag(self) -> None:
        """A read without the R bit transfers nothing and reports all of it as overflow."""
        (answer,) = loggedIn().command(read10(0, 1))
        self.assertEqual(answer["opcode"], SCSI_RESPONSE)
        self.assertEqual((answer["flags"], answer["residual"]), (0x80 | numbers.OVERFLOW, 512))

    def test_sense(self) -> None:
        """CHECK CONDITION carries its sense data, their length in front."""
        (answer,) = loggedIn().command(read10(99999, 1), read=512)
        self.assertEqual((answer["opcode"], answer["status"]), (SCSI_RESPONSE, 2))
        self.assertEqual(int.from_bytes(answer["data"][:2], "big"), len(answer["data"]) - 2)
        self.assertEqual(answer["data"][2] & 0x7F, 0x70)
        self.assertEqual((answer["data"][4] & 15, answer["data"][14:16]), (5, b"\x21\0"))
        self.assertEqual((answer["flags"], answer["residual"]), (0x80 | numbers.UNDERFLOW, 512))


class WriteTests(SynchronousTestCase):
    """Immediate, unsolicited and solicited data."""

    def setUp(self) -> None:
        self.device = MemoryDevice(1 << 20)
        self.data = bytes(range(256)) * 32

    def test_immediate(self) -> None:
        """Data that come whole with the command are written without an R2T."""
        line = loggedIn(self.device)
        (answer,) = line.command(write10(1, 16), write=8192, data=self.data)
        self.assertEqual((answer["opcode"], answer["status"], answer["flags"]), (SCSI_RESPONSE, 0, 0x80))
        self.assertEqual(self.device.read(512, 8192), self.data)

    def test_solicited(self) -> None:
        """Data that do not come by themselves are asked for, at most a burst at a time."""
        line = loggedIn(self.device, MaxBurstLength="4096", InitialR2T="Yes", ImmediateData="No")
        (r2t,) = line.command(write10(0, 16), write=8192)
        self.assertEqual((r2t["opcode"], r2t["bufferOffset"], r2t["desiredLength"]), (R2T, 0, 4096))
        self.assertEqual(
            line.say(pdus.dataOut(self.data[:2048], itt=line.itt, ttt=r2t["ttt"], final=False)), []
        )
        (r2t2,) = line.say(
            pdus.dataOut(self.data[2048:4096], itt=line.itt, ttt=r2t["ttt"], dataSN=1, offset=2048)
        )
        self.assertEqual((r2t2["r2tSN"], r2t2["bufferOffset"], r2t2["desiredLength"]), (1, 4096, 4096))
        (answer,) = line.say(pdus.dataOut(self.data[4096:], itt=line.itt, ttt=r2t2["ttt"], offset=4096))
        self.assertEqual((answer["opcode"], answer["status"]), (SCSI_RESPONSE, 0))
        self.assertEqual(self.device.read(0, 8192), self.data)

    def test_severalR2T(self) -> None:
        """As many R2Ts are outstanding as were negotiated."""
        line = loggedIn(
            self.device, MaxBurstLength="1024", InitialR2T="Yes", ImmediateData="No", MaxOutstandingR2T="3"
        )
        r2ts = line.command(write10(0, 16), write=8192)
        self.assertEqual([r["bufferOffset"] for r in r2ts], [0, 1024, 2048])
        self.assertEqual(len({r["ttt"] for r in r2ts}), 3)
        offset = 0
        while r2ts:
            r2t = r2ts.pop(0)
            part = self.data[offset : offset + 1024]
            r2ts += line.say(pdus.dataOut(part, itt=line.itt, ttt=r2t["ttt"], offset=offset))
            offset += 1024
            if r2ts[-1:] and r2ts[-1]["opcode"] == SCSI_RESPONSE:
                break
        self.assertEqual(offset, 8192)
        self.assertEqual(self.device.read(0, 8192), self.data)

    def test_unsolicited(self) -> None:
        """Without InitialR2T, immediate data, unsolicited Data-Out and R2Ts make one write."""
        line = loggedIn(self.device, InitialR2T="No", FirstBurstLength="4096")
        command = line.build(write10(0, 16), write=8192, data=self.data[:1024], final=False)
        self.assertEqual(line.say(command), [])
        self.assertEqual(
            line.say(pdus.dataOut(self.data[1024:2048], itt=line.itt, offset=1024, final=False)), []
        )
        (r2t,) = line.say(pdus.dataOut(self.data[2048:4096], itt=line.itt, offset=2048, dataSN=1))
        self.assertEqual((r2t["bufferOffset"], r2t["desiredLength"]), (4096, 4096))
        (answer,) = line.say(pdus.dataOut(self.data[4096:], itt=line.itt, ttt=r2t["ttt"], offset=4096))
        self.assertEqual(answer["status"], 0)
        self.assertEqual(self.device.read(0, 8192), self.data)

    def test_wrongDataSN(self) -> None:
        """A Data-Out out of order ends the task with ABORTED COMMAND, and nothing is written."""
        line = loggedIn(self.device, InitialR2T="Yes", ImmediateData="No")
        (r2t,) = line.command(write10(0, 16), write=8192)
        (answer,) = line.say(pdus.dataOut(self.data, itt=line.itt, ttt=r2t["ttt"], dataSN=5))
        self.assertEqual((answer["status"], answer["data"][4] & 15), (2, 0xB))
        self.assertEqual(answer["data"][14:16], b"\x47\x05")
        self.assertEqual(self.device.read(0, 8192), bytes(8192))

    def test_tooMuch(self) -> None:
        """A Data-Out beyond what was asked for ends the task, and nothing is written."""
        line = loggedIn(self.device, InitialR2T="Yes", ImmediateData="No")
        (r2t,) = line.command(write10(0, 2), write=1024)
        (answer,) = line.say(pdus.dataOut(self.data, itt=line.itt, ttt=r2t["ttt"]))
        self.assertEqual((answer["status"], answer["data"][14:16]), (2, b"\x0c\x0d"))
        self.assertEqual(self.device.read(0, 8192), bytes(8192))

    def test_tooLittle(self) -> None:
        """A sequence that ends early ends the task, and nothing is written."""
        line = loggedIn(self.device, InitialR2T="Yes", ImmediateData="No")
        (r2t,) = line.command(write10(0, 16), write=8192)
        (answer,) = line.say(pdus.dataOut(self.data[:512], itt=line.itt, ttt=r2t["ttt"]))
        self.assertEqual((answer["status"], answer["data"][14:16]), (2, b"\x0c\x0d"))

    def test_immediateNotNegotiated(self) -> None:
        """Immediate data that were not agreed upon end the task."""
        line = loggedIn(self.device, ImmediateData="No")
        (answer,) = line.command(write10(0, 2), write=1024, data=self.data[:1024])
        self.assertEqual((answer["status"], answer["data"][14:16]), (2, b"\x0c\x0c"))
        self.assertEqual(self.device.read(0, 1024), bytes(1024))

    def test_unknownTag(self) -> None:
        """Data for a task that is not there are dropped."""
        line = loggedIn(self.device)
        self.assertEqual(line.say(pdus.dataOut(self.data, itt=0x777)), [])
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_refusedWhileUnsolicited(self) -> None:
        """A write that is refused before its unsolicited data came is answered when they have passed by."""
        line = loggedIn(self.device, InitialR2T="No")
        self.assertEqual(line.command(write10(99999, 16), write=8192, final=False), [])
        (answer,) = line.say(pdus.dataOut(self.data, itt=line.itt))
        self.assertEqual(answer["status"], 2)
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_residuals(self) -> None:
        """A write for which the initiator has more data than the CDB wants is an underflow."""
        line = loggedIn(self.device)
        (answer,) = line.command(write10(0, 2), write=2048, data=self.data[:2048])
        self.assertEqual((answer["status"], answer["flags"], answer["residual"]), (0, 0x82, 1024))
        self.assertEqual(self.device.read(0, 2048), self.data[:1024] + bytes(1024))

    def test_splitEverywhere(self) -> None:
        """A write is the same wherever the stream is cut."""
        data = self.data[:512]
        for number in range(1, 611):
            line = loggedIn(self.device, InitialR2T="Yes")
            stream = line.build(write10(0, 1), write=512, data=data) + pdus.nopOut(b"ping")
            if number >= len(stream):
                break
            self.device.write(0, bytes(512))
            line.core.receive(stream[:number])
            answer, ping = [*line.take(), *line.say(stream[number:])]
            self.assertEqual((answer["status"], ping["data"]), (0, b"ping"))
            self.assertEqual(self.device.read(0, 512), data)


class DigestTests(SynchronousTestCase):
    """CRC32C (RFC 7143 7.8, 13.1)."""

    def setUp(self) -> None:
        self.device = MemoryDevice(1 << 20)
        self.line = loggedIn(self.device, HeaderDigest="CRC32C", DataDigest="CRC32C")

    def test_both(self) -> None:
        """Reads and writes work with both digests, which stand at the end of header and data."""
        line = self.line
        self.assertEqual(line.digests, (True, True))
        (answer,) = line.command(write10(0, 1), write=512, data=b"z" * 512)
        self.assertEqual(answer["status"], 0)
        (answer,) = line.command(read10(0, 1), read=512)
        self.assertEqual(answer["data"], b"z" * 512)

    def test_badHeader(self) -> None:
        """A wrong header digest ends the connection."""
        stream = bytearray(self.line.build(TEST_UNIT_READY))
        stream[33] ^= 1
        self.assertEqual(self.line.say(bytes(stream)), [])
        self.assertTrue(self.line.closed)

    def test_badImmediateData(self) -> None:
        """A command whose data fail their digest is rejected, and as if it had never come."""
        line = self.line
        stream = bytearray(line.build(write10(0, 1), write=512, data=b"z" * 512))
        stream[-1] ^= 1
        (reject,) = line.say(bytes(stream))
        self.assertEqual((reject["opcode"], reject["reason"]), (numbers.REJECT, numbers.REASON_DATA_DIGEST))
        self.assertEqual(reject["data"], bytes(stream[:48]))
        self.assertEqual(self.device.read(0, 512), bytes(512))
        line.cmdSN -= 1
        (answer,) = line.command(write10(0, 1), write=512, data=b"z" * 512)
        self.assertEqual(answer["status"], 0)

    def test_badDataOut(self) -> None:
        """A Data-Out that fails its digest is rejected, and its task ends when all data have come."""
        line = loggedIn(self.device, DataDigest="CRC32C", InitialR2T="Yes", ImmediateData="No")
        (r2t,) = line.command(write10(0, 2), write=1024)
        first = bytearray(
            pdus.dataOut(b"a" * 512, itt=line.itt, ttt=r2t["ttt"], final=False, digests=line.digests)
        )
        first[60] ^= 1
        (reject,) = line.say(bytes(first))
        self.assertEqual(reject["reason"], numbers.REASON_DATA_DIGEST)
        second = pdus.dataOut(
            b"b" * 512, itt=line.itt, ttt=r2t["ttt"], dataSN=1, offset=512, digests=line.digests
        )
        (answer,) = line.say(second)
        self.assertEqual((answer["status"], answer["data"][14:16]), (2, b"\x47\x05"))
        self.assertEqual(self.device.read(0, 1024), bytes(1024))

    def test_splitEverywhere(self) -> None:
        """Digests are right wherever the stream is cut."""
        for position in range(1, 48 + 4 + 512 + 4):
            stream = self.line.build(write10(0, 1), write=512, data=b"q" * 512)
            self.line.core.receive(stream[:position])
            (answer,) = self.line.say(stream[position:])
            self.assertEqual(answer["status"], 0)


class WindowTests(SynchronousTestCase):
    """The CmdSN window (RFC 7143 4.2.2.1)."""

    def test_advances(self) -> None:
        """ExpCmdSN follows what came, MaxCmdSN keeps its distance while nothing is outstanding."""
        line = loggedIn()
        first, second = line.command(TEST_UNIT_READY) + line.command(TEST_UNIT_READY)
        self.assertEqual(second["expCmdSN"], first["expCmdSN"] + 1)
        self.assertEqual(first["maxCmdSN"] - first["expCmdSN"], line.node.depth - 1)
        self.assertEqual(second["maxCmdSN"] - second["expCmdSN"], line.node.depth - 1)

    def test_immediate(self) -> None:
        """Immediate commands do not advance ExpCmdSN."""
        line = loggedIn()
        (before,) = line.command(TEST_UNIT_READY)
        (after,) = line.command(TEST_UNIT_READY, immediate=True)
        self.assertEqual((after["expCmdSN"], after["maxCmdSN"]), (before["expCmdSN"], before["maxCmdSN"]))
        self.assertEqual(after["statSN"], before["statSN"] + 1)

    def test_outOfOrder(self) -> None:
        """Commands that come early wait for their turn."""
        line = loggedIn()
        third = line.build(read10(2, 1), read=512, cmdSN=line.cmdSN + 2)
        second = line.build(read10(1, 1), read=512, cmdSN=line.cmdSN + 1)
        self.assertEqual(line.say(third + second), [])
        answers = line.command(read10(0, 1), read=512)
        self.assertEqual([a["itt"] for a in answers], [line.itt, line.itt - 1, line.itt - 2])
        self.assertEqual(answers[-1]["expCmdSN"], line.cmdSN + 2)

    def test_outside(self) -> None:
        """A command outside the window is ignored, without a word."""
        line = loggedIn()
        self.assertEqual(line.command(TEST_UNIT_READY, cmdSN=line.cmdSN + 500), [])
        self.assertEqual(line.command(TEST_UNIT_READY, cmdSN=line.cmdSN - 1), [])
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_duplicateTag(self) -> None:
        """A task tag that is in use is rejected, and the task that has it goes on."""
        line = loggedIn(MemoryDevice(1 << 20), InitialR2T="Yes", ImmediateData="No")
        (r2t,) = line.command(write10(0, 1), write=512)
        (reject,) = line.command(TEST_UNIT_READY, itt=line.itt)
        self.assertEqual(reject["reason"], numbers.REASON_TASK_IN_PROGRESS)
        (answer,) = line.say(pdus.dataOut(b"a" * 512, itt=line.itt, ttt=r2t["ttt"]))
        self.assertEqual(answer["status"], 0)

    def test_nopTakesItsNumber(self) -> None:
        """A NOP-Out that is not immediate takes a CmdSN like a command."""
        line = loggedIn()
        (ping,) = line.say(pdus.nopOut(b"abc", cmdSN=line.cmdSN, immediate=False))
        self.assertEqual((ping["data"], ping["expCmdSN"]), (b"abc", line.cmdSN + 1))


class SundryTests(SynchronousTestCase):
    """NOP, Logout, Reject, AHS."""

    def test_ping(self) -> None:
        """A ping is answered with its own data and tag."""
        (pong,) = loggedIn().say(pdus.nopOut(b"hello", itt=5))
        self.assertEqual((pong["opcode"], pong["itt"], pong["data"]), (numbers.NOP_IN, 5, b"hello"))
        self.assertEqual(pong["ttt"], numbers.NO_TAG)

    def test_noAnswerWanted(self) -> None:
        """A NOP-Out with the reserved tag is not answered."""
        self.assertEqual(loggedIn().say(pdus.nopOut(b"hello", itt=numbers.NO_TAG)), [])

    def test_logout(self) -> None:
        """A logout is answered, and the connection closed."""
        line = loggedIn()
        (answer,) = line.say(pdus.logoutRequest())
        self.assertEqual((answer["opcode"], answer["response"]), (numbers.LOGOUT_RESPONSE, 0))
        self.assertTrue(line.closed)
        self.assertEqual(line.node.sessions, set())

    def test_logoutOfAnotherConnection(self) -> None:
        """A logout of a connection that is not there says so."""
        line = loggedIn()
        (answer,) = line.say(pdus.logoutRequest(reason=1, cid=9))
        self.assertEqual(answer["response"], numbers.CID_NOT_FOUND)
        self.assertFalse(line.closed)

    def test_logoutForRecovery(self) -> None:
        """Recovery is not supported at level 0."""
        (answer,) = loggedIn().say(pdus.logoutRequest(reason=2))
        self.assertEqual(answer["response"], numbers.RECOVERY_NOT_SUPPORTED)

    def test_unknownOpcode(self) -> None:
        """An unknown opcode is rejected with its header, and the connection lives."""
        line = loggedIn()
        header = b"\x1c" + bytes(47)
        (reject,) = line.say(header)
        self.assertEqual((reject["reason"], reject["data"]), (numbers.REASON_NOT_SUPPORTED, header))
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_snack(self) -> None:
        """SNACK is a protocol error at level 0."""
        (reject,) = loggedIn().say(b"\x10\x80" + bytes(46))
        self.assertEqual(reject["reason"], numbers.REASON_PROTOCOL_ERROR)

    def test_extendedCDB(self) -> None:
        """The rest of a long CDB comes in an additional header segment, and the command is looked up."""
        line = loggedIn()
        ahs = b"\0\x11\1\0" + bytes(16)
        (answer,) = line.command(b"\x7f" + bytes(15), ahs=ahs)
        self.assertEqual((answer["status"], answer["data"][14:16]), (2, b"\x20\0"))

    def test_unknownAHS(self) -> None:
        """An additional header segment that is not understood is rejected."""
        (reject,) = loggedIn().command(TEST_UNIT_READY, ahs=b"\0\5\x2a\0\0\0\0\0")
        self.assertEqual(reject["reason"], numbers.REASON_INVALID_FIELD)

    def test_bidirectional(self) -> None:
        """A command with a bidirectional read length is not supported, and costs its number alone."""
        line = loggedIn()
        before = line.core.session.maxCmdSN  # type: ignore[union-attr]
        for ahs in (b"\0\5\2\0\0\0\2\0", b"\0\x11\1\0" + bytes(16) + b"\0\5\2\0\0\0\2\0"):
            (reject,) = line.command(read10(0, 1), read=512, ahs=ahs)
            self.assertEqual(
                (reject["opcode"], reject["reason"]), (numbers.REJECT, numbers.REASON_NOT_SUPPORTED)
            )
        self.assertEqual(line.core.session.maxCmdSN, before + 2)  # type: ignore[union-attr]
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_reservedTag(self) -> None:
        """Requests with the reserved task tag are rejected, each with its header; their numbers are taken."""
        line = loggedIn()
        for stream in (
            line.build(read10(0, 1), read=512, itt=numbers.NO_TAG),
            line.build(read10(0, 1), read=512, itt=numbers.NO_TAG, immediate=True),
            pdus.textRequest({"SendTargets": ""}, itt=numbers.NO_TAG),
            pdus.logoutRequest(itt=numbers.NO_TAG),
        ):
            (reject,) = line.say(stream)
            self.assertEqual(
                (reject["opcode"], reject["reason"]), (numbers.REJECT, numbers.REASON_INVALID_FIELD)
            )
            self.assertEqual(reject["data"], stream[:48])
        self.assertEqual(line.core.session.tasks, {})  # type: ignore[union-attr]
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_splitConversation(self) -> None:
        """A conversation gives the same answers wherever it is cut."""
        whole = loggedIn()
        stream = (
            whole.build(read10(0, 2), read=1024) + pdus.nopOut(b"x") + whole.build(read10(5, 1), read=512)
        )
        stream += pdus.logoutRequest()
        wanted = whole.say(stream)
        for first, second in everySplit(stream):
            line = loggedIn()
            self.assertEqual([*line.say(first), *line.say(second)], wanted)

    def test_byteByByte(self) -> None:
        """A conversation gives the same answers in segments of one byte."""
        whole, slow = loggedIn(), loggedIn()
        stream = whole.build(read10(0, 2), read=1024) + pdus.nopOut(b"x") + pdus.logoutRequest()
        wanted = whole.say(stream)
        answers = [pdu for byte in stream for pdu in slow.say(bytes((byte,)))]
        self.assertEqual(answers, wanted)
