"""Tests for L{iscsi_twisted.session.login}: the login phase over a core without sockets."""

from __future__ import annotations

from typing import Any

from iscsi_twisted.session.limits import NO_CHANGES, Limits
from iscsi_twisted.session.parameters import Parameters
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers, text
from iscsi_twisted.wire.framer import LOGIN_SEGMENT
from tests.session.cases import DISCOVERY, NAMES, LoginTests
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import (
    INITIATOR,
    TEST_UNIT_READY,
    Line,
    makeNode,
    makeTarget,
    read10,
)


class StageTests(LoginTests):
    """Stages and transits (RFC 7143 11.12.1 to 11.12.3)."""

    def test_atOnce(self) -> None:
        """One request may lead from operational negotiation to full feature phase."""
        response = self.ask(NAMES, isid=b"\x80\1\2\3\4\5", itt=0x55, cmdSN=9)
        self.assertEqual((response["status"], response["flags"]), (0, 0x87))
        self.assertEqual((response["isid"], response["itt"]), (b"\x80\1\2\3\4\5", 0x55))
        self.assertNotEqual(response["tsih"], 0)
        self.assertEqual((response["versionMax"], response["versionActive"]), (0, 0))
        self.assertEqual((response["expCmdSN"], response["maxCmdSN"]), (9, 9 + self.node.depth - 1))
        self.assertEqual(self.diary.entries, [("loggedIn",)])

    def test_securityOnly(self) -> None:
        """Security negotiation may lead to full feature phase too, with all defaults in force."""
        response = self.ask(NAMES | {"AuthMethod": "None"}, stage=0, following=3)
        self.assertEqual((response["status"], response["flags"]), (0, 0x83))
        self.assertEqual(response["keys"]["AuthMethod"], "None")
        self.assertNotIn("MaxRecvDataSegmentLength", response["keys"])
        assert self.line.core.session is not None
        self.assertEqual(self.line.core.session.parameters, Parameters())
        self.assertEqual(self.line.core.framer.maxSegment, LOGIN_SEGMENT)

    def test_bothStages(self) -> None:
        """Both stages, each in several requests, with StatSN counting the responses."""
        flags = []
        responses = [
            self.ask(NAMES, stage=0, following=None),
            self.ask({"AuthMethod": "None"}, stage=0, following=1),
            self.ask({"HeaderDigest": "None"}, stage=1, following=None, tsih=0),
            self.ask({"ImmediateData": "Yes"}, stage=1, following=3),
        ]
        flags = [response["flags"] for response in responses]
        self.assertEqual(flags, [0x00, 0x81, 0x04, 0x87])
        first = responses[0]["statSN"]
        self.assertEqual([response["statSN"] for response in responses], [first + n for n in range(4)])
        self.assertEqual([response["tsih"] for response in responses[:3]], [0, 0, 0])
        self.assertEqual(self.line.command(TEST_UNIT_READY)[0]["statSN"], first + 4)

    def test_transits(self) -> None:
        """Of all transits from a first request, exactly those forward to a real stage are taken."""
        for stage in range(4):
            for following in (None, 0, 1, 2, 3):
                line = Line(self.node)
                response = self.ask(NAMES, line, stage=stage, following=following)
                good = stage in (0, 1) and (following is None or (following in (1, 3) and following > stage))
                self.assertEqual(response["status"] == 0, good, (stage, following))
                if good:
                    self.assertEqual(response["flags"], stage << 2 | (0x80 | following if following else 0))
                    line.core.lost("")
                else:
                    self.assertIn(response["status"], (0x0200, 0x020B))
                    self.assertTrue(line.closed)

    def test_secondStages(self) -> None:
        """In the middle of a login only its current stage is taken; another is an initiator error."""
        for stage in range(4):
            line = Line(self.node)
            self.ask(NAMES, line, stage=0, following=1)
            response = self.ask({}, line, stage=stage, following=None)
            self.assertEqual(response["status"], 0 if stage == 1 else 0x0200, stage)

    def test_loginLater(self) -> None:
        """In full feature phase a Login Request is rejected, and the session goes on."""
        self.line.login()
        (reject,) = self.line.say(pdus.loginRequest(NAMES))
        self.assertEqual(
            (reject["opcode"], reject["reason"]), (numbers.REJECT, numbers.REASON_PROTOCOL_ERROR)
        )
        self.assertEqual(self.line.command(TEST_UNIT_READY)[0]["status"], 0)

    def test_notImmediate(self) -> None:
        """A Login Request without the I bit is as good; its CmdSN is that of the next command either way."""
        response = self.ask(NAMES, immediate=False, cmdSN=7)
        self.assertEqual((response["status"], response["expCmdSN"]), (0, 7))

    def test_commandsBehind(self) -> None:
        """Commands may stand right behind the last request, in the same chunk."""
        stream = pdus.loginRequest(NAMES | {"HeaderDigest": "CRC32C"})
        stream += pdus.scsiCommand(TEST_UNIT_READY, itt=5, cmdSN=1, digests=(True, False))
        self.line.core.receive(stream)
        sent = b"".join(bytes(buffer) for batch in self.line.sent for buffer in batch)
        length = 48 + (int.from_bytes(sent[5:8], "big") + 3 & ~3)
        (answer,) = pdus.takeApart(sent[length:], digests=(True, False))
        self.assertEqual((answer["itt"], answer["data"][14:16]), (5, b"\x29\0"))


