"""Tests for L{iscsi_twisted.session.negotiation} and what is made of its results."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LoginError
from iscsi_twisted.session.keys import IRRELEVANT, KEYS, NOT_UNDERSTOOD, REJECT
from iscsi_twisted.session.negotiation import Negotiation
from iscsi_twisted.session.parameters import CHOICES, OURS, Parameters

# Key, what the peer offers, what we answer, what is in force then.
OFFERS = (
    ("HeaderDigest", "None", "None", "None"),
    ("HeaderDigest", "CRC32C", "CRC32C", "CRC32C"),
    ("HeaderDigest", "None,CRC32C", "None", "None"),
    ("DataDigest", "X-sum,CRC32C,None", "CRC32C", "CRC32C"),
    ("DataDigest", "X-sum", REJECT, "None"),
    ("AuthMethod", "KRB5,None", "None", "None"),
    ("AuthMethod", "CHAP", REJECT, "None"),
    ("TaskReporting", "FastAbort,RFC3720", "RFC3720", "RFC3720"),
    ("TaskReporting", "FastAbort", REJECT, "RFC3720"),
    ("TaskReporting", "FastAbort,ResponseFence,RFC3720", "ResponseFence", "ResponseFence"),
    ("TaskReporting", "RFC3720,ResponseFence", "RFC3720", "RFC3720"),
    ("MaxConnections", "1", "1", 1),
    ("MaxConnections", "65535", "1", 1),
    ("MaxConnections", "0", REJECT, 1),
    ("MaxConnections", "65536", REJECT, 1),
    ("InitialR2T", "No", "No", False),
    ("InitialR2T", "Yes", "Yes", True),
    ("InitialR2T", "Maybe", REJECT, True),
    ("ImmediateData", "No", "No", False),
    ("ImmediateData", "Yes", "Yes", True),
    ("MaxBurstLength", "512", "512", 512),
    ("MaxBurstLength", "16777215", "1048576", 1048576),
    ("MaxBurstLength", "511", REJECT, 262144),
    ("MaxBurstLength", "16777216", REJECT, 262144),
    ("FirstBurstLength", "512", "512", 512),
    ("FirstBurstLength", "16777215", "262144", 262144),
    ("FirstBurstLength", "511", REJECT, 65536),
    ("DefaultTime2Wait", "0", "0", 0),
    ("DefaultTime2Wait", "3600", "3600", 3600),
    ("DefaultTime2Wait", "3601", REJECT, 2),
    ("DefaultTime2Retain", "3600", "0", 0),
    ("MaxOutstandingR2T", "1", "1", 1),
    ("MaxOutstandingR2T", "65535", "8", 8),
    ("DataPDUInOrder", "No", "Yes", True),
    ("DataSequenceInOrder", "No", "Yes", True),
    ("ErrorRecoveryLevel", "2", "0", 0),
    ("ErrorRecoveryLevel", "3", REJECT, 0),
    ("iSCSIProtocolLevel", "2", "1", 1),
    ("iSCSIProtocolLevel", "0", "0", 0),
    ("iSCSIProtocolLevel", "32", REJECT, 1),
    ("OFMarker", "Yes", "No", "No"),
    ("IFMarker", "No", "No", "No"),
    ("OFMarkInt", "1~65535", REJECT, REJECT),
    ("IFMarkInt", "512", REJECT, REJECT),
)

names = st.one_of(st.sampled_from([*KEYS]), st.just("X-com.example.key"), st.text("ABZabz09-", min_size=1))
numbers = st.integers(-1, 1 << 25).map(str)
words = st.sampled_from(["Yes", "No", "None", "CRC32C", "CHAP", "Reject", "Irrelevant", "NotUnderstood", ""])
values = st.one_of(numbers, words, st.text(max_size=20), st.lists(words).map(",".join))


def negotiation() -> Negotiation:
    """With the values of a target."""
    return Negotiation(OURS, CHOICES)


class OfferTests(SynchronousTestCase):
    """One key at a time."""

    def test_offers(self) -> None:
        """Each offer gets the standard's answer, and what was agreed upon is in force."""
        for name, offer, answer, result in OFFERS:
            with_ = negotiation()
            self.assertEqual(with_.offer(name, offer), (name, answer), (name, offer))
            self.assertEqual(with_.results[name], result, (name, offer))

    def test_everyKey(self) -> None:
        """The table of offers leaves out no key that is negotiated."""
        negotiated = {name for name, key in KEYS.items() if key.kind != "declared"}
        self.assertEqual({name for name, *_ in OFFERS}, negotiated)

    def test_defaults(self) -> None:
        """What nobody negotiates has its default, not the value that we would like."""
        self.assertEqual(Parameters.agreed(negotiation()), Parameters())

    def test_unknown(self) -> None:
        """An unknown key is answered NotUnderstood."""
        self.assertEqual(negotiation().offer("X-com.example.key", "1"), ("X-com.example.key", NOT_UNDERSTOOD))

    def test_twice(self) -> None:
        """A key that is given twice, an unknown one too, is refused with initiator error."""
        for name in ("MaxBurstLength", "InitiatorAlias", "OFMarker", "X-com.example.key"):
            twice = negotiation()
            twice.offer(name, "1024")
            error = self.assertRaises(LoginError, twice.offer, name, "1024")
            self.assertEqual((error.status, str(error)), (0x0200, f"{name} was negotiated twice"))

    def test_declared(self) -> None:
        """What is declared is kept and not answered."""
        declaring = negotiation()
        self.assertIsNone(declaring.offer("MaxRecvDataSegmentLength", "0x1000"))
        self.assertIsNone(declaring.offer("InitiatorAlias", "host"))
        self.assertEqual(declaring.declared, {"MaxRecvDataSegmentLength": 4096, "InitiatorAlias": "host"})

    def test_declaredBounds(self) -> None:
        """A declared number is taken up to its bounds, and beyond them the login is refused."""
        for text in ("512", "16777215"):
            self.assertIsNone(negotiation().offer("MaxRecvDataSegmentLength", text))
        for text in ("511", "16777216", "much"):
            error = self.assertRaises(LoginError, negotiation().offer, "MaxRecvDataSegmentLength", text)
            self.assertEqual(error.status, 0x0200)

    def test_notLeading(self) -> None:
        """On a further connection of a session what concerns the session is answered Irrelevant."""
        for name, key in KEYS.items():
            further = negotiation()
            further.leading = False
            answer = further.offer(name, "1024")
            ofSession = key.leading and key.kind in ("numerical", "boolean", "list")
            self.assertEqual(answer == (name, IRRELEVANT), ofSession, name)

    def test_forTarget(self) -> None:
        """What only targets declare, or what belongs behind the login, is rejected."""
        for name in ("TargetAlias", "TargetAddress", "TargetPortalGroupTag", "SendTargets"):
            self.assertEqual(negotiation().offer(name, "1"), (name, REJECT))

    def test_discovery(self) -> None:
        """In a discovery session every key that means nothing there is answered Irrelevant."""
        for name, key in KEYS.items():
            discovery = negotiation()
            discovery.discovery = True
            answer = discovery.offer(name, "1024")
            irrelevant = not key.discovery and key.forLogin and not key.forTarget
            self.assertEqual(answer == (name, IRRELEVANT), irrelevant, name)
            if not key.discovery:
                self.assertEqual(discovery.results[name], key.default)


