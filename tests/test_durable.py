"""Files of the state directory are replaced as a whole."""

from __future__ import annotations

import os
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.durable import draftFile, makeDirectory, overwriteFile, readFile, replaceFile


class ReplaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        makeDirectory(self.directory)
        self.path = os.path.join(self.directory, "state")

    def test_content(self) -> None:
        """What was written is there, for our eyes only, and nothing else is."""
        replaceFile(self.path, b"one")
        replaceFile(self.path, b"two")
        self.assertEqual(readFile(self.path, 100), b"two")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.directory), ["state"])

    def test_bound(self) -> None:
        """No more is read than was asked for."""
        replaceFile(self.path, b"12345")
        self.assertEqual(readFile(self.path, 3), b"123")

    def test_overwritten(self) -> None:
        """What is written over is in the same place, and durable; what does not exist is not made."""
        replaceFile(self.path, b"old and longer")
        number = os.stat(self.path).st_ino
        overwriteFile(self.path, b"new")
        self.assertEqual(readFile(self.path, 100), b"new and longer")
        self.assertEqual((os.stat(self.path).st_ino, os.listdir(self.directory)), (number, ["state"]))
        with patch("os.fsync", side_effect=OSError(5, "broken")):
            self.assertRaises(OSError, overwriteFile, self.path, b"x")
        self.assertRaises(FileNotFoundError, overwriteFile, self.path + "0", b"x")

    def test_failedSync(self) -> None:
        """If the new content cannot be made durable the old one stays, and no draft is left."""
        replaceFile(self.path, b"old")
        with patch("os.fsync", side_effect=OSError(5, "broken")):
            self.assertRaises(OSError, replaceFile, self.path, b"new")
        self.assertEqual(readFile(self.path, 100), b"old")
        self.assertEqual(os.listdir(self.directory), ["state"])

    def test_named(self) -> None:
        """What fails with a file that is open names it too."""
        with patch("os.fsync", side_effect=OSError(28, "no room")):
            error = self.assertRaises(OSError, replaceFile, self.path, b"new")
        self.assertEqual(error.filename, self.path)
        self.assertEqual(self.assertRaises(OSError, readFile, self.directory, 1).filename, self.directory)

    def test_failedRename(self) -> None:
        """If the new file cannot take the old one's place, no draft is left."""
        os.mkdir(self.path)
        self.assertRaises(OSError, replaceFile, self.path, b"new")
        self.assertEqual(os.listdir(self.directory), ["state"])

    def test_draft(self) -> None:
        """A draft stands beside the file, under a name that nobody else chose."""
        first, second = draftFile(self.path, b"1"), draftFile(self.path, b"2")
        self.assertNotEqual(first, second)
        self.assertEqual({os.path.dirname(first), os.path.dirname(second)}, {self.directory})

    def test_fifo(self) -> None:
        """A FIFO without a writer does not make a reader wait."""
        os.mkfifo(self.path)
        self.assertEqual(readFile(self.path, 10), b"")

    def test_directories(self) -> None:
        """Missing directories are made for our eyes only; those that exist stay as they are."""
        path = os.path.join(self.directory, "a", "b")
        makeDirectory(path)
        makeDirectory(path)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o700)
