"""Tests for L{iscsi_twisted.session.task}: how tasks end, and how they are aborted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import ReadError
from iscsi_twisted.session.session import Session
from iscsi_twisted.session.task import Task
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.wire import numbers
from tests.support import pdus
from tests.support.devices import FakeDevice
from tests.support.wire import (
    DATA_IN,
    R2T,
    SCSI_RESPONSE,
    TEST_UNIT_READY,
    Line,
    loggedIn,
    read10,
    write10,
)


class TaskTests(SynchronousTestCase):
    """
    Tests over a device that answers when the test lets it.

    @ivar line: a session with that device as its LUN 0.
    """

    def setUp(self) -> None:
        self.device = FakeDevice()
        self.login()

    def login(self, **pairs: str) -> None:
        """Begin a session with these keys."""
        self.line = loggedIn(self.device, **pairs)
        assert self.line.core.session is not None
        self.session: Session = self.line.core.session

    @property
    def room(self) -> int:
        """How many commands the window takes now."""
        return self.session.maxCmdSN - self.session.expCmdSN + 1

    def abort(self, itt: int | None = None) -> int:
        """ABORT TASK of the latest command, or another; the response."""
        tag = self.line.itt if itt is None else itt
        (answer,) = self.line.say(
            pdus.taskManagement(numbers.ABORT_TASK, referenced=tag, cmdSN=self.line.cmdSN, refCmdSN=0)
        )
        self.assertEqual(answer["opcode"], numbers.TASK_MANAGEMENT_RESPONSE)
        response: int = answer["response"]
        return response


class LateTests(TaskTests):
    """Devices that answer later: nobody receives anything at that moment, so they flush."""

    def test_read(self) -> None:
        """A read that ends later is sent at once."""
        self.device.contents[:4] = b"late"
        self.assertEqual(self.line.command(read10(0, 1), read=512), [])
        self.device.fire()
        (answer,) = self.line.take()
        self.assertEqual((answer["opcode"], answer["flags"], answer["data"][:4]), (DATA_IN, 0x81, b"late"))

    def test_longRead(self) -> None:
        """A read of several PDUs that ends later is sent at once."""
        self.login(MaxRecvDataSegmentLength="512")
        self.line.command(read10(0, 4), read=2048)
        self.device.fire()
        self.assertEqual([len(answer["data"]) for answer in self.line.take()], [512] * 4)

    def test_write(self) -> None:
        """A write that ends later is answered at once, and keeps its place until then."""
        room = self.room
        self.line.command(write10(0, 1), write=512, data=b"x" * 512)
        self.assertEqual(self.room, room - 1)
        self.device.fire()
        (answer,) = self.line.take()
        self.assertEqual((answer["opcode"], answer["status"], self.room), (SCSI_RESPONSE, 0, room))

    def test_failure(self) -> None:
        """A device that fails later leads to CHECK CONDITION."""
        self.line.command(read10(0, 1), read=512)
        self.device.operations[0].fail(ReadError())
        (answer,) = self.line.take()
        self.assertEqual((answer["status"], answer["data"][4] & 15), (2, 3))

    def test_order(self) -> None:
        """Commands end in the order in which the device ends them."""
        tags = []
        for _ in range(3):
            self.line.command(read10(0, 1), read=512)
            tags.append(self.line.itt)
        for index in (2, 0, 0):
            self.device.operations[index].fire()
        self.assertEqual([answer["itt"] for answer in self.line.take()], [tags[2], tags[0], tags[1]])

    def test_immediate(self) -> None:
        """An immediate command takes no place in the window, and gives none back."""
        room = self.room
        self.line.command(read10(0, 1), read=512, immediate=True)
        self.assertEqual((self.room, self.session.immediates), (room, 1))
        self.device.fire()
        (answer,) = self.line.take()
        self.assertEqual((answer["status"], self.room, self.session.immediates), (0, room, 0))

    def test_manyTurns(self) -> None:
        """Any number of late answers are sent one by one; no command has to wait for a turn."""
        for _ in range(30):
            self.line.command(read10(0, 1), read=512)
        self.device.fire()
        self.assertEqual(len(self.line.take()), 30)
        self.assertEqual((self.line.turns, self.line.core.held), (0, False))


class EndTests(TaskTests):
    """A task ends once."""

    def test_once(self) -> None:
        """Whatever a unit does after the end of a task changes nothing."""
        ended: list[Callable[[Any], Any]] = [
            lambda task: task.complete(),
            lambda task: task.complete(b"data"),
            lambda task: task.fail(2),
            lambda task: task.abort(),
        ]
        self.device.synchronous = True
        for again in ended:
            self.device.synchronous = False
            self.line.command(write10(0, 1), write=512, data=bytes(512))
            task = self.session.tasks[self.line.itt]
            self.device.fire()
            self.assertEqual(len(self.line.take()), 1)
            room = self.room
            again(task)
            self.assertEqual((self.line.take(), self.room, task.aborted), ([], room, False))

    def test_attribute(self) -> None:
        """The task attribute is that of the PDU."""
        for attribute in range(4):
            self.line.command(read10(0, 1), read=512, attribute=attribute)
            self.assertEqual(self.session.tasks[self.line.itt].attribute, attribute)
        self.device.fire()

    def test_refusedData(self) -> None:
        """A command that is refused for its data is not carried out."""
        self.device.synchronous = True
        for number, options in enumerate(({"read": 512}, {})):
            (answer,) = self.line.command(read10(0, 1), data=bytes(512), **options)  # type: ignore[arg-type]
            self.assertEqual((answer["status"], answer["data"][14:16]), (2, b"\x0c\x0c"), number)
        self.assertEqual(self.device.history, [])
        (answer,) = self.line.command(b"\x35" + bytes(9), data=bytes(512))
        self.assertEqual((answer["status"], self.device.history), (2, []))
        self.assertEqual(self.session.tasks, {})

    def test_bothWays(self) -> None:
        """With both direction bits set a read is answered, and gives back what was reserved."""
        self.device.synchronous = True
        header = bytearray(self.line.build(read10(0, 1), read=512))
        header[1] |= numbers.WRITE
        answers = self.line.say(bytes(header))
        self.assertEqual(answers[-1]["status"], 0)
        self.assertEqual((self.session.solicited.used, self.session.tasks), (0, {}))

    def test_receiveNothing(self) -> None:
        """A command that wants data gets what there is, at once, if the initiator has none."""
        got: list[bytes] = []
        self.line.command(read10(0, 1), read=512)
        task = self.session.tasks[self.line.itt]
        task.receive(512, lambda task, data: got.append(bytes(data)))
        self.assertEqual(got, [b""])
        self.device.fire()

    def test_surprise(self) -> None:
        """A unit that fails in a way that nobody expected ends that task alone."""
        reported: list[BaseException] = []
        target = self.session.target
        assert target is not None
        unit: Any = target.units[0]
        unit._report = lambda error, task: reported.append(error)
        self.device.error = ZeroDivisionError()
        (answer,) = self.line.command(read10(0, 1), read=512)
        self.assertEqual((answer["status"], answer["data"][4] & 15, answer["data"][14:16]), (2, 4, b"\x44\0"))
        self.assertEqual([type(error) for error in reported], [ZeroDivisionError])
        self.assertFalse(self.line.closed)

    def test_surpriseLater(self) -> None:
        """A command that waited and then fails is answered like any other."""
        self.device.synchronous = True
        self.line.core.pause()
        self.line.command(read10(99999, 1), read=512)
        self.line.core.resume()
        (answer,) = self.line.take()
        self.assertEqual(answer["status"], 2)


class AbortTests(TaskTests):
    """ABORT TASK (RFC 7143 11.5.1)."""

    def test_working(self) -> None:
        """Nothing is sent for it any more, and its place is given back when its device has ended."""
        room = self.room
        options: dict[str, Any]
        for cdb, options in (
            (read10(0, 1), {"read": 512}),
            (write10(0, 1), {"write": 512, "data": b"x" * 512}),
        ):
            self.line.command(cdb, **options)
            self.assertEqual(self.abort(), numbers.FUNCTION_COMPLETE)
            self.assertEqual((self.room, self.session.tasks), (room - 1, {}))
            self.assertEqual([operation.cancelled for operation in self.device.operations], [1])
            self.device.fire()
            self.assertEqual((self.line.take(), self.room), ([], room))

    def test_failing(self) -> None:
        """The place is given back when the device fails, too."""
        room = self.room
        self.line.command(read10(0, 1), read=512)
        self.abort()
        self.device.operations[0].fail(ReadError())
        self.assertEqual((self.line.take(), self.room), ([], room))

    def test_cancelled(self) -> None:
        """A device that can cancel ends the operation at once, and the place is free at once."""
        self.device.obeysCancel = True
        room = self.room
        self.line.command(write10(0, 1), write=512, data=b"x" * 512)
        self.assertEqual(self.abort(), numbers.FUNCTION_COMPLETE)
        self.assertEqual((self.room, self.device.operations, self.line.take()), (room, [], []))

    def test_waitingForData(self) -> None:
        """A task that waits for data is gone at once with its reservation; data still to come are dropped."""
        self.login(InitialR2T="Yes", ImmediateData="No")
        room = self.room
        (r2t,) = self.line.command(write10(0, 2), write=1024)
        self.assertEqual(r2t["opcode"], R2T)
        self.assertEqual(self.session.solicited.used, 1024)
        self.assertEqual(self.abort(), numbers.FUNCTION_COMPLETE)
        self.assertEqual((self.room, self.session.solicited.used), (room, 0))
        self.assertEqual(self.line.say(pdus.dataOut(bytes(1024), itt=self.line.itt, ttt=r2t["ttt"])), [])
        self.assertEqual(self.device.history, [])

    def test_behindFence(self) -> None:
        """A task that waits behind an aborted one's late write is gone at once, its data too."""
        room = self.room
        self.line.command(write10(0, 1), write=512, data=b"o" * 512)
        self.abort()
        for _ in range(1000):
            self.line.command(write10(0, 1), write=512, data=b"n" * 512)
            self.abort()
        self.assertEqual(self.room, room - 1)
        assert self.session.target is not None
        unit: Any = self.session.target.units[0]
        (fence,) = unit.fences
        self.assertEqual(fence.waiting, [])
        self.device.fire()
        self.assertEqual((self.room, len(self.device.history)), (room, 1))

    def test_held(self) -> None:
        """A task that waits for the connection is gone at once and takes no memory."""
        self.line.core.pause()
        room = self.room
        for _ in range(1000):
            self.line.command(write10(0, 1), write=512, data=b"n" * 512)
            self.abort()
        self.assertEqual((self.room, len(self.session.waiting)), (room, 0))
        self.line.core.resume()
        self.assertEqual((self.line.take(), self.device.history), ([], []))

    def test_steps(self) -> None:
        """A command of several steps stops at the step that its device works at."""
        self.device._capabilities = self.device._capabilities._replace(volatileCache=True)
        self.login()
        room = self.room
        fua = b"\x2a\x08" + write10(0, 1)[2:]
        self.line.command(fua, write=512, data=b"x" * 512)
        self.abort()
        self.device.fire()
        self.assertEqual([name for name, _ in self.device.history], ["write"])
        self.assertEqual((self.room, self.line.take()), (room, []))

    def test_unknown(self) -> None:
        """A task that is not there is answered so."""
        self.assertEqual(self.abort(0x999), numbers.NO_SUCH_TASK)

    def test_ended(self) -> None:
        """A task that has ended is not there any more."""
        self.line.command(read10(0, 1), read=512)
        self.device.fire()
        self.line.take()
        self.assertEqual(self.abort(), numbers.NO_SUCH_TASK)

    def test_otherUnit(self) -> None:
        """A task on another unit is not there; its tag alone does not suffice."""
        self.line.command(read10(0, 1), read=512)
        request = pdus.taskManagement(
            numbers.ABORT_TASK,
            referenced=self.line.itt,
            lun=b"\0\1" + bytes(6),
            refCmdSN=0,
            cmdSN=self.line.cmdSN,
        )
        self.assertEqual(self.line.say(request)[0]["response"], numbers.NO_SUCH_TASK)
        self.device.fire()
        self.assertEqual(len(self.line.take()), 1)

    def test_tagAgain(self) -> None:
        """The tag of an aborted task may be used again while the device still works for the old one."""
        self.line.command(write10(0, 1), write=512, data=b"o" * 512)
        self.abort()
        self.line.command(read10(8, 1), read=512, itt=self.line.itt)
        self.device.operations[1].fire()
        (answer,) = self.line.take()
        self.assertEqual(answer["opcode"], DATA_IN)
        self.device.fire()
        self.assertEqual(self.line.take(), [])


