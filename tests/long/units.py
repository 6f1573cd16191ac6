"""
Any commands from several nexuses to several units in memory, whose devices answer when they are told to,
while sessions, tasks and the devices themselves come and go: all of it in one process, without iSCSI.

What must hold: every task ends once, nothing surprises anybody, nothing of a nexus that is gone is kept, and
the units can be used afterwards.
"""

from __future__ import annotations

import time
import traceback
from random import Random
from typing import Any, Final

import attrs

from iscsi_twisted.errors import ReadError, WriteError
from iscsi_twisted.interfaces import ITask, TargetPort
from iscsi_twisted.scsi import cdb, cdblong, codes, copying, overhaul
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.inventory import furnish
from iscsi_twisted.scsi.optical import OpticalUnit
from iscsi_twisted.scsi.paths import Paths
from iscsi_twisted.scsi.persistent import LIST
from iscsi_twisted.scsi.registrations import MOST, Registrations
from iscsi_twisted.scsi.work import Work
from tests.long.fuzz import Fault
from tests.long.invent import ISIDS, NAMES, Choices, anything
from tests.long.moody import Device, Store
from tests.scsi.cases import IDENTITY
from tests.scsi.devices import PLAIN, THIN, Turns
from tests.support.tasks import Nexus, Task, run

BLOCKS: Final = 64
ACTS: Final = 60
"""Acts of a round at most."""
TASKS: Final = 64
"""Of one unit: so few that they can be too many."""
ERRORS: Final = (WriteError(offset=0), ReadError("broken", 512), OSError(28, "full"), OSError(5, "broken"))


EXIT: Final = b"\x48\x1f"
"""SANITIZE (EXIT FAILURE MODE)."""
REMAKING: Final = (0x00, 0x04, 0x48)
"""FORMAT UNIT, SANITIZE, and what goes on after a start."""


STORES: Final = ("keepWrites", "remember", "keepPlans", "keep")


