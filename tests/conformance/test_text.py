"""RFC 7143 6.1, 6.2, 11.10, 11.11, and appendix C: text."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.target import Target
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers, text
from tests.support import pdus
from tests.support.wire import INITIATOR, TARGET, Anybody, Line, Nobody, makeNode, makeTarget

NAMES = {"InitiatorName": INITIATOR, "TargetName": TARGET}


class TextTests(SynchronousTestCase):
    """A node with three targets, one of them closed to us, and a discovery session."""

    def setUp(self) -> None:
        self.node, _ = makeNode(
            makeTarget(MemoryDevice(512)),
            makeTarget(MemoryDevice(512), name=TARGET + ":two"),
            makeTarget(MemoryDevice(512), name=TARGET + ":closed", policy=Nobody()),
        )
        self.line = Line(self.node)
        self.line.login(SessionType="Discovery")

    def ask(self, pairs: dict[str, str] | bytes, line: Line | None = None, **fields: Any) -> dict[str, Any]:
        """Send one Text Request; the response."""
        (response,) = (line or self.line).say(pdus.textRequest(pairs, **fields))
        response["pairs"] = text.decode(response["data"])
        return response

    def normal(self) -> Line:
        """A normal session."""
        line = Line(self.node)
        line.login()
        return line

    def offer(self, **pairs: str) -> dict[str, str]:
        """What a login answers to these keys."""
        line = Line(self.node)
        keys: dict[str, str] = line.login(**pairs)["keys"]
        return keys

    def many(self) -> None:
        """So many targets that they do not fit one PDU."""
        for number in range(500):
            self.node.add(Target(f"{TARGET}:{number:03}", Anybody(), {}, object(), lambda field: 0))

    def test_notUnderstood(self) -> None:
        """
        RFC 7143 6.2: "the answer for a key that is not understood MUST be key=NotUnderstood"

        In login and in full feature phase.
        """
        line = Line(self.node)
        (response,) = line.say(pdus.loginRequest(NAMES | {"Nonsense": "1"}))
        self.assertEqual(dict(text.decode(response["data"]))["Nonsense"], "NotUnderstood")
        self.assertEqual(self.ask({"Nonsense": "1"})["pairs"], [("Nonsense", "NotUnderstood")])

    def test_firstOfList(self) -> None:
        """
        RFC 7143 6.2.1: "The acceptor MUST respond with the same key and the first value that it supports"
        """
        self.assertEqual(self.offer(HeaderDigest="X-x,None,CRC32C")["HeaderDigest"], "None")
        self.assertEqual(self.offer(HeaderDigest="X-x,CRC32C,None")["HeaderDigest"], "CRC32C")

    def test_sameKey(self) -> None:
        """
        RFC 7143 6.2.2: "the accepting party MUST answer with the same key"
        """
        offers = {"MaxBurstLength": "4096", "InitialR2T": "Yes", "MaxOutstandingR2T": "3"}
        answers = self.offer(**offers)
        self.assertEqual({name: answers[name] for name in offers}, offers)

    def test_admissible(self) -> None:
        """
        RFC 7143 6.2.2: "otherwise, the acceptor MUST select an admissible value"

        An offer within its bounds gets an answer within them, one outside them Reject.
        """
        self.assertEqual(self.offer(MaxBurstLength="16777215")["MaxBurstLength"], str(1 << 20))
        self.assertEqual(self.offer(MaxBurstLength="16777216")["MaxBurstLength"], "Reject")

    def test_twice(self) -> None:
        """
        RFC 7143 6.4: "the target MUST respond with a Reject" with the reason "protocol error"

        To parameters given twice in full feature phase.
        """
        (reject,) = self.line.say(pdus.textRequest(b"SendTargets=All\0SendTargets=All\0"))
        self.assertEqual((reject["opcode"], reject["reason"]), (numbers.REJECT, 4))

    def test_keepsValues(self) -> None:
        """
        RFC 7143 7.12: "MUST continue to be the values agreed upon during an earlier successful negotiation"

        After a negotiation that fails in full feature phase.
        """
        line = self.normal()
        before = (line.core.session.parameters, line.core.maxSegment)  # type: ignore[union-attr]
        line.say(pdus.textRequest(b"MaxRecvDataSegmentLength=512\0nonsense\0"))
        line.say(pdus.textRequest({"MaxRecvDataSegmentLength": "511", "MaxBurstLength": "512"}))
        self.assertEqual((line.core.session.parameters, line.core.maxSegment), before)  # type: ignore[union-attr]

    def test_finalTag(self) -> None:
        """
        RFC 7143 11.11.1: "A Text Response with the F bit set to 1 MUST have a Target Transfer Tag"

        FFFFFFFFh.
        """
        response = self.ask({"SendTargets": "All"})
        self.assertEqual((response["flags"], response["ttt"]), (0x80, numbers.NO_TAG))

    def test_notFinalTag(self) -> None:
        """
        RFC 7143 11.11.1: "A Text Response with the F bit set to 0 MUST have a Target Transfer Tag field ..."

        Than the reserved one.
        """
        self.many()
        response = self.ask({"SendTargets": "All"})
        self.assertEqual(response["flags"] & 0x80, 0)
        self.assertNotEqual(response["ttt"], numbers.NO_TAG)

    def test_notFinalRequest(self) -> None:
        """
        RFC 7143 11.11.1: "A Text Response with the F bit set to 1 in response to a Text Request with the ..."

        Is a protocol error: we never send one.
        """
        self.assertEqual(self.ask({"InitiatorAlias": "x"}, final=False)["flags"] & 0x80, 0)

    def test_tag(self) -> None:
        """
        RFC 7143 11.11.3: "The Initiator Task Tag matches the tag used in the initial Text Request."
        """
        self.assertEqual(self.ask({"SendTargets": "All"}, itt=0x4711)["itt"], 0x4711)

    def test_longest(self) -> None:
        """
        RFC 7143 13.12: "MaxRecvDataSegmentLength"

        Bounds every segment that is sent to the initiator.
        """
        self.many()
        response = self.ask({"SendTargets": "All"})
        self.assertEqual(response["lengths"], 8192)

    def test_everyPortal(self) -> None:
        """
        RFC 7143 C: "MUST support the SendTargets command on the discovery session"
        """
        names = [value for name, value in self.ask({"SendTargets": "All"})["pairs"] if name == "TargetName"]
        self.assertEqual(names, [TARGET, TARGET + ":two"])

    def test_operational(self) -> None:
        """
        RFC 7143 C: "A target MUST support the SendTargets command on operational sessions"

        These tell of the target that the session is logged in to, and of no other.
        """
        line = self.normal()
        for value in ("", TARGET):
            names = [v for name, v in self.ask({"SendTargets": value}, line)["pairs"] if name == "TargetName"]
            self.assertEqual(names, [TARGET])
        self.assertEqual(self.ask({"SendTargets": TARGET + ":two"}, line)["pairs"], [])

    def test_allInDiscoveryOnly(self) -> None:
        """
        RFC 7143 C: "This value MUST be supported on a discovery session and MUST NOT be supported on an ..."
        """
        self.assertEqual(
            self.ask({"SendTargets": "All"}, self.normal())["pairs"], [("SendTargets", "Reject")]
        )

    def test_named(self) -> None:
        """
        RFC 7143 C: "A discovery session MUST be capable of returning addresses for those targets"

        By name.
        """
        pairs = self.ask({"SendTargets": TARGET + ":two"})["pairs"]
        self.assertEqual(pairs, [("TargetName", TARGET + ":two"), ("TargetAddress", "198.51.100.1:3260,1")])
