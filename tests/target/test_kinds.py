# -*- test-case-name: tests.target.test_kinds -*-
"""Which devices are the same."""

from __future__ import annotations

import os

import attrs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.options import UnitOptions
from iscsi_twisted.config.targets import parse
from iscsi_twisted.session.names import complaint
from iscsi_twisted.target.kinds import _SHOWN, Kind, kindOf


def kind(text: str, readOnly: bool = False) -> Kind:
    """That of the disk which the last line of a targets file defines."""
    lines = text.split("; ")
    name = lines[-1].split()[0]
    configuration = parse("\n".join([*lines, f"target0 {name} any"]), None, complaint, directory="/d")
    (storage,) = configuration.targets[0].storages
    return kindOf(storage, readOnly)


class KindTests(SynchronousTestCase):
    """Tests of L{kindOf}."""

    def same(self, one: str, other: str, what: str = "definition") -> bool:
        """Whether two disks are the same in a way."""
        return bool(getattr(kind(one), what) == getattr(kind(other), what))

    def test_names(self) -> None:
        """What an extent is called, and how its unit looks, is nothing of the device."""
        plain = "extent0 f 0 1MB"
        self.assertTrue(self.same(plain, "extent7 f 0 1MB"))
        self.assertTrue(self.same(plain, plain + " serial=7 product=x removable=yes"))
        mirror = "extent0 f 0 1MB; extent1 g 0 1MB; device0 RAID1 extent0 extent1"
        self.assertTrue(self.same(mirror, mirror.replace("extent1", "extent5")))

    def test_others(self) -> None:
        """Another file, range or mode makes another device."""
        plain = "extent0 f 0 1MB"
        for other in (
            "extent0 g 0 1MB",
            "extent0 f 1MB 1MB",
            "extent0 f 0 2MB",
            "extent0 f 0 1MB writecache=no",
        ):
            self.assertFalse(self.same(plain, other), other)
        self.assertNotEqual(kind(plain, True).definition, kind(plain).definition)

    def test_content(self) -> None:
        """A longer range begins with the same bytes; a filter that moves none changes nothing of that."""
        plain = "extent0 f 0 1MB"
        self.assertTrue(self.same(plain, "extent0 f 0 2MB", "content"))
        self.assertTrue(self.same(plain, plain + "; device0 READONLY extent0", "content"))
        self.assertFalse(self.same(plain, "extent0 f 1MB 1MB", "content"))
        both = "extent0 f 0 1MB; extent1 g 0 1MB; device0 RAID0 extent0 extent1"
        self.assertTrue(self.same(both, both + " writecache=no", "content"))
        self.assertFalse(self.same(both, both.replace("1MB", "2MB", 1), "content"))

    def test_files(self) -> None:
        """All files that a device of devices locks, whatever they are called."""
        found = kind(
            "extent0 f 0 1MB; extent1 ../d/g 0 1MB; device0 RAID0 extent0 extent1;"
            " device1 OVERLAY device0 file=/d/h"
        ).files
        self.assertEqual(found, {os.path.realpath(f"/d/{name}") for name in "fgh"})

    def test_known(self) -> None:
        """Of every option of a unit it is known whether it is one of the device."""
        ofDevice = {"readonly", "type", "writecache"}
        self.assertEqual({field.name for field in attrs.fields(UnitOptions)}, ofDevice.union(_SHOWN))
