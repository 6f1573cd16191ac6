# -*- test-case-name: tests.storage.test_fingerprint -*-
"""Tests for L{iscsi_twisted.storage.fingerprint}, and of the devices that have one."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import (
    Concatenation,
    MemoryDevice,
    Mirror,
    Overlay,
    ReadOnly,
    Slice,
    Stripe,
    asDevice,
)
from iscsi_twisted.storage.fingerprint import fingerprintOf, keepWitness, stampOf, witnessKey, witnessOf
from tests.support.extents import ExtentCase
from tests.support.platters import Platter, PlatterDisk


class FingerprintTests(SynchronousTestCase):
    """Which device it is that others are made of."""

    def setUp(self) -> None:
        self.disks = [PlatterDisk(Platter(8192)) for _ in range(2)]
        self.names = [disk.fingerprint() for disk in self.disks]

    def opened(self, device: Any) -> Any:
        """The device, open."""
        self.assertIsNone(device.open(lambda: None))
        return device

    def test_unknown(self) -> None:
        """
        Memory is new each time, and so is whatever has some; an object without the methods is not known.
        """
        self.assertIsNone(fingerprintOf(MemoryDevice(512)))
        self.assertIsNone(fingerprintOf(Concatenation([self.disks[0], MemoryDevice(512)])))
        self.assertIsNone(fingerprintOf(Slice(MemoryDevice(512), 0)))
        self.assertIsNone(fingerprintOf(Overlay(self.disks[0])))
        self.assertIsNone(fingerprintOf(Mirror(self.disks)))
        self.assertEqual((fingerprintOf(object()), stampOf(object())), (None, ()))

    def test_compositions(self) -> None:
        """Order, kind and chunk count; so do filters that show a part."""
        first, second = self.disks
        made = [
            first,
            second,
            Concatenation([first, second]),
            Concatenation([second, first]),
            Stripe([first, second], 512),
            Stripe([first, second], 1024),
            self.opened(Slice(first, 512)),
            self.opened(Slice(first, 512, 512)),
        ]
        prints = [fingerprintOf(device) for device in made]
        self.assertEqual(len(set(prints)), len(made))
        self.assertNotIn(None, prints)
        self.assertEqual(fingerprintOf(ReadOnly(first)), self.names[0])

    def test_stamps(self) -> None:
        """How new it is tells of all that it is made of."""
        both = self.opened(Concatenation(self.disks))
        before = stampOf(both)
        both.write(9000, b"x")
        self.assertEqual(len(before), 2)  # type: ignore[arg-type]
        self.assertNotEqual(stampOf(both), before)
        self.assertEqual(stampOf(ReadOnly(self.disks[0])), self.disks[0].stamp())

    def test_object(self) -> None:
        """An application's own object may have the methods."""

        class Own:
            size = 512

            def read(self, offset: int, length: int) -> bytes:
                return bytes(length)

            def write(self, offset: int, data: bytes) -> None: ...

            def fingerprint(self) -> str:
                return "mine"

            def stamp(self) -> tuple[int, ...]:
                return (3,)

        device = asDevice(Own())
        self.assertEqual((fingerprintOf(device), stampOf(device)), ("mine", (3,)))
        self.assertIsNone(keepWitness(device, "a", 3))
        self.assertEqual(witnessOf(device, "a"), 0)
        device = asDevice(Telling())
        self.assertIsNone(keepWitness(device, "a", 3))
        self.assertEqual(witnessOf(device, "a"), 3)

    def test_witness(self) -> None:
        """All that a device is made of keeps a number, and the newest counts; a mirror keeps none."""
        both = self.opened(Concatenation([ReadOnly(self.disks[0]), self.disks[1]]))
        self.assertIsNone(keepWitness(both, "a", 3))
        self.assertIsNone(keepWitness(self.disks[1], "a", 5))
        self.assertEqual([witnessOf(one, "a") for one in (both, *self.disks[:2])], [5, 3, 5])
        self.assertEqual(witnessOf(both, "b"), 0)
        mirror = Mirror(self.disks)
        self.assertIsNone(keepWitness(mirror, "a", 7))
        self.assertEqual((witnessOf(mirror, "a"), witnessOf(self.disks[0], "a")), (0, 3))
        self.assertNotEqual(witnessKey("a"), witnessKey("b"))


class Telling:
    """An application's own object that keeps a number."""

    size = 512

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def read(self, offset: int, length: int) -> bytes:
        """Zeros."""
        return bytes(length)

    def write(self, offset: int, data: bytes) -> None:
        """Nowhere."""

    def witness(self, key: str) -> int:
        """What was kept."""
        return self.numbers[key]

    def keepWitness(self, key: str, number: int) -> None:
        """Keep it."""
        self.numbers[key] = number


class ExtentFingerprintTests(ExtentCase):
    """Which file it is, and which part of it."""

    def test_extent(self) -> None:
        """Another part of a file is another device; it stays the same when it is opened again."""
        self.path = self.mktemp()
        parts = [
            self.makeExtent(start=start, length=length)
            for start, length in ((0, 512), (512, 512), (1024, 512))
        ]
        for part in parts:
            part.open(lambda: None)
        prints = [fingerprintOf(part) for part in parts]
        self.assertEqual(len(set(prints)), 3)
        parts[0].close()
        parts[0].open(lambda: None)
        self.assertEqual(fingerprintOf(parts[0]), prints[0])
        for part in parts:
            self.addCleanup(part.close)

    def test_witness(self) -> None:
        """A file keeps a number for each key, where its file system can do that; it stays the same file."""
        self.path = self.mktemp()
        part = self.makeExtent(start=0, length=512)
        part.open(lambda: None)
        self.addCleanup(self.pool.run)
        self.addCleanup(part.close)
        try:
            os.setxattr(self.path, "user.test", b"x")
        except OSError:
            kept = 0
        else:
            kept = 7
        part.keepWitness("a", 7)
        asked: list[Any] = [part.stamp(), part.witness("a"), part.witness("b"), part.stamp()]
        self.pool.run()
        before, *numbers, after = map(self.successResultOf, asked)
        self.assertEqual((numbers, after), ([kept, 0], before))

    def test_stamp(self) -> None:
        """A file grows newer when it is written."""
        self.path = self.mktemp()
        part = self.makeExtent(start=0, length=512)
        part.open(lambda: None)
        self.addCleanup(self.pool.run)
        self.addCleanup(part.close)
        asked: Any = part.stamp()
        self.pool.run()
        (when,) = self.successResultOf(asked)
        self.assertGreater(when, 0)
