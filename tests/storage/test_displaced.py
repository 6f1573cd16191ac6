# -*- test-case-name: tests.storage.test_displaced -*-
"""Tests for L{iscsi_twisted.storage.displaced}."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import displaced
from iscsi_twisted.storage.displaced import displacement

GONE, OTHER = "there is no file of that name any more", "another file has that name now"


class DisplacementTests(SynchronousTestCase):
    """L{displacement}."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(b"x")
        self.fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, self.fd)

    def test_there(self) -> None:
        """A file that has its name is at its place, by way of a symbolic link and with more names, too."""
        link = self.mktemp()
        os.symlink(os.path.abspath(self.path), link)
        os.link(self.path, self.path + ".too")
        for path in (self.path, link, self.path + ".too"):
            self.assertEqual(displacement(self.fd, path), "")

    def test_gone(self) -> None:
        """One that was removed or renamed is not, nor one whose directory is a file now."""
        os.rename(self.path, self.path + ".away")
        self.assertEqual(displacement(self.fd, self.path), GONE)
        self.assertEqual(displacement(self.fd, self.path + ".away/x"), GONE)

    def test_other(self) -> None:
        """Another one of the same name is another one, whatever it is, and a link that leads elsewhere."""
        os.rename(self.path, self.path + ".away")
        for make in (
            lambda: os.mkdir(self.path),
            lambda: os.close(os.open(self.path, os.O_CREAT)),
            lambda: os.symlink("/dev/null", self.path),
        ):
            make()
            self.assertEqual(displacement(self.fd, self.path), OTHER)
            os.rename(self.path, self.mktemp())

    def test_untold(self) -> None:
        """If nobody may look nothing is said."""

        def refuse(path: str) -> None:
            raise PermissionError

        self.patch(displaced.os, "stat", refuse)
        self.assertEqual(displacement(self.fd, self.path), "")

    def test_nodes(self) -> None:
        """A node that was made anew is the same if it leads to the same disk."""

        def status(inode: int, disk: int, mode: int = 0o060600) -> Any:
            return SimpleNamespace(st_mode=mode, st_ino=inode, st_dev=5, st_rdev=disk)

        self.patch(displaced.os, "fstat", lambda fd: status(1, 0x800))
        for there, said in (
            (status(1, 0x800), ""),
            (status(2, 0x800), ""),
            (status(1, 0x810), OTHER),
            (status(2, 0x800, 0o100600), OTHER),
        ):
            self.patch(displaced.os, "stat", lambda path, there=there: there)
            self.assertEqual(displacement(self.fd, self.path), said)
