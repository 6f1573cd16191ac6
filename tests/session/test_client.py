"""The initiator's core against targets that do what they should not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import ISCSIError, LocalError, RemoteError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session import asking
from iscsi_twisted.session.answers import (
    STATUSES,
    Event,
    LoginRefused,
    Redirected,
)
from iscsi_twisted.session.client import ClientConnection
from iscsi_twisted.session.command import Command, Outcome
from iscsi_twisted.session.request import MAX_RECEIVE, ROUNDS, Wish
from iscsi_twisted.session.responses import TEXT_ROUNDS, UNREAD_PINGS
from iscsi_twisted.wire import layout, numbers, text

ISID = b"\x80\1\2\3\4\5"
WISH = Wish("iqn.2001-04.com.example:i", "iqn.2001-04.com.example:t", ISID)
READ = bytes((0x28,)) + bytes(9)
NO_LUN = bytes(8)
FINAL = numbers.FINAL


def pdu(record: layout.Layout, opcode: int, data: bytes = b"", **fields: Any) -> bytes:
    """One PDU of a target; what is not given is zero."""
    defaults: dict[str, Any] = {"opcode": opcode, "flags": FINAL, "lengths": len(data)}
    values = {**{name: b"\0" * 8 if name == "lun" else 0 for name in record.fields}, **defaults, **fields}
    return record.pack(*(values[name] for name in record.fields)) + data + bytes(-len(data) % 4)


class Told(Command):
    """A command whose outcome, or the error it met, is put in a list."""

    def __init__(self, told: list[Any], cdb: bytes = READ, **options: Any) -> None:
        super().__init__(NO_LUN, cdb, **options)
        self.failed = self.lost = told.append  # type: ignore[method-assign]
        self.ended = lambda *ended: told.append(self.outcome(*ended))  # type: ignore[method-assign]


class ClientTests(SynchronousTestCase):
    """
    A connection whose target is the test.

    @ivar diary: what the owner was told.
    """

    def setUp(self) -> None:
        self.make()

    def make(self, wish: Wish = WISH) -> None:
        """A connection that has begun its login."""
        self.sent: list[Buffer] = []
        self.closed = False
        self.diary: list[Any] = []
        self.results: list[Any] = []
        self.statSN = 100
        self.core = ClientConnection(self, wish, send=self.sent.extend, close=self.close)
        self.core.start()

    def close(self) -> None:
        """The core closes the transport."""
        self.closed = True

    def loggedIn(self, connection: ClientConnection) -> None:
        """See L{iscsi_twisted.session.client.Owner}."""
        self.diary.append("loggedIn")

    def ended(self, error: ISCSIError) -> None:
        """See L{iscsi_twisted.session.client.Owner}."""
        self.diary.append(error)

    def told(self, event: Event) -> None:
        """See L{iscsi_twisted.session.client.Owner}."""
        self.diary.append(event)

    def taken(self) -> bytes:
        """What was sent since the last call."""
        data = b"".join(map(bytes, self.sent))
        self.sent.clear()
        return data

    def numbered(self, record: layout.Layout, opcode: int, data: bytes = b"", **fields: Any) -> bytes:
        """A PDU with the next StatSN and an open window."""
        self.statSN += 1
        fields = {"statSN": self.statSN - 1, "expCmdSN": 1, "maxCmdSN": 64, **fields}
        return pdu(record, opcode, data, **fields)

    def answer(self, pairs: dict[str, str] | bytes = b"", **fields: Any) -> None:
        """A Login Response."""
        data = pairs if isinstance(pairs, bytes) else text.encode(pairs.items())
        fields = {"isid": ISID, "itt": 1, **fields}
        self.core.receive(self.numbered(layout.LOGIN_RESPONSE, numbers.LOGIN_RESPONSE, data, **fields))

    def login(self, **pairs: str) -> None:
        """Get as far as the full feature phase."""
        self.answer({"AuthMethod": "None"}, flags=FINAL | 1)
        self.answer(pairs, flags=FINAL | 4 | 3, tsih=7)
        self.assertEqual(self.diary, ["loggedIn"])
        self.diary.clear()
        self.taken()

    def command(self, **options: Any) -> Command:
        """A command that was sent."""
        command = Told(self.results, **options)
        self.core.execute(command)
        return command

    def assertBroken(self, *words: str) -> None:
        """The connection has ended with an error that says these."""
        self.assertTrue(self.closed)
        error = self.core.error
        self.assertIsInstance(error, RemoteError)
        for word in words:
            self.assertIn(word, str(error))
        self.assertIs(self.diary[-1], error)
        self.assertEqual((self.core.commands, len(self.core.waiting)), ({}, 0))


class LoginTests(ClientTests):
    """Answers to a login."""

    def test_statuses(self) -> None:
        """A refusal is told with its status."""
        for status in (*STATUSES, 0x0299, 0x0500):
            self.make()
            self.answer(status=status)
            (error,) = self.diary
            self.assertIs(type(error), LoginRefused)
            self.assertEqual(error.status, status)
            self.assertTrue(self.closed)

    def test_redirected(self) -> None:
        """So is where the target has gone."""
        self.answer({"TargetAddress": "192.0.2.1:3260,1"}, status=numbers.TARGET_MOVED_PERMANENTLY)
        (error,) = self.diary
        assert isinstance(error, Redirected)
        self.assertEqual((error.address, error.forever), ("192.0.2.1:3260,1", True))

    def test_wrong(self) -> None:
        """Answers that break the protocol end the login, and say how."""
        security = {"AuthMethod": "None"}
        cases: list[tuple[Any, dict[str, Any], str]] = [
            ({}, {"flags": FINAL | 1}, "no authentication method"),
            ({"AuthMethod": "CHAP"}, {"flags": FINAL | 1}, "CHAP authentication method"),
            ({"AuthMethod": "Reject"}, {"flags": FINAL | 1}, "none of the authentication methods that were"),
            (security, {"flags": FINAL | 3}, "moved to login stage 3"),
            (security, {"flags": FINAL | 1, "isid": bytes(6)}, "another request"),
            (security, {"flags": FINAL | 1, "itt": 9}, "another request"),
            (security, {"flags": FINAL | numbers.CONTINUE | 1}, "both the T and the C bit"),
            (b"nonsense\0", {"flags": FINAL | 1}, "no '='"),
            (b"A=1\0A=2\0", {"flags": FINAL | 1}, "twice"),
        ]
        for pairs, fields, words in cases:
            self.make()
            self.answer(pairs, **fields)
            self.assertIn(words, str(self.core.error))
            self.assertTrue(self.closed)

    def test_operational(self) -> None:
        """So do results that no offer can have, and lengths out of their bounds."""
        for name, value, words in (
            ("HeaderDigest", "MD5", "None,CRC32C was offered"),
            ("MaxBurstLength", "99999999", "MaxBurstLength"),
            ("FirstBurstLength", "0", "FirstBurstLength"),
            ("ImmediateData", "Maybe", "ImmediateData"),
            ("MaxRecvDataSegmentLength", "1", "out of its bounds"),
            ("ErrorRecoveryLevel", "2", "ErrorRecoveryLevel"),
        ):
            self.make()
            self.answer({"AuthMethod": "None"}, flags=FINAL | 1)
            self.answer({name: value}, flags=FINAL | 4 | 3, tsih=7)
            self.assertBroken(words)

    def test_offers(self) -> None:
        """What the target offers by itself is answered; the rest of the login goes on."""
        self.answer({"AuthMethod": "None"}, flags=FINAL | 1)
        self.taken()
        self.answer({"X-com.example.key": "1", "MaxConnections": "1", "IFMarker": "No"}, flags=4)
        said = dict(text.decode(self.taken()[48:].rstrip(b"\0") + b"\0"))
        self.assertEqual(said, {"X-com.example.key": "NotUnderstood", "IFMarker": "Reject"})
        self.answer(flags=FINAL | 4 | 3, tsih=7)
        self.assertEqual(self.diary, ["loggedIn"])

    def test_continued(self) -> None:
        """An answer may come in parts, which are asked for; it has a bound."""
        self.answer(b"AuthMe", flags=numbers.CONTINUE)
        self.answer(b"thod=None\0", flags=FINAL | 1)
        self.answer(flags=FINAL | 4 | 3, tsih=7)
        self.assertEqual(self.diary, ["loggedIn"])
        self.make()
        for _ in range(20):
            self.answer(b"x" * 4096, flags=numbers.CONTINUE)
        self.assertBroken("more than 65536 bytes")

    def test_endless(self) -> None:
        """A login that never ends is given up."""
        self.answer({"AuthMethod": "None"}, flags=FINAL | 1)
        for _ in range(ROUNDS):
            self.answer(flags=4)
        self.assertBroken("not complete")

    def test_empty(self) -> None:
        """An answer that goes on with nothing in it is not asked for more."""
        self.taken()
        self.answer(b"", flags=numbers.CONTINUE)
        self.assertBroken("nothing in it")
        self.assertEqual(self.taken(), b"")

    def test_noHandle(self) -> None:
        """A session without a handle is none."""
        self.answer({"AuthMethod": "None"}, flags=FINAL | 1)
        self.answer(flags=FINAL | 4 | 3)
        self.assertBroken("TSIH")

    def test_required(self) -> None:
        """A digest that is required and not given."""
        self.make(Wish("iqn.2001-04.com.example:i", None, ISID, headerDigest="yes"))
        self.answer({"AuthMethod": "None"}, flags=FINAL | 1)
        self.answer({"HeaderDigest": "Reject"}, flags=FINAL | 4 | 3, tsih=7)
        self.assertBroken("CRC32C is required")


class SessionTestCase(ClientTests):
    """A connection in full feature phase."""

    def setUp(self) -> None:
        super().setUp()
        self.login(InitialR2T="Yes", ImmediateData="No")

    def dataIn(self, itt: int, data: bytes, **fields: Any) -> bytes:
        """A Data-In without status."""
        fields = {"flags": 0, "statSN": 0, **fields}
        return pdu(layout.DATA_IN, numbers.DATA_IN, data, itt=itt, expCmdSN=1, maxCmdSN=64, **fields)

    def response(self, itt: int, data: bytes = b"", **fields: Any) -> bytes:
        """A SCSI Response."""
        return self.numbered(layout.SCSI_RESPONSE, numbers.SCSI_RESPONSE, data, itt=itt, **fields)


class FullFeatureTests(SessionTestCase):
    """PDUs in full feature phase."""

    def test_broken(self) -> None:
        """Whatever breaks the protocol ends the connection; every command is told why."""
        cases: list[tuple[Callable[[int], bytes], str]] = [
            (lambda itt: self.dataIn(itt + 1, b"x"), "which there is not"),
            (lambda itt: self.dataIn(itt, b"x" * 513), "513 bytes of Data-In at offset 0"),
            (lambda itt: self.dataIn(itt, b"x", bufferOffset=4), "at offset 4"),
            (lambda itt: self.dataIn(itt, b"x", dataSN=1), "DataSN 1"),
            (lambda itt: self.response(itt, statSN=5), "StatSN 5"),
            (lambda itt: self.response(itt + 5), "which there is not"),
            (lambda itt: self.response(itt, b"\xff\xffx", status=2), "sense data of 65535 bytes"),
            (lambda itt: pdu(layout.R2T, numbers.R2T, itt=itt, desiredLength=512, ttt=1), "an R2T for 512"),
            (lambda itt: self.numbered(layout.TEXT_RESPONSE, numbers.TEXT_RESPONSE, itt=99), "nobody waits"),
            (lambda itt: self.numbered(layout.NOP_IN, numbers.NOP_IN, itt=99), "nobody waits"),
            (
                lambda itt: self.numbered(
                    layout.TASK_MANAGEMENT_RESPONSE, numbers.TASK_MANAGEMENT_RESPONSE, itt=99
                ),
                "nobody waits",
            ),
            (lambda itt: bytes((0x30,)) + bytes(47), "opcode 30h"),
            (
                lambda itt: self.numbered(layout.LOGIN_RESPONSE, numbers.LOGIN_RESPONSE, isid=ISID),
                "opcode 23h",
            ),
            (lambda itt: self.dataIn(itt, b"")[:5] + b"\xff\xff\xff" + bytes(40), str(MAX_RECEIVE)),
        ]
        for build, words in cases:
            self.make()
            self.login(InitialR2T="Yes", ImmediateData="No")
            command = self.command(expected=512)
            self.core.receive(build(command.itt))
            self.assertBroken(words)
            self.assertEqual(self.results, [self.core.error])
            self.core.receive(b"x" * 100)
            self.assertRaises(LocalError, self.core.execute, command)

    def test_writes(self) -> None:
        """An R2T for what there is not, or twice the same, ends the connection."""
        for fields in (
            {"bufferOffset": 1024, "desiredLength": 1},
            {"desiredLength": 0},
            {"desiredLength": 1025},
            {"desiredLength": 512, "ttt": numbers.NO_TAG},
            {"desiredLength": 512, "r2tSN": 1},
        ):
            self.make()
            self.login(InitialR2T="Yes", ImmediateData="No")
            command = self.command(data=bytes(1024))
            self.taken()
            values: dict[str, Any] = {"itt": command.itt, "ttt": 5, "expCmdSN": 1, "maxCmdSN": 64, **fields}
            self.core.receive(pdu(layout.R2T, numbers.R2T, **values))
            self.assertBroken("R2T")
            self.assertEqual(self.taken(), b"")

    def test_endless(self) -> None:
        """Text without end is given up, with what was kept of it."""
        asking.ask(self.core, [("SendTargets", "All")], self.results.append)
        for _ in range(70):
            self.core.receive(
                self.numbered(
                    layout.TEXT_RESPONSE, numbers.TEXT_RESPONSE, b"x" * MAX_RECEIVE, itt=2, ttt=1, flags=0
                )
            )
        self.assertBroken("more than 16777216 bytes")
        self.assertEqual(self.results, [self.core.error])

    def test_emptyText(self) -> None:
        """Nor does text end that has nothing in it, for ever."""
        asking.ask(self.core, [("SendTargets", "All")], self.results.append)
        for _ in range(TEXT_ROUNDS + 1):
            self.core.receive(
                self.numbered(layout.TEXT_RESPONSE, numbers.TEXT_RESPONSE, itt=2, ttt=1, flags=0)
            )
            self.sent.clear()
        self.assertBroken("parts")
        self.assertEqual(self.results, [self.core.error])

    def test_askedAgain(self) -> None:
        """What was sent, unasked too, is not sent again: no target can have one write queued many times."""
        for keys in (
            {"InitialR2T": "Yes", "ImmediateData": "No"},
            {"InitialR2T": "Yes", "ImmediateData": "Yes"},
            {"InitialR2T": "No", "ImmediateData": "No"},
        ):
            self.make()
            self.login(FirstBurstLength="512", **keys)
            command = self.command(data=bytes(2048))
            sent = 0 if keys == {"InitialR2T": "Yes", "ImmediateData": "No"} else 512
            asked: dict[str, Any] = {
                "itt": command.itt, "ttt": 5, "expCmdSN": 1, "maxCmdSN": 64, "desiredLength": 1024,
            }  # fmt: skip
            self.core.receive(pdu(layout.R2T, numbers.R2T, bufferOffset=sent, **asked))
            self.assertFalse(self.closed)
            self.taken()
            asked["desiredLength"] = 1025 - sent
            self.core.receive(pdu(layout.R2T, numbers.R2T, r2tSN=1, bufferOffset=sent, **asked))
            self.assertBroken(f"{1024 - sent} have not been sent")
            self.assertEqual(self.taken(), b"")

    def test_tooLong(self) -> None:
        """A NOP-Out carries no more than the target takes; without ping it gets no answer."""
        longest = self.core.parameters.maxSegment
        asking.nop(self.core, bytes(longest))
        sent = layout.NOP_OUT.asDict(self.taken())
        self.assertEqual(
            (sent["itt"], sent["ttt"], sent["lengths"]), (numbers.NO_TAG, numbers.NO_TAG, longest)
        )
        self.assertEqual(self.core.callbacks, {})
        self.assertRaises(LocalError, asking.nop, self.core, bytes(longest + 1))
        self.assertRaises(LocalError, asking.ping, self.core, self.results.append, bytes(longest + 1))
        self.assertEqual((self.core.callbacks, self.taken()), ({}, b""))

    def aborted(self) -> Command:
        """A command that the target says it has aborted."""
        command = self.command(expected=512)
        self.taken()
        asking.manage(
            self.core, numbers.ABORT_TASK, NO_LUN, command, lambda response: self.core.drop(command)
        )
        itt = int.from_bytes(self.taken()[16:20], "big")
        answer = layout.TASK_MANAGEMENT_RESPONSE, numbers.TASK_MANAGEMENT_RESPONSE
        self.core.receive(self.numbered(*answer, itt=itt))
        return command

    def test_late(self) -> None:
        """What a target still sends for a task that it has aborted, in any order, means nothing."""
        for ahead in (0, -1):
            self.make()
            self.login()
            gone = self.aborted()
            self.core.receive(self.dataIn(gone.itt, b"x" * 512))
            if ahead:
                self.core.receive(self.response(gone.itt, statSN=self.statSN + ahead))
                self.statSN -= 1
            else:
                self.core.receive(self.response(gone.itt))
            other = self.command()
            self.core.receive(self.response(other.itt))
            self.assertEqual([result.status for result in self.results], [0])
            self.assertIsNone(self.core.error)

    def test_skipped(self) -> None:
        """A status number may be left out for a task that was aborted, but no more than that."""
        self.aborted()
        self.statSN += 1
        other = self.command()
        self.core.receive(self.response(other.itt))
        self.assertIsNone(self.core.error)
        self.statSN += 1
        self.core.receive(self.response(self.command().itt))
        self.assertBroken("StatSN")

    def test_overtaken(self) -> None:
        """Statuses of a target that mixes up their order around aborts are taken, each number once."""
        first, second = self.command(), self.command(expected=512)
        answers: list[int] = []
        asking.manage(self.core, numbers.ABORT_TASK, NO_LUN, second, answers.append)
        itt = int.from_bytes(self.taken()[-32:-28], "big")
        answer = self.numbered(layout.TASK_MANAGEMENT_RESPONSE, numbers.TASK_MANAGEMENT_RESPONSE, itt=itt)
        self.core.receive(self.response(first.itt))
        self.core.receive(answer)
        self.assertEqual((len(self.results), answers, self.core.error), (1, [0], None))
        self.assertEqual(self.core.expStatSN, self.statSN)
        self.core.receive(self.response(self.command().itt))
        self.assertIsNone(self.core.error)
        self.statSN -= 2
        self.core.receive(self.response(self.command().itt))
        self.assertBroken("StatSN")

    def test_pings(self) -> None:
        """A ping of the target's is answered, with its tag."""
        self.core.receive(
            pdu(
                layout.NOP_IN,
                numbers.NOP_IN,
                itt=numbers.NO_TAG,
                ttt=77,
                statSN=self.statSN,
                maxCmdSN=64,
                expCmdSN=1,
            )
        )
        sent = layout.NOP_OUT.asDict(self.taken())
        self.assertEqual((sent["itt"], sent["ttt"]), (numbers.NO_TAG, 77))

    def test_unreadPings(self) -> None:
        """A target that pings, and reads no answers, does not fill our memory with them."""
        asked = {"itt": numbers.NO_TAG, "ttt": 77, "statSN": self.statSN, "maxCmdSN": 64, "expCmdSN": 1}
        ping = pdu(layout.NOP_IN, numbers.NOP_IN, **asked)
        self.core.receive(ping * 2 * UNREAD_PINGS)
        self.assertEqual(len(self.taken()), 2 * UNREAD_PINGS * 48)
        self.core.clogged = 1
        self.core.receive(ping * (UNREAD_PINGS - 1))
        self.assertFalse(self.closed)
        self.taken()
        self.core.receive(ping * 2)
        self.assertBroken(f"{UNREAD_PINGS} NOP-Ins want an answer")

    def test_direction(self) -> None:
        """A command has data in one direction, and a CDB of a length that there is."""
        for options in ({"expected": 1, "data": b"x"}, {"expected": 2, "into": bytearray(1)}):
            self.assertRaises(LocalError, Command, NO_LUN, READ, **options)
        self.assertRaises(LocalError, Command, NO_LUN, bytes(17))

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0x20, 0x3F), st.binary(max_size=100), st.booleans()), max_size=8),
        st.data(),
    )
    def test_anything(self, answers: list[tuple[int, bytes, bool]], data: Any) -> None:
        """Whatever comes, in whatever pieces: nothing is raised, and every command gets one result."""
        self.make()
        self.login()
        commands = [self.command(expected=512), self.command(data=bytes(2048))]
        stream = b""
        for opcode, segment, right in answers:
            head = bytearray(data.draw(st.binary(min_size=48, max_size=48)))
            head[0] = opcode
            head[4:8] = len(segment).to_bytes(4, "big")
            if right:
                head[16:20] = data.draw(st.sampled_from(commands)).itt.to_bytes(4, "big")
                head[24:28] = self.statSN.to_bytes(4, "big")
            stream += bytes(head) + segment + bytes(-len(segment) % 4)
        cut = data.draw(st.integers(0, len(stream)))
        self.core.receive(stream[:cut])
        self.core.receive(stream[cut:])
        self.core.lost("gone")
        self.assertEqual(len(self.results), 2)
        self.assertTrue(all(isinstance(one, Outcome | ISCSIError) for one in self.results))
