# -*- test-case-name: tests.storage.test_members -*-
"""Tests for L{iscsi_twisted.storage.members}."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import DeviceError, LocalError, NotReady
from iscsi_twisted.interfaces import Capabilities, Space
from iscsi_twisted.storage import Concatenation, Mirror, Stripe
from tests.support.devices import FakeDevice


class SlowToOpen(FakeDevice):
    """A device whose opening and closing wait for the test."""

    def __init__(self) -> None:
        super().__init__(100)
        self.opening: Deferred[None] = Deferred()
        self.closing: Deferred[None] = Deferred()

    def open(self, changed: Any) -> Any:
        super().open(changed)
        return self.opening

    def close(self) -> Any:
        super().close()
        return self.closing


class CompositionTests(SynchronousTestCase):
    """Opening and closing of devices that are made of others."""

    def test_none(self) -> None:
        """Without members there is no device."""
        self.assertRaises(LocalError, Concatenation, [])
        self.assertRaises(LocalError, Mirror, iter(()))

    def test_opensAll(self) -> None:
        """All members are opened, and may tell of changes."""
        told: list[int] = []
        members = [FakeDevice(100), FakeDevice(100)]
        Mirror(members, reactor=Clock()).open(lambda: told.append(1))
        for member in members:
            assert member.changed is not None
            member.changed()
        self.assertEqual(told, [1, 1])

    def test_opensLater(self) -> None:
        """If members open later so does the device; its size is known then."""
        members = [SlowToOpen(), SlowToOpen()]
        device = Concatenation(members)
        result: Any = device.open(lambda: None)
        members[1].opening.callback(None)
        self.assertNoResult(result)
        members[0].opening.callback(None)
        self.assertIsNone(self.successResultOf(result))
        self.assertEqual(device.size, 200)

    def test_oneFails(self) -> None:
        """If one cannot be opened the others are closed again, and its error is told."""
        members = [FakeDevice(100), FakeDevice(100), FakeDevice(100)]
        members[1].error = NotReady("gone")
        error = self.assertRaises(NotReady, Mirror(members, reactor=Clock()).open, lambda: None)
        self.assertEqual(str(error), "gone")
        self.assertEqual([member.closings for member in members], [1, 0, 1])

    def test_oneFailsLater(self) -> None:
        """The error is told only when the others are closed."""
        members = [SlowToOpen(), SlowToOpen()]
        result: Any = Concatenation(members).open(lambda: None)
        members[0].opening.callback(None)
        members[1].opening.errback(NotReady("gone"))
        self.assertNoResult(result)
        members[0].closing.callback(None)
        self.failureResultOf(result, NotReady)
        self.assertEqual(members[1].closings, 0)

    def test_close(self) -> None:
        """All members are closed, even if closing one fails; then that is told."""
        members = [SlowToOpen(), SlowToOpen()]
        result: Any = Concatenation(members).close()
        members[0].closing.errback(NotReady("gone"))
        self.assertNoResult(result)
        members[1].closing.callback(None)
        self.failureResultOf(result, NotReady)

    def test_closeAtOnce(self) -> None:
        """If all members close at once so does the device."""
        self.assertIsNone(Concatenation([FakeDevice(1), FakeDevice(1)]).close())

    def test_anyObject(self) -> None:
        """Members may be anything that can be wired."""

        class Tiny:
            size = 3

            def read(self, offset: int, length: int) -> bytes:
                return b"abc"[offset : offset + length]

            async def write(self, offset: int, data: bytes) -> None:
                raise NotReady

        device = Concatenation([Tiny(), Tiny()])
        device.open(lambda: None)
        self.assertEqual(device.read(1, 4), b"bcab")
        result: Any = device.write(0, b"x")
        self.failureResultOf(result, NotReady)

    def test_name(self) -> None:
        """It goes by its kind and its members' names."""
        self.assertEqual(str(Mirror([FakeDevice(1), FakeDevice(1)])), "Mirror(FakeDevice, FakeDevice)")


class SpaceTests(SynchronousTestCase):
    """How much storage devices made of devices have."""

    def members(self, *spaces: Any) -> list[FakeDevice]:
        """Devices that tell this."""
        made = []
        for space in spaces:
            device = FakeDevice(1000, capabilities=Capabilities(space=space is not None), synchronous=True)
            device.space = lambda space=space: space
            made.append(device)
        return made

    def test_joined(self) -> None:
        """What is used is added up; what is left is that of the member that has least."""
        for kind in (Concatenation, lambda members: Stripe(members, 100)):
            device = kind(self.members(Space(1, 20), Space(2, 10)))
            device.open(lambda: None)
            self.assertTrue(device.capabilities().space)
            self.assertEqual(device.space(), Space(3, 10))

    def test_copies(self) -> None:
        """A mirror has what each of its members has."""
        device = Mirror(self.members(Space(1, 20), Space(2, 10)), reactor=Clock())
        device.open(lambda: None)
        self.assertTrue(device.capabilities().space)
        self.assertEqual(device.space(), Space(2, 10))

    def test_unknown(self) -> None:
        """If one member does not know nobody does."""
        for kind in (Concatenation, partial(Mirror, reactor=Clock())):
            device = kind(self.members(Space(1, 20), None))
            device.open(lambda: None)
            self.assertFalse(device.capabilities().space)
            self.assertIsNone(device.space())

    def test_later(self) -> None:
        """Members may answer later, or with an error."""
        waiting: Any = Deferred()
        device = Concatenation(self.members(waiting, Space(1, 2)))
        asked: Any = device.space()
        waiting.callback(Space(3, 4))
        self.assertEqual(self.successResultOf(asked), Space(4, 2))
        device.members[1].space = lambda: fail(DeviceError("no"))
        self.failureResultOf(device.space(), DeviceError)