class AnswerTests(SynchronousTestCase):
    """Several keys at a time."""

    def test_burstBound(self) -> None:
        """FirstBurstLength is never answered above MaxBurstLength, in whatever order they come."""
        pairs = [("FirstBurstLength", "131072"), ("MaxBurstLength", "65536")]
        for order in (pairs, pairs[::-1]):
            answers = negotiation().answer(order)
            self.assertEqual(answers, [("MaxBurstLength", "65536"), ("FirstBurstLength", "65536")])

    def test_burstBoundByDefault(self) -> None:
        """The default of MaxBurstLength bounds FirstBurstLength too."""
        generous = Negotiation({"FirstBurstLength": 1 << 20}, {})
        self.assertEqual(generous.answer([("FirstBurstLength", "1048576")]), [("FirstBurstLength", "262144")])

    def test_burstBoundLater(self) -> None:
        """A MaxBurstLength that comes in a later request still bounds what is in force."""
        late = negotiation()
        late.answer([("FirstBurstLength", "131072")])
        late.answer([("MaxBurstLength", "65536")])
        self.assertEqual(Parameters.agreed(late).firstBurst, 65536)

    def test_order(self) -> None:
        """Other answers stand in the order of the offers; what is declared has none."""
        pairs = [("ImmediateData", "Yes"), ("InitiatorAlias", "x"), ("HeaderDigest", "None")]
        self.assertEqual(negotiation().answer(pairs), [("ImmediateData", "Yes"), ("HeaderDigest", "None")])

    @settings(deadline=None)
    @given(st.lists(st.tuples(names, values), max_size=12), st.booleans())
    def test_anything(self, pairs: list[tuple[str, str]], discovery: bool) -> None:
        """Any pairs are answered or refused, and what is in force then is within the standard's bounds."""
        any_ = negotiation()
        any_.discovery = discovery
        try:
            answers = any_.answer(pairs)
        except LoginError:
            return
        keys = [KEYS[name] for name, _ in pairs if name in KEYS]
        declared = sum(key.kind == "declared" and key.forLogin and not key.forTarget for key in keys)
        self.assertEqual(len(answers), len(pairs) - declared)
        for name, key in KEYS.items():
            if key.kind == "numerical":
                self.assertTrue(key.lowest <= int(any_.results[name]) <= key.highest, name)
        agreed = Parameters.agreed(any_)
        self.assertTrue(512 <= agreed.maxSegment <= 16777215)
        self.assertLessEqual(agreed.firstBurst, agreed.maxBurst)

    def test_parameters(self) -> None:
        """What was agreed upon comes out in the form that the full feature phase needs."""
        full = negotiation()
        full.answer(
            [
                ("HeaderDigest", "CRC32C"),
                ("DataDigest", "CRC32C"),
                ("MaxRecvDataSegmentLength", "65536"),
                ("MaxBurstLength", "131072"),
                ("FirstBurstLength", "32768"),
                ("InitialR2T", "No"),
                ("ImmediateData", "No"),
                ("MaxOutstandingR2T", "3"),
            ]
        )
        self.assertEqual(
            Parameters.agreed(full),
            Parameters(
                maxSegment=65536,
                maxBurst=131072,
                firstBurst=32768,
                initialR2T=False,
                immediateData=False,
                maxOutstandingR2T=3,
                headerDigest=True,
                dataDigest=True,
            ),
        )
