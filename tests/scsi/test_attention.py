"""Tests for L{iscsi_twisted.scsi.attention}."""

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.attention import PENDING_LIMIT, REMEMBERED, Attentions
from tests.support.tasks import Nexus


class AttentionsTests(SynchronousTestCase):
    """Unit attention conditions, SAM-5 5.14."""

    def setUp(self) -> None:
        """Two nexuses that have heard of the power on."""
        self.attentions = Attentions()
        self.one, self.other = Nexus(), Nexus()
        for nexus in (self.one, self.other):
            self.attentions.found(nexus)
            self.attentions.take(nexus)

    def told(self, nexus: Nexus) -> list[int]:
        """All that a nexus is told."""
        return list(iter(lambda: self.attentions.take(nexus), None))  # type: ignore[arg-type]

    def test_powerOn(self) -> None:
        """A nexus that comes is told of the power on, once."""
        nexus = Nexus()
        self.attentions.found(nexus)
        self.assertEqual(self.told(nexus), [codes.POWER_ON])
        self.assertEqual(self.attentions.pending, {})

    def test_all(self) -> None:
        """A condition is for everybody, for one, or for all but one."""
        self.attentions.establish(codes.CAPACITY_CHANGED, None, None)
        self.attentions.establish(codes.LUNS_CHANGED, self.one, None)
        self.attentions.establish(codes.MODE_PARAMETERS_CHANGED, None, self.one)
        self.assertEqual(self.told(self.one), [codes.CAPACITY_CHANGED, codes.LUNS_CHANGED])
        self.assertEqual(self.told(self.other), [codes.CAPACITY_CHANGED, codes.MODE_PARAMETERS_CHANGED])

    def test_stranger(self) -> None:
        """Nothing is kept for a nexus that is not known."""
        self.attentions.establish(codes.CAPACITY_CHANGED, Nexus(), None)
        self.assertEqual(self.attentions.pending, {})

    def test_lost(self) -> None:
        """Nothing is kept for a nexus that went."""
        self.attentions.establish(codes.CAPACITY_CHANGED, None, None)
        self.attentions.lost(self.one)
        self.attentions.establish(codes.LUNS_CHANGED, None, None)
        self.assertEqual(list(self.attentions.pending), [self.other])

    def test_back(self) -> None:
        """One that comes back is told that it was lost, if that is all that has happened to it since."""
        self.attentions.lost(self.one)
        again = Nexus()
        self.attentions.found(again)
        self.assertEqual(self.told(again), [codes.NEXUS_LOSS_OCCURRED])
        self.attentions.lost(again)
        self.attentions.found(again)
        self.attentions.lost(again)
        self.attentions.found(again)
        self.assertEqual(self.told(again), [codes.NEXUS_LOSS_OCCURRED])

    def test_missed(self) -> None:
        """What it was not told before it went, or would have been told meanwhile, is a power on."""
        new = Nexus(initiatorName="iqn.2001-04.com.example:new")
        self.attentions.found(new)
        self.attentions.lost(new)
        self.attentions.found(new)
        self.assertEqual(self.told(new), [codes.POWER_ON])
        for code in (codes.CAPACITY_CHANGED, codes.DEVICE_RESET_OCCURRED):
            self.attentions.lost(new)
            self.attentions.establish(code, None, None)
            self.attentions.found(new)
            self.assertEqual(self.told(new), [codes.POWER_ON])
        self.attentions.lost(new, told=False)
        self.attentions.found(new)
        self.assertEqual(self.told(new), [codes.POWER_ON])

    def test_forgotten(self) -> None:
        """Of many that went the first is not remembered; one that was never there is not either."""
        many = [Nexus(initiatorName=f"iqn.2001-04.com.example:{number}") for number in range(REMEMBERED + 1)]
        for nexus in many:
            self.attentions.found(nexus)
            self.attentions.take(nexus)
            self.attentions.lost(nexus)
        stranger = Nexus(initiatorName="iqn.2001-04.com.example:stranger")
        self.attentions.lost(stranger)
        for nexus, code in (
            (many[0], codes.POWER_ON), (many[1], codes.NEXUS_LOSS_OCCURRED), (stranger, codes.POWER_ON)
        ):  # fmt: skip
            self.attentions.found(nexus)
            self.assertEqual(self.told(nexus), [code])

    def test_once(self) -> None:
        """The same condition is told once, however often it was established."""
        for _ in range(3):
            self.attentions.establish(codes.CAPACITY_CHANGED, None, None)
        self.assertEqual(self.told(self.one), [codes.CAPACITY_CHANGED])

    def test_reset(self) -> None:
        """A reset takes the place of what came before it, and not of what comes after."""
        for code in (codes.CAPACITY_CHANGED, codes.DEVICE_RESET_OCCURRED, codes.LUNS_CHANGED):
            self.attentions.establish(code, None, None)
        self.assertEqual(self.told(self.one), [codes.DEVICE_RESET_OCCURRED, codes.LUNS_CHANGED])

    def test_precedence(self) -> None:
        """A greater reset takes the place of a lesser one, never the other way round (SAM-5 table 48)."""
        self.attentions.establish(codes.NEXUS_LOSS_OCCURRED, self.one, None)
        self.attentions.establish(codes.POWER_ON, self.one, None)
        self.attentions.establish(codes.DEVICE_RESET_OCCURRED, self.one, None)
        self.assertEqual(self.told(self.one), [codes.POWER_ON])

    def test_bound(self) -> None:
        """A nexus that never asks is told in the end that everything may be different."""
        for code in range(0x6000, 0x6000 + PENDING_LIMIT + 1):
            self.attentions.establish(code, self.one, None)
            self.assertLessEqual(len(self.attentions.pending[self.one]), PENDING_LIMIT)
        self.assertEqual(self.told(self.one), [codes.POWER_ON])

    def test_clear(self) -> None:
        """One condition can be forgotten without the others."""
        self.attentions.establish(codes.LUNS_CHANGED, self.one, None)
        self.attentions.establish(codes.CAPACITY_CHANGED, self.one, None)
        self.attentions.clear(self.one, codes.LUNS_CHANGED)
        self.attentions.clear(self.other, codes.LUNS_CHANGED)
        self.assertEqual(self.told(self.one), [codes.CAPACITY_CHANGED])
        self.attentions.establish(codes.LUNS_CHANGED, self.one, None)
        self.attentions.clear(self.one, codes.LUNS_CHANGED)
        self.assertEqual(self.attentions.pending, {})
