"""Tests for L{iscsi_twisted.session.login}: the login phase over a core without sockets."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.login import LONGEST_LOGIN, MOST_REQUESTS
from iscsi_twisted.session.node import Node
from iscsi_twisted.session.parameters import MAX_RECEIVE, Parameters
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers, text
from iscsi_twisted.wire.framer import LOGIN_SEGMENT
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import (
    INITIATOR,
    TARGET,
    TEST_UNIT_READY,
    Anybody,
    Diary,
    Line,
    Nobody,
    makeNode,
    makeTarget,
    read10,
)

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


class StageTests(LoginTests):
    """Stages and transits (RFC 7143 11.12.1 to 11.12.3)."""

    def test_atOnce(self) -> None:
        """One request may lead from operational negotiation to full feature phase."""
        response = self.ask(NAMES, isid=b"\x80\1\2\3\4\5", itt=0x55, cmdSN=9)
        self.assertEqual((response["status"], response["flags"]), (0, 0x87))
        self.assertEqual((response["isid"], response["itt"]), (b"\x80\1\2\3\4\5", 0x55))
        self.assertNotEqual(response["tsih"], 0)
        self.assertEqual((response["versionMax"], response["versionActive"]), (0, 0))
        self.assertEqual((response["expCmdSN"], response["maxCmdSN"]), (9, 9 + 127))
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
        for _ in range(LONGEST_LOGIN // LOGIN_SEGMENT):
            self.ask(b"x" * LOGIN_SEGMENT, following=None, more=True)
        self.assertRefused(0x0200, b"x", following=None, more=True)

    def test_tooManyRequests(self) -> None:
        """A login that never ends is refused after so many requests."""
        self.ask(NAMES, following=None)
        for _ in range(MOST_REQUESTS - 1):
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


class NameTests(LoginTests):
    """Who logs in to what."""

    def test_missing(self) -> None:
        """Without a name that is needed the login is refused: missing parameter."""
        self.assertRefused(0x0207, {"TargetName": TARGET})
        self.assertRefused(0x0207, {"InitiatorName": INITIATOR}, Line(self.node))
        self.assertRefused(0x0207, {"SessionType": "Discovery"}, Line(self.node))

    def test_badInitiatorName(self) -> None:
        """An initiator name that is no iSCSI name is refused and never told."""
        for name in ("", "host", "iqn.2001-04.com.example:a\nb", "iqn.2001-04.com.example:" + "x" * 300):
            line = Line(self.node)
            self.assertRefused(0x0200, NAMES | {"InitiatorName": name}, line)
            self.assertEqual(line.core.initiator, "")

    def test_badText(self) -> None:
        """Text that is not pairs is refused."""
        for data in (b"nonsense\0", b"A=\xff\0", b"=\0"):
            self.assertRefused(0x0200, data, Line(self.node))

    def test_initiatorName(self) -> None:
        """Initiator names are compared in normal form and told as they were given."""
        self.line.login(InitiatorName=INITIATOR.upper())
        assert self.line.core.session is not None
        self.assertEqual(self.line.core.session.initiatorName, INITIATOR)
        self.assertEqual(self.line.core.initiator, INITIATOR.upper())

    def test_targetName(self) -> None:
        """Target names are compared in normal form."""
        self.assertEqual(self.ask(NAMES | {"TargetName": TARGET.upper()})["status"], 0)

    def test_unknownTarget(self) -> None:
        """A target that is not there is refused: not found."""
        self.assertRefused(0x0203, NAMES | {"TargetName": TARGET + "x"})

    def test_notAdmitted(self) -> None:
        """A peer that the policy does not admit is refused: authorization failure."""
        self.serve(Nobody("192.0.2.8"))
        self.assertRefused(0x0202, NAMES)
        self.assertEqual(self.ask(NAMES, Line(self.node, address="192.0.2.8"))["status"], 0)

    def test_sessionType(self) -> None:
        """A session type that does not exist is refused."""
        self.assertRefused(0x0209, NAMES | {"SessionType": "Boot"})

    def test_namesLater(self) -> None:
        """Names and session type belong into the first request."""
        for name, value in (*NAMES.items(), ("SessionType", "Normal")):
            line = Line(self.node)
            self.ask(NAMES, line, following=None)
            self.assertRefused(0x0200, {name: value}, line)

    def test_firstResponse(self) -> None:
        """The first response, and no other, tells the portal group tag and the alias."""
        line = Line(self.node, tag=7)
        response = self.ask(NAMES, line, stage=0, following=1)
        self.assertEqual(response["keys"], {"TargetPortalGroupTag": "7", "TargetAlias": "A disk"})
        response = self.ask({}, line, stage=1, following=3)
        self.assertEqual(response["keys"], {"MaxRecvDataSegmentLength": str(MAX_RECEIVE)})

    def test_noAlias(self) -> None:
        """A target without an alias does not tell one."""
        self.target.alias = ""
        self.assertNotIn("TargetAlias", self.ask(NAMES)["keys"])

    def test_discovery(self) -> None:
        """A discovery session needs no target, and gets neither tag nor alias nor LUNs."""
        response = self.ask(DISCOVERY | {"MaxBurstLength": "4096", "DefaultTime2Wait": "5"})
        self.assertEqual(
            response["keys"],
            {
                "MaxBurstLength": "Irrelevant",
                "DefaultTime2Wait": "5",
                "MaxRecvDataSegmentLength": str(MAX_RECEIVE),
            },
        )
        self.assertNotEqual(response["tsih"], 0)
        session = self.line.core.session
        assert session is not None
        self.assertTrue(session.discovery)
        self.assertEqual(self.target.sessions, {})

    def test_discoveryWithTarget(self) -> None:
        """A target's name in a discovery login changes nothing."""
        self.assertEqual(self.ask(DISCOVERY | {"TargetName": TARGET + "x"})["status"], 0)


