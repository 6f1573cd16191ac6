"""Auths files that others can use."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.target.permissions import tooOpen

ACL = struct.pack(
    "<I" + "HHI" * 5,
    2, 1, 6, 0xFFFFFFFF, 2, 6, 12345, 4, 0, 0xFFFFFFFF, 0x10, 6, 0xFFFFFFFF, 0x20, 0, 0xFFFFFFFF,
)  # fmt: skip
"""As Linux keeps it: the owner, user 12345 and the mask may read and write, the group and others nothing."""


class PermissionsTests(SynchronousTestCase):
    """Tests of L{tooOpen}."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(mode=0o755)
        self.path = self.folder / "auths"
        self.path.touch(0o600)

    def judge(self, path: Path | None = None) -> str | None:
        """What is wrong."""
        with open(path or self.path) as file:
            error = tooOpen(file.fileno(), str(path or self.path))
        return None if error is None else str(error)

    def test_modes(self) -> None:
        """What others can use or the group can write is too open; only plain files are judged."""
        for mode, wrong in (
            (0o600, None), (0o640, None), (0o400, None), (0o602, "everybody"), (0o604, "everybody"),
            (0o644, "everybody on this machine can use it (mode 644)"),
            (0o620, "its group can write it (mode 620)"),
        ):  # fmt: skip
            self.path.chmod(mode)
            found = self.judge()
            self.assertEqual(found is None, wrong is None, oct(mode))
            self.assertIn(wrong or "", found or "")
        self.assertIsNone(self.judge(Path("/dev/null")))

    def test_opened(self) -> None:
        """What counts is the file that was opened, not what has its name by now."""
        self.path.chmod(0o644)
        with open(self.path) as file:
            self.path.unlink()
            self.path.touch(0o600)
            self.assertIsNotNone(tooOpen(file.fileno(), str(self.path)))

    def test_link(self) -> None:
        """Of a link the file counts that it leads to, and the directories of both."""
        other = self.folder / "other"
        other.mkdir(mode=0o755)
        link = other / "link"
        link.symlink_to(self.path.absolute())
        self.assertIsNone(self.judge(link))
        for folder in (other, self.folder):
            folder.chmod(0o777)
            found = self.judge(link) or ""
            self.assertIn(f"can put another file in its place (mode 777 of {folder.absolute()})", found)
            self.assertIn(f"chmod o-w {folder.absolute()}", found)
            folder.chmod(0o755)
        self.path.chmod(0o644)
        self.assertIn("everybody on this machine can use it", self.judge(link) or "")

    def test_sticky(self) -> None:
        """In a directory like /tmp nobody replaces what is another's."""
        self.folder.chmod(0o1777)
        self.assertIsNone(self.judge())
        self.folder.chmod(0o777)
        self.assertIsNotNone(self.judge())
        self.folder.chmod(0o755)

    def test_listed(self) -> None:
        """Somebody whom an access control list lets write it is as bad as a group."""
        try:
            os.setxattr(self.path, "system.posix_acl_access", ACL)
        except (OSError, AttributeError) as error:
            raise SkipTest(f"no access control lists here: {error}") from None
        found = self.judge() or ""
        self.assertIn("its group, or somebody in its access control list, can write it (mode 660)", found)
