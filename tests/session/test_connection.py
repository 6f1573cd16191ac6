"""Tests for L{iscsi_twisted.session.connection}: ends, counters, pings, and any bytes whatever."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session import notices
from iscsi_twisted.session.limits import NO_CHANGES
from iscsi_twisted.session.session import IMMEDIATE_TASKS
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from iscsi_twisted.wire.framer import FILLED
from tests.session.cases import SIZE, ConnectionTests
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import (
    INITIATOR,
    TARGET,
    TEST_UNIT_READY,
    Line,
    loggedIn,
    makeNode,
    makeTarget,
    read10,
    write10,
)


class EndTests(ConnectionTests):
    """How a connection ends."""

    def setUp(self) -> None:
        super().setUp()
        self.diary.entries.clear()

    def slow(self) -> FakeDevice:
        """A device that works for this session, and does not stop."""
        device = FakeDevice(SIZE)
        unit: Any = self.session.target.units[0]  # type: ignore[union-attr]
        unit.device = device
        self.core.receive(self.reads(2) + self.line.build(write10(0, 1), write=512, data=bytes(512)))
        return device

    def test_lost(self) -> None:
        """When the transport is gone that is told once, and nothing is sent any more."""
        device = self.slow()
        self.core.lost("connection reset")
        self.core.lost("again")
        self.assertEqual(self.diary.entries, [("lost", "connection reset")])
        device.fire()
        notices.requestLogout(self.core, 5)
        self.core.receive(pdus.nopOut())
        self.core.resume()
        self.core.put(bytes(48))
        self.core.flush()
        self.assertEqual((self.line.sent, self.session.tasks), ([], {}))

    def test_lostWhileWaiting(self) -> None:
        """Commands that wait when the transport goes never begin."""
        self.core.pause()
        self.core.receive(self.reads(3))
        self.core.lost("gone")
        self.core.resume()
        self.core.proceed()
        self.assertEqual((self.line.sent, len(self.session.waiting)), ([], 0))

    def test_abandon(self) -> None:
        """A connection that we give up still sends what was queued, closes, and tells it once."""
        device = self.slow()
        self.core.corked = True
        self.core.put(bytes(48))
        self.core.abandon("policy")
        self.core.abandon("again")
        self.assertEqual((self.sizes(), self.line.closed), ([48], True))
        self.assertEqual(self.diary.entries, [("lost", "policy")])
        self.line.sent.clear()
        device.fire()
        self.core.lost("closed")
        self.assertEqual((self.line.sent, len(self.diary.entries)), ([], 1))

    def test_faultOfPeer(self) -> None:
        """Bytes that are no PDU end the connection; what came before them in the chunk is answered."""
        answers = self.line.say(pdus.nopOut() + b"\0\0\0\0\0\xff\xff\xff" + bytes(40) + pdus.nopOut())
        self.assertEqual(len(answers), 1)
        self.assertTrue(self.line.closed)
        (entry,) = self.diary.entries
        self.assertIn("a data segment of 16777215 bytes", entry[1])

    def test_ownFault(self) -> None:
        """An error that nobody expected is told, and ends that connection alone."""
        error = ZeroDivisionError("a bug")

        def broken(*arguments: Any) -> None:
            raise error

        self.core._handlers = [broken] * 64
        self.core.receive(pdus.nopOut())
        self.assertEqual(
            self.diary.entries, [("surprise", error, "serving a PDU"), ("lost", "internal error")]
        )
        self.assertTrue(self.line.closed)

    def test_logout(self) -> None:
        """After a logout what still stands in the chunk is not served."""
        answers = self.line.say(pdus.logoutRequest() + pdus.nopOut())
        self.assertEqual([answer["opcode"] for answer in answers], [numbers.LOGOUT_RESPONSE])
        self.assertEqual(self.diary.entries, [("loggedOut",)])
        self.core.lost("closed")
        self.assertEqual(len(self.diary.entries), 1)

    def test_logoutOfConnection(self) -> None:
        """A logout of this connection, by its CID, is one of the session."""
        line = Line(self.node)
        names = {"InitiatorName": INITIATOR + "2", "TargetName": TARGET}
        line.say(pdus.loginRequest(names, cid=7))
        (answer,) = line.say(pdus.logoutRequest(reason=1, cid=7))
        self.assertEqual((answer["response"], line.closed), (0, True))

    def test_logoutUnknownReason(self) -> None:
        """A logout for a reason that does not exist is rejected."""
        (reject,) = self.line.say(pdus.logoutRequest(reason=9))
        self.assertEqual((reject["reason"], self.line.closed), (numbers.REASON_INVALID_FIELD, False))

    def test_logoutWithTasks(self) -> None:
        """A logout ends tasks that have not ended; nothing follows its response."""
        device = self.slow()
        (answer,) = self.line.say(pdus.logoutRequest())
        self.assertEqual(answer["opcode"], numbers.LOGOUT_RESPONSE)
        device.fire()
        self.assertEqual(self.line.take(), [])

    def test_requestLogout(self) -> None:
        """An initiator is asked to log out within so many seconds."""
        statSN = self.core.statSN
        notices.requestLogout(self.core, 3)
        (message,) = self.line.take()
        self.assertEqual((message["opcode"], message["event"], message["parameter3"]), (0x32, 1, 3))
        self.assertEqual((message["statSN"], message["itt"]), (statSN, numbers.NO_TAG))
        self.assertEqual(message["expCmdSN"], self.session.expCmdSN)
        line = Line(self.node)
        notices.requestLogout(line.core, 3)
        self.assertEqual(line.sent, [])

    def test_reportEvent(self) -> None:
        """An initiator is told of a SCSI event of a unit, with its sense data, at once or with the batch."""
        sense = bytes.fromhex("700006000000000a00000000290000000000")
        statSN = self.core.statSN
        notices.reportEvent(self.core, b"\0\3" + bytes(6), sense)
        (message,) = self.line.take()
        self.assertEqual((message["opcode"], message["event"], message["parameter3"]), (0x32, 0, 0))
        self.assertEqual((message["lun"], message["itt"]), (b"\0\3" + bytes(6), numbers.NO_TAG))
        self.assertEqual((message["statSN"], self.core.statSN), (statSN, statSN + 1))
        self.assertEqual(message["data"], b"\0\x12" + sense)
        self.core.corked = True
        notices.reportEvent(self.core, bytes(8), sense)
        self.assertEqual(self.line.sent, [])
        self.core.corked = False
        self.core.flush()
        self.assertEqual(len(self.line.take()), 1)
        line = Line(self.node)
        notices.reportEvent(line.core, bytes(8), sense)
        self.assertEqual(line.sent, [])

    def test_tick(self) -> None:
        """Time does nothing to a session, nor to a connection that is closed already."""
        self.core.tick(1e9)
        self.assertFalse(self.line.closed)
        line = Line(self.node)
        line.core.tick(NO_CHANGES.loginTime)
        self.assertFalse(line.closed)
        line.say(pdus.loginRequest({}))
        self.diary.entries.clear()
        line.core.tick(1e9)
        self.assertEqual(self.diary.entries, [])


class CountTests(ConnectionTests):
    """Counters and observers."""

    def test_counters(self) -> None:
        """PDUs and bytes are counted both ways, rejects too."""
        core = self.core
        before = core.bytesIn, core.bytesOut, core.pdusIn, core.pdusOut, core.rejects
        stream = self.line.build(read10(0, 1), read=512) + b"\x1c" + bytes(47)
        self.line.say(stream)
        after = core.bytesIn, core.bytesOut, core.pdusIn, core.pdusOut, core.rejects
        change = [new - old for new, old in zip(after, before, strict=True)]
        self.assertEqual(change, [len(stream), 560 + 96, 2, 2, 1])

    def test_filled(self) -> None:
        """Bytes that were received into the core's own buffer count the same, and do the same."""
        stream = self.line.build(write10(0, 64), write=32768, data=b"f" * 32768)
        before = self.core.bytesIn
        self.core.receive(stream[:100])
        wanted = self.core.wanted()
        assert wanted is not None
        self.assertEqual(len(wanted), len(stream) - 100)
        wanted[:] = stream[100:]
        self.core.filled(len(stream) - 100)
        (answer,) = self.line.take()
        self.assertEqual((answer["status"], self.core.bytesIn - before), (0, len(stream)))
        self.assertEqual(self.device.read(0, 32768), b"f" * 32768)

    def test_observers(self) -> None:
        """An observer sees what is sent before it is."""
        seen: list[list[Buffer]] = []
        self.core.observe(lambda buffers: seen.append(list(buffers)))
        self.core.receive(pdus.nopOut(b"x"))
        self.assertEqual(seen, self.line.sent)

    def test_transferTags(self) -> None:
        """Transfer tags go round without the reserved one."""
        self.core._transferTag = numbers.NO_TAG - 2
        tags = [self.core.nextTransferTag() for _ in range(3)]
        self.assertEqual(tags, [numbers.NO_TAG - 1, 0, 1])

    def test_statSN(self) -> None:
        """StatSN goes round the end of the numbers."""
        self.core.statSN = 0xFFFFFFFF
        answers = self.line.say(pdus.nopOut() + self.reads(1) + pdus.nopOut())
        self.assertEqual([answer["statSN"] for answer in answers], [0xFFFFFFFF, 0, 1])