class ContinueTests(LoginTests):
    """Text over several requests: the C bit (RFC 7143 6.2)."""

    def test_parts(self) -> None:
        """Text may be cut anywhere; until its end the responses are empty."""
        whole = text.encode((NAMES | {"HeaderDigest": "None"}).items())
        for cut in range(1, len(whole), 7):
            line = Line(self.node)
            empty = self.ask(whole[:cut], line, following=None, more=True)
            self.assertEqual((empty["status"], empty["flags"], empty["data"]), (0, 0x04, b""))
            response = self.ask(whole[cut:], line)
            self.assertEqual((response["status"], response["keys"]["HeaderDigest"]), (0, "None"))
            line.core.lost("")

    def test_withTransit(self) -> None:
        """A request cannot both go on and transit."""
        self.assertRefused(0x0200, NAMES, more=True)

    def test_tooLong(self) -> None:
        """Text that never ends is refused at its bound."""
        for _ in range(NO_CHANGES.loginBytes // LOGIN_SEGMENT):
            self.ask(b"x" * LOGIN_SEGMENT, following=None, more=True)
        self.assertRefused(0x0200, b"x", following=None, more=True)

    def test_tooManyRequests(self) -> None:
        """A login that never ends is refused after so many requests."""
        self.ask(NAMES, following=None)
        for _ in range(NO_CHANGES.loginRequests - 1):
            self.assertEqual(self.ask({}, following=None)["status"], 0)
        self.assertRefused(0x0200, {}, following=None)

    def longAnswer(self, **fields: Any) -> tuple[dict[str, str], dict[str, Any]]:
        """Send so many unknown keys that their answer takes two PDUs; the keys and the first response."""
        keys = {f"X-{number}": "" for number in range(LOGIN_SEGMENT // 18)}
        return keys, self.ask(text.encode((NAMES | keys).items())[:-1], **fields)

    def test_longAnswer(self) -> None:
        """An answer longer than an initiator takes goes on, with the C bit, when it asks with no text."""
        keys, first = self.longAnswer()
        self.assertEqual((first["status"], first["flags"], len(first["data"])), (0, 0x44, LOGIN_SEGMENT))
        self.assertIsNone(self.line.core.session)
        (second,) = self.line.say(pdus.loginRequest(b""))
        self.assertEqual((second["status"], second["flags"]), (0, 0x87))
        answers = dict(text.decode(first["data"] + second["data"]))
        self.assertEqual({name for name, value in answers.items() if value == "NotUnderstood"}, set(keys))
        self.assertIsNotNone(self.line.core.session)

    def test_longAnswerWithoutTransit(self) -> None:
        """If the last of these requests does not transit, the login goes on in its stage."""
        self.longAnswer()
        (second,) = self.line.say(pdus.loginRequest(b"", following=None))
        self.assertEqual((second["status"], second["flags"]), (0, 0x04))
        self.assertEqual(self.ask(b"")["flags"], 0x87)

    def test_longAnswerInterrupted(self) -> None:
        """Text before such an answer is complete is an initiator error, whole or in part."""
        self.longAnswer()
        self.assertRefused(0x0200, {"HeaderDigest": "None"})
        self.line = Line(self.node)
        self.longAnswer()
        self.assertRefused(0x0200, b"", following=None, more=True)

    def test_time(self) -> None:
        """A login that takes too long ends without a word; one that is complete has all the time."""
        self.line.core.tick(30.0)
        self.assertFalse(self.line.closed)
        self.line.core.tick(30.1)
        self.assertTrue(self.line.closed)
        self.assertEqual(self.diary.entries, [("lost", "no login within 30 seconds")])
        line = Line(self.node)
        line.login()
        line.core.tick(1e9)
        self.assertFalse(line.closed)


class HeaderTests(LoginTests):
    """The fields of the header."""

    def test_version(self) -> None:
        """A minimum version above ours is refused: unsupported version."""
        self.assertRefused(0x0205, NAMES, versionMin=1)

    def test_changes(self) -> None:
        """ISID, TSIH, task tag and CID cannot change during a login."""
        changes: list[dict[str, Any]] = [{"isid": b"\x80\0\0\0\0\2"}, {"tsih": 1}, {"itt": 2}, {"cid": 1}]
        for change in changes:
            line = Line(self.node)
            self.ask(NAMES, line, following=None)
            self.assertRefused(0x0200, {}, line, **change)

    def test_reservedTag(self) -> None:
        """The reserved task tag is no task tag."""
        self.assertRefused(0x0200, NAMES, itt=numbers.NO_TAG)

    def test_otherPDUFirst(self) -> None:
        """A connection that begins with another PDU is closed without a word."""
        for stream in (pdus.nopOut(), pdus.scsiCommand(TEST_UNIT_READY, itt=1, cmdSN=1), b"\x3f" + bytes(47)):
            line = Line(self.node)
            self.assertEqual(line.say(stream), [])
            self.assertTrue(line.closed)
            self.assertEqual(self.diary.entries[-1], ("lost", "a PDU other than Login before the login"))

    def test_otherPDULater(self) -> None:
        """Another PDU in the middle of a login refuses it: invalid during login (RFC 7143 6.3)."""
        self.ask(NAMES, following=None, itt=0x77)
        (response,) = self.line.say(pdus.nopOut() + pdus.loginRequest({}, itt=0x77))
        self.assertEqual(response["opcode"], numbers.LOGIN_RESPONSE)
        self.assertEqual((response["status"], response["itt"]), (0x020B, 0x77))
        self.assertTrue(self.line.closed)
        self.assertEqual(self.diary.entries[-1][:2], ("refused", 0x020B))

    def test_longSegment(self) -> None:
        """A data segment above 8,192 bytes ends the connection."""
        self.assertEqual(self.line.say(pdus.loginRequest(b"x" * (LOGIN_SEGMENT + 1))), [])
        self.assertTrue(self.line.closed)


class SessionTests(LoginTests):
    """Sessions that are there already (RFC 7143 6.3.1, 6.3.5)."""

    def login(self, line: Line | None = None, **fields: Any) -> int:
        """Log in; the TSIH."""
        response = self.ask(NAMES, line, **fields)
        self.assertEqual(response["status"], 0)
        tsih: int = response["tsih"]
        return tsih

    def test_unknownSession(self) -> None:
        """A TSIH that does not exist is refused."""
        tsih = self.login()
        self.assertRefused(0x020A, NAMES, Line(self.node), tsih=tsih + 1)

    def test_unknownSessionOfDiscovery(self) -> None:
        """There is nothing to be added to a discovery session."""
        self.assertRefused(0x020A, DISCOVERY, tsih=1)

    def test_secondConnection(self) -> None:
        """A second connection to a session is one too many; the session goes on."""
        tsih = self.login()
        self.assertRefused(0x0206, NAMES, Line(self.node), tsih=tsih, cid=1)
        self.assertEqual(len(self.line.command(TEST_UNIT_READY)), 1)

    def test_sessionOfAnother(self) -> None:
        """The TSIH of another initiator port's session is as unknown as any."""
        tsih = self.login()
        other = NAMES | {"InitiatorName": INITIATOR + "2"}
        self.assertRefused(0x020A, other, Line(self.node), tsih=tsih)
        self.assertRefused(0x020A, NAMES, Line(self.node), tsih=tsih, isid=b"\x80\0\0\0\0\2")

    def test_handles(self) -> None:
        """Sessions of one target have different handles, never 0, also after the last number."""
        self.target._lastTSIH = 0xFFFD
        handles = [self.login(Line(self.node), isid=bytes((0x80, 0, 0, 0, 0, n))) for n in range(4)]
        self.assertEqual(handles, [0xFFFE, 0xFFFF, 1, 2])

    def test_reinstatement(self) -> None:
        """The same port again ends the old session first, its tasks aborted, then begins a new one."""
        device = FakeDevice()
        self.target = makeTarget(device)
        self.node, self.diary = makeNode(self.target, limits=Limits(sessions=1))
        old, new = Line(self.node), Line(self.node)
        old.login()
        old.command(read10(0, 1), read=512)
        self.diary.entries.clear()
        new.login()
        self.assertTrue(old.closed)
        self.assertEqual(self.diary.entries, [("lost", "the initiator logged in anew"), ("loggedIn",)])
        device.fire()
        self.assertEqual(old.take(), [])
        self.assertEqual(list(self.target.sessions.values()), [new.core.session])
        old.core.lost("closed")
        self.assertEqual(self.node.sessions, {new.core.session})

    def test_reinstatementInFlight(self) -> None:
        """What the old connection still sends, were it half received, does nothing any more."""
        device = MemoryDevice(1 << 16)
        self.target = makeTarget(device)
        self.node, self.diary = makeNode(self.target)
        old, new = Line(self.node), Line(self.node)
        old.login()
        write = old.build(b"\x2a\0\0\0\0\0\0\0\x20\0", write=16384, data=b"x" * 16384)
        half = len(write) // 2
        old.core.receive(write[:half])
        new.login()
        self.assertIsNone(old.core.wanted())
        self.assertEqual(old.say(write[half:]), [])
        old.core.filled(0)
        self.assertEqual(device.read(0, 512), bytes(512))

    def test_notTheSame(self) -> None:
        """Another ISID, name or portal group is another session beside the first."""
        self.login()
        self.login(Line(self.node), isid=b"\x80\0\0\0\0\2")
        self.login(Line(self.node, tag=2))
        response = self.ask(NAMES | {"InitiatorName": INITIATOR + "2"}, Line(self.node))
        self.assertEqual(response["status"], 0)
        self.assertEqual((len(self.target.sessions), len(self.node.sessions)), (4, 4))
        self.assertFalse(self.line.closed)

    def test_room(self) -> None:
        """One session more than there may be is refused: out of resources.  Discovery counts too."""
        self.serve(limits=Limits(sessions=2))
        self.login()
        self.assertEqual(self.ask(DISCOVERY, Line(self.node))["status"], 0)
        self.assertRefused(0x0302, NAMES, Line(self.node), isid=b"\x80\0\0\0\0\2")
        self.assertRefused(0x0302, DISCOVERY, Line(self.node), isid=b"\x80\0\0\0\0\2")
        self.line.core.lost("")
        self.login(Line(self.node), isid=b"\x80\0\0\0\0\2")