class NotYetTests(TaskTests):
    """ABORT TASK of a command that has not come (RFC 7143 11.5.1)."""

    def setUp(self) -> None:
        super().setUp()
        self.device.synchronous = True

    def passOver(self, cmdSN: int, itt: int = 0x888) -> int:
        """Abort the command with this number; C{line.cmdSN} is that of the next new command."""
        request = pdus.taskManagement(
            numbers.ABORT_TASK, referenced=itt, refCmdSN=cmdSN, cmdSN=self.line.cmdSN
        )
        answer = self.line.say(request)[0]
        response: int = answer["response"]
        return response

    def test_next(self) -> None:
        """The next number is taken as received: the commands behind it are served."""
        missing = self.line.cmdSN
        self.line.cmdSN += 1
        self.assertEqual(self.line.command(TEST_UNIT_READY), [])
        request = pdus.taskManagement(
            numbers.ABORT_TASK, referenced=0x888, refCmdSN=missing, cmdSN=self.line.cmdSN
        )
        response, answer = self.line.say(request)
        self.assertEqual(response["response"], numbers.FUNCTION_COMPLETE)
        self.assertEqual((answer["itt"], answer["status"]), (self.line.itt, 0))
        self.assertEqual(self.line.command(TEST_UNIT_READY, cmdSN=missing), [])
        self.assertEqual(self.room, self.session.depth)

    def test_further(self) -> None:
        """A number further on is passed over in its turn."""
        first = self.line.cmdSN
        self.line.cmdSN += 3
        self.assertEqual(self.passOver(first + 1), numbers.FUNCTION_COMPLETE)
        self.assertEqual(self.line.command(TEST_UNIT_READY, itt=3, cmdSN=first + 2), [])
        answers = self.line.command(TEST_UNIT_READY, itt=1, cmdSN=first)
        self.assertEqual([answer["itt"] for answer in answers], [1, 3])
        self.assertEqual(self.session.expCmdSN, first + 3)

    def test_early(self) -> None:
        """A command that came before its turn is never carried out, and those behind it are."""
        first = self.line.cmdSN
        self.line.cmdSN += 3
        self.line.command(write10(0, 1), write=512, data=b"x" * 512, itt=2, cmdSN=first + 1)
        self.assertEqual(self.passOver(first + 1, itt=2), numbers.FUNCTION_COMPLETE)
        self.line.command(TEST_UNIT_READY, itt=3, cmdSN=first + 2)
        answers = self.line.command(TEST_UNIT_READY, itt=1, cmdSN=first)
        self.assertEqual([answer["itt"] for answer in answers], [1, 3])
        self.assertEqual((self.device.history, self.room), ([], self.session.depth))

    def test_notBefore(self) -> None:
        """A number that is not before that of the request, or outside the window, is no task."""
        for cmdSN in (self.line.cmdSN, self.line.cmdSN + 5, self.line.cmdSN - 1, self.line.cmdSN + 500):
            self.assertEqual(self.passOver(cmdSN), numbers.NO_SUCH_TASK)
        self.assertEqual(self.line.command(TEST_UNIT_READY)[0]["status"], 0)


class DirectTests(SynchronousTestCase):
    """What only a caller of the class can do."""

    def test_waitsInOrder(self) -> None:
        """Aborting one of several waiting tasks leaves the others in order."""
        line: Line = loggedIn(MemoryDevice(4096))
        line.core.pause()
        for _ in range(3):
            line.command(read10(0, 1), read=512)
        assert line.core.session is not None
        tasks: list[Task] = list(line.core.session.tasks.values())
        tasks[1].abort()
        line.core.resume()
        self.assertEqual([answer["itt"] for answer in line.take()], [tasks[0].itt, tasks[2].itt])