class KeyTests(LoginTests):
    """Keys in a login; what each is answered stands in the tests of the negotiation."""

    def test_answers(self) -> None:
        """Offers are answered, what is unknown is not understood, obsolete markers are refused."""
        offers = {"InitialR2T": "No", "X-org.example": "1", "OFMarker": "Yes", "OFMarkInt": "1~5"}
        keys = self.ask(NAMES | offers)["keys"]
        self.assertEqual(keys["InitialR2T"], "No")
        self.assertEqual(keys["X-org.example"], "NotUnderstood")
        self.assertEqual((keys["OFMarker"], keys["OFMarkInt"]), ("No", "Reject"))

    def test_protocolLevel(self) -> None:
        """The one key that begins with a small letter is a key."""
        self.assertEqual(self.ask(NAMES | {"iSCSIProtocolLevel": "2"})["keys"]["iSCSIProtocolLevel"], "1")

    def test_twice(self) -> None:
        """A key given twice is refused, in one request or in two."""
        twice = text.encode([*NAMES.items(), ("MaxBurstLength", "512"), ("MaxBurstLength", "512")])
        self.assertRefused(0x0200, twice)
        line = Line(self.node)
        self.ask(NAMES | {"MaxBurstLength": "512"}, line, following=None)
        self.assertRefused(0x0200, {"MaxBurstLength": "512"}, line)

    def test_namesTwice(self) -> None:
        """A name given twice is refused."""
        twice = text.encode([*NAMES.items(), ("InitiatorName", INITIATOR)])
        self.assertRefused(0x0200, twice)

    def test_notOurs(self) -> None:
        """Keys that an initiator has not to give, or not here, are rejected."""
        keys = {
            "SendTargets": "All", "TargetAlias": "x", "TargetAddress": "x", "TargetPortalGroupTag": "1",
        }  # fmt: skip
        answers = self.ask(text.encode((NAMES | keys).items()))["data"]
        for name in keys:
            self.assertIn((name, "Reject"), text.decode(answers))

    def test_otherSuffix(self) -> None:
        """Vendors' keys in both forms are not understood."""
        for name in ("X-com.example.key", "X#key"):
            self.assertEqual(self.ask({name: "1"} | NAMES, Line(self.node))["keys"][name], "NotUnderstood")

    def test_bursts(self) -> None:
        """FirstBurstLength is not answered above MaxBurstLength."""
        keys = self.ask(NAMES | {"FirstBurstLength": "65536", "MaxBurstLength": "32768"})["keys"]
        self.assertEqual((keys["FirstBurstLength"], keys["MaxBurstLength"]), ("32768", "32768"))

    def test_declaredOnce(self) -> None:
        """We declare MaxRecvDataSegmentLength once, in the first operational response."""
        responses = [
            self.ask(NAMES, stage=0, following=1),
            self.ask({}, stage=1, following=None),
            self.ask({}, stage=1, following=None),
            self.ask({}, stage=1, following=3),
        ]
        told = ["MaxRecvDataSegmentLength" in response["keys"] for response in responses]
        self.assertEqual(told, [False, True, False, False])
        self.assertEqual(self.line.core.framer.maxSegment, MAX_RECEIVE)

    def test_segmentBounds(self) -> None:
        """What the initiator declares is in force up to the bounds, and refused beyond."""
        for value in (512, 16777215):
            line = Line(self.node)
            line.login(MaxRecvDataSegmentLength=str(value))
            self.assertEqual(line.core.maxSegment, value)
            line.core.lost("")
        for value in (511, 16777216):
            self.assertRefused(0x0200, NAMES | {"MaxRecvDataSegmentLength": str(value)}, Line(self.node))

    def test_authMethods(self) -> None:
        """None is chosen wherever it is offered; without it there is no way out of the security stage."""
        for offer in ("None", "CHAP,None", "KRB5,SRP,CHAP,None"):
            line = Line(self.node)
            response = self.ask(NAMES | {"AuthMethod": offer}, line, stage=0, following=1)
            self.assertEqual((response["status"], response["keys"]["AuthMethod"]), (0, "None"), offer)
        for offer in ("CHAP", "CHAP,SRP", ""):
            line = Line(self.node)
            self.assertRefused(0x0201, NAMES | {"AuthMethod": offer}, line, stage=0, following=1)

    def test_authMethodRejected(self) -> None:
        """An offer without a transit that we cannot take is answered Reject."""
        response = self.ask(NAMES | {"AuthMethod": "CHAP"}, stage=0, following=None)
        self.assertEqual(response["keys"]["AuthMethod"], "Reject")


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
        self.node, self.diary = makeNode(self.target, maxSessions=1)
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
        self.serve(maxSessions=2)
        self.login()
        self.assertEqual(self.ask(DISCOVERY, Line(self.node))["status"], 0)
        self.assertRefused(0x0302, NAMES, Line(self.node), isid=b"\x80\0\0\0\0\2")
        self.assertRefused(0x0302, DISCOVERY, Line(self.node), isid=b"\x80\0\0\0\0\2")
        self.line.core.lost("")
        self.login(Line(self.node), isid=b"\x80\0\0\0\0\2")


class AnythingTests(LoginTests):
    """Any login whatever."""

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([NAMES, DISCOVERY, {}, {"AuthMethod": "CHAP"}, {"MaxBurstLength": "1"}]),
                st.integers(0, 3),
                st.sampled_from([None, 0, 1, 2, 3]),
                st.booleans(),
            ),
            max_size=6,
        )
    )
    def test_anyRequests(self, requests: list[Any]) -> None:
        """Any sequence of requests is answered one by one until it is refused, complete, or over."""
        self.serve()
        for pairs, stage, following, more in requests:
            over = self.line.closed
            stream = pdus.loginRequest(pairs, stage=stage, following=following, more=more)
            responses = self.line.say(stream)
            self.assertEqual(len(responses), 0 if over else 1)
            if responses and responses[0]["opcode"] == numbers.LOGIN_RESPONSE and responses[0]["status"]:
                self.assertTrue(self.line.closed)
        self.assertNotIn("surprise", [entry[0] for entry in self.diary.entries])
