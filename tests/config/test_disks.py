# -*- test-case-name: tests.config.test_disks -*-
"""Configurations without a file."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.disks import fromDisks, newcomer
from iscsi_twisted.config.model import Configuration, Extent, Target
from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.errors import ConfigurationErrors


class DiskTests(SynchronousTestCase):
    """Tests of L{fromDisks}."""

    def test_disks(self) -> None:
        """Each disk is a writable target of one extent, for everybody, in their order."""
        configuration = fromDisks(["/a:b:1.5G", "c d:size"], "/here")
        first, second = Extent("extent0", "/a:b", 0, 1610612736), Extent("extent1", "/here/c d", 0, None)
        self.assertEqual(
            configuration,
            Configuration(
                (first, second),
                (),
                (
                    Target("target0", None, False, (first,), Netmask("any")),
                    Target("target1", None, False, (second,), Netmask("any")),
                ),
            ),
        )
        self.assertEqual([extent.given for extent in configuration.extents], ["/a:b", "c d"])
        self.assertIs(configuration.path, None)

    def test_bad(self) -> None:
        """All that is wrong is told, one line for each."""
        disks = ["nosize", "a:", ":1M", "a:1X", "a:100", "b\0:1M", "c:1M", "./c:1M"]
        error = self.assertRaises(ConfigurationErrors, fromDisks, disks)
        self.assertEqual(
            [line[:70] for line in str(error).split("\n")],
            [
                line[:70]
                for line in (
                    "--disk 'nosize': write PATH:SIZE, such as disk0:100MB, or PATH:size for a file",
                    "--disk 'a:': write PATH:SIZE, such as disk0:100MB, or PATH:size for a file that exists",
                    "--disk ':1M': write PATH:SIZE, such as disk0:100MB, or PATH:size for a file that exists",
                    "--disk 'a:1X': '1X' is not a size; write a number of bytes in decimal, with K, M,",
                    "--disk 'a:100': a length of 100 bytes is less than one block (512); write a unit, as in",
                    "--disk 'b\\x00:1M': a path cannot hold a NUL character",
                    "--disk: './c' is the same file as 'c'; give it once",
                )
            ],
        )

    def test_none(self) -> None:
        """No disk at all is an error."""
        error = self.assertRaises(ConfigurationErrors, fromDisks, [])
        self.assertEqual(str(error), "--disk: no disk is given; write PATH:SIZE, such as disk0:100MB")

    def test_newcomer(self) -> None:
        """A newcomer gets a file of 100 MB in the working directory as the one target."""
        (target,) = newcomer().targets
        wanted = Extent("extent0", os.path.join(os.getcwd(), "iscsi-target0"), 0, 100 << 20)
        self.assertEqual((target.name, target.storages, target.readOnly), ("target0", (wanted,), False))
        self.assertEqual(newcomer("/here").extents[0].path, "/here/iscsi-target0")
