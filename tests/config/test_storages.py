# -*- test-case-name: tests.config.test_storages -*-
"""Extent and device lines of the targets file."""

from __future__ import annotations

import os

from iscsi_twisted.config.model import Device, Extent
from iscsi_twisted.config.options import UnitOptions
from iscsi_twisted.config.storages import MAX_DEPTH
from iscsi_twisted.config.targets import parse
from iscsi_twisted.errors import ConfigurationErrors
from tests.config.reading import THREE, TargetsTestCase, noComplaint, read

MB = 1 << 20


class ExtentTests(TargetsTestCase):
    """Tests of extent lines."""

    def one(self, line: str) -> Extent:
        """The extent of a line."""
        return read(line + "\ntarget0 extent0 any", "/here").extents[0]

    def test_columns(self) -> None:
        """Start and length take units alike."""
        self.assertEqual(self.one("extent0 /a 1.5K 1.5GiB"), Extent("extent0", "/a", 1536, 1610612736))

    def test_size(self) -> None:
        """The length C{size} is known only when the file is opened."""
        for word in ("size", "SIZE"):
            self.assertIs(self.one(f"extent0 /a 512 {word}").length, None)

    def test_relative(self) -> None:
        """A relative path belongs to the directory where the file was read; messages keep it as written."""
        extent = self.one("extent0 ../d\\ isk 0 1M")
        self.assertEqual((extent.path, extent.given), ("/here/../d isk", "../d isk"))
        extent = read("extent0 disk 0 1M\ntarget0 extent0 any").extents[0]
        self.assertEqual(extent.path, os.path.join(os.getcwd(), "disk"))

    def test_equalsInPath(self) -> None:
        """A path may hold C{=}."""
        self.assertEqual(self.one("extent0 /dev/a=b 0 1M").path, "/dev/a=b")

    def test_remote(self) -> None:
        """A unit of another target is known by what it is called; nothing shows what may hold a secret."""
        text = "extent0 iscsi://me%hush@h/t/0 1M size\ntarget0 extent0 any"
        (extent,) = parse(text, "F", noComplaint, nameRemote=lambda url: url.replace("hush", "***")).extents
        self.assertEqual(extent.url, "iscsi://me%hush@h/t/0")
        self.assertEqual((extent.path, extent.given), ("iscsi://me%***@h/t/0",) * 2)
        self.assertNotIn("hush", repr(extent))
        self.assertEqual((extent.start, extent.length), (MB, None))

    def test_noRemotes(self) -> None:
        """Where nobody can reach other targets, their units are refused."""
        self.assertFault("extent0 iscsi://h/t/0 0 1M\ntarget0 extent0 any", "F:1: units of other targets")

    def test_direct(self) -> None:
        """A member of a device may go past the page cache too; a unit of another target cannot."""
        text = "extent0 a 0 1M direct=yes serial=A\nextent1 b 0 1M direct=no\n"
        configuration = parse(text + "target0 extent0 extent1 any", "F", noComplaint)
        self.assertEqual([each.own.direct for each in configuration.extents], [True, False])
        self.assertEqual(configuration.extents[0].options.serial, "A")
        text = "extent0 a 0 1M direct=yes\nextent1 b 0 1M\ndevice0 RAID1 extent0 extent1\ntarget0 device0 any"
        self.assertTrue(parse(text, "F", noComplaint).extents[0].own.direct)
        with self.assertRaises(ConfigurationErrors) as caught:
            parse(
                "extent0 iscsi://h/t/0 0 1M direct=yes\ntarget0 extent0 any", "F", noComplaint, nameRemote=str
            )
        self.assertIn("F:1: direct= is for files and disks of this machine", str(caught.exception))

    def test_remoteOverlap(self) -> None:
        """Parts of one unit must not overlap either."""
        text = "extent0 iscsi://h/t/0 0 1M\nextent1 iscsi://h/t/0 {} 1M\ntarget0 extent0 extent1 any"
        parse(text.format("1M"), "F", noComplaint, nameRemote=str)
        error = self.assertRaises(
            ConfigurationErrors, parse, text.format("512K"), "F", noComplaint, nameRemote=str
        )
        self.assertIn("extent1 shares bytes of 'iscsi://h/t/0' with extent0", str(error).replace('"', "'"))
        text = "extent0 iscsi://h:3260/iqn.t/0 0 1M\nextent1 {} 0 1M\ntarget0 extent0 extent1 any"
        for url in (
            "iscsi://me%***@h:3260/iqn.t/0",
            "iscsi://H:3260/iqn.T/0",
            "iscsis://h:3260/iqn.t/0?ca=x",
        ):
            error = self.assertRaises(
                ConfigurationErrors, parse, text.format(url), "F", noComplaint, nameRemote=str
            )
            self.assertIn("extent1 shares bytes of", str(error))
        for url in ("iscsi://h:3260/iqn.t/1", "iscsi://i:3260/iqn.t/0", "iscsi://h:3261/iqn.t/0"):
            parse(text.format(url), "F", noComplaint, nameRemote=str)

    def test_options(self) -> None:
        """Options of the unit stand at the end."""
        options = self.one("extent0 /a 0 1M serial=A1 thin=no # note").options
        self.assertEqual(options, UnitOptions(serial="A1", thin=False))

    def test_short(self) -> None:
        """A short line names what it lacks."""
        for line, missing in [
            ("extent0", "PATH and START and LENGTH"),
            ("extent0 /a", "START and LENGTH"),
            ("extent0 /a 0", "LENGTH"),
        ]:
            with self.subTest(line=line):
                self.assertFault(
                    line, f"F:1: {missing} missing; an extent line is: extentN PATH START LENGTH"
                )

    def test_bad(self) -> None:
        """What a column cannot hold is an error."""
        for line, message in [
            ("extent0 /a x 1M", "'x' is not a size"),
            ("extent0 /a size 1M", "'size' is not a size"),
            ("extent0 /a 0 -5", "'-5' is not a size"),
            ("extent0 /a 0 0", "a length of 0 bytes is less than one block (512); write a unit, as in 100MB"),
            ("extent0 /a 0 100", "a length of 100 bytes is less than one block"),
            ("extent0 /a 7E 1E", "start and length exceed the 9223372036854775807 bytes"),
            ("extent0 /a 0 100 MB", "a blank before 'MB'; write number and unit as one word: 100MB"),
            ("extent0 /a 0 1M rw", "'rw' stands where only options can; an option is written key=value"),
            ("extent0 /a 0 1M = 5", "'=' stands where only options can"),
            ("extent0=x /a 0 1M", "'extent0=x' holds '='; only a target line begins NAME=IQN"),
        ]:
            with self.subTest(line=line):
                self.assertIn(f"F:1: {message}", self.faults(line)[0])

    def test_directoryGone(self) -> None:
        """A relative path is an error if there is no current directory any more."""
        here, gone = os.getcwd(), os.path.abspath(self.mktemp())
        os.mkdir(gone)
        self.addCleanup(os.chdir, here)
        os.chdir(gone)
        os.rmdir(gone)
        self.assertFault(
            "extent0 a 0 1M\ntarget0 extent0 any",
            "F:1: 'a' is relative to a directory that is gone (No such file or directory); begin it with /",
        )
        self.assertEqual(self.one("extent0 /a 0 1M").path, "/a")

    def test_overlap(self) -> None:
        """Two extents that share bytes of one path are an error of the later line."""
        self.assertFault(
            "extent0 /a 1M 1M\nextent1 /x/..//a 0 1.5M\ntarget0 extent0 any",
            "F:2: extent1 shares bytes of '/x/..//a' with extent0 on line 1; extents of one file must",
        )

    def test_neighbours(self) -> None:
        """Extents of one file that only touch are fine."""
        self.assertEqual(
            len(read("extent0 /a 1M 1M\nextent1 /a 0 1M\ntarget0 extent0 extent1 any").extents), 2
        )