class World:
    """
    Units, and whoever uses them.

    @ivar units: by LUN.
    @ivar nexuses: those that are there; the last may only read.
    @ivar late: tasks whose Data-Out has not come.
    @ivar halves: by LUN, what has remade a part of the medium, until it has come to its end.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.surprises: list[BaseException] = []
        self.turns = Turns()
        thin = THIN._replace(allocated=random.random() < 0.5, space=random.random() < 0.5)
        plain = PLAIN._replace(rekey=random.random() < 0.3, volatileCache=random.random() < 0.5)
        self.devices = [Device(BLOCKS * 512, thin), Device(BLOCKS * 512, plain), Device(BLOCKS * 2048)]
        for device in self.devices:
            device.prompt = random.random() < 0.4
            device.cancellable = random.random() < 0.5
        self.stores: list[dict[str, Store]] = [{}, {}]
        self.units: dict[int, Any] = {}
        for lun in range(3):
            self.units[lun] = self.made(lun)
        ports = TargetPort("iqn.2001-04.com.example:disk", 1), TargetPort("iqn.2001-04.com.example:disk", 2)
        _, self.wellKnown = furnish(self.units, ports, IDENTITY, self.surprise)
        self.nexuses = [
            Nexus(NAMES[0], ISIDS[0]),
            Nexus(NAMES[1], ISIDS[1], portalGroupTag=2),
            Nexus(NAMES[2], ISIDS[0], readOnly=True),
        ]
        self.tasks: list[Task] = []
        self.late: list[Task] = []
        self.halves: dict[int, Work] = {}
        for nexus in self.nexuses:
            self.found(nexus)

    # What there is

    def made(self, lun: int) -> Any:
        """A unit as it is after a start."""
        device = self.devices[lun]
        options: dict[str, Any] = {"report": self.surprise, "later": self.turns.later, "queue": TASKS}
        identity = attrs.evolve(IDENTITY, naa=naa(lun), serial=f"s{lun}", deviceName=f"naa.{lun}")
        if lun == 2:
            unit: Any = OpticalUnit(device, identity=identity, **options)
        else:
            unit = DiskUnit(device, identity=identity, removable=lun == 0, sameZero=lun == 1, **options)
            unit.paths = Paths((1, 2))
            stores = self.stores[lun]
            for name in STORES:
                stores[name] = Store(
                    stores[name].state if name in stores else b"", self.random.random() < 0.6
                )
                getattr(unit, name)(stores[name])
        unit.opened()
        return unit

    def surprise(self, error: BaseException, task: ITask | None) -> None:
        """What a unit reports."""
        self.surprises.append(error)

    def servers(self) -> list[Any]:
        """All units."""
        return [*self.units.values(), *self.wellKnown.values()]

    def found(self, nexus: Nexus) -> None:
        """A session begins."""
        for unit in self.servers():
            unit.nexusFound(nexus)
            unit.takeAttention(nexus)

    def open(self) -> list[Task]:
        """The tasks that have not ended."""
        self.tasks = [task for task in self.tasks if task.status is None and not task.aborted]
        return self.tasks

    # What happens

    def act(self) -> None:
        """Something happens."""
        kind = self.random.random()
        if kind < 0.5:
            self.begin()
        elif kind < 0.72:
            self.answer()
        elif kind < 0.84:
            self.turns.turn()
        elif kind < 0.9 and self.late:
            self.arrive(self.random.choice(self.late))
        else:
            acts = (
                self.abort, self.abort, self.reinstate, self.reset, self.clear, self.hold, self.grow,
                self.restart, self.crash, self.watch,
            )  # fmt: skip
            self.random.choice(acts)()
        self.look()

    def look(self) -> None:
        """@raise Fault: if a disk is served of which only a part has been remade, unless that was allowed."""
        for lun in range(2):
            unit = self.units[lun]
            work = None if unit.closure is None else unit.closure.work
            if work is not None and work.cdb[0] in REMAKING and (work.done or lun in self.halves):
                self.halves[lun] = work
            half = self.halves.get(lun)
            if half is None or unit.closure is not None:
                continue
            if half.done < half.total or half.condition is not None:
                raise Fault(f"LUN {lun} is served, and a part of it was remade: {unit.unfinished.load()!r}")
            del self.halves[lun]

    def begin(self) -> None:
        """A command, often to one of the disks."""
        random = self.random
        unit = (
            self.units[random.choice((0, 0, 0, 1, 1, 2))]
            if random.random() < 0.98
            else self.wellKnown[max(self.wellKnown)]
        )
        sent = anything(random, unit, [naa(lun) for lun in range(4)])
        late = random.random() < 0.2
        lun = next((lun for lun, each in self.units.items() if each is unit), 9)
        task = Task(sent.cdb, random.choice(self.nexuses), sent.data, late=late, lun=lun)
        task.flags = sent.attribute
        self.tasks.append(task)
        run(unit, task)
        if sent.cdb[:2] == EXIT and task.status in (codes.GOOD, None):
            self.halves.pop(task.lun, None)
        if task.late and task.status is None:
            self.late.append(task)
        self.check(task)

    def check(self, task: Task) -> None:
        """@raise Fault: if a task has ended more than once, or anybody was surprised."""
        if task.endings > 1 or task.released > 1:
            raise Fault(f"{task.cdb.hex()} ended {task.endings} times, and its place {task.released} times")
        if self.surprises:
            raise Fault(f"{task.cdb.hex()}: {self.surprises[0]!r}") from self.surprises[0]

    def arrive(self, task: Task) -> None:
        """The data of a WRITE come."""
        if task.aborted or task.status is not None:
            self.late.remove(task)
        elif task.wanted is not None:
            self.late.remove(task)
            assert task.unit is not None
            task.arrive(task.unit)

    def answer(self) -> None:
        """A device or a store answers, or fails."""
        random = self.random
        waiting: list[Any] = [each for each in self.devices if each.pending]
        waiting += [store for stores in self.stores for store in stores.values() if store.asked]
        if not waiting:
            return
        one = random.choice(waiting)
        broken = random.random() < (0.15 if isinstance(one, Store) else 0.06)
        if isinstance(one, Store):
            one.fail() if broken else one.fire()
        elif broken:
            one.breakDown(random.choice(ERRORS), random.randrange(len(one.pending)))
        else:
            one.fire(random.randrange(len(one.pending)))

    def abort(self) -> None:
        """ABORT TASK, or ABORT TASK SET."""
        tasks = self.open()
        if not tasks:
            return
        one = self.random.choice(tasks)
        every = self.random.random() < 0.2
        for task in tasks:
            if task is one or (every and task.nexus is one.nexus and task.unit is one.unit):
                task.abort()

    def reinstate(self) -> None:
        """A session is lost, and another one begins."""
        place = self.random.randrange(len(self.nexuses))
        old = self.nexuses[place]
        for task in self.open():
            if task.nexus is old:
                task.abort()
        for unit in self.servers():
            unit.nexusLost(old)
        nexus = self.nexuses[place] = Nexus(
            old.initiatorName, old.isid, old.targetName, old.portalGroupTag, old.readOnly
        )
        nexus.luns = self.random.choice((None, None, None, frozenset((0, 2))))
        self.found(nexus)

    def reset(self) -> None:
        """LOGICAL UNIT RESET."""
        unit = self.units[self.random.randrange(3)]
        for task in self.open():
            if task.unit is unit:
                task.abort()
        unit.reset(codes.DEVICE_RESET_OCCURRED)

    def clear(self) -> None:
        """CLEAR ACA."""
        self.units[self.random.randrange(3)].clearACA(self.random.choice(self.nexuses))

    def hold(self) -> None:
        """A unit is held back, or goes on."""
        unit = self.units[self.random.randrange(3)]
        unit.resume() if unit.order.held else unit.hold(lambda: None)

    def watch(self) -> None:
        """Units look at what nobody tells them."""
        for unit in self.units.values():
            unit.watch()

    def grow(self) -> None:
        """A device has another size."""
        device = self.devices[1]
        device.size = self.random.choice((BLOCKS, BLOCKS * 2)) * 512
        device.content = device.content[: device.size].ljust(device.size, b"\0")
        self.units[1].changed()

    def restart(self) -> None:
        """A disk is closed, and opened anew; its device has answered before that."""
        lun = self.random.randrange(2)
        old, device = self.units[lun], self.devices[lun]
        for task in self.open():
            if task.unit is old:
                task.abort()
        old.closed()
        while device.pending:
            device.fire()
        for store in self.stores[lun].values():
            while store.asked:
                store.fire()
        self.replace(lun, old)

    def crash(self) -> None:
        """All units go, and come again: what they know is in their stores."""
        for task in self.open():
            task.aborted = True
        self.turns.waiting.clear()
        self.late.clear()
        for stores in self.stores:
            for store in stores.values():
                store.asked.clear()
        for lun, unit in list(self.units.items()):
            self.devices[lun].pending.clear()
            self.replace(lun, unit)

    def replace(self, lun: int, old: Any) -> None:
        """A new unit in the place of an old one."""
        unit = self.units[lun] = self.made(lun)
        unit.inventory = old.inventory
        for nexus in self.nexuses:
            unit.nexusFound(nexus)
            unit.takeAttention(nexus)

    # How it ends

    def settle(self) -> None:
        """
        Let everything come to its end.

        @raise Fault: if something goes on for ever.
        """
        for _ in range(1000):
            for unit in self.units.values():
                for nexus in self.nexuses:
                    unit.clearACA(nexus)
                if unit.order.held:
                    unit.resume()
            for task in list(self.late):
                self.arrive(task)
            for device in self.devices:
                device.error = None
                while device.pending:
                    device.fire(self.random.randrange(len(device.pending)))
            stores = [store for each in self.stores for store in each.values()]
            for store in stores:
                while store.asked:
                    store.fire()
            if not (
                self.turns.waiting
                or any(unit.allegiance.nexus for unit in self.units.values())
                or any(task.wanted is not None for task in self.late)
                or any(device.pending for device in self.devices)
                or any(store.asked for store in stores)
            ):  # fmt: skip
                return
            self.turns.turn()
        raise Fault("something goes on for ever")

    def finish(self) -> None:
        """@raise Fault: if something is left of what has ended, or a unit cannot be used."""
        tasks = list(self.tasks)
        self.settle()
        for task in tasks:
            self.check(task)
            if not task.aborted and task.endings != 1:
                raise Fault(f"{task.cdb.hex()} (attribute {task.flags}) never ended")
        for nexus in self.nexuses:
            for unit in self.servers():
                unit.nexusLost(nexus)
        for lun, unit in self.units.items():
            left = remains(unit)
            if left:
                raise Fault(f"LUN {lun}: {', '.join(left)} left behind")
        for device in self.devices:
            device.prompt = True
        for each in self.stores:
            for store in each.values():
                store.prompt = True
        for lun in range(2):
            self.use(lun)

    def use(self, lun: int) -> None:
        """@raise Fault: if a disk cannot be written and read by who does what it takes."""
        unit, nexus = self.units[lun], Nexus(NAMES[0] + "z", ISIDS[0])
        unit.nexusFound(nexus)
        unit.takeAttention(nexus)
        unit.setAccess({1: 0})
        unit.watch()
        unit.adjust(unit.defaults)
        while unit.takeAttention(nexus) is not None:
            pass

        def good(command: cdb.Command, data: bytes = b"", **fields: int) -> bytes:
            task = run(unit, Task(command.encode(**fields), nexus, data))
            for _ in range(20000):
                if task.status is not None:
                    break
                self.turns.turn()
            if task.status:
                raise Fault(f"LUN {lun}: {command.name} ends with {task.status:#x}, {task.sense.hex()}")
            return task.data

        if unit.closure is not None:
            # While a sanitize has failed nobody can preempt a reservation: its file has to be removed.
            unit.registrations = Registrations()
            unit.reconsider()
        if unit.registrations.keys:
            good(cdb.PR_REGISTER_IGNORING, LIST.pack(0, 9, 0), length=LIST.size)
            good(cdb.PR_CLEAR, LIST.pack(9, 0, 0), length=LIST.size)
        if unit.closure is not None:
            again = cdblong.SANITIZE_OVERWRITE if unit.failedPlan.kind == "sanitize" else cdblong.FORMAT_UNIT
            pattern = b"\1\0\0\1x" if again is cdblong.SANITIZE_OVERWRITE else b""
            good(again, pattern, **({"length": 5} if pattern else {}))
        if unit.ejected:
            unit.prevents.clear()
            good(cdb.START_STOP_UNIT, options=3)
            unit.takeAttention(nexus)
        good(cdb.WRITE_10, b"u" * 512, lba=7, length=1)
        if good(cdb.READ_10, lba=7, length=1) != b"u" * 512:
            raise Fault(f"LUN {lun} does not hold what was written")


def naa(lun: int) -> bytes:
    """The NAA designator of a unit."""
    return bytes((0x30, 0, 0, 0, 0, 0, 0, lun))


def remains(unit: Any) -> list[str]:
    """What a unit still has of tasks and nexuses that are gone."""
    kept = {
        "works": unit.works, "operations": unit.operations, "fences": unit.fences,
        "receiving": unit.receiving, "dormant": unit.order.dormant, "parked": unit.room.parked,
        "copying": unit.copying,
        "copies": unit.copies, "echoes": unit.echoes, "prevents": unit.prevents, "belated": unit.belated,
        "attentions": unit._attentions.known or unit._attentions.pending, "holder": unit.holder,
        "allegiance": unit.allegiance.nexus or unit.allegiance._parked, "testing": unit.testing,
        "journal": unit.journal is not None and unit.journal.waiting,
        "registrations": len(unit.registrations.keys) > MOST,
    }  # fmt: skip
    return [name for name, value in kept.items() if value]


def live(random: Random, acts: int) -> None:
    """
    One world, from its beginning to its end.

    @raise Fault: if something does not hold.
    """
    # What is long is done in so many pieces that it can be met in the middle.
    slices = {module: module.SLICE for module in (overhaul, copying)}
    for module in slices:
        module.SLICE = 16 * 512  # type: ignore[misc]
    try:
        world = World(random)
        for _ in range(acts):
            if isinstance(random, Choices) and random.over:
                break
            world.act()
        world.finish()
    finally:
        for module, size in slices.items():
            module.SLICE = size  # type: ignore[misc]


def units(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Run rounds for so long.

    @return: what was done, and what went wrong; each round has a seed of its own.
    """
    end = time.monotonic() + seconds
    rounds = 0
    faults: list[str] = []
    while time.monotonic() < end and len(faults) < 5:
        random = Random(f"{seed}/{rounds}")
        try:
            live(random, random.randrange(ACTS))
        except Exception:
            faults.append(f"round {seed}/{rounds}:\n{traceback.format_exc()}")
        rounds += 1
    return [f"{rounds} rounds"], faults