class PingTests(ConnectionTests):
    """NOP-Out (RFC 7143 11.18)."""

    def test_longPing(self) -> None:
        """A ping's data are cut to what the initiator takes."""
        self.line.say(pdus.textRequest({"MaxRecvDataSegmentLength": "512"}))
        (pong,) = self.line.say(pdus.nopOut(bytes(20000)))
        self.assertEqual(pong["lengths"], 512)

    def test_tooLong(self) -> None:
        """A ping with more data than we take ends the connection."""
        self.assertEqual(self.line.say(pdus.nopOut(bytes(262145))), [])
        self.assertTrue(self.line.closed)

    def test_manySmall(self) -> None:
        """Thousands of pings in one chunk are answered with one send."""
        self.core.receive(pdus.nopOut() * 5000)
        self.assertEqual(len(self.line.sent), 1)
        self.assertEqual(len(self.line.take()), 5000)


class SegmentTests(ConnectionTests):
    """Additional header segments (RFC 7143 11.2.2)."""

    def answer(self, ahs: bytes) -> dict[str, Any]:
        """What a command with this segment is answered."""
        (answer,) = self.line.command(TEST_UNIT_READY, ahs=ahs)
        return answer

    def test_lengths(self) -> None:
        """Exactly the segments whose length fits what is there are understood."""
        for size in (4, 8, 12, 1020):
            for length in (*range(size + 3), 255, 1020, 65535):
                ahs = (length.to_bytes(2, "big") + b"\1\0").ljust(size, b"\0")
                good = length >= 2 and (3 + length + 3) & ~3 == size and 3 + length <= size
                opcode = self.answer(ahs)["opcode"]
                self.assertEqual(opcode == numbers.SCSI_RESPONSE, good, (size, length))
        self.assertEqual(
            self.line.say(pdus.nopOut())[0]["maxCmdSN"] - self.session.expCmdSN, self.session.depth - 1
        )

    @settings(deadline=None)
    @given(st.integers(1, 255).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words)))
    def test_anything(self, ahs: bytes) -> None:
        """Any segments are understood or rejected, and the command's place is given back."""
        self.assertIn(self.answer(ahs)["opcode"], (numbers.SCSI_RESPONSE, numbers.REJECT))
        self.assertEqual(self.session.maxCmdSN - self.session.expCmdSN, self.session.depth - 1)

    def test_wholeCDB(self) -> None:
        """A unit sees the whole of a long CDB."""
        seen: list[bytes] = []
        unit: Any = self.session.target.units[0]  # type: ignore[union-attr]
        unit._handlers = [lambda unit, task: seen.append(task.cdb) or task.complete()] * 256
        self.answer(b"\0\x06\1\0abcde\0\0\0")
        self.assertEqual(seen, [bytes(16) + b"abcde"])


