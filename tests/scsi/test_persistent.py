"""PERSISTENT RESERVE IN and OUT, and what a persistent reservation keeps whom from."""

from __future__ import annotations

from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.registrations import FOR_REGISTRANTS, MOST, READABLE, TYPES, Port, portOf
from iscsi_twisted.scsi.transportid import parseTransportID
from tests.scsi.cases import BLOCK
from tests.scsi.persisting import ALWAYS, PersistentCases
from tests.support.tasks import Nexus, Task, run

READING = {
    "READ (6)", "READ (10)", "READ (12)", "READ (16)", "VERIFY (10)", "VERIFY (12)", "VERIFY (16)",
    "PRE-FETCH (10)", "PRE-FETCH (16)", "GET LBA STATUS",
    "READ DEFECT DATA (10)", "READ DEFECT DATA (12)",
}  # fmt: skip
"""What a write exclusive reservation allows to others."""


class PersistentTests(PersistentCases):
    """Who may do what."""

    def test_readKeys(self) -> None:
        """Generation and keys; of all that there are however few are asked for."""
        self.register((self.nexus, 7), (self.other, 9))
        data = self.good(cdb.READ_KEYS, allocation=255)
        self.assertEqual(data.hex(), "000000020000001000000000000000070000000000000009")
        self.assertEqual(self.good(cdb.READ_KEYS, allocation=8), data[:8])

    def test_readReservation(self) -> None:
        """Nothing, the holder's key, or key zero where all hold it."""
        self.register((self.nexus, 7))
        self.assertEqual(self.good(cdb.READ_RESERVATION, allocation=255).hex(), "0000000100000000")
        self.ok(cdb.PR_RESERVE, 7, 0, 5)
        data = self.good(cdb.READ_RESERVATION, allocation=255)
        self.assertEqual(data[8:].hex(), "00000000000000070000000000050000")
        self.ok(cdb.PR_RELEASE, 7, 0, 5)
        self.ok(cdb.PR_RESERVE, 7, 0, 8)
        self.assertEqual(self.good(cdb.READ_RESERVATION, allocation=255)[8:16], bytes(8))

    def test_capabilities(self) -> None:
        """All types; nothing that is refused is claimed."""
        self.assertEqual(self.good(cdb.REPORT_CAPABILITIES, allocation=255).hex(), "00089c80ea010000")

    def test_fullStatus(self) -> None:
        """Every registration with its port, and who holds."""
        self.register((self.nexus, 7), (self.other, 9))
        self.ok(cdb.PR_RESERVE, 9, 0, 1, nexus=self.other)
        data = self.good(cdb.READ_FULL_STATUS, allocation=4096)
        self.assertEqual(int.from_bytes(data[4:8], "big"), len(data) - 8)
        length = 24 + int.from_bytes(data[28:32], "big")
        first, second = data[8 : 8 + length], data[8 + length :]
        self.assertEqual((first[7], first[12], first[13]), (7, 0, 0))
        self.assertEqual((second[7], second[12], second[13], second[19]), (9, 1, 1, 1))
        self.assertEqual(parseTransportID(second[24:]), (self.other.initiatorName, self.other.isid))

    def test_wrongKey(self) -> None:
        """Without the right key there is nothing but a conflict."""
        for command in (cdb.PR_RESERVE, cdb.PR_RELEASE, cdb.PR_CLEAR, cdb.PR_PREEMPT):
            self.conflict(command, 0, 0, 1)
        self.conflict(cdb.PR_REGISTER, 5, 6)
        self.register((self.nexus, 7))
        for command in (cdb.PR_REGISTER, cdb.PR_RESERVE, cdb.PR_RELEASE, cdb.PR_CLEAR, cdb.PR_PREEMPT):
            self.conflict(command, 8, 7, 1)

    def test_malformed(self) -> None:
        """Wrong lengths, scopes, types and flags are refused, and change nothing."""
        for length in (0, 23, 25, 4096):
            task = self.command(cdb.PR_REGISTER, bytes(max(length, 24)), length=length)
            self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        task = self.command(cdb.PR_REGISTER, bytes(10), length=24)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.PARAMETER_LIST_LENGTH_ERROR)
        self.register((self.nexus, 7))
        for kind in (0, 2, 4, 9, 15, 0x15, 0xF1):
            self.assertEqual(self.out(cdb.PR_RESERVE, 7, 0, kind).code, codes.INVALID_FIELD_IN_CDB)
        task = self.out(cdb.PR_REGISTER, 7, 8, flags=0x01)
        self.assertEqual(task.code, codes.INVALID_FIELD_IN_PARAMETER_LIST)
        for opcode in (b"\x5e\x04", b"\x5f\x08", b"\x5f\x1f"):
            self.assertEqual(run(self.unit, Task(opcode, self.nexus)).code, codes.INVALID_FIELD_IN_CDB)
        self.assertEqual(self.unit.registrations.keys, {portOf(self.nexus): 7})

    def test_table(self) -> None:
        """For every type and command: what holders, registrants and others may do (SPC-4 table 68)."""
        mine = {"RELEASE (6)", "RELEASE (10)", "RESERVE (6)", "RESERVE (10)"}
        for kind in sorted(TYPES):
            self.setUp()
            self.register((self.nexus, 7), (self.other, 9))
            self.ok(cdb.PR_RESERVE, 7, 0, kind)
            for command in self.unit.table:
                if command.name.startswith("PERSISTENT") or command.name in mine:
                    continue
                self.assertFalse(self.refused(command, self.nexus), command.name)
                allowed = command.name in ALWAYS or (command.name in READING and kind in READABLE)
                if command.name == "START STOP UNIT":
                    allowed = False  # as it is asked here, to stop
                self.assertEqual(self.refused(command, self.third), not allowed, (kind, command.name))
                registered = allowed or kind in FOR_REGISTRANTS
                self.assertEqual(self.refused(command, self.other), not registered, (kind, command.name))

    def test_ordinary(self) -> None:
        """While all that are here may do everything, commands go the short way; a stranger ends that."""
        self.unit.nexusLost(self.third)
        self.register((self.nexus, 7), (self.other, 9))
        self.ok(cdb.PR_RESERVE, 7, 0, 5)
        self.assertFalse(self.unit._unusual)
        self.unit.nexusFound(self.third)
        self.unit.takeAttention(self.third)
        self.assertTrue(self.unit._unusual)
        passing = [self.unit.passes(nexus) for nexus in (self.nexus, self.other, self.third, Nexus())]
        self.assertEqual(passing, [True, True, False, False])
        self.assertTrue(self.refused(cdb.WRITE_10, self.third))
        self.unit.nexusLost(self.third)
        self.assertFalse(self.unit._unusual)

    def test_lasts(self) -> None:
        """A registration outlives its session and a reset; a new session of the same ports has it."""
        self.register((self.nexus, 7))
        self.ok(cdb.PR_RESERVE, 7, 0, 3)
        self.unit.nexusLost(self.nexus)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.told(self.other)
        self.assertTrue(self.refused(cdb.READ_10, self.other))
        again = Nexus()
        self.unit.nexusFound(again)
        self.told(again)
        self.assertFalse(self.refused(cdb.READ_10, again))
        self.ok(cdb.PR_RELEASE, 7, 0, 3, nexus=again)
        self.assertFalse(self.refused(cdb.READ_10, self.other))

    def test_attentions(self) -> None:
        """Those who lose something are told."""
        self.register((self.nexus, 7), (self.other, 9), (self.third, 11))
        self.ok(cdb.PR_RESERVE, 7, 0, 5)
        self.ok(cdb.PR_PREEMPT, 9, 7, 6, nexus=self.other)
        self.assertEqual(self.told(self.nexus), codes.REGISTRATIONS_PREEMPTED)
        self.assertEqual(self.told(self.third), codes.RESERVATIONS_RELEASED)
        self.ok(cdb.PR_CLEAR, 9, nexus=self.other)
        self.assertEqual([self.told(each) for each in (self.nexus, self.other)], [None, None])
        self.assertEqual(self.told(self.third), codes.RESERVATIONS_PREEMPTED)

    def test_attentionsAway(self) -> None:
        """Who was away when it lost something hears of a power on, to look at everything; others do not."""
        self.register((self.nexus, 7), (self.other, 9))
        for preempted in (False, True):
            self.unit.nexusLost(self.other)
            if preempted:
                self.ok(cdb.PR_PREEMPT, 7, 9, 5)
            self.unit.nexusFound(self.other)
            told = codes.POWER_ON if preempted else codes.NEXUS_LOSS_OCCURRED
            self.assertEqual(self.told(self.other), told)

    def test_wrongRelease(self) -> None:
        """A release that names another type is refused as such."""
        self.register((self.nexus, 7))
        self.ok(cdb.PR_RESERVE, 7, 0, 1)
        self.assertSense(self.out(cdb.PR_RELEASE, 7, 0, 3), codes.ILLEGAL_REQUEST, codes.INVALID_RELEASE)
        self.assertTrue(self.unit.registrations.type)

    def test_preemptNothing(self) -> None:
        """A holder's reservation is not preempted with key zero."""
        self.register((self.nexus, 7), (self.other, 9))
        self.ok(cdb.PR_RESERVE, 7, 0, 1)
        task = self.out(cdb.PR_PREEMPT, 9, 0, 1, nexus=self.other)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INVALID_FIELD_IN_PARAMETER_LIST)

    def test_abort(self) -> None:
        """PREEMPT AND ABORT aborts what the others have under way, and nothing else."""
        self.register((self.nexus, 7), (self.other, 9))
        self.ok(cdb.PR_RESERVE, 7, 0, 5)
        theirs = Task(cdb.WRITE_10.encode(length=1), self.nexus, bytes(BLOCK), late=True)
        mine = Task(cdb.WRITE_10.encode(length=1), self.other, bytes(BLOCK), late=True)
        for task in (theirs, mine):
            run(self.unit, task)
        self.ok(cdb.PR_PREEMPT_AND_ABORT, 9, 7, 5, nexus=self.other)
        self.assertEqual((theirs.aborted, mine.aborted), (True, False))
        mine.arrive(self.unit)
        self.assertEqual(mine.status, codes.GOOD)

    def test_oldWay(self) -> None:
        """RESERVE and RELEASE are closed where there are registrations, and the other way round."""
        self.register((self.nexus, 7))
        for command in (cdb.RESERVE_6, cdb.RESERVE_10, cdb.RELEASE_6, cdb.RELEASE_10):
            self.assertEqual(self.command(command).status, codes.RESERVATION_CONFLICT)
        self.ok(cdb.PR_REGISTER, 7, 0)
        self.good(cdb.RESERVE_6)
        for nexus in (self.nexus, self.other):
            self.conflict(cdb.PR_REGISTER, 0, 7, nexus=nexus)

    def test_fencing(self) -> None:
        """fence_scsi: unfence two nodes, fence one off, look at it, and let it in again."""
        for nexus, key in ((self.nexus, 1), (self.other, 2)):
            self.ok(cdb.PR_REGISTER_IGNORING, 0, key, nexus=nexus)
            keys = self.good(cdb.READ_KEYS, allocation=255, nexus=nexus)
            self.assertIn(key.to_bytes(8, "big"), keys[8:])
        self.ok(cdb.PR_RESERVE, 1, 0, 5)
        self.conflict(cdb.PR_RESERVE, 2, 0, 5, nexus=self.other)
        self.assertFalse(self.refused(cdb.WRITE_10, self.other))
        self.ok(cdb.PR_PREEMPT_AND_ABORT, 1, 2, 5)
        self.assertEqual(self.told(self.other), codes.REGISTRATIONS_PREEMPTED)
        self.assertTrue(self.refused(cdb.WRITE_10, self.other))
        self.assertFalse(self.refused(cdb.READ_10, self.other))
        self.assertEqual(self.good(cdb.READ_KEYS, allocation=255)[8:], (1).to_bytes(8, "big"))
        self.ok(cdb.PR_REGISTER_IGNORING, 0, 2, nexus=self.other)
        self.assertFalse(self.refused(cdb.WRITE_10, self.other))
        # The node that holds it is fenced off in its turn; the reservation goes to who did it.
        self.ok(cdb.PR_PREEMPT_AND_ABORT, 2, 1, 5, nexus=self.other)
        self.assertEqual(self.unit.registrations.holder, portOf(self.other))
        self.assertTrue(self.refused(cdb.WRITE_10, self.nexus))

    def test_full(self) -> None:
        """Where there is no room, the command says so."""
        state = self.unit.registrations
        state.keys.update({Port("x", number.to_bytes(6, "big"), 1): 1 for number in range(MOST)})
        task = self.out(cdb.PR_REGISTER, 0, 7)
        self.assertSense(task, codes.ILLEGAL_REQUEST, codes.INSUFFICIENT_REGISTRATIONS)

    def test_nothingLost(self) -> None:
        """Only what was lost is replaced."""
        self.register((self.nexus, 7))
        task = self.out(cdb.PR_REPLACE_LOST, 0, 8, 1)
        self.assertInvalidField(task, 1, 4)

    def test_compatible(self) -> None:
        """RESERVE and RELEASE look as if they were open to whom the reservation lets in (CRH, 5.13.3)."""
        self.register((self.nexus, 7), (self.other, 9))
        for kind in sorted(TYPES):
            self.ok(cdb.PR_RESERVE, 7, 0, kind)
            for command in (cdb.RESERVE_6, cdb.RESERVE_10, cdb.RELEASE_6, cdb.RELEASE_10):
                self.good(command)
                allowed = codes.GOOD if kind in FOR_REGISTRANTS else codes.RESERVATION_CONFLICT
                self.assertEqual(self.command(command, nexus=self.other).status, allowed)
                self.assertEqual(self.command(command, nexus=self.third).status, codes.RESERVATION_CONFLICT)
            self.assertEqual((self.unit.holder, self.unit.registrations.type), (None, kind))
            self.ok(cdb.PR_RELEASE, 7, 0, kind)
            self.told(self.other)

    def test_twoPaths(self) -> None:
        """A failover cluster with two paths: each path of each node registers, and a reset breaks nothing."""
        far = Nexus(portalGroupTag=2)
        self.unit.nexusFound(far)
        self.told(far)
        for nexus in (self.nexus, far):
            self.ok(cdb.PR_REGISTER_IGNORING, 0, 0xA, nexus=nexus)
        self.ok(cdb.PR_RESERVE, 0xA, 0, 5)
        self.ok(cdb.PR_REGISTER_IGNORING, 0, 0xB, nexus=self.other)
        self.assertEqual(
            [self.refused(cdb.WRITE_10, each) for each in (self.nexus, far, self.other)], [False] * 3
        )
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        for nexus in (self.nexus, far, self.other, self.third):
            self.told(nexus)
        self.ok(cdb.PR_PREEMPT, 0xB, 0xA, 5, nexus=self.other)
        self.assertEqual(
            [self.told(nexus) for nexus in (self.nexus, far)], [codes.REGISTRATIONS_PREEMPTED] * 2
        )
        self.assertEqual([self.refused(cdb.WRITE_10, each) for each in (self.nexus, far)], [True] * 2)

    def test_hypervisor(self) -> None:
        """VMFS: a host reserves to lock, another breaks the lock of one that died; or compares and writes."""
        self.good(cdb.RESERVE_6)
        self.good(cdb.READ_10, length=1)
        self.good(cdb.WRITE_10, bytes(BLOCK), length=1)
        for command in (cdb.READ_10, cdb.WRITE_10, cdb.RESERVE_6):
            self.assertEqual(self.command(command, nexus=self.other).status, codes.RESERVATION_CONFLICT)
        self.good(cdb.RELEASE_6, nexus=self.other)
        self.unit.reset(codes.DEVICE_RESET_OCCURRED)
        self.assertEqual(
            [self.told(each) for each in (self.nexus, self.other)], [codes.DEVICE_RESET_OCCURRED] * 2
        )
        self.good(cdb.RESERVE_6, nexus=self.other)
        self.assertEqual(self.command(cdb.WRITE_10, nexus=self.nexus).status, codes.RESERVATION_CONFLICT)
        self.good(cdb.RELEASE_6, nexus=self.other)
        lock = b"\1" * BLOCK
        self.good(cdb.COMPARE_AND_WRITE, bytes(BLOCK) + lock, length=1)
        late = self.command(cdb.COMPARE_AND_WRITE, bytes(BLOCK) + lock, length=1, nexus=self.other)
        self.assertSense(late, codes.MISCOMPARE, codes.MISCOMPARE_DURING_VERIFY)