class DeviceTests(TargetsTestCase):
    """Tests of device lines."""

    def one(self, line: str) -> Device:
        """The device of a line that may use three extents."""
        return read(f"{THREE}{line}\ntarget0 device0 any").devices[0]

    def test_concatenation(self) -> None:
        """RAID0 joins members of any size, even one alone."""
        device = self.one("device0 RAID0 extent0 extent2")
        self.assertEqual((device.level, device.chunk, device.size), (0, None, 3 * MB))
        self.assertEqual(self.one("device0 raid0 extent2").size, 2 * MB)

    def test_stripe(self) -> None:
        """RAID0 with a chunk stripes members of one size."""
        device = self.one("device0 RAID0:64K extent0 extent1")
        self.assertEqual((device.level, device.chunk, device.size), (0, 65536, 2 * MB))
        self.assertEqual(self.one("device0 Raid0:4096 extent0 extent1").chunk, 4096)

    def test_mirrorOptions(self) -> None:
        """A mirror, and nothing else, has a patience of its own, and is compared now and then."""
        lines = "extent0 a 0 1M\nextent1 b 0 1M\ndevice0 {}\ntarget0 device0 any"
        for text, seconds in (("", None), (" patience=2.5", 2.5), (" serial=1 patience=0", 0.0)):
            (device,) = read(lines.format("RAID1 extent0 extent1" + text)).targets[0].storages
            assert isinstance(device, Device)
            self.assertEqual((device.own.patience, device.own.scrub), (seconds, None))
        (device,) = read(lines.format("RAID1 extent0 extent1 scrub=0.5")).targets[0].storages
        assert isinstance(device, Device)
        self.assertEqual(device.own.scrub, 0.5)
        for words, wanted in (
            (
                "RAID1 extent0 extent1 patience=soon",
                "patience=: seconds such as 25 or 2.5 are wanted, not 'soon'",
            ),
            ("RAID1 extent0 extent1 scrub=0", "scrub=: days such as 7 or 0.5 are wanted, not '0'"),
            ("RAID0 extent0 extent1 patience=1", "unknown option 'patience='; a device line knows serial="),
            (
                "RAID1 extent0 extent1 wait=1",
                "unknown option 'wait='; a RAID1 line knows patience=, scrub=, serial=",
            ),
        ):
            self.assertFault(lines.format(words), f"F:3: {wanted}")

    def test_mirror(self) -> None:
        """RAID1 mirrors members of one size."""
        device = self.one("device0 Raid1 extent0 extent1")
        self.assertEqual((device.level, device.chunk, device.size), (1, None, MB))
        self.assertEqual([member.name for member in device.members], ["extent0", "extent1"])

    def test_options(self) -> None:
        """Options of the unit stand at the end."""
        self.assertEqual(self.one("device0 RAID0 extent0 vendor=ACME").options, UnitOptions(vendor="ACME"))

    def test_bad(self) -> None:
        """What a column cannot hold is an error."""
        for line, message in [
            (
                "device0",
                "level and members missing; a device line is: deviceN RAID0|RAID0:CHUNK|RAID1 MEMBER",
            ),
            ("device0 RAID1", "members missing"),
            ("device0 RAID1 vendor=A", "members missing"),
            (
                "device0 RAID5 extent0 extent1",
                "'RAID5' is no level; write RAID0 (joined), RAID0:64K (striped)",
            ),
            ("device0 RAID10 extent0 extent1", "'RAID10' is no level"),
            ("device0 extent0 extent1", "'extent0' is no level"),
            ("device0 RAID1:64K extent0 extent1", "'RAID1:64K': a mirror has no chunk; write RAID1"),
            ("device0 RAID0: extent0 extent1", "'' is not a size"),
            ("device0 RAID0:x extent0 extent1", "'x' is not a size"),
            ("device0 RAID0:2048 extent0 extent1", "'RAID0:2048': a chunk is a power of two, 4096 or more"),
            ("device0 RAID0:96K extent0 extent1", "'RAID0:96K': a chunk is a power of two"),
            (
                "device0 RAID0:2M extent0 extent1",
                "the members of device0 have 1048576 bytes, less than a chunk of",
            ),
            ("device0 RAID0:64K extent0", "RAID0:65536 with 1 member; a stripe needs two or more"),
            (
                "device0 RAID0:64K extent0 extent2",
                "the members of RAID0:65536 device0 have to be of one size",
            ),
            ("device0 RAID1 extent0", "RAID1 with 1 member; a mirror needs two or more"),
            (
                "device0 RAID1 extent0 extent2",
                "the members of RAID1 device0 have to be of one size, but extent0 has 1048576 bytes"
                " and extent2 2097152",
            ),
            (
                "device0 RAID0 extent0 extent0",
                "extent0 is already used on this line; an extent or device can be used",
            ),
            ("device0 RAID0 device0", "'device0' cannot be a part of itself"),
            ("device0 RAID0 extent7", "'extent7' is not defined; define it above this line"),
            ("device0 RAID0 banana", "'banana' is not an extent or device that is defined above"),
            ("device0 RAID0 target0", "'target0' is not an extent or device that is defined above"),
            ("device0=x RAID0 extent0", "'device0=x' holds '='"),
            (
                "device0 RAID0 extent0 color=red",
                "unknown option 'color='; a device line knows serial=, naa=,",
            ),
        ]:
            with self.subTest(line=line):
                self.assertFault(f"extent3 /d 0 1M\n{THREE}{line}\ntarget0 extent3 any", f"F:5: {message}")

    def test_deepSizes(self) -> None:
        """Members of a mirror are equal however deep they lie."""
        self.assertFault(
            THREE + "extent3 /d 0 3M\ndevice0 RAID0 extent0 extent2\ndevice1 RAID1 device0 extent3\n"
            "extent4 /e 0 4M\ndevice2 RAID1 device1 extent4\ntarget0 device2 any",
            "F:8: the members of RAID1 device2 have to be of one size, but device1 has 3145728 bytes and",
        )

    def test_unknownSizes(self) -> None:
        """Sizes that only opening tells are left to that, but those that are known have to agree."""
        text = "extent0 /a 0 size\nextent1 /b 0 1M\nextent2 /c 0 {}\ndevice0 RAID1 extent0 extent1 extent2\n"
        text += "target0 device0 any"
        self.assertEqual(read(text.format("1M")).devices[0].size, MB)
        self.assertFault(
            text.format("2M"), "F:4: the members of RAID1 device0 have to be of one size, but extent1"
        )

    def test_order(self) -> None:
        """What is used is defined above."""
        self.assertFault(
            "device0 RAID0 extent0\nextent0 /a 0 1M\ntarget0 device0 any",
            "F:1: 'extent0' is defined on line 2 only; move that above this line",
        )

    def test_once(self) -> None:
        """An extent or device is used once, by a device or by a target."""
        self.assertFault(
            THREE + "device0 RAID0 extent0\ndevice1 RAID0 extent0\ntarget0 extent0 any\n"
            "device2 RAID0 extent1 device0\ntarget1 device0 any\ntarget2 extent2 any\ntarget3 extent2 any",
            "F:5: extent0 is already used by device0 on line 4; an extent or device can be used once",
            "F:6: extent0 is already used by device0 on line 4",
            "F:8: device0 is already used by device2 on line 7",
            "F:10: extent2 is already used by target2 on line 9",
        )

    def test_memberOptions(self) -> None:
        """Options of a unit that is only part of a device would do nothing: an error of their line."""
        self.assertFault(
            "extent0 /a 0 1M serial=X thin=yes\nextent1 /b 0 1M readonly=no\ndevice0 RAID1 extent0 extent1\n"
            "target0 device0 any",
            "F:1: serial, thin without effect: extent0 is part of device0 (line 3); options of a unit",
        )

    def test_depth(self) -> None:
        """Devices within devices have a bound, before calls nest too deep."""
        lines = ["extent0 /a 0 1M", "device0 RAID0 extent0"]
        lines += [f"device{n} RAID0 device{n - 1}" for n in range(1, 5000)]
        good = "\n".join([*lines[: MAX_DEPTH + 1], f"target0 device{MAX_DEPTH - 1} any"])
        self.assertEqual(read(good).devices[-1].depth, MAX_DEPTH)
        self.assertFault(
            "\n".join(lines),
            f"F:{MAX_DEPTH + 2}: device{MAX_DEPTH} is {MAX_DEPTH + 1} devices deep; the most is",
        )

    def test_tooLarge(self) -> None:
        """A device is no larger than offsets can tell."""
        self.assertFault(
            "extent0 /a 0 5E\nextent1 /b 0 5E\ndevice0 RAID0 extent0 extent1\ntarget0 device0 any",
            "F:3: device0 has 11529215046068469760 bytes; the most is 9223372036854775807",
        )
