"""Names and keys of a login, and any requests whatever."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from iscsi_twisted.session.parameters import MAX_RECEIVE
from iscsi_twisted.wire import numbers, text
from tests.session.cases import DISCOVERY, NAMES, LoginTests
from tests.support import pdus
from tests.support.wire import (
    INITIATOR,
    TARGET,
    Line,
    Nobody,
)


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
