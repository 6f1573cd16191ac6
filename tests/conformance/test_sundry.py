"""RFC 7143 chapter 7, 11.1, 11.2, 11.9, and 11.14 to 11.19: errors, pings, rejects, goodbyes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session import notices
from iscsi_twisted.session.parameters import MAX_RECEIVE
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import INITIATOR, TARGET, TEST_UNIT_READY, Line, loggedIn, read10, write10


class FormatTests(SynchronousTestCase):
    """What all PDUs have in common."""

    def test_reserved(self) -> None:
        """
        RFC 7143 11: "Any compliant receiver MUST ignore any bit not defined and all reserved fields"

        A command with all of them set is served like any other.
        """
        line = loggedIn()
        stream = bytearray(line.build(TEST_UNIT_READY))
        stream[0] |= 0x80
        stream[1] |= 0x18
        stream[2:4] = b"\xff\xff"
        (answer,) = line.say(bytes(stream))
        self.assertEqual((answer["opcode"], answer["status"]), (numbers.SCSI_RESPONSE, 0))

    def test_reservedSent(self) -> None:
        """
        RFC 7143 11: "Any compliant sender MUST set all bits not defined and all reserved fields to zero"

        In a SCSI Response: the bytes that have no meaning here.
        """
        line = loggedIn()
        line.core.receive(line.build(TEST_UNIT_READY))
        ((header,),) = line.sent
        self.assertEqual((bytes(header[8:16]), bytes(header[36:48])), (bytes(8), bytes(12)))

    def test_unknownOpcode(self) -> None:
        """
        RFC 7143 11: "Receipt of reserved code values in defined fields MUST be reported as a protocol error."
        """
        line = loggedIn()
        for opcode in (0x07, 0x0F, 0x11, 0x1B, 0x1C, 0x20, 0x3F):
            (reject,) = line.say(bytes([opcode | 0x40]) + bytes(47))
            self.assertEqual(reject["opcode"], numbers.REJECT)
        self.assertFalse(line.closed)

    def test_formatError(self) -> None:
        """
        RFC 7143 7.7: "it MUST immediately terminate all transport connections in the session"

        When a PDU breaks the layout: here a data segment longer than we declared.
        """
        line = loggedIn(MaxRecvDataSegmentLength="8192")
        header = bytearray(pdus.nopOut())
        header[5:8] = (MAX_RECEIVE + 1).to_bytes(3, "big")
        self.assertEqual(line.say(bytes(header)), [])
        self.assertEqual((line.closed, line.node.sessions), (True, set()))

    def test_headerDigest(self) -> None:
        """
        RFC 7143 7.8: "it MUST either discard the header and all data up to the beginning of a later PDU ..."

        At level 0 we close, and nothing of the PDU takes effect.
        """
        device = MemoryDevice(4096)
        line = loggedIn(device, HeaderDigest="CRC32C")
        stream = bytearray(line.build(write10(0, 1), write=512, data=b"x" * 512))
        stream[48] ^= 1
        self.assertEqual(line.say(bytes(stream)), [])
        self.assertEqual((line.closed, device.read(0, 512)), (True, bytes(512)))

    def test_payloadDigest(self) -> None:
        """
        RFC 7143 7.8: "it MUST answer with a Reject PDU with a reason code of Data-Digest-Error and ..."

        The connection lives on.
        """
        device = MemoryDevice(4096)
        line = loggedIn(device, DataDigest="CRC32C")
        stream = bytearray(line.build(write10(0, 1), write=512, data=b"x" * 512))
        stream[-1] ^= 1
        (reject,) = line.say(bytes(stream))
        self.assertEqual((reject["opcode"], reject["reason"]), (numbers.REJECT, 2))
        self.assertEqual((line.closed, device.read(0, 512)), (False, bytes(512)))

    def test_rejectedHeader(self) -> None:
        """
        RFC 7143 11.17.4: "The header of the bad PDU"

        Comes back whole with a Reject.
        """
        line = loggedIn()
        stream = b"\x5c" + bytes(range(1, 4)) + bytes(4) + bytes(range(8, 48))
        (reject,) = line.say(stream)
        self.assertEqual((reject["data"], reject["itt"]), (stream, numbers.NO_TAG))

    def test_padding(self) -> None:
        """
        RFC 7143 11.1: "The padding bytes SHOULD be sent as 0"

        And every PDU ends at a multiple of four bytes.
        """
        line = loggedIn()
        for length in range(1, 9):
            line.core.receive(pdus.nopOut(b"x" * length))
            sent = b"".join(bytes(buffer) for batch in line.sent for buffer in batch)
            line.sent.clear()
            self.assertEqual(sent[48:], b"x" * length + bytes(-length % 4))


class PingTests(SynchronousTestCase):
    """NOP-Out and NOP-In."""

    def setUp(self) -> None:
        self.line = loggedIn()

    def test_answer(self) -> None:
        """
        RFC 7143 11.19: "it MUST respond with a NOP-In with the same Initiator Task Tag"
        """
        (pong,) = self.line.say(pdus.nopOut(b"data", itt=0x4711))
        self.assertEqual((pong["opcode"], pong["itt"]), (numbers.NOP_IN, 0x4711))

    def test_duplicate(self) -> None:
        """
        RFC 7143 11.19: "It MUST also duplicate up to the first MaxRecvDataSegmentLength bytes"
        """
        for length in (0, 1, 8191, 8192, 8193, 20000):
            data = bytes(range(256)) * 80
            (pong,) = self.line.say(pdus.nopOut(data[:length]))
            self.assertEqual(pong["data"], data[: min(length, 8192)])

    def test_answersTag(self) -> None:
        """
        RFC 7143 11.19: "For such a response, the Target Transfer Tag MUST be 0xffffffff."
        """
        (pong,) = self.line.say(pdus.nopOut())
        self.assertEqual(pong["ttt"], numbers.NO_TAG)

    def test_own(self) -> None:
        """
        RFC 7143 11.19: "the Initiator Task Tag MUST be set to 0xffffffff, and the data segment MUST NOT ..."

        In a NOP-In that answers no NOP-Out.
        """
        notices.ping(self.line.core)
        (ping,) = self.line.take()
        self.assertEqual((ping["itt"], ping["data"]), (numbers.NO_TAG, b""))
        self.assertNotEqual(ping["ttt"], numbers.NO_TAG)

    def test_statSN(self) -> None:
        """
        RFC 7143 11.19.2: "the StatSN for the connection is not advanced after this PDU is sent"

        When the Initiator Task Tag is FFFFFFFFh.
        """
        notices.ping(self.line.core)
        (ping,) = self.line.take()
        (answer,) = self.line.command(TEST_UNIT_READY)
        self.assertEqual(ping["statSN"], answer["statSN"])

    def test_noAnswer(self) -> None:
        """
        RFC 7143 11.18.1: "the Initiator Task Tag"

        FFFFFFFFh of a NOP-Out asks for no answer.
        """
        self.assertEqual(self.line.say(pdus.nopOut(b"data", itt=numbers.NO_TAG)), [])


class EndTests(SynchronousTestCase):
    """Logout and asynchronous messages."""

    def test_logout(self) -> None:
        """
        RFC 7143 11.14: "the target MUST terminate all pending commands, whether acknowledged via the ..."

        On a logout that closes session or connection.
        """
        for reason in (0, 1):
            device = FakeDevice()
            line = loggedIn(device)
            line.command(read10(0, 1), read=512)
            line.command(write10(0, 1), write=512, data=bytes(512), cmdSN=line.cmdSN + 1)
            (answer,) = line.say(pdus.logoutRequest(reason=reason))
            self.assertEqual((answer["opcode"], answer["response"]), (numbers.LOGOUT_RESPONSE, 0))
            device.fire()
            self.assertEqual((line.take(), line.closed), ([], True))
            self.assertEqual([name for name, _ in device.history], ["read"])

    def test_logoutLengths(self) -> None:
        """
        RFC 7143 11.15.3: "TotalAHSLength and DataSegmentLength MUST be 0."
        """
        (answer,) = loggedIn().say(pdus.logoutRequest())
        self.assertEqual(answer["lengths"], 0)

    def test_wrongCID(self) -> None:
        """
        RFC 7143 11.15.1: "CID not found"

        Is the answer for a connection that the session has not.
        """
        line = loggedIn()
        (answer,) = line.say(pdus.logoutRequest(reason=1, cid=9))
        self.assertEqual((answer["response"], line.closed), (1, False))

    def test_recovery(self) -> None:
        """
        RFC 7143 11.15.1: "Connection recovery is not supported"

        At level 0.
        """
        line = loggedIn()
        (answer,) = line.say(pdus.logoutRequest(reason=2))
        self.assertEqual((answer["response"], line.closed), (2, False))

    def test_cleared(self) -> None:
        """
        RFC 7143 11.14.5: "the target MUST report a Unit Attention condition on the next command processed"

        With 47h/7Fh, for each nexus whose tasks were terminated with a connection.
        """
        line = loggedIn(FakeDevice())
        line.command(read10(0, 1), read=512)
        tsih = line.core.session.tsih  # type: ignore[union-attr]
        new = Line(line.node)
        names = {"InitiatorName": INITIATOR, "TargetName": TARGET}
        new.say(pdus.loginRequest(names, tsih=tsih, cmdSN=line.cmdSN))
        answers = [new.command(TEST_UNIT_READY, cmdSN=line.cmdSN + n)[0] for n in range(2)]
        self.assertEqual([answer["status"] for answer in answers], [2, 0])
        self.assertEqual(answers[0]["data"][14:16].hex(), "477f")

    def test_logoutRequest(self) -> None:
        """
        RFC 7143 11.9.1: "The target requests Logout"

        With Parameter3 the seconds within which.
        The StatSN counts this PDU, its Initiator Task Tag is the reserved one (11.9).
        """
        line = loggedIn()
        statSN = line.core.statSN
        notices.requestLogout(line.core, 7)
        (message,) = line.take()
        self.assertEqual((message["event"], message["parameter3"]), (1, 7))
        self.assertEqual((message["itt"], message["statSN"]), (numbers.NO_TAG, statSN))
        self.assertEqual(line.command(TEST_UNIT_READY)[0]["statSN"], statSN + 1)

    def test_snack(self) -> None:
        """
        RFC 7143 11.16: "SNACK"

        Is rejected at level 0.
        """
        (reject,) = loggedIn().say(b"\x10\x80" + bytes(46))
        self.assertEqual((reject["opcode"], reject["reason"]), (numbers.REJECT, 4))
