# -*- test-case-name: tests.storage.test_scrub -*-
"""Tests for L{iscsi_twisted.storage.scrub}."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import LocalError, NotReady, OutOfSpace, ReadError, WriteError
from iscsi_twisted.storage import Mirror, scrub
from iscsi_twisted.storage.legs import IN_SYNC, RESYNCING
from iscsi_twisted.storage.record import Record
from iscsi_twisted.storage.scrub import Mismatch, Scrub, differences
from tests.support.mirrors import again, disks, knownMirror, opened, settled
from tests.support.platters import MemoryStore

REGION = 1 << 18
SIZE = 4 * REGION


class ScrubTests(SynchronousTestCase):
    """Comparing members."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.disks = disks(3, SIZE)
        content = os.urandom(SIZE)
        for disk in self.disks:
            disk.view[:] = content
        self.device = opened(knownMirror(self.disks, self.clock))

    def scrubbed(self, repair: Any = None) -> Any:
        """What is found."""
        scrub = self.device.scrub(repair)
        self.clock.pump([0.01] * 60)
        return self.successResultOf(scrub)

    def spoil(self, disk: int, offset: int, data: bytes = b"spoilt") -> None:
        """Change a member behind everybody's back."""
        self.disks[disk].view[offset : offset + len(data)] = data

    def test_equal(self) -> None:
        """Members that are equal are found to be."""
        findings = self.scrubbed()
        self.assertEqual((findings.compared, findings.count, findings.mismatches), (SIZE, 0, ()))

    def test_told(self) -> None:
        """Each place where they differ is told, and left alone."""
        self.spoil(1, 1000, b"x" * 600)
        self.spoil(2, 3 * REGION + 5)
        with capturedLogs() as events:
            findings = self.scrubbed()
        self.assertEqual(findings.mismatches, (Mismatch(512, 1536, False), Mismatch(3 * REGION, 512, False)))
        told = [event for event in events if event.get("event") == "mismatch"]
        self.assertEqual(
            [(event["offset"], event["length"]) for event in told], [(512, 1536), (3 * REGION, 512)]
        )
        self.assertEqual(bytes(self.disks[1].view[1000:1003]), b"xxx")
        self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC] * 3)

    def test_again(self) -> None:
        """A mirror that is to be compares its members again and again, and tells what differs."""
        self.device.close()
        self.device = opened(
            Mirror(again(self.disks), reactor=self.clock, store=self.device.store, scrubbing=1000)
        )
        self.disks = self.device.members  # type: ignore[assignment]
        self.clock.pump([5] * 190)
        self.spoil(1, 1000)
        for _ in range(2):
            with capturedLogs() as events:
                self.clock.pump([5] * 200)
            told = [event["offset"] for event in events if event.get("event") == "mismatch"]
            self.assertEqual(told, [512])
            self.assertEqual([leg.state for leg in self.device.legs], [IN_SYNC] * 3)

    def test_givesWay(self) -> None:
        """What has to be copied does not wait for that; the comparing goes on afterwards."""
        self.device.close()
        self.device = opened(
            Mirror(again(self.disks), reactor=self.clock, store=self.device.store, scrubbing=1000)
        )
        self.disks = self.device.members  # type: ignore[assignment]
        self.patch(scrub, "STRETCH", 1)
        self.clock.pump([5] * 199)
        self.disks[2].waits = True
        self.clock.advance(10)
        self.assertEqual(self.device.status().activity, "scrub")
        self.device.spoil(self.device.legs[1], 3, 3)
        self.device.settleStates()
        self.disks[2].waits = False
        with capturedLogs() as events:
            for operation in self.disks[2].operations[:]:
                operation.fire()
            self.clock.pump([5] * 4)
        mine = [event for event in events if event.get("event") in ("scrub", "member")]
        told = [event["state"] if event["event"] == "member" else event["compared"] for event in mine]
        self.assertEqual(told, [REGION, IN_SYNC, SIZE - REGION])

    def test_atTheEnd(self) -> None:
        """One that has come to its end when something has to be copied need not be done once more."""
        self.device.close()
        self.device = opened(
            Mirror(again(self.disks), reactor=self.clock, store=self.device.store, scrubbing=1000)
        )
        self.disks = self.device.members  # type: ignore[assignment]
        self.patch(scrub, "STRETCH", 1)
        real = self.disks[2].read

        def read(offset: int, length: int) -> Any:
            if offset >= 3 * REGION:
                self.device.spoil(self.device.legs[1], 0, 0)
                self.device.settleStates()
            return real(offset, length)

        self.disks[2].read = read  # type: ignore[method-assign,assignment]
        with capturedLogs() as events:
            self.clock.pump([5] * 250)
        self.assertEqual([event["compared"] for event in events if event.get("event") == "scrub"], [SIZE])

    def test_wanted(self) -> None:
        """One that somebody wants now gives way to nothing, and compares all that there is to be."""
        self.patch(scrub, "STRETCH", 1)
        self.disks[2].broken = True
        self.device.write(0, b"x")
        self.disks[2].broken = False

        def full(offset: int, data: bytes) -> None:
            raise OutOfSpace("full")

        self.disks[2].write = full  # type: ignore[method-assign,assignment]
        self.clock.pump([5, 0.1, 0.1])
        self.assertEqual(self.device.legs[2].state, RESYNCING)
        findings = self.scrubbed()
        self.assertEqual((findings.compared, findings.count), (SIZE, 0))
        self.assertIsNone(self.device.status().scrubbed)

    def test_holes(self) -> None:
        """Where nobody has anything nothing is read; who does not say what it has is read."""
        for disk in self.disks:
            disk.view[:] = bytes(SIZE)
            able = disk.capabilities()._replace(allocated=True)
            self.patch(disk, "capabilities", lambda able=able: able)
            self.patch(disk, "allocated", lambda _, length: [(length, False)])
        self.device.close()
        self.device = opened(Mirror(self.disks, reactor=self.clock, store=MemoryStore(), trusted="disk0"))
        settled(self.device, self.clock)
        for disk in self.disks:
            disk.history.clear()
        self.assertEqual((self.scrubbed().compared, [disk.history for disk in self.disks]), (0, [[]] * 3))

        def fail(offset: int, length: int) -> None:
            raise ReadError("no", offset)

        self.patch(self.disks[1], "allocated", fail)
        self.spoil(2, 5)
        self.assertEqual((self.scrubbed().compared, self.scrubbed().count), (SIZE, 1))

    def test_total(self) -> None:
        """How much there is to compare: all, the rest, or what is in doubt."""
        self.device.unverified.add(1, 2)
        totals = [Scrub(self.device, **how).progress.total for how in ({}, {"start": 1}, {"doubtful": True})]
        self.assertEqual(totals, [SIZE, SIZE - REGION, 2 * REGION])

    def test_majority(self) -> None:
        """Those that agree win, if they are more than half."""
        self.spoil(1, 1000)
        self.assertEqual([one.repaired for one in self.scrubbed("majority").mismatches], [True])
        self.assertEqual(self.disks[0].view, self.disks[1].view)
        self.spoil(1, 1000, b"a" * 9)
        self.spoil(2, 1000, b"b" * 9)
        self.assertEqual([one.repaired for one in self.scrubbed("majority").mismatches], [False])

    def test_named(self) -> None:
        """A member that is named wins alone."""
        self.spoil(1, 1000)
        self.assertEqual([one.repaired for one in self.scrubbed("disk1").mismatches], [True])
        for disk in self.disks:
            self.assertEqual(bytes(disk.view[1000:1006]), b"spoilt")

    def test_unreadable(self) -> None:
        """What cannot be read is counted, and what follows is compared."""
        self.disks[1].unreadable = {3}
        self.spoil(2, 3 * REGION)
        findings = self.scrubbed()
        self.assertEqual((findings.unreadable, findings.count), (1, 1))

    def test_unreadableAndOther(self) -> None:
        """Where one cannot be read and the others differ nothing is lost; once they agree it is mended."""
        self.disks[1].unreadable = {3}
        self.spoil(2, 3 * 64)
        findings = self.scrubbed()
        self.assertEqual((findings.unreadable, findings.count, findings.lost), (1, 1, 0))
        self.assertEqual(self.disks[1].unreadable, {3})
        self.assertEqual([one.repaired for one in self.scrubbed("disk0").mismatches], [True])
        self.assertEqual(self.disks[2].view, self.disks[0].view)
        self.assertEqual((self.scrubbed().lost, self.disks[1].unreadable), (0, set()))

    def test_unreadableElsewhere(self) -> None:
        """What one cannot read is written anew there, if the others agree."""
        self.disks[1].unreadable = {3}
        self.assertEqual(self.scrubbed().unreadable, 1)
        self.assertEqual(self.disks[1].unreadable, set())
        self.assertEqual(self.scrubbed().unreadable, 0)
        self.assertEqual(self.device.status().members[1].repaired, 1)

    def test_repairLost(self) -> None:
        """A member that is repaired is not believed there, should a power cut take that back."""
        store = MemoryStore()
        members = disks(3, SIZE)
        device = self.device = opened(knownMirror(members, self.clock, store))
        store.waits = True
        for place in (members[0].view, members[0].platter.durable):
            place[:6] = b"spoilt"
        scrub = device.scrub("majority")
        self.clock.pump([0.01] * 10)
        self.assertEqual(bytes(members[0].view[:6]), b"spoilt")
        store.fire()
        (behind, _) = self.recorded(store)
        self.assertEqual(behind, [0])
        self.assertEqual(bytes(members[0].platter.durable[:6]), bytes(6))
        store.fire()
        self.assertEqual(self.recorded(store), ([], members[0].stamp()))
        self.clock.pump([0.01] * 60)
        self.assertEqual(self.successResultOf(scrub).count, 1)

    def recorded(self, store: MemoryStore) -> tuple[list[int], tuple[int, ...]]:
        """Where the first member is behind, and how new it is, as the record says."""
        (data,) = store.kept.values()
        member = Record.decode(data).members[0]
        return list(member.behind), member.stamp

    def test_once(self) -> None:
        """There is one comparison at a time; closing ends it."""
        scrub = self.device.scrub()
        self.assertRaises(LocalError, self.device.scrub)
        self.assertEqual(self.device.status().activity, "scrub")
        self.assertIsNone(self.device.close())
        self.failureResultOf(scrub, CancelledError)
        self.assertRaises(LocalError, self.device.scrub)

    def test_helpers(self) -> None:
        """Where buffers differ, in sectors."""
        zeros = bytes(2000)
        self.assertEqual(
            differences([zeros, zeros[:1999] + b"x", b"x" + zeros[1:]]), [(0, 512), (1536, 2000)]
        )


