# -*- test-case-name: tests.storage.test_birth -*-
"""Tests for L{iscsi_twisted.storage.birth}."""

from __future__ import annotations

import os
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import birth
from iscsi_twisted.storage.birth import fileIdentity


class IdentityTests(SynchronousTestCase):
    """Which file it is."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.held = ExitStack()
        self.addCleanup(self.held.close)

    def identity(self, path: str) -> str | None:
        """That of a file, which is made if it is missing; afterwards nobody has it open."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            return fileIdentity(fd)
        finally:
            os.close(fd)

    def test_stays(self) -> None:
        """It stays when a file is written, renamed and opened again."""
        first = self.identity(self.path)
        with open(self.path, "wb") as file:
            file.write(b"x" * 5000)
        os.rename(self.path, self.path + "b")
        self.assertEqual(self.identity(self.path + "b"), first)
        self.assertIsNotNone(first)

    def test_new(self) -> None:
        """A new file of the same name is another one, and so is a copy."""
        found = set()
        for _ in range(5):
            found.add(self.identity(self.path))
            os.unlink(self.path)
        self.assertEqual(len(found), 5)

    def test_unknown(self) -> None:
        """Where the system tells neither when a file was made nor its generation nobody knows."""
        self.patch(birth, "birth", lambda fd: None)
        self.patch(birth, "generation", lambda fd: None)
        self.assertIsNone(self.identity(self.path))

    def test_noCall(self) -> None:
        """A system that lacks the call does not tell."""
        self.patch(birth, "_statx", lambda: None)
        with open(self.path, "wb") as file:
            self.assertIsNone(birth.birth(file.fileno()))

    def test_callFoundOnce(self) -> None:
        """The call is looked for once, not for each file."""
        birth._statx.cache_clear()
        looked: list[str | None] = []
        real = birth.ctypes.CDLL
        self.patch(birth.ctypes, "CDLL", lambda name, **keys: looked.append(name) or real(name, **keys))
        for _ in range(3):
            self.identity(self.path)
            os.unlink(self.path)
        self.assertEqual(looked, [None])

    def test_disk(self) -> None:
        """A disk is known by its own name, else by its number."""
        facts = {"partition": "2", "../wwid": "naa.5"}
        self.patch(birth, "_line", lambda path: facts.get(path.partition(":")[2].partition("/")[2], ""))
        self.assertEqual(birth._device(0x801), "device naa.5 part 2")
        facts.clear()
        self.assertEqual(birth._device(0x801), "device 2049")
