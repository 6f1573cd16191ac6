"""Tests for L{iscsi_twisted.session.discovery} and text requests: SendTargets and other keys."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.connection import BATCH, TURN
from iscsi_twisted.session.doors import Peer
from iscsi_twisted.session.fullfeature import LONGEST_ANSWER, LONGEST_TEXT
from iscsi_twisted.session.keys import KEYS
from iscsi_twisted.session.parameters import MAX_RECEIVE
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.session.target import Target
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers, text
from iscsi_twisted.wire.digest import digest
from iscsi_twisted.wire.framer import LOGIN_SEGMENT
from tests.support import pdus
from tests.support.wire import INITIATOR, TARGET, TEST_UNIT_READY, Anybody, Line, Nobody, makeNode, makeTarget

HERE = "198.51.100.1:3260,1"
ALL = {"SendTargets": "All"}


class TextTests(SynchronousTestCase):
    """
    Tests of a node with three targets, one of them not for us.

    @ivar line: a discovery session.
    """

    def setUp(self) -> None:
        self.node, self.diary = makeNode(
            makeTarget(MemoryDevice(4096)),
            makeTarget(name=TARGET + ":alias", alias="A disk"),
            makeTarget(name=TARGET + ":closed", policy=Nobody("192.0.2.99")),
        )
        self.line = Line(self.node)
        self.line.login(SessionType="Discovery")

    def normal(self) -> Line:
        """A normal session."""
        line = Line(self.node)
        line.login()
        return line

    def ask(self, pairs: dict[str, str] | bytes, line: Line | None = None, **fields: Any) -> Any:
        """Send one Text Request; the pairs of the response."""
        response = self.request(pairs, line, **fields)
        self.assertEqual((response["flags"], response["ttt"]), (numbers.FINAL, numbers.NO_TAG))
        return text.decode(response["data"])

    def request(
        self, pairs: dict[str, str] | bytes, line: Line | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Send one Text Request; the response."""
        (response,) = (line or self.line).say(pdus.textRequest(pairs, **fields))
        self.assertEqual(response["opcode"], numbers.TEXT_RESPONSE)
        return response

    def assertRejected(self, stream: bytes, reason: int = numbers.REASON_PROTOCOL_ERROR) -> None:
        """The request is rejected with its header, and the next one is served."""
        (reject,) = self.line.say(stream)
        self.assertEqual((reject["opcode"], reject["reason"]), (numbers.REJECT, reason))
        self.assertEqual(reject["data"], stream[:48])
        self.assertEqual(len(self.ask(ALL)), 4)


