"""Tests for L{iscsi_twisted.wire.framer}."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import FramingError, HeaderDigestError
from iscsi_twisted.wire import numbers
from iscsi_twisted.wire.framer import COPIED, FILLED, KEPT_ALIVE, LOGIN_SEGMENT, Buffer, Framer
from tests.support import pdus

Delivery = tuple[bytes, bytes, bytes]

headers = st.binary(min_size=48, max_size=48)
segments = st.one_of(
    st.just(b""),
    st.binary(max_size=300),
    st.builds(bytes, st.sampled_from((511, FILLED - 49, FILLED - 48, FILLED, COPIED, COPIED + 1, 40000))),
)
ahs = st.one_of(st.just(b""), st.integers(1, 255).map(lambda words: b"\x5a" * (4 * words)))
both = st.tuples(st.booleans(), st.booleans())


class Taker:
    """
    A framer, and what it has delivered.

    @ivar pdus: headers with their additional segments and data.
    @ivar spoilt: headers of PDUs whose data failed their digest.
    @ivar placed: where data segments were received that were given a place.
    """

    def __init__(
        self, digests: tuple[bool, bool] = (False, False), maxSegment: int = 1 << 20, placing: bool = False
    ) -> None:
        """@param placing: whether every second of the data segments that may have a place gets one."""
        self.pdus: list[Delivery] = []
        self.spoilt: list[bytes] = []
        self.placed: list[memoryview] = []
        self._asked = 0
        self.framer = Framer(self._deliver, self._spoil, self._place if placing else None)
        self.framer.headerDigest, self.framer.dataDigest = digests
        self.framer.maxSegment = maxSegment
        # To stop after this many.
        self.until = -1

    def _deliver(self, chunk: Buffer, offset: int, ahs: Buffer, data: Buffer) -> None:
        self.pdus.append((bytes(chunk[offset : offset + 48]), bytes(ahs), bytes(data)))
        if len(self.pdus) == self.until:
            self.framer.stopped = True

    def _place(self, chunk: Buffer, offset: int, length: int) -> memoryview | None:
        self._asked += 1
        if not self._asked & 1:
            return None
        self.placed.append(memoryview(bytearray(length)))
        return self.placed[-1]

    def _spoil(self, chunk: Buffer, offset: int) -> None:
        self.spoilt.append(bytes(chunk[offset : offset + 48]))

    def take(self, data: bytes, fill: bool) -> None:
        """Give some bytes, by the buffer that the framer wants filled if it wants that."""
        while data:
            wanted = self.framer.wanted() if fill else None
            if wanted is None:
                self.framer.feed(data)
                return
            taken = pdus.pour(data, wanted)
            data = data[taken:]
            self.framer.filled(taken)


def build(parts: tuple[bytes, bytes, bytes], digests: tuple[bool, bool]) -> tuple[Delivery, bytes]:
    """What is to be delivered, and the PDU on the wire."""
    header, more, data = parts
    stream = pdus.assemble(header + more, data, digests=digests)
    return (stream[:48], more, data), stream


class StreamTests(SynchronousTestCase):
    """Whatever way the bytes come, the PDUs are the same."""

    @settings(deadline=None)
    @given(both, st.lists(st.tuples(headers, ahs, segments), max_size=5), st.booleans(), st.data())
    def test_anyCut(
        self, digests: tuple[bool, bool], parts: list[Delivery], placing: bool, data: Any
    ) -> None:
        """Any PDUs, cut anywhere, fed or filled in any mixture, are delivered as they were sent."""
        built = [build(part, digests) for part in parts]
        stream = b"".join(pdu for _, pdu in built)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        taker = Taker(digests, placing=placing)
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            taker.take(stream[begin:end], data.draw(st.booleans()))
        self.assertEqual(taker.pdus, [delivery for delivery, _ in built])
        self.assertEqual(taker.spoilt, [])

    def test_cutInHeaders(self) -> None:
        """A place for the data is not asked for before all of the headers are there."""
        delivery, stream = build((bytes(48), b"\x5a" * 64, bytes(40000)), (False, False))
        for cut in range(48, 48 + 64 + 8):
            taker = Taker(placing=True)
            taker.take(stream[:cut], False)
            taker.take(stream[cut:], True)
            self.assertEqual(taker.pdus, [delivery], cut)

    @settings(deadline=None)
    @given(both, st.lists(st.tuples(headers, ahs, segments.filter(lambda s: len(s) < 300)), min_size=1))
    def test_byteByByte(self, digests: tuple[bool, bool], parts: list[Delivery]) -> None:
        """Bytes may come one at a time."""
        built = [build(part, digests) for part in parts[:3]]
        taker = Taker(digests)
        for byte in b"".join(pdu for _, pdu in built):
            taker.framer.feed(bytes((byte,)))
        self.assertEqual(taker.pdus, [delivery for delivery, _ in built])

    @settings(deadline=None)
    @given(both, st.lists(st.tuples(st.binary(max_size=400), st.booleans()), max_size=6))
    def test_anything(self, digests: tuple[bool, bool], chunks: list[tuple[bytes, bool]]) -> None:
        """Any bytes whatever are PDUs, or the beginning of one, or a fault of the peer."""
        taker = Taker(digests, 0xFFFF)
        try:
            for chunk, fill in chunks:
                taker.take(chunk, fill)
        except (FramingError, HeaderDigestError):
            return
        total = sum(len(chunk) for chunk, _ in chunks)
        taken = sum(48 + len(ahs) + len(data) for _, ahs, data in taker.pdus)
        self.assertLessEqual(taken, total)

    @settings(deadline=None)
    @given(st.integers(0, 6), st.booleans(), st.booleans())
    def test_stopped(self, until: int, fill: bool, placing: bool) -> None:
        """Stopped anywhere, nothing more is delivered; unset again, all the rest, however it came."""
        parts = [build((bytes((n,)) * 48, b"", bytes(size)), (False, False)) for n, size in enumerate(SIZES)]
        stream = b"".join(pdu for _, pdu in parts)
        taker = Taker(placing=placing)
        taker.until = until
        taker.framer.stopped = not until
        for begin in range(0, len(stream), 5000):
            taker.take(stream[begin : begin + 5000], fill)
        expected = [delivery for delivery, _ in parts]
        self.assertEqual(taker.pdus, expected[:until])
        self.assertIsNone(taker.framer.wanted())
        taker.framer.stopped = False
        taker.framer.feed(b"")
        self.assertEqual(taker.pdus, expected)

    def test_stoppedWhileFilling(self) -> None:
        """A PDU whose own buffer fills up after the stop waits too."""
        delivery, stream = build((bytes(48), b"", bytes(20000)), (False, False))
        taker = Taker()
        taker.take(stream[:100], True)
        taker.framer.stopped = True
        taker.framer.feed(stream[100:] + bytes(48))
        taker.framer.feed(bytes(48))
        self.assertEqual(taker.pdus, [])
        taker.framer.stopped = False
        taker.framer.feed(b"")
        self.assertEqual(taker.pdus, [delivery, (bytes(48), b"", b""), (bytes(48), b"", b"")])


SIZES = (0, 100, 20000, 0, 9000, 40000, 3)


class BufferTests(SynchronousTestCase):
    """What is copied and what is not."""

    def test_wanted(self) -> None:
        """A large PDU that is incomplete wants its rest in its own buffer; a small one does not."""
        taker = Taker()
        self.assertIsNone(taker.framer.wanted())
        _, small = build((bytes(48), b"", bytes(FILLED - 52)), (False, False))
        taker.framer.feed(small[:50])
        self.assertIsNone(taker.framer.wanted())
        taker.framer.feed(small[50:])
        _, large = build((bytes(48), b"", bytes(FILLED - 48)), (False, False))
        taker.framer.feed(large[:50])
        wanted = taker.framer.wanted()
        assert wanted is not None
        self.assertEqual(len(wanted), FILLED - 50)

    def test_placed(self) -> None:
        """A data segment is received where it belongs, and is delivered as what was given for it."""
        taken: list[Buffer] = []
        place = memoryview(bytearray(40000))
        framer = Framer(
            lambda chunk, offset, ahs, data: taken.append(data), lambda *_: None, lambda *_: place
        )
        framer.maxSegment = 1 << 20
        data = b"data" * 10000
        stream = build((bytes(48), b"more", data), (True, False))[1] + bytes(48)
        framer.headerDigest = True
        framer.feed(stream[:1000])
        wanted = framer.wanted()
        assert isinstance(wanted, list)
        self.assertEqual(len(wanted[0]), 48 + 4 + 4 + 40000 - 1000)
        framer.feed(stream[1000:-48])
        self.assertEqual(len(taken), 1)
        self.assertIs(taken[0], place)
        self.assertEqual(place, data)

    def test_noPlace(self) -> None:
        """Segments that are padded, or have to be checked first, are not put where they belong."""
        for digests, size in (((False, False), 40001), ((False, True), 40000)):
            taker = Taker(digests, placing=True)
            delivery, stream = build((bytes(48), b"", bytes(size)), digests)
            taker.framer.feed(stream[:100])
            taker.framer.feed(stream[100:])
            self.assertEqual((taker.pdus, taker.placed), ([delivery], []))

    def test_diverted(self) -> None:
        """What has no place any more comes as it would have, and its former place is left alone."""
        taker = Taker(placing=True)
        delivery, stream = build((bytes(48), b"", b"d" * 40000), (False, False))
        taker.take(stream[:20000], True)
        taker.framer.divert()
        taker.take(stream[20000:] + stream, True)
        taker.framer.divert()
        self.assertEqual(taker.pdus, [delivery, delivery])
        self.assertEqual(taker.placed[0].tobytes().rstrip(b"\0"), b"d" * (20000 - 48))

    def test_header(self) -> None:
        """A header that is not complete never gets a buffer, however long its data will be."""
        taker = Taker((True, False))
        _, stream = build((bytes(48), b"\0" * 1020, bytes(90000)), (True, False))
        for byte in stream[:1071]:
            taker.framer.feed(bytes((byte,)))
        self.assertIsNone(taker.framer.wanted())
        taker.framer.feed(stream[1071:1072])
        self.assertIsNotNone(taker.framer.wanted())

    def test_views(self) -> None:
        """Data of some length are views of what was received, shorter ones copies."""
        kinds: list[type] = []
        framer = Framer(lambda chunk, offset, ahs, data: kinds.append(type(data)), lambda *_: None)
        framer.maxSegment = 1 << 20
        for size in (0, COPIED, COPIED + 1):
            framer.feed(build((bytes(48), b"", bytes(size)), (False, False))[1])
        self.assertEqual(kinds, [bytes, bytes, memoryview])

    def test_viewOfMuch(self) -> None:
        """A view keeps no chunk alive that is many times its size: then the segment is a copy."""
        kinds: list[type] = []
        framer = Framer(lambda chunk, offset, ahs, data: kinds.append(type(data)), lambda chunk, offset: None)
        framer.maxSegment = 1 << 20
        small = pdus.assemble(bytes(48), bytes(2 * COPIED))
        framer.feed(small * KEPT_ALIVE)
        self.assertEqual(set(kinds), {bytes})
        kinds.clear()
        framer.feed(small * (KEPT_ALIVE - 1))
        self.assertEqual(set(kinds), {memoryview})

    def test_noPadding(self) -> None:
        """Padding is no part of the data."""
        taker = Taker()
        for size in range(1, 9):
            taker.framer.feed(build((bytes(48), b"", b"d" * size), (False, False))[1])
        self.assertEqual([data for _, _, data in taker.pdus], [b"d" * size for size in range(1, 9)])


class FaultTests(SynchronousTestCase):
    """Bytes that are not as they should be."""

    def test_loginBound(self) -> None:
        """Before anything was declared, a data segment has at most 8,192 bytes."""
        taker = Taker(maxSegment=Framer(lambda *_: None, lambda *_: None).maxSegment)
        taker.framer.feed(build((bytes(48), b"", bytes(LOGIN_SEGMENT)), (False, False))[1])
        self.assertEqual(len(taker.pdus), 1)
        header = bytes(4) + (LOGIN_SEGMENT + 1).to_bytes(4, "big") + bytes(40)
        error = self.assertRaises(FramingError, taker.framer.feed, header)
        self.assertEqual(str(error), "a data segment of 8193 bytes, where at most 8192 were declared")

    def test_headerDigest(self) -> None:
        """A bit that is wrong in a header, its additional segments or their digest ends the stream."""
        _, stream = build((b"\1" * 48, b"\2" * 8, b""), (True, False))
        for bit in range(len(stream) * 8):
            spoilt = bytearray(stream)
            spoilt[bit >> 3] ^= 1 << (bit & 7)
            # A length beyond all bounds is noticed before the digest is there.
            taker = Taker((True, False), 0xFFFFFF)
            if not 32 <= bit < 40:
                self.assertRaises(HeaderDigestError, taker.framer.feed, bytes(spoilt))
            self.assertEqual(taker.pdus, [])

    def test_longerHeader(self) -> None:
        """A wrong count of additional segments makes the header longer, and the digest wrong."""
        _, stream = build((b"\1" * 48, b"", b""), (True, False))
        spoilt = stream[:4] + b"\1" + stream[5:]
        taker = Taker((True, False))
        taker.framer.feed(spoilt)
        self.assertRaises(HeaderDigestError, taker.framer.feed, bytes(48))

    def test_dataDigest(self) -> None:
        """Data, padding or digest that are wrong spoil their PDU alone."""
        first, stream = build((b"\1" * 48, b"", b"abcde"), (False, True))
        second, following = build((b"\2" * 48, b"", b""), (False, True))
        for position in range(48, len(stream)):
            spoilt = bytearray(stream)
            spoilt[position] ^= 0x10
            taker = Taker((False, True))
            taker.framer.feed(bytes(spoilt) + following)
            self.assertEqual((taker.spoilt, taker.pdus), ([first[0]], [second]))

    def test_dataDigestOfFilled(self) -> None:
        """The digest of data in a buffer of their own is checked too."""
        _, stream = build((b"\1" * 48, b"", bytes(30000)), (True, True))
        taker = Taker((True, True))
        spoilt = bytearray(stream)
        spoilt[20000] ^= 1
        for begin in range(0, len(stream), 7000):
            taker.take(bytes(spoilt[begin : begin + 7000]), True)
        self.assertEqual((len(taker.spoilt), taker.pdus), (1, []))

    def test_noDataNoDigest(self) -> None:
        """A PDU without data has no data digest."""
        taker = Taker((True, True))
        taker.framer.feed(build((bytes(48), b"", b""), (True, True))[1] * 3)
        self.assertEqual(len(taker.pdus), 3)


class ObserverTests(SynchronousTestCase):
    """Looking on."""

    def test_observe(self) -> None:
        """An observer sees each PDU before it is delivered."""
        order: list[str] = []
        framer = Framer(lambda *_: order.append("delivered"), lambda *_: None)
        framer.observe(lambda chunk, offset, ahs, data: order.append(bytes(data).decode()))
        framer.feed(build((bytes(48), b"", b"seen"), (False, False))[1])
        self.assertEqual(order, ["seen", "delivered"])

    def test_digestsDuringTheStream(self) -> None:
        """Digests, and the bound of data, may change between two PDUs of one chunk."""
        taker = Taker()
        _, plain = build((bytes((numbers.LOGIN_REQUEST,)) * 48, b"", b"x"), (False, False))
        _, digested = build((bytes(48), b"", b"y"), (True, True))

        def change(*pdu: Any) -> None:
            taker.framer.headerDigest = taker.framer.dataDigest = True

        taker.framer.observe(change)
        taker.framer.feed(plain + digested)
        self.assertEqual([data for _, _, data in taker.pdus], [b"x", b"y"])
