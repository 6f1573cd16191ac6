# -*- test-case-name: tests.target.test_reloadunits -*-
"""Units that are added, removed and changed while the service runs."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent

from iscsi_twisted.interfaces import Capabilities
from iscsi_twisted.scsi import codes
from iscsi_twisted.scsi.order import HELD
from iscsi_twisted.scsi.paths import STANDBY
from iscsi_twisted.scsi.room import QUEUE
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.target import Listener, TargetService, VectorEndpoint
from iscsi_twisted.target.change import GRACE
from iscsi_twisted.target.farewell import LOGOUT
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.served import MemoryLine
from tests.support.wire import TARGET, TEST_UNIT_READY, read10, write10
from tests.target.test_reload import (
    INQUIRY,
    OTHER,
    REPORT_LUNS,
    Client,
    ReloadTestCase,
    disk,
    plan,
    ready,
)


class UnitTests(ReloadTestCase):
    """LUNs come, go and change."""

    def test_added(self) -> None:
        """A LUN more: the others say that there are others, and a message does."""
        client = Client(self.memory)
        changes = self.change(plan(disk(self.device), disk(ready(2 << 20))))
        self.assertEqual(changes.changed, (TARGET,))
        self.assertEqual(client.events(), [(numbers.EVENT_SCSI, codes.LUNS_CHANGED)])
        self.assertEqual(client.attentions(), [codes.LUNS_CHANGED])
        self.assertEqual(client.attentions(1), [codes.POWER_ON])
        self.assertEqual(client.blocks(1), 4096)
        self.assertEqual(client.do(REPORT_LUNS, read=64)["data"][:4], (16).to_bytes(4, "big"))

    def test_removed(self) -> None:
        """A LUN less: its commands end, it is not there any more, and the others say so."""
        slow = FakeDevice()
        self.memory = self.serve(plan(disk(self.device), disk(slow)))
        client = Client(self.memory, luns=2)
        client.send(read10(0, 1), 1, read=512)
        self.change(plan(disk(self.device)))
        statuses = [each["status"] for each in client.line.take() if each["opcode"] == numbers.SCSI_RESPONSE]
        self.assertEqual(statuses, [codes.TASK_ABORTED])
        self.assertEqual(client.attentions(), [codes.LUNS_CHANGED])
        refused = client.do(TEST_UNIT_READY, 1)
        self.assertEqual(int.from_bytes(refused["data"][14:16], "big"), codes.LUN_NOT_SUPPORTED)
        self.assertEqual(slow.closings, 0)
        slow.fire()
        self.assertEqual(slow.closings, 1)

    def test_size(self) -> None:
        """Another size of the same file: commands wait until the old device is closed, the new one open."""
        cached = Capabilities(volatileCache=True)
        slow, new = FakeDevice(capabilities=cached), ready(2 << 20, capabilities=cached)
        self.memory = self.serve(plan(disk(slow, 1, "f")))
        client = Client(self.memory)
        client.send(read10(0, 1), read=512)
        changing = self.memory.service.change([plan(disk(new, 2, "f"))])
        slow.operations[-1].fire()  # what has been written is flushed before commands wait
        self.assertEqual(client.send(write10(0, 1), data=bytes(512), write=512), [])
        self.assertEqual((slow.closings, new.openings), (0, 0))
        self.assertNoResult(changing)
        slow.fire()
        self.assertEqual(self.successResultOf(changing).changed, (TARGET,))
        self.assertEqual((slow.closings, new.openings), (1, 1))
        answers = client.line.take()
        told = [each for each in answers if each["opcode"] == numbers.ASYNC_MESSAGE]
        self.assertEqual([each["event"] for each in told], [numbers.EVENT_SCSI])
        held = [each for each in answers if each["opcode"] == numbers.SCSI_RESPONSE][-1]
        self.assertEqual(held["data"][14:16], codes.CAPACITY_CHANGED.to_bytes(2, "big"))
        self.assertEqual(client.blocks(), 4096)
        client.do(write10(0, 1), data=b"x" * 512, write=512)
        self.assertEqual(new.contents[:4], b"xxxx")

    def test_full(self) -> None:
        """Commands that are held back have a bound."""
        slow = FakeDevice()
        self.memory = self.serve(plan(disk(slow, 1, "f")))
        clients = [Client(self.memory, InitiatorName=f"iqn.2001-04.com.example:i{each}") for each in range(5)]
        clients[0].send(read10(0, 1), read=512)
        self.memory.service.change([plan(disk(ready(), 2, "f"))])
        for cdb, most in ((read10(0, 1), QUEUE - 1), (INQUIRY, HELD - QUEUE + 1)):
            answers = [client.send(cdb, read=512) for client in clients for _ in range(60)]
            self.assertEqual(sum(not each for each in answers), most)
            statuses = {each[0]["status"] for each in answers if each}
            self.assertLessEqual(statuses, {codes.TASK_SET_FULL, codes.BUSY})
        slow.fire()
        self.assertEqual(clients[0].do(read10(0, 1), read=512)["status"], 0)

    def test_postponed(self) -> None:
        """If a device is at work too long the change is given up for its LUN, and the rest is done."""
        slow = FakeDevice()
        self.memory = self.serve(plan(disk(slow, 1, "f")))
        client = Client(self.memory)
        client.send(read10(0, 1), read=512)
        changing = self.memory.service.change([plan(disk(ready(), 2, "f")), plan(disk(ready()), name=OTHER)])
        self.assertEqual(client.send(TEST_UNIT_READY), [])
        with capturedLogs() as events:
            self.advance(GRACE + 1)
        changes = self.successResultOf(changing)
        self.assertEqual(changes.added, (OTHER,))
        self.assertIn(f"{TARGET} LUN 0 stays as it was", changes.postponed[0])
        self.assertIn(changes.postponed[0], [formatEvent(each) for each in events])
        self.assertEqual([each["status"] for each in client.line.take()], [0])
        self.assertEqual(slow.closings, 0)
        slow.fire()
        self.assertEqual([each["status"] for each in client.line.take()], [0])

    def test_moved(self) -> None:
        """A device that another target serves from now on stays open all the time."""
        client = Client(self.memory)
        changing = self.memory.service.change([plan(disk(self.device), name=OTHER)])
        self.assertNoResult(changing)
        self.assertEqual(client.events(), [(numbers.EVENT_LOGOUT_REQUEST, int(LOGOUT))])
        client.line.say(pdus.logoutRequest(cmdSN=client.cmdSN))
        self.close()
        self.successResultOf(changing)
        self.assertEqual((self.device.openings, self.device.closings), (1, 0))
        self.assertEqual(Client(self.memory, OTHER).blocks(), 2048)

    def test_swapped(self) -> None:
        """Two LUNs change places; both say that the medium may have changed, and the capacity has."""
        first, second = ready(), ready(2 << 20)
        self.memory = self.serve(plan(disk(first), disk(second)))
        client = Client(self.memory, luns=2)
        self.change(plan(disk(second), disk(first)))
        wanted = [codes.MEDIUM_MAY_HAVE_CHANGED, codes.CAPACITY_CHANGED]
        self.assertEqual((client.attentions(0), client.attentions(1)), (wanted, wanted))
        self.assertEqual((client.blocks(0), client.blocks(1)), (4096, 2048))
        self.assertEqual((second.openings, first.openings), (1, 1))
        first.changed()  # type: ignore[misc]
        second.size = 4 << 20
        second.changed()  # type: ignore[misc]
        self.assertEqual((client.attentions(0), client.attentions(1)), ([codes.CAPACITY_CHANGED], []))

    def test_looks(self) -> None:
        """Other names change INQUIRY data, write protection the mode parameters; the device stays open."""
        client = Client(self.memory)
        self.change(plan(disk(self.device, product="Other", serial="0815")))
        self.assertEqual(client.attentions(), [codes.INQUIRY_CHANGED])
        self.assertEqual(client.do(INQUIRY, read=96)["data"][16:21], b"Other")
        self.change(plan(disk(self.device, product="Other", serial="0815", readOnly=True)))
        self.assertEqual(client.attentions(), [codes.MODE_PARAMETERS_CHANGED])
        refused = client.do(write10(0, 1), data=bytes(512), write=512)
        self.assertEqual(refused["data"][14:16], codes.WRITE_PROTECTED.to_bytes(2, "big"))
        self.assertEqual(self.device.openings, 1)

    def test_settings(self) -> None:
        """What initiators have set stays when a device is exchanged."""
        cached = Capabilities(volatileCache=True)
        self.memory = self.serve(plan(disk(ready(capabilities=cached), 1)))
        client = Client(self.memory)
        (unit,) = self.memory.service.node.targets[TARGET].units.values()
        page = bytes.fromhex("000000000a0a06100000000000000000")
        client.do(bytes.fromhex("151000001000"), data=page, write=len(page))
        self.assertTrue(unit.settings.descriptorSense)  # type: ignore[attr-defined]
        self.change(plan(disk(ready(capabilities=cached), 2)))
        self.assertTrue(unit.settings.descriptorSense)  # type: ignore[attr-defined]


class PathTests(ReloadTestCase):
    """Targets are reached otherwise."""

    def setUp(self) -> None:
        super().setUp()
        reactor = MemoryReactorClock()
        listeners = [Listener(VectorEndpoint(reactor, 3260 + tag), Portal(tag)) for tag in (1, 2)]
        self.service = TargetService(reactor, listeners)
        self.service.addPlan(self.first)
        self.service.startService()
        self.lines = [MemoryLine(factory) for factory in self.service.factories]
        for line in self.lines:
            line.login()

    def test_portals(self) -> None:
        """Sessions through portal groups that lead to it no more end; the others learn of the ports."""
        changes = self.successResultOf(
            self.service.change([plan(disk(self.device), portals=frozenset((2,)))])
        )
        self.assertEqual(changes.ended, 1)
        told = [[each["event"] for each in line.take()] for line in self.lines]
        self.assertEqual(told, [[numbers.EVENT_SCSI, numbers.EVENT_LOGOUT_REQUEST], [numbers.EVENT_SCSI]])
        (unit,) = self.service.node.targets[TARGET].units.values()
        self.assertEqual([port.group for port in unit.inventory.ports], [2])  # type: ignore[attr-defined]

    def test_access(self) -> None:
        """Other access states are told."""
        changes = self.successResultOf(self.service.change([plan(disk(self.device), access={1: STANDBY})]))
        self.assertEqual((changes.ended, changes.changed), (0, (TARGET,)))
        (event,) = self.lines[0].take()
        self.assertEqual(event["data"][14:16], codes.ACCESS_CHANGED.to_bytes(2, "big"))