class SendTargetsTests(TextTests):
    """RFC 7143 appendix C."""

    def test_all(self) -> None:
        """All targets that the peer may log in to, each followed by its address; never their aliases."""
        self.assertEqual(
            self.ask(ALL),
            [
                ("TargetName", TARGET),
                ("TargetAddress", HERE),
                ("TargetName", TARGET + ":alias"),
                ("TargetAddress", HERE),
            ],
        )

    def test_policy(self) -> None:
        """Another peer sees other targets."""
        line = Line(self.node, address="192.0.2.99")
        line.login(SessionType="Discovery")
        self.assertEqual(len(self.ask(ALL, line)), 6)

    def test_none(self) -> None:
        """Where there is no target for the peer, the answer is empty."""
        self.node.targets = {}
        self.assertEqual(self.ask(ALL), [])

    def test_name(self) -> None:
        """One target is asked for by its name, in any case."""
        self.assertEqual(
            self.ask({"SendTargets": TARGET.upper()}), [("TargetName", TARGET), ("TargetAddress", HERE)]
        )

    def test_nameOfNone(self) -> None:
        """A target that is not there and one that is not for the peer are the same: nothing."""
        for name in (TARGET + ":none", TARGET + ":closed"):
            self.assertEqual(self.ask({"SendTargets": name}), [])

    def test_empty(self) -> None:
        """In a discovery session there is no target of its own to be asked for."""
        self.assertEqual(self.ask({"SendTargets": ""}), [("SendTargets", "Reject")])

    def test_normalSession(self) -> None:
        """A normal session may ask for its own target, by name or without, and for no other."""
        line = self.normal()
        own = [("TargetName", TARGET), ("TargetAddress", HERE)]
        self.assertEqual(self.ask({"SendTargets": ""}, line), own)
        self.assertEqual(self.ask({"SendTargets": TARGET}, line), own)
        self.assertEqual(self.ask({"SendTargets": TARGET + ":alias"}, line), [])
        self.assertEqual(self.ask(ALL, line), [("SendTargets", "Reject")])

    def test_addresses(self) -> None:
        """The address is the one that the peer came to, or that which the portal advertises."""
        for portal, local, expected in (
            (Portal(5), "[2001:db8::1]:3260", ["[2001:db8::1]:3260,5"]),
            (Portal(6, "san.example.com:3261"), "198.51.100.1:3260", ["san.example.com:3261,6"]),
            (Portal(7), None, []),
        ):
            line = Line(self.node)
            line.core.portal = portal
            line.core.peer = Peer("192.0.2.7", "192.0.2.7", local)
            line.login(SessionType="Discovery")
            pairs = self.ask({"SendTargets": TARGET}, line)
            self.assertEqual([value for name, value in pairs if name == "TargetAddress"], expected)
            line.core.lost("")

    def test_groups(self) -> None:
        """Targets of other portal groups are not told of; others with the addresses of all their groups."""
        first, second, third = (Portal(tag, listening=f"198.51.100.{tag}:3260") for tag in (1, 2, 3))
        self.node.portals = first, second, third
        self.node.targets = {}
        for name, groups in (("both", (1, 2)), ("other", (2, 3))):
            self.node.add(makeTarget(name=f"{TARGET}:{name}", groups=frozenset(groups)))
        told = {
            1: [("TargetName", f"{TARGET}:both")],
            2: [("TargetName", f"{TARGET}:both"), ("TargetName", f"{TARGET}:other")],
        }
        for portal in first, second:
            line = Line(self.node)
            line.core.portal, line.core.peer = portal, Peer("192.0.2.7", "", portal.listening)
            line.login(SessionType="Discovery")
            pairs = self.ask(ALL, line)
            self.assertEqual([each for each in pairs if each[0] == "TargetName"], told[portal.tag])
            self.assertEqual(
                sorted(value for name, value in self.ask({"SendTargets": f"{TARGET}:both"}, line)[1:]),
                ["198.51.100.1:3260,1", "198.51.100.2:3260,2"],
            )
            self.assertEqual(bool(self.ask({"SendTargets": f"{TARGET}:other"}, line)), portal is second)
            line.core.lost("")