class DoubtTests(SynchronousTestCase):
    """Mirrors of whose members nothing is known."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), MemoryStore()
        self.disks = disks(2, SIZE)
        self.device = Mirror(self.disks, reactor=self.clock, store=self.store)

    def test_equal(self) -> None:
        """When they have been compared and are equal all is well."""
        opened(self.device)
        self.assertEqual(self.device.status().unverified, SIZE)
        settled(self.device, self.clock)
        self.assertEqual(self.device.status().unverified, 0)

    def test_differ(self) -> None:
        """Until then, and after it where they differ, only what is equal can be read."""
        self.disks[1].view[REGION : REGION + 10] = b"0123456789"
        opened(self.device)
        for _ in range(2):
            self.assertEqual(self.device.read(REGION + 512, 512), bytes(512))
            error = self.assertRaises(ReadError, self.device.read, REGION - 512, 1024)
            self.assertEqual(error.offset, REGION)
            self.assertEqual(self.device.read(0, 512), bytes(512))
            self.clock.pump([0.1] * 50)
        self.assertEqual(self.device.status().unverified, REGION)

    def test_away(self) -> None:
        """Without one that may be right nothing is compared; if another is trusted it lacks what that has."""
        store, members = MemoryStore(), disks(3, SIZE)
        members[2].platter.durable[SIZE - 6 :] = b"others"
        members[2].view[:] = members[2].platter.durable
        device = Mirror(members, reactor=self.clock, store=store)
        opened(device)
        self.assertIsNone(device.close())
        members[2].broken = True
        self.assertRaises(NotReady, opened, device)
        device.trustAtStart(members[0])
        opened(device)
        self.clock.pump([5] * 10)
        self.assertEqual(device.status().unverified, 0)
        self.assertIsNone(device.close())
        members[2].broken = False
        opened(device)
        self.assertEqual([leg.state for leg in device.legs], [IN_SYNC, IN_SYNC, RESYNCING])
        settled(device, self.clock)
        self.assertEqual(members[2].view, members[0].view)

    def test_writtenAnew(self) -> None:
        """Where whole regions are written there is no doubt any more."""
        self.disks[1].view[REGION : REGION + 10] = b"0123456789"
        opened(self.device)
        self.device.write(REGION, b"w" * REGION)
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_kept(self) -> None:
        """What has been found equal is so after a restart; what differs is still in doubt."""
        self.test_differ()
        self.assertIsNone(self.device.close())
        opened(self.device)
        self.assertEqual(self.device.status().unverified, REGION)
        self.assertRaises(ReadError, self.device.read, REGION, 512)

    def test_written(self) -> None:
        """What is written is known to be equal."""
        self.test_differ()
        self.device.write(REGION, b"w" * 512)
        self.assertEqual(self.device.read(REGION, 512), b"w" * 512)
        self.assertEqual(self.device.status().unverified, REGION)
        self.device.zero(REGION - 5, REGION + 10, False)
        self.assertEqual(self.device.status().unverified, 0)

    def test_writtenInPart(self) -> None:
        """Where something was written to a part of what is in doubt members are compared once more."""
        self.test_differ()
        self.device.write(REGION, b"w" * 512)
        self.assertEqual(self.device.status().unverified, REGION)
        self.clock.pump([5.0] * 9)
        self.assertEqual(self.device.status().unverified, 0)

    def test_trust(self) -> None:
        """Somebody may say which member is right; the other gets a copy."""
        self.test_differ()
        self.device.trust("disk1")
        self.assertEqual(self.device.read(REGION, 10), b"0123456789")
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_trustAtStart(self) -> None:
        """The same at the start."""
        self.disks[1].view[REGION : REGION + 10] = b"0123456789"
        self.device.trustAtStart("disk1")
        opened(self.device)
        self.assertEqual(self.device.read(REGION, 10), b"0123456789")
        settled(self.device, self.clock)
        self.assertEqual(self.disks[0].view, self.disks[1].view)

    def test_repaired(self) -> None:
        """A scrub with a member that is right settles doubts too."""
        self.test_differ()
        scrub = self.device.scrub("disk0")
        self.clock.pump([0.1] * 50)
        self.successResultOf(scrub)
        self.assertEqual(self.device.status().unverified, 0)
        self.assertEqual(self.device.read(REGION, 10), bytes(10))

    def test_alone(self) -> None:
        """If one fails meanwhile, what had not been compared is not read or written, and stays in doubt."""
        opened(self.device)
        self.disks[1].broken = True
        self.assertRaises(WriteError, self.device.write, 0, b"x" * 512)
        self.assertRaises(ReadError, self.device.read, REGION, 512)
        self.assertEqual(self.device.status().unverified, SIZE)