# Anything whatever

opcodes = st.sampled_from([*range(0x07), 0x10, 0x1C, 0x20, 0x25, 0x3F])
words32 = st.one_of(st.integers(0, 6), st.sampled_from([0x7FFFFFFF, 0xFFFFFFFF]))
texts = st.sampled_from([b"", b"SendTargets=All\0", b"A=1\0", b"\xff", b"MaxRecvDataSegmentLength=512\0"])


@st.composite
def anyPDU(draw: Any) -> bytes:
    """A PDU that is whole, but need not make sense."""
    opcode = draw(opcodes) | (0x40 if draw(st.booleans()) else 0)
    header = bytearray(48)
    header[0] = opcode
    header[1] = draw(st.one_of(st.integers(0, 255), st.sampled_from([0x80, 0x81, 0xC1, 0xA1, 0x21])))
    header[2:4] = draw(st.binary(min_size=2, max_size=2))
    if draw(st.booleans()):
        header[8:16] = bytes((0, draw(st.integers(0, 2)))) + bytes(6)
    for position in range(16, 48, 4):
        header[position : position + 4] = draw(words32).to_bytes(4, "big")
    if opcode & 0x3F == numbers.SCSI_COMMAND and draw(st.booleans()):
        header[20:24] = draw(st.sampled_from([0, 512, 1024, 1 << 20])).to_bytes(4, "big")
        cdb = draw(st.sampled_from([TEST_UNIT_READY, read10(0, 1), write10(0, 2), read10(0, 2048)]))
        header[32:48] = cdb.ljust(16, b"\0")
    ahs = draw(st.one_of(st.just(b""), st.just(b"\0\5\1\0aaaa"), st.just(b"\0\x09\1\0")))
    data = draw(st.one_of(texts, st.sampled_from([bytes(512), bytes(1024), bytes(20000)])))
    return pdus.assemble(bytes(header) + ahs, data)