class LongTests(TextTests):
    """Answers of several PDUs."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(10_000):
            name = f"{TARGET}:{number:05}"
            target = Target(name, Anybody(), {}, object(), lambda field: 0)
            self.node.add(target)

    def collect(self, line: Line) -> list[tuple[str, str]]:
        """Ask until the answer is complete."""
        most = min(line.core.maxSegment, LONGEST_ANSWER)
        response = self.request(ALL, line)
        whole = response["data"]
        while response["flags"] & numbers.CONTINUE:
            self.assertEqual(response["flags"], numbers.CONTINUE)
            self.assertNotEqual(response["ttt"], numbers.NO_TAG)
            self.assertEqual(len(response["data"]), most)
            response = self.request(b"", line, ttt=response["ttt"])
            whole += response["data"]
        self.assertEqual((response["flags"], response["ttt"]), (numbers.FINAL, numbers.NO_TAG))
        self.assertIsNone(line.core.text)
        return text.decode(whole)

    def test_complete(self) -> None:
        """Ten thousand targets come complete and in order, a segment at a time, whatever its length."""
        for segment in (8192, 1 << 20):
            line = Line(self.node)
            line.login(SessionType="Discovery", MaxRecvDataSegmentLength=str(segment))
            pairs = self.collect(line)
            names = [value for name, value in pairs if name == "TargetName"]
            self.assertEqual(names[2:], [f"{TARGET}:{number:05}" for number in range(10_000)])
            self.assertEqual(len(pairs), 2 * len(names))

    def test_made(self) -> None:
        """No more of an answer is made than is sent: asking again and again costs no more than that."""
        made: list[str] = []

        class Counting(Anybody):
            """Counts how often it is asked."""

            def admits(self, address: str | None) -> bool:
                made.append(str(address))
                return True

        for target in self.node.targets.values():
            target.policy = Counting()
        self.request(ALL)
        self.assertLess(len(made), 200)

    def test_anew(self) -> None:
        """A new request takes the place of one that was not brought to its end."""
        first = self.request(ALL)
        second = self.request(ALL)
        self.assertNotEqual(first["ttt"], second["ttt"])
        self.assertEqual(first["data"], second["data"])
        (reject,) = self.line.say(pdus.textRequest(b"", ttt=first["ttt"]))
        self.assertEqual(reject["opcode"], numbers.REJECT)
        self.assertEqual(self.request(b"", ttt=second["ttt"])["flags"], numbers.CONTINUE)

    def test_otherTags(self) -> None:
        """Requests with other task tags do not have answers of their own: memory for one is enough."""
        for itt in range(100):
            self.request(ALL, itt=itt)
        assert self.line.core.text is not None
        self.assertLess(len(self.line.core.text.unsent), 1000)

    def test_textMeanwhile(self) -> None:
        """New text while an answer is not complete is a protocol error."""
        first = self.request(ALL)
        (reject,) = self.line.say(pdus.textRequest(ALL, ttt=first["ttt"]))
        self.assertEqual(
            (reject["opcode"], reject["reason"]), (numbers.REJECT, numbers.REASON_PROTOCOL_ERROR)
        )
        self.assertIsNone(self.line.core.text)

    def test_flood(self) -> None:
        """A turn answers so many bytes; the requests that came with them wait for later ones."""
        line = Line(self.node)
        line.login(SessionType="Discovery", MaxRecvDataSegmentLength=str(1 << 20))
        count = 200
        line.core.receive(pdus.textRequest(ALL) * count)
        share = BATCH * TURN // LONGEST_ANSWER + 1
        answers = [len(line.take())]
        self.assertTrue(line.stalled)
        self.assertLessEqual(answers[0], share)
        while line.turns:
            line.turn()
            answers.append(len(line.take()))
        self.assertEqual(sum(answers), count)
        self.assertLessEqual(max(answers), share)
        self.assertEqual((line.stalled, line.core.wanted()), (False, None))

    def test_floodNotRead(self) -> None:
        """While the peer does not read, one answer is made; the others when it reads again."""
        self.line.core.pause()
        self.line.core.receive(pdus.textRequest(ALL) * 20)
        self.assertEqual((len(self.line.take()), self.line.stalled), (1, True))
        self.line.core.resume()
        answers = [len(self.line.take())]
        while self.line.turns:
            self.line.turn()
            answers.append(len(self.line.take()))
        self.assertEqual((sum(answers), self.line.stalled), (19, False))

    def test_floodForNothing(self) -> None:
        """A turn asks thousands of targets once whether they are for somebody, though the answer is short."""
        for target in self.node.targets.values():
            target.policy = Nobody()
        count = 20
        self.line.core.receive(pdus.textRequest(ALL) * count)
        self.assertEqual((len(self.line.take()), self.line.stalled), (1, True))
        self.line.turn()
        self.assertEqual(len(self.line.take()), 1)
        while self.line.turns:
            self.line.turn()
        self.assertEqual((len(self.line.take()), self.line.stalled), (count - 2, False))


class RequestTests(TextTests):
    """Text Requests (RFC 7143 11.10)."""

    def test_parts(self) -> None:
        """Text may be cut anywhere; with the C bit the responses are empty and carry a tag."""
        whole = text.encode(ALL.items())
        for cut in range(len(whole)):
            first = self.request(whole[:cut], more=True, final=False)
            self.assertEqual((first["data"], first["flags"]), (b"", 0))
            self.assertEqual(len(self.ask(whole[cut:], ttt=first["ttt"])), 4)

    def test_notFinal(self) -> None:
        """Without the F bit a negotiation goes on after its answer."""
        first = self.request({"X-one": "1"}, final=False)
        self.assertEqual((first["flags"], text.decode(first["data"])), (0, [("X-one", "NotUnderstood")]))
        self.assertEqual(self.ask({"X-two": "2"}, ttt=first["ttt"]), [("X-two", "NotUnderstood")])
        self.assertIsNone(self.line.core.text)

    def test_unknownTag(self) -> None:
        """A tag that is not ours is a protocol error."""
        self.assertRejected(pdus.textRequest(ALL, ttt=5))
        first = self.request(b"", more=True, final=False)
        self.assertRejected(pdus.textRequest(ALL, ttt=first["ttt"] + 1))

    def test_usedTag(self) -> None:
        """The tag of a negotiation that is complete is no tag any more."""
        first = self.request(b"", more=True, final=False)
        self.ask(ALL, ttt=first["ttt"])
        self.assertRejected(pdus.textRequest(ALL, ttt=first["ttt"]))

    def test_notText(self) -> None:
        """What is not text is a protocol error."""
        self.assertRejected(pdus.textRequest(b"nonsense"))
        self.assertRejected(pdus.textRequest(b"A=\xff"))

    def test_twice(self) -> None:
        """A key given twice is a protocol error: nobody is told thousands of targets thousands of times."""
        self.assertRejected(pdus.textRequest(b"SendTargets=All\0" * 2))

    def test_tooLong(self) -> None:
        """Text that never ends is refused at its bound."""
        part = b"x" * 8192
        tag = numbers.NO_TAG
        for _ in range(LONGEST_TEXT // len(part)):
            tag = self.request(part, ttt=tag, more=True, final=False)["ttt"]
        self.assertRejected(pdus.textRequest(b"x", ttt=tag, more=True, final=False))

    def test_numbered(self) -> None:
        """A Text Request that is not immediate takes its CmdSN."""
        response = self.request(ALL, immediate=False, cmdSN=self.line.cmdSN)
        self.assertEqual(response["expCmdSN"], self.line.cmdSN + 1)

    def test_otherPDUs(self) -> None:
        """In a discovery session SCSI and task management are not supported; pings and logout are."""
        for stream in (
            pdus.scsiCommand(TEST_UNIT_READY, itt=1, cmdSN=self.line.cmdSN),
            pdus.taskManagement(numbers.TARGET_COLD_RESET),
            pdus.dataOut(b"data", itt=1),
        ):
            self.assertRejected(stream, numbers.REASON_NOT_SUPPORTED)
        self.assertRejected(pdus.loginRequest({}))
        (pong,) = self.line.say(pdus.nopOut(b"x"))
        self.assertEqual(pong["data"], b"x")
        (answer,) = self.line.say(pdus.logoutRequest())
        self.assertEqual((answer["response"], self.line.closed), (0, True))


class KeyTests(TextTests):
    """Keys in full feature phase."""

    def test_unknown(self) -> None:
        """An unknown key is not understood."""
        self.assertEqual(self.ask({"X-com.example": "1"}), [("X-com.example", "NotUnderstood")])

    def test_tooLate(self) -> None:
        """Keys that belong to the login are rejected, and nothing changes."""
        line = self.normal()
        assert line.core.session is not None
        before = line.core.session.parameters
        for name in ("HeaderDigest", "MaxBurstLength", "InitiatorName", "ErrorRecoveryLevel", "OFMarker"):
            self.assertEqual(self.ask({name: "1024"}, line), [(name, "Reject")])
        self.assertEqual(line.core.session.parameters, before)

    def test_declared(self) -> None:
        """An alias is taken without an answer."""
        self.assertEqual(self.ask({"InitiatorAlias": "host"}), [])

    def test_everyKey(self) -> None:
        """Of all keys an initiator may give SendTargets, its alias and its segment length, and no other."""
        line = self.normal()
        taken = {name for name in KEYS if self.ask({name: "1024"}, line) != [(name, "Reject")]}
        self.assertEqual(taken, {"SendTargets", "InitiatorAlias", "MaxRecvDataSegmentLength"})

    def test_segmentOfOurs(self) -> None:
        """After a login that declared nothing we tell our segment length here, and take as much then."""
        line = Line(self.node)
        (response,) = line.say(
            pdus.loginRequest({"InitiatorName": INITIATOR, "TargetName": TARGET}, stage=0, following=3)
        )
        self.assertEqual((response["status"], line.core.framer.maxSegment), (0, LOGIN_SEGMENT))
        self.ask({"MaxRecvDataSegmentLength": "4096"}, line)
        (pong,) = line.say(pdus.nopOut(bytes(MAX_RECEIVE)))
        self.assertEqual(len(pong["data"]), 4096)

    def test_segment(self) -> None:
        """The initiator may declare anew how much it takes, for reads of one PDU and of several."""
        line = self.normal()
        answer = [("MaxRecvDataSegmentLength", str(MAX_RECEIVE))]
        read = b"\x28" + bytes(7) + b"\4\0"
        self.assertEqual(len(line.command(read, read=2048)), 1)
        self.assertEqual(self.ask({"MaxRecvDataSegmentLength": "512"}, line), answer)
        self.assertEqual(len(line.command(read, read=2048)), 4)
        self.assertEqual(self.ask({"MaxRecvDataSegmentLength": "4096"}, line), answer)
        self.assertEqual(len(line.command(read, read=2048)), 1)

    def test_segmentWithDigests(self) -> None:
        """The same where digests keep reads from the short way."""
        line = Line(self.node)
        line.login(HeaderDigest="CRC32C", MaxRecvDataSegmentLength="512")
        stream = bytearray(pdus.textRequest({"MaxRecvDataSegmentLength": "4096"}))
        stream[48:48] = digest(bytes(stream[:48]))
        line.say(bytes(stream))
        self.assertEqual((line.core.maxSegment, line.core.single), (4096, 0))

    def test_segmentBounds(self) -> None:
        """A length out of bounds is rejected, and nothing changes."""
        for value in ("511", "16777216", "x"):
            self.assertEqual(
                self.ask({"MaxRecvDataSegmentLength": value}), [("MaxRecvDataSegmentLength", "Reject")]
            )
        self.assertEqual(self.line.core.maxSegment, 8192)

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([numbers.NO_TAG, 1, 2, 3]),
                st.booleans(),
                st.booleans(),
                st.one_of(st.binary(max_size=40), st.just(b"SendTargets=All\0"), st.just(b"A=1\0")),
            ),
            max_size=8,
        )
    )
    def test_anything(self, requests: list[Any]) -> None:
        """Any sequence of requests is answered one by one, or rejected."""
        line = Line(self.node)
        line.login(SessionType="Discovery")
        for ttt, final, more, data in requests:
            (answer,) = line.say(pdus.textRequest(data, ttt=ttt, final=final, more=more))
            self.assertIn(answer["opcode"], (numbers.TEXT_RESPONSE, numbers.REJECT))
        line.core.lost("")
        self.assertNotIn("surprise", [entry[0] for entry in self.diary.entries])
