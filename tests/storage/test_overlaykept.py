# -*- test-case-name: tests.storage.test_overlaykept -*-
"""Overlays whose changes are in a file."""

from __future__ import annotations

import os
from typing import Any

from iscsi_twisted.errors import DeviceError
from iscsi_twisted.storage import FileExtent, Overlay, OverlayFile
from iscsi_twisted.storage.overlayfile import GRANULE, HEADER, mapLength
from tests.storage.test_overlay import GOLDEN
from tests.support.devicecontract import SIZE
from tests.support.extents import ExtentCase
from tests.support.threads import StepReactor


class FileTests(ExtentCase):
    """Overlays in files."""

    def setUp(self) -> None:
        super().setUp()
        with open(self.path, "wb") as file:
            file.write(GOLDEN)

    def made(self, name: str) -> Overlay:
        """An overlay over the golden file."""

        def store(size: int) -> OverlayFile:
            return OverlayFile(name, 0, size, reactor=StepReactor(), threadPool=self.pool)

        return Overlay(self.makeExtent(start=0, length=None, readOnly=True), store)

    def overlay(self, name: str) -> Overlay:
        """One that is open."""
        device = self.made(name)
        result: Any = device.open(lambda: None)
        if result is not None:
            self.outcome(result)
        self.addCleanup(self.closed, device)  # type: ignore[arg-type]
        return device

    def test_golden(self) -> None:
        """Several overlays lie over one golden file at the same time; each has its own changes."""
        names = [self.mktemp(), self.mktemp()]
        one, two = map(self.overlay, names)
        one.write(0, b"one")
        two.write(4096, b"two")
        self.assertEqual((one.read(0, 3), two.read(0, 3)), (b"one", GOLDEN[:3]))
        self.assertEqual((one.read(4096, 3), two.read(4096, 3)), (GOLDEN[:3], b"two"))
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), GOLDEN)

    def test_changedBase(self) -> None:
        """A golden file that was written since is refused, and one with the same time of change is not."""
        name = self.mktemp()
        self.closed(self.overlay(name))  # type: ignore[arg-type]
        before = os.stat(self.path)
        os.rename(self.path, self.path + ".away")
        with open(self.path, "wb") as file:
            file.write(GOLDEN)
        os.utime(self.path, ns=(0, before.st_mtime_ns))
        self.closed(self.overlay(name))  # type: ignore[arg-type]
        os.utime(self.path, ns=(0, before.st_mtime_ns + 1))
        result: Any = self.made(name).open(lambda: None)
        self.pool.run()
        why = str(self.failureResultOf(result, DeviceError).value)
        self.assertIn(
            f"{name}: was begun over another base than {self.path}, or before that was changed", why
        )

    def test_protected(self) -> None:
        """While an overlay lies over it nobody can open the golden file for writing."""
        self.overlay(self.mktemp())
        writer = FileExtent(self.path, 0, None, reactor=StepReactor(), threadPool=self.pool)
        self.assertRaises(DeviceError, writer.open, lambda: None)

    def test_sparse(self) -> None:
        """The file takes no more room than what was written, its map and its header."""
        name = self.mktemp()
        device = self.overlay(name)
        device.write(0, b"x" * GRANULE)
        self.outcome(device.flush())
        self.assertLessEqual(os.stat(name).st_blocks * 512, 3 * 65536)
        self.assertEqual(os.stat(name).st_size, HEADER + mapLength(SIZE) + SIZE)

    def test_foreign(self) -> None:
        """A file that is something else is refused and left as it is, even if it begins with zeros."""
        for content in (b"a disk", bytes(65536) + b"a disk"):
            name = self.mktemp()
            with open(name, "wb") as file:
                file.write(content)
            error = self.assertRaises(DeviceError, self.overlay, name)
            self.assertIn("is no overlay", str(error))
            with open(name, "rb") as file:
                self.assertEqual(file.read(), content)
