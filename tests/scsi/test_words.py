"""What sense data are called."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.scsi import codes, sense
from iscsi_twisted.scsi.client import decodeSense
from iscsi_twisted.scsi.words import CODES, KEYS, describe


class WordsTests(SynchronousTestCase):
    """Names of keys and codes."""

    def test_known(self) -> None:
        """Both have their names, and the numbers stand behind them."""
        self.assertEqual(describe(0x7, 0x2700), "DATA PROTECT, WRITE PROTECTED (sense 7h 27h/00h)")

    def test_unknown(self) -> None:
        """What has no name is its number."""
        self.assertEqual(describe(0x5, 0x80FF), "ILLEGAL REQUEST (sense 5h 80h/FFh)")
        self.assertEqual(describe(0xC, 0x80FF), "sense Ch 80h/FFh")

    def test_ours(self) -> None:
        """Whatever our own units tell has a name."""
        names = list(vars(codes))
        first, last = map(names.index, ("NO_ADDITIONAL_SENSE", "INSUFFICIENT_REGISTRATIONS"))
        told = {name: getattr(codes, name) for name in names[first : last + 1]}
        self.assertEqual([name for name, code in told.items() if code not in CODES], [])
        keys = names[names.index("NO_SENSE") : first]
        self.assertEqual([name for name in keys if getattr(codes, name) not in KEYS], [])

    def test_exceptions(self) -> None:
        """Of both formats an exception is made whose text has the names."""
        told = CheckCondition(codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY, information=7)
        for descriptors in (False, True):
            error = decodeSense(sense.encode(told, descriptors))
            self.assertEqual(str(error), "MISCOMPARE, MISCOMPARE DURING VERIFY OPERATION (sense Eh 1Dh/00h)")
            self.assertEqual((error.key, error.code, error.information), (told.key, told.code, 7))
