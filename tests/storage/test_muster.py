# -*- test-case-name: tests.storage.test_muster -*-
"""Tests for L{iscsi_twisted.storage.muster}."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import NotReady
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.storage.legs import Leg
from iscsi_twisted.storage.muster import choose, muster
from iscsi_twisted.storage.record import MemberRecord, Record
from iscsi_twisted.storage.regions import Regions

COUNT = 8
SIZE = COUNT << 18


def some(numbers: Iterable[int] = ()) -> Regions:
    """These regions."""
    regions = Regions(COUNT)
    for number in numbers:
        regions.add(number, number)
    return regions


def leg(name: str | None, stamp: tuple[int, ...] = (), isOpen: bool = True) -> Leg:
    """A member that is open."""
    made = Leg(MemoryDevice(SIZE))
    made.fingerprint, made.stamp, made.isOpen, made.reason = name, stamp, isOpen, "gone"
    return made


def member(
    name: str, present: bool = True, behind: Iterable[int] = (), stamp: tuple[int, ...] = ()
) -> MemberRecord:
    """What is known of a member."""
    return MemberRecord(name, f"the {name}", present, some(behind), stamp)


def record(
    *members: MemberRecord, marked: Iterable[int] = (), unverified: Iterable[int] = (), generation: int = 1
) -> Record:
    """What is known of a mirror."""
    return Record("r", generation, SIZE, 18, some(marked), some(unverified), members)


class MusterTests(SynchronousTestCase):
    """Tests of L{muster}."""

    def behind(self, legs: list[Leg]) -> list[list[int]]:
        """What each lacks."""
        return [list(one.behind) for one in legs]

    def test_clean(self) -> None:
        """Members that were in sync are."""
        legs = [leg("a", (5,)), leg("b", (6,))]
        verdict = muster(legs, record(member("b", stamp=(6,)), member("a", stamp=(5,))), COUNT, None)
        self.assertEqual((self.behind(legs), list(verdict.unverified)), ([[], []], []))
        self.assertEqual((verdict.warnings, verdict.old), ((), ()))

    def test_crashed(self) -> None:
        """Where writes were under way one keeps what it has, and the others get that."""
        legs = [leg("a", (5,)), leg("b", (9,)), leg("c", (5,))]
        known = [member("a", stamp=(5,)), member("b", stamp=(6,)), member("c", behind=[1], stamp=(9,))]
        muster(legs, record(*known, marked=[2, 3]), COUNT, None)
        self.assertEqual(self.behind(legs), [[], [2, 3], [1, 2, 3]])

    def test_elsewhere(self) -> None:
        """Rather one that knows how new it is: the others may have lost what was not flushed."""
        legs = [leg("a"), leg("b", (5,))]
        muster(legs, record(member("a"), member("b", stamp=(4,)), marked=[2, 3]), COUNT, None)
        self.assertEqual(self.behind(legs), [[2, 3], []])

    def test_changed(self) -> None:
        """One that does not hold what it held is not the one that keeps what was under way."""
        legs = [leg("a"), leg("b")]
        known = record(member("a"), member("b"), marked=[2, 3])
        muster(legs, known, COUNT, None, [legs[0]])
        self.assertEqual(self.behind(legs), [list(range(COUNT)), []])
        self.assertRaises(NotReady, muster, legs, known, COUNT, None, legs)

    def test_failed(self) -> None:
        """A member that had failed lacks what it lacked, and what was under way."""
        legs = [leg("a"), leg("b")]
        muster(legs, record(member("a", False, [1]), member("b"), marked=[2]), COUNT, None)
        self.assertEqual(self.behind(legs), [[1, 2], []])

    def test_between(self) -> None:
        """Members that together have everything will do."""
        legs = [leg("a"), leg("b")]
        muster(legs, record(member("a", behind=[1]), member("b", behind=[2]), marked=[1, 2, 3]), COUNT, None)
        self.assertEqual(self.behind(legs), [[1], [2, 3]])

    def test_missing(self) -> None:
        """One that is not there is told of, and remembered with what it lacks."""
        legs = [leg("a"), leg(None, isOpen=False)]
        verdict = muster(legs, record(member("a"), member("b", stamp=(4,)), marked=[2]), COUNT, None)
        self.assertEqual(self.behind(legs)[0], [])
        self.assertIn("degraded", verdict.warnings[0])
        (old,) = verdict.old
        self.assertEqual((old.fingerprint, old.present, list(old.behind), old.stamp), ("b", False, [2], ()))

    def test_missingClean(self) -> None:
        """If nothing was under way it is known how new it has to be."""
        verdict = muster(
            [leg("a"), leg(None, isOpen=False)], record(member("a"), member("b", stamp=(4,))), COUNT, None
        )
        self.assertEqual(verdict.old[0].stamp, (4,))

    def test_stale(self) -> None:
        """With nobody who has everything there is no start; it is told what is wanted."""
        legs = [leg("a"), leg(None, isOpen=False)]
        known = record(member("a", False, [1]), member("b"))
        error = self.assertRaises(NotReady, muster, legs, known, COUNT, None)
        for part in ("lacks what was written last", "the b", "--force-member"):
            self.assertIn(part, str(error))

    def test_new(self) -> None:
        """A device that nobody knows gets everything."""
        legs = [leg("a"), leg("x"), leg(None)]
        verdict = muster(legs, record(member("a"), member("b")), COUNT, None)
        self.assertEqual(self.behind(legs), [[], list(range(COUNT)), list(range(COUNT))])
        self.assertEqual(len(verdict.warnings), 2)

    def test_doubt(self) -> None:
        """Without a record, or with one that does not fit, members are equal in rank and compared."""
        for name, known in (
            ("none", None),
            ("of others", record(member("x"))),
            ("newer", record(member("a", stamp=(7,)), member("b"), marked=[1])),
            ("other than it was", record(member("a", stamp=(4,)), member("b"))),
        ):
            legs = [leg("a", (5,)), leg("b", (5,))]
            verdict = muster(legs, known, COUNT, None)
            self.assertEqual(self.behind(legs), [[], []], name)
            self.assertEqual(len(verdict.unverified), COUNT, name)
            self.assertIn("compared", verdict.warnings[0])

    def test_old(self) -> None:
        """A record is not believed if a member knows of a newer one, whatever else it says."""
        legs = [leg("a", (9,)), leg("b", (9,))]
        legs[1].witness = 5
        known = record(member("a"), member("b", False, [1]), marked=[2], generation=4)
        verdict = muster(legs, known, COUNT, None)
        self.assertEqual((self.behind(legs), len(verdict.unverified)), ([[], []], COUNT))
        self.assertIn("is old: MemoryDevice knows of a newer one", verdict.warnings[0])
        legs[1].witness = 4
        muster(legs, known, COUNT, None)
        self.assertEqual(self.behind(legs), [[], [1, 2]])

    def test_doubtAlone(self) -> None:
        """Then all have to be there."""
        legs = [leg("a"), leg(None, isOpen=False)]
        self.assertRaises(NotReady, muster, legs, record(member("x")), COUNT, None)

    def test_single(self) -> None:
        """A mirror of one member cannot differ; unless there were others, which may hold the truth."""
        for known in (None, record(member("a", stamp=(4,))), record(member("a", stamp=(7,)))):
            legs = [leg("a", (5,))]
            verdict = muster(legs, known, COUNT, None)
            self.assertEqual(self.behind(legs), [[]])
            self.assertFalse(verdict.unverified)
        for stamp in ((4,), (7,)):
            known = record(member("a", stamp=stamp), member("b"))
            error = self.assertRaises(NotReady, muster, [leg("a", (5,))], known, COUNT, None)
            self.assertIn("there were other members.  Bring one back", str(error))
        verdict = muster([leg("a", (5,))], record(member("a", stamp=(5,)), member("b")), COUNT, None)
        self.assertFalse(verdict.unverified)

    def test_changedWhileBehind(self) -> None:
        """How new a member is that lacks something does not matter."""
        legs = [leg("a", (5,)), leg("b", (1,))]
        muster(legs, record(member("a", stamp=(5,)), member("b", behind=[3], stamp=(9,))), COUNT, None)
        self.assertEqual(self.behind(legs), [[], [3]])

    def test_unverified(self) -> None:
        """What was in doubt stays so, even where writes were under way."""
        legs = [leg("a"), leg("b")]
        verdict = muster(
            legs, record(member("a"), member("b"), marked=[1, 2], unverified=[2, 3]), COUNT, None
        )
        self.assertEqual((self.behind(legs), list(verdict.unverified)), ([[], [1]], [2, 3]))

    def test_unverifiedAlone(self) -> None:
        """Who may be right has to be here, also where writes were under way, unless somebody says so."""
        legs = [leg("a"), leg(None, isOpen=False)]
        known = record(member("a"), member("b"), marked=[2], unverified=[2])
        error = self.assertRaises(NotReady, muster, legs, known, COUNT, None)
        self.assertIn("nobody knows which member is right, and the b may be, which is not there", str(error))
        muster(legs, known, COUNT, legs[0])
        self.assertEqual(self.behind(legs)[0], [])
        muster(legs, record(member("a"), member("b", False, [2]), unverified=[2]), COUNT, None)
        self.assertEqual(self.behind(legs)[0], [])

    def test_trusted(self) -> None:
        """A member that somebody trusts is right, whatever is known, and alone if need be."""
        legs = [leg("a"), leg(None, isOpen=False)]
        verdict = muster(legs, record(member("a", False, [1]), member("b")), COUNT, legs[0])
        self.assertEqual((self.behind(legs)[0], list(verdict.unverified)), ([], []))
        legs = [leg("a"), leg("b")]
        muster(legs, None, COUNT, legs[1])
        self.assertEqual(self.behind(legs), [list(range(COUNT)), []])

    def test_trustedInVain(self) -> None:
        """That changes nothing if it has everything anyway."""
        legs = [leg("a"), leg("b")]
        verdict = muster(legs, record(member("a"), member("b")), COUNT, legs[0])
        self.assertEqual((self.behind(legs), verdict.warnings), ([[], []], ()))

    def test_trustedMissing(self) -> None:
        """It has to be there."""
        legs = [leg("a"), leg(None, isOpen=False)]
        self.assertRaises(NotReady, muster, legs, record(member("a")), COUNT, legs[1])

    def test_void(self) -> None:
        """
        A member of another mirror starts without what nobody has, and remembers that; but not if somebody
        who is away may have it.
        """
        here = [member("a", behind=[1, 2], stamp=(5,)), member("b", behind=[1], stamp=(5,))]
        nobody = [
            [],
            [member("c", behind=[1])],
            [member("c", present=False, behind=[0, 1])],
            # It was away when that was under way.
            [member("c", present=False)],
        ]
        somebody = [[member("c")], [member("c", behind=[2])]]
        for away, starts in [(each, True) for each in nobody] + [(each, False) for each in somebody]:
            legs = [leg("a", (5,)), leg("b", (5,))]
            known = record(*here, *away, marked=[1])
            self.assertRaises(NotReady, muster, legs, known, COUNT, None)
            if not starts:
                self.assertRaises(NotReady, muster, legs, known, COUNT, None, permitVoid=True)
                continue
            verdict = muster(legs, known, COUNT, None, permitVoid=True)
            self.assertEqual(list(verdict.void), [1])
            # They have to be equal there, whatever they hold.
            self.assertEqual(self.behind(legs), [[1, 2], []])
        here = [member("a", behind=[1], stamp=(5,)), member("b", present=False, behind=[1, 3])]
        legs = [leg("a", (5,)), leg("b", (7,))]
        known = record(*here, member("c", present=False, behind=[2]))
        self.assertRaises(NotReady, muster, legs, known, COUNT, None, permitVoid=True)


class ChoiceTests(SynchronousTestCase):
    """Tests of L{choose}."""

    def test_choice(self) -> None:
        """The newest record that knows a member that is there, of a mirror of that size."""
        records = [
            record(member("a"), generation=3),
            record(member("a"), member("b"), generation=5),
            record(member("c"), generation=9),
        ]
        legs = [leg("a"), leg("c", isOpen=False), leg(None)]
        self.assertIs(choose(records, legs, SIZE, 18), records[1])
        self.assertIsNone(choose(records, legs, SIZE * 2, 18))
        self.assertIsNone(choose(records, [leg("z")], SIZE, 18))
