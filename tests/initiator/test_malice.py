"""Targets that spoil a good conversation, in any way."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.mangling import KINDS, Conversation, Spoiling

PLACES = st.integers(0, 80) | st.integers(0, 1 << 16)
SPOILINGS = st.dictionaries(
    st.integers(0, 60), st.tuples(st.sampled_from(KINDS), PLACES, st.integers(0, 0xFFFFFFFF)), max_size=4
)


class MaliceTests(SynchronousTestCase):
    """Nothing hangs, nothing wrong is believed, every error has a class, and nothing is kept."""

    def test_good(self) -> None:
        """What nobody spoils is right, and takes as many PDUs as are spoilt below."""
        for digests in (False, True):
            conversation = Conversation({}, digests)
            self.assertEqual(conversation.run(), [])
            self.assertEqual(len(conversation.endpoint.transports), 2)
            self.assertGreater(conversation.endpoint.seen, 30)

    @settings(deadline=None, max_examples=60)
    @given(SPOILINGS, st.booleans())
    def test_spoilt(self, spoilings: dict[int, Spoiling], digests: bool) -> None:
        """Answers that are spoilt here and there."""
        self.assertEqual(Conversation(spoilings, digests).run(), [])

    def test_each(self) -> None:
        """Every way to spoil one, at each point of the conversation."""
        for kind in KINDS:
            for number in range(0, 48, 3):
                self.assertEqual(Conversation({number: (kind, 24 + number, 7)}, False).run(), [])
