"""RFC 7143 6.3, 11.12, 11.13 and what chapter 13 says of the login."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers, text
from tests.support import pdus
from tests.support.wire import INITIATOR, TARGET, TEST_UNIT_READY, Line, makeNode, makeTarget

NAMES = {"InitiatorName": INITIATOR, "TargetName": TARGET}


class LoginTests(SynchronousTestCase):
    """A node with one target, and a connection that has not said anything."""

    def setUp(self) -> None:
        self.node, self.diary = makeNode(makeTarget(MemoryDevice(1 << 16)))
        self.line = Line(self.node, tag=3)

    def ask(self, pairs: dict[str, str] | bytes, **fields: Any) -> dict[str, Any]:
        """Send one Login Request; the response."""
        (response,) = self.line.say(pdus.loginRequest(pairs, **fields))
        response["keys"] = dict(text.decode(response["data"]))
        return response

    def test_otherFirst(self) -> None:
        """
        RFC 7143 6.3: "the target MUST immediately terminate the connection on which the PDU was received"

        If any PDU but a Login Request comes before the Login Phase.
        """
        for opcode in (*range(3), *range(4, 64)):
            line = Line(self.node)
            self.assertEqual(line.say(bytes([opcode]) + bytes(47)), [])
            self.assertTrue(line.closed)

    def test_otherLater(self) -> None:
        """
        RFC 7143 6.3: "it MUST send a Login reject (with Status "invalid during login") and then disconnect"

        If any PDU but a Login Request comes once the Login Phase has begun.
        """
        for opcode in (*range(3), *range(4, 64)):
            self.line = Line(self.node)
            self.ask(NAMES, following=None)
            (response,) = self.line.say(bytes([opcode]) + bytes(47))
            self.assertEqual((response["opcode"], response["status"]), (numbers.LOGIN_RESPONSE, 0x020B))
            self.assertTrue(self.line.closed)

    def test_twice(self) -> None:
        """
        RFC 7143 6.3: "the target MUST respond with Login Reject (initiator error)"

        To a key given twice.
        """
        self.ask(NAMES | {"MaxBurstLength": "8192"}, following=None)
        self.assertEqual(self.ask({"MaxBurstLength": "8192"})["status"], 0x0200)

    def test_reinstatement(self) -> None:
        """
        RFC 7143 6.3.4: "Connection reinstatement is the process of an initiator logging in with an ..."

        That is possibly active: the old connection is logged out, the new one takes its place.
        """
        tsih = self.ask(NAMES, cid=7)["tsih"]
        old, self.line = self.line, Line(self.node, tag=3)
        response = self.ask(NAMES, cid=7, tsih=tsih)
        self.assertEqual((response["status"], response["tsih"]), (0, tsih))
        self.assertEqual((old.closed, len(self.node.sessions)), (True, 1))

    def test_sessionReinstatement(self) -> None:
        """
        RFC 7143 6.3.5: "the TSIH in the Login PDU MUST be zero to signal session reinstatement"

        The session of the same ISID is logged out and a new one begins.
        """
        first = self.ask(NAMES)["tsih"]
        old, self.line = self.line, Line(self.node, tag=3)
        second = self.ask(NAMES, tsih=0)["tsih"]
        self.assertTrue(old.closed)
        self.assertNotEqual(first, second)

    def test_unknownSession(self) -> None:
        """
        RFC 7143 6.3.1: "Login Request with a TSIH that does not exist"

        Is refused: 020Ah.
        """
        self.assertEqual(self.ask(NAMES, tsih=0x1234)["status"], 0x020A)

    def test_failedNegotiation(self) -> None:
        """
        RFC 7143 7.12: "any failure in negotiation MUST be considered a login process failure"

        The login is refused with the right code, and with it ends the connection.
        """
        self.assertEqual(self.ask(NAMES | {"MaxRecvDataSegmentLength": "1"})["status"], 0x0200)
        self.assertTrue(self.line.closed)

    def test_versions(self) -> None:
        """
        RFC 7143 11.13.1: "All Login Responses within the Login Phase MUST carry the same Version-max."

        And the same Version-active (11.13.2): ours is 0 throughout.
        """
        responses = [self.ask(NAMES, stage=0, following=1), self.ask({}, following=None), self.ask({})]
        told = {(response["versionMax"], response["versionActive"]) for response in responses}
        self.assertEqual(told, {(0, 0)})

    def test_versionRange(self) -> None:
        """
        RFC 7143 11.13.2: "If the target does not support a version within the range specified"

        By the initiator, it rejects the login, and tells the lowest that it supports.
        """
        response = self.ask(NAMES, versionMin=1)
        self.assertEqual((response["status"], response["versionActive"]), (0x0205, 0))

    def test_tsih(self) -> None:
        """
        RFC 7143 11.13.3: "For a new session, the target MUST generate a non-zero TSIH"

        And tells it in the last response alone.
        """
        responses = [self.ask(NAMES, stage=0, following=1), self.ask({}, following=None), self.ask({})]
        self.assertEqual([bool(response["tsih"]) for response in responses], [False, False, True])

    def test_statSN(self) -> None:
        """
        RFC 7143 11.13.4: "The next response of any kind"

        Carries the StatSN of the response before plus 1.
        """
        responses = [self.ask(NAMES, stage=0, following=1), self.ask({}, following=None), self.ask({})]
        responses += self.line.command(TEST_UNIT_READY)
        first = responses[0]["statSN"]
        self.assertEqual([response["statSN"] for response in responses], list(range(first, first + 4)))

    def test_refused(self) -> None:
        """
        RFC 7143 11.13.5: "If the Status Class is not 0, the initiator and target MUST close the TCP ..."
        """
        refusals: list[tuple[Any, dict[str, Any]]] = [
            ({}, {}), (b"nonsense\0", {}), (NAMES | {"TargetName": "x"}, {}), (NAMES, {"versionMin": 3}),
            (NAMES | {"SessionType": "x"}, {}), (NAMES, {"tsih": 9}), (NAMES, {"stage": 3}),
        ]  # fmt: skip
        for pairs, fields in refusals:
            self.line = Line(self.node)
            self.assertIn(self.ask(pairs, **fields)["status"] >> 8, (2, 3))
            self.assertTrue(self.line.closed)

    def test_transit(self) -> None:
        """
        RFC 7143 11.13.6: "A Login Response with the T bit set to 1 in response to a Login Request with ..."

        Is a protocol error: we never send one.
        """
        for stage in (0, 1):
            self.line = Line(self.node)
            self.assertEqual(self.ask(NAMES, stage=stage, following=None)["flags"] & 0x80, 0)

    def test_continued(self) -> None:
        """
        RFC 7143 11.13.7: "the C bit"

        Says that the text goes on in the next response.
        No segment is longer than the 8,192 bytes that hold until something else was declared.
        """
        keys = {f"X-{number}": "" for number in range(450)}
        first = self.ask(text.encode((NAMES | keys).items())[:-1])
        self.assertEqual((first["flags"], first["lengths"]), (0x44, 8192))
        (second,) = self.line.say(pdus.loginRequest(b""))
        self.assertEqual(second["flags"], 0x87)

    def test_initiatorName(self) -> None:
        """
        RFC 7143 13.5: "The initiator of the TCP connection MUST provide this key to the remote endpoint"
        """
        self.assertEqual(self.ask({"TargetName": TARGET})["status"], 0x0207)

    def test_targetName(self) -> None:
        """
        RFC 7143 13.4: "The TargetName key MUST be provided by the initiator"

        In a normal session.
        """
        self.assertEqual(self.ask({"InitiatorName": INITIATOR})["status"], 0x0207)

    def test_portalGroup(self) -> None:
        """
        RFC 7143 13.9: "iSCSI target returns this key to the initiator in the Login Response PDU"

        TargetPortalGroupTag, in answer to the first request whose C bit is 0, and in no other.
        """
        whole = text.encode(NAMES.items())
        responses = [
            self.ask(whole[:30], following=None, more=True),
            self.ask(whole[30:], following=None),
            self.ask({}),
        ]
        told = [response["keys"].get("TargetPortalGroupTag") for response in responses]
        self.assertEqual(told, [None, "3", None])

    def test_burstBound(self) -> None:
        """
        RFC 7143 13.14: "FirstBurstLength MUST NOT exceed MaxBurstLength."
        """
        keys = self.ask(NAMES | {"FirstBurstLength": "65536", "MaxBurstLength": "4096"})["keys"]
        self.assertEqual((keys["FirstBurstLength"], keys["MaxBurstLength"]), ("4096", "4096"))

    def test_digests(self) -> None:
        """
        RFC 7143 13.1: "this digest MUST be used for every PDU in the Full Feature Phase"

        In both directions, from the first PDU behind the login.
        """
        self.line.login(HeaderDigest="CRC32C", DataDigest="CRC32C")
        stream = pdus.nopOut(b"ping!")
        digested = pdus.assemble(stream[:48], b"ping!", digests=(True, True))
        (pong,) = self.line.say(digested)
        self.assertEqual(pong["data"], b"ping!")

    def test_normalOnly(self) -> None:
        """
        RFC 7143 13.21: "The discovery session implies"

        That SendTargets, Logout and pings are all there is.
        Anything else is rejected.
        """
        self.line.login(SessionType="Discovery")
        (reject,) = self.line.command(TEST_UNIT_READY)
        self.assertEqual((reject["opcode"], self.line.closed), (numbers.REJECT, False))
