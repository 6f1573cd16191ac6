"""Tests for L{iscsi_twisted.session.keys}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.session.keys import KEYS, Key

# Name, default, lowest, highest, result of 4 and 9 put into those bounds: RFC 7143 chapter 13.
NUMBERS = (
    ("MaxConnections", 1, 1, 65535, min),
    ("MaxBurstLength", 262144, 512, 16777215, min),
    ("FirstBurstLength", 65536, 512, 16777215, min),
    ("DefaultTime2Wait", 2, 0, 3600, max),
    ("DefaultTime2Retain", 20, 0, 3600, min),
    ("MaxOutstandingR2T", 1, 1, 65535, min),
    ("ErrorRecoveryLevel", 0, 0, 2, min),
    ("iSCSIProtocolLevel", 1, 0, 31, min),
)

# Name, default, results of No/No, No/Yes and Yes/Yes.
BOOLEANS = (
    ("InitialR2T", True, (False, True, True)),
    ("ImmediateData", True, (False, False, True)),
    ("DataPDUInOrder", True, (False, True, True)),
    ("DataSequenceInOrder", True, (False, True, True)),
)

IRRELEVANT_IN_DISCOVERY = {
    "MaxConnections",
    "InitialR2T",
    "ImmediateData",
    "MaxBurstLength",
    "FirstBurstLength",
    "MaxOutstandingR2T",
    "DataPDUInOrder",
    "DataSequenceInOrder",
    "TaskReporting",
    "iSCSIProtocolLevel",
}


class TableTests(SynchronousTestCase):
    """The keys as the standard defines them."""

    def test_numbers(self) -> None:
        """Numerical keys have the standard's default, bounds and result function."""
        self.assertEqual({name for name, *_ in NUMBERS}, _ofKind("numerical"))
        for name, default, lowest, highest, result in NUMBERS:
            key = KEYS[name]
            self.assertEqual((key.default, key.lowest, key.highest), (default, lowest, highest), name)
            self.assertEqual((key.result(4, 9), key.result(9, 4)), (result(4, 9), result(4, 9)), name)

    def test_booleans(self) -> None:
        """Boolean keys have the standard's default and result function."""
        self.assertEqual({name for name, *_ in BOOLEANS}, _ofKind("boolean"))
        for name, default, (none, one, both) in BOOLEANS:
            key = KEYS[name]
            results = key.result(False, False), key.result(False, True), key.result(True, True)
            self.assertIs(key.default, default, name)
            self.assertEqual(results, (none, one, both), name)
            self.assertEqual(key.result(True, False), one, name)

    def test_discovery(self) -> None:
        """Exactly the keys about SCSI tasks and data mean nothing in a discovery session."""
        self.assertEqual({name for name, key in KEYS.items() if not key.discovery}, IRRELEVANT_IN_DISCOVERY)

    def test_fullFeature(self) -> None:
        """Exactly these keys may be given in full feature phase."""
        wanted = {"SendTargets", "TargetAlias", "InitiatorAlias", "TargetAddress", "MaxRecvDataSegmentLength"}
        self.assertEqual({name for name, key in KEYS.items() if key.fullFeature}, wanted)


class ParseTests(SynchronousTestCase):
    """Values on the wire."""

    def test_bounds(self) -> None:
        """A number is taken up to its bounds, in decimal and hexadecimal, and not beyond."""
        declared = KEYS["MaxRecvDataSegmentLength"]
        for key in (*(KEYS[name] for name in _ofKind("numerical")), declared):
            for number in (key.lowest, key.highest):
                for text in (str(number), hex(number), f"0X{number:X}", f"00{number}"):
                    self.assertEqual(key.parse(text), number, (key.name, text))
            for text in (str(key.lowest - 1), str(key.highest + 1), hex(key.highest + 1)):
                self.assertIsNone(key.parse(text), (key.name, text))

    def test_noNumbers(self) -> None:
        """What is not a number in the standard's form is not taken for one."""
        for text in (
            "",
            " 1",
            "1 ",
            "1\n",
            "+1",
            "1.0",
            "1_0",
            "0x",
            "0b1",
            "one",
            "\u0661",
            "9" * 30,
            "Yes",
        ):
            self.assertIsNone(KEYS["MaxConnections"].parse(text), text)

    def test_booleans(self) -> None:
        """Booleans are Yes and No and nothing else."""
        key = KEYS["InitialR2T"]
        for text, value in (("Yes", True), ("No", False), ("yes", None), ("1", None), ("", None)):
            self.assertIs(key.parse(text), value, text)

    def test_text(self) -> None:
        """Values of other kinds are taken as they are."""
        self.assertEqual(KEYS["InitiatorAlias"].parse("any thing"), "any thing")

    @settings(deadline=None)
    @given(st.sampled_from(list(KEYS.values())), st.text(max_size=30))
    def test_anything(self, key: Key, text: str) -> None:
        """Any text is a value that comes out within the key's bounds, or none."""
        value = key.parse(text)
        if isinstance(value, int) and not isinstance(value, bool):
            self.assertTrue(key.lowest <= value <= key.highest)
        if value is not None:
            self.assertEqual(key.parse(key.text(value)), value)


def _ofKind(kind: str) -> set[str]:
    return {name for name, key in KEYS.items() if key.kind == kind}