class AnythingTests(SynchronousTestCase):
    """Whatever an initiator sends, the target stands."""

    def assertStands(self, line: Line, diary: Any, received: int) -> None:
        """Nothing surprised us, and nothing is kept without a bound."""
        core = line.core
        self.assertNotIn("surprise", [entry[0] for entry in diary.entries])
        self.assertEqual((core.out, core.queued, core.corked), ([], 0, False))
        self.assertLess(len(core.framer._left), FILLED + received)
        session = core.session
        if session is not None:
            self.assertLessEqual(len(session.early), session.depth)
            self.assertLessEqual(len(session.waiting), session.depth + IMMEDIATE_TASKS)
            self.assertLessEqual(len(session.tasks), session.depth + IMMEDIATE_TASKS)
            self.assertLessEqual(session.maxCmdSN - session.expCmdSN, session.depth - 1)

    def node(self, device: Any) -> tuple[Line, Any]:
        """A fresh connection to a node with one disk."""
        node, diary = makeNode(makeTarget(device), depth=8)
        return Line(node), diary

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.binary(max_size=300), max_size=6))
    def test_fresh(self, chunks: list[bytes]) -> None:
        """Any bytes into a fresh connection."""
        line, diary = self.node(MemoryDevice(1 << 20))
        for chunk in chunks:
            line.core.receive(chunk)
        self.assertStands(line, diary, sum(map(len, chunks)))

    @settings(deadline=None, max_examples=200)
    @given(st.lists(anyPDU(), max_size=5), st.booleans())
    def test_freshPDUs(self, stream: list[bytes], begun: bool) -> None:
        """Any PDUs into a fresh connection, or one whose login has begun."""
        line, diary = self.node(MemoryDevice(1 << 20))
        if begun:
            line.say(pdus.loginRequest({"InitiatorName": INITIATOR, "TargetName": TARGET}, following=None))
        line.core.receive(b"".join(stream))
        self.assertStands(line, diary, len(b"".join(stream)))

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.binary(max_size=300), max_size=6))
    def test_loggedIn(self, chunks: list[bytes]) -> None:
        """Any bytes into a session."""
        line, diary = self.node(MemoryDevice(1 << 20))
        line.login()
        for chunk in chunks:
            line.core.receive(chunk)
        line.take()
        self.assertStands(line, diary, sum(map(len, chunks)))

    @settings(deadline=None, max_examples=400)
    @given(
        st.lists(anyPDU(), max_size=20),
        st.sampled_from(["Yes", "No"]),
        st.lists(st.sampled_from(["pause", "resume", "turn", "fire", "fail", "receive"]), max_size=20),
        st.booleans(),
        st.sampled_from(["Normal", "Discovery"]),
    )
    def test_session(
        self, stream: list[bytes], initialR2T: str, acts: list[str], obeys: bool, kind: str
    ) -> None:
        """
        Any PDUs into a session over a device that ends things whenever it likes, while the peer reads
        or not; and after the end everything that was counted is given back.
        """
        device = FakeDevice(obeysCancel=obeys)
        line, diary = self.node(device)
        line.login(SessionType=kind, InitialR2T=initialR2T)
        core = line.core
        session = core.session
        assert session is not None
        stream = list(reversed(stream))
        for act in acts + ["receive"] * len(stream):
            if act == "pause":
                core.pause()
            elif act == "resume":
                core.resume()
            elif act == "turn":
                core.proceed()
            elif act == "receive" and stream and not line.stalled:
                core.receive(stream.pop())
            elif act == "fire" and device.operations:
                device.operations[0].fire()
            elif act == "fail" and device.operations:
                device.operations[-1].fail(OSError(5, "the disk is broken"))
            self.assertStands(line, diary, 0)
        line.take()
        core.lost("gone")
        device.fire()
        self.assertEqual(line.sent, [])
        self.assertEqual((session.tasks, session.immediates, session.solicited.used), ({}, 0, 0))
        self.assertEqual((session.maxCmdSN - session.expCmdSN) & 0xFFFFFFFF, session.depth - 1)
        self.assertEqual((session.node.solicited.used, session.node.sessions), (0, set()))
        self.assertNotIn("surprise", [entry[0] for entry in diary.entries])


class SplitTests(SynchronousTestCase):
    """Where chunks begin and end makes no difference."""

    @settings(deadline=None, max_examples=100)
    @given(st.lists(anyPDU(), max_size=8), st.data())
    def test_anyCut(self, stream: list[bytes], data: Any) -> None:
        """Any PDUs, cut anywhere, are answered the same as in one chunk."""
        whole, parts = loggedIn(MemoryDevice(1 << 20)), loggedIn(MemoryDevice(1 << 20))
        joined = b"".join(stream)
        expected = whole.say(joined)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(joined)), max_size=5)))
        answers = []
        for begin, end in zip([0, *cuts], [*cuts, len(joined)], strict=True):
            answers += parts.say(joined[begin:end])
        self.assertEqual((answers, parts.closed), (expected, whole.closed))
