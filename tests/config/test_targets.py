# -*- test-case-name: tests.config.test_targets -*-
"""The targets file."""

from __future__ import annotations

import os
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.model import Configuration, Device, Extent, Target, Where
from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.config.options import TargetOptions, UnitOptions
from iscsi_twisted.config.targets import MAX_DEPTH, MAX_LUNS, load, parse
from iscsi_twisted.errors import ConfigurationErrors

MB = 1 << 20

FAQ_SIMPLE = """
	# extent        file or device          start           length
	extent0         /tmp/iscsi-target0      0               100MB
	# target        storage                 netmask
	target0         extent0                 0.0.0.0/0
"""

FAQ_COMPLEX = """
	# Complex file showing 3-way RAID1 (with RAID1 components),
	# also using local and (NFS) remote components

	# extents
	extent0	/iscsi/extents/0			0	100MB
	extent1	/imports/remote1/iscsi/extents/0	0	100MB
	extent2	/iscsi/extents/1			0	100MB
	extent3	/imports/remote1/iscsi/extents/1	0	100MB
	extent4	/iscsi/extents/2			0	100MB
	extent5	/imports/remote1/iscsi/extents/2	0	100MB
	extent6	/iscsi/extents/3			0	100GB

	# devices
	device0	RAID1		extent0 extent1
	device1	RAID1		extent2 extent3
	device2	RAID1		extent4 extent5
	device3	RAID1		device0 device1 device2

	# targets
	target0	device3		10.4.0.0/16

	# a target can be made from just an extent
	target1	extent6		127.0.0.0/8
"""

THREE = "extent0 /a 0 1M\nextent1 /b 0 1M\nextent2 /c 0 2M\n"
"""Three lines that many tests begin with."""


def noComplaint(name: str) -> str | None:
    """Any name will do."""
    return None


def read(text: str, directory: str | None = None) -> Configuration:
    """A text without faults."""
    return parse(text, "F", noComplaint, directory=directory)


class TargetsTestCase(SynchronousTestCase):
    """What the tests of this file have in common."""

    def faults(self, text: str) -> list[str]:
        """The messages about a text."""
        error = self.assertRaises(ConfigurationErrors, read, text)
        return str(error).split("\n")

    def assertFault(self, text: str, *messages: str) -> None:
        """Check that a text has exactly the faults whose messages begin so."""
        found = self.faults(text)
        self.assertEqual([each[: len(want)] for each, want in zip(found, messages, strict=False)], list(messages))
        self.assertEqual(len(found), len(messages), found)


class ManualTests(TargetsTestCase):
    """The examples of the old manual mean what it says."""

    def test_simple(self) -> None:
        """The simple example is one writable target of 100 MB for any host."""
        configuration = read(FAQ_SIMPLE)
        extent = Extent("extent0", "/tmp/iscsi-target0", 0, 100 * MB)
        target = Target("target0", None, False, (extent,), Netmask("0.0.0.0/0"))
        self.assertEqual(configuration, Configuration((extent,), (), (target,)))
        self.assertTrue(target.netmask.admits("192.0.2.1"))
        self.assertTrue(configuration.targets[0].netmask.admits("::1"))

    def test_complex(self) -> None:
        """The complex example is a mirror of three mirrors, and a plain extent."""
        configuration = read(FAQ_COMPLEX)
        self.assertEqual([len(configuration.extents), len(configuration.devices)], [7, 4])
        mirror, plain = configuration.targets
        (top,) = mirror.storages
        assert isinstance(top, Device)
        self.assertEqual((top.name, top.level, top.chunk, top.size), ("device3", 1, None, 100 * MB))
        self.assertEqual(
            [[member.name for member in device.members] for device in top.members if isinstance(device, Device)],
            [["extent0", "extent1"], ["extent2", "extent3"], ["extent4", "extent5"]],
        )
        self.assertEqual([storage.size for storage in plain.storages], [100 << 30])
        self.assertEqual([str(target.netmask) for target in configuration.targets], ["10.4.0.0/16", "127.0.0.0/8"])
        self.assertEqual([target.readOnly for target in configuration.targets], [False, False])


class LineTests(TargetsTestCase):
    """What holds for every kind of line."""

    def test_unknownWord(self) -> None:
        """A line that begins with nothing known is an error, upper case included."""
        for word in ("extnt0", "Extent0", "TARGET0", "include", "0extent"):
            with self.subTest(word=word):
                self.assertFault(
                    f"{FAQ_SIMPLE}{word} extent0 any", f"F:6: '{word}' begins no definition; a line begins with extent,"
                )

    def test_suffixes(self) -> None:
        """Any word that begins with the kind of definition is a name, as it always was."""
        configuration = read("extent-db /a 0 1M\ndeviceX RAID0 extent-db\nlun deviceX any\n")
        self.assertEqual(configuration.extents[0].name, "extent-db")
        self.assertEqual(configuration.devices[0].name, "deviceX")
        self.assertEqual(configuration.targets[0].name, "lun")

    def test_where(self) -> None:
        """Each definition knows its file and its first line."""
        configuration = read("#\nextent0 \\\n /a 0 1M\ndevice0 RAID0 extent0\n\ntarget0 device0 any")
        self.assertEqual(configuration.path, "F")
        found = [*configuration.extents, *configuration.devices, *configuration.targets]
        self.assertEqual([each.where for each in found], [Where("F", 2), Where("F", 4), Where("F", 6)])
        self.assertEqual(str(found[1].where.error("broken")), "F:4: broken")

    def test_twice(self) -> None:
        """A name that is defined twice is an error, for each kind of definition."""
        self.assertFault(
            THREE + "extent0 /d 0 1M\ndevice0 RAID0 extent0\ndevice0 RAID0 extent1\ntarget0 device0 any\n"
            "target0 extent2 any\n",
            "F:4: 'extent0' is already defined on line 1; give one of them another name",
            "F:6: 'device0' is already defined on line 5; give",
            "F:8: 'target0' is already defined on line 7; give",
        )

    def test_namesDiffer(self) -> None:
        """Names are compared as they are, upper and lower case told apart."""
        configuration = read("extenta /a 0 1M\nextentA /b 0 1M\ntarget0 extenta extentA any")
        self.assertEqual([extent.path for extent in configuration.extents], ["/a", "/b"])

    def test_all(self) -> None:
        """All faults of a file are told, in the order of the file, and a consequence is not told again."""
        self.assertFault(
            "extent0 /a 0 1X\nbanana\nextent1 /b\ndevice0 RAID1 extent0 extent1\ntarget0 device0 maybe\n"
            "target1 extent9 any\n",
            "F:1: '1X' is not a size",
            "F:2: 'banana' begins no definition",
            "F:3: START and LENGTH missing",
            "F:5: 'maybe' is not a netmask",
            "F:6: 'extent9' is not defined",
        )

    def test_brokenLine(self) -> None:
        """A line with an unwanted character is one fault, and what it defines is not called undefined."""
        self.assertFault(FAQ_SIMPLE.replace("/tmp", "/t\0p"), "F:3: a NUL character")

    def test_noTarget(self) -> None:
        """A file without a target is an error of the whole file."""
        for text in ("", "# nothing\n", THREE):
            with self.subTest(text=text):
                self.assertFault(text, "F: no target is defined; a target line is: targetN[=IQN]")

    def test_noFile(self) -> None:
        """A file that is not there is one line with the system's words."""
        error = self.assertRaises(ConfigurationErrors, load, "/nonexistent/targets", noComplaint)
        self.assertEqual(str(error), "/nonexistent/targets: cannot be read: No such file or directory")

    def test_load(self) -> None:
        """A file is read from disk, and messages call it as the caller did."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(FAQ_SIMPLE)
        self.assertEqual(load(path, noComplaint), read(FAQ_SIMPLE))
        with open(path, "w") as file:
            file.write("banana")
        error = self.assertRaises(ConfigurationErrors, load, path, noComplaint)
        self.assertIn(f"{path}:1: 'banana'", str(error))
        self.assertEqual([(each.path, each.line) for each in error.errors], [(path, 1)])

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """Any text whatsoever loads or is a configuration error."""
        try:
            read(text)
        except ConfigurationErrors as error:
            self.assertTrue(error.errors)

    @given(
        st.lists(
            st.lists(
                st.sampled_from(
                    "extent0 extent1 extent device0 device1 target0 target0=iqn.x lun1 RAID0 RAID1 RAID0:64K raid1:"
                    " ro RW 0 1M size 100MB /a a any none 10.4 10.4/16, ::1 serial=1 naa=6 thin=yes alias=\\{x} = #"
                    " \\ \\\\ \0 \udcff".split(" ")
                ),
                max_size=7,
            ),
            max_size=8,
        )
    )
    def test_likely(self, lines: list[list[str]]) -> None:
        """Lines of likely words, in any order, load or are a configuration error with a line or none."""
        try:
            read("\n".join(" ".join(line) for line in lines))
        except ConfigurationErrors as error:
            for each in error.errors:
                self.assertTrue(str(each).startswith("F: " if each.line is None else f"F:{each.line}: "))

    def test_fast(self) -> None:
        """Ten thousand extents and targets load in well under two seconds."""
        extents = "".join(f"extent{n} /x/{n} 0 100MB serial=s{n}\n" for n in range(10000))
        targets = "".join(f"target{n} ro extent{n} 10.4.{n % 256}.0/24\n" for n in range(10000))
        begin = time.process_time()
        configuration = read(extents + targets)
        self.assertLess(time.process_time() - begin, 2)
        self.assertEqual(len(configuration.targets), 10000)


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
                self.assertFault(line, f"F:1: {missing} missing; an extent line is: extentN PATH START LENGTH")

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
            "F:2: extent1 shares bytes of '/x/..//a' with extent0 on line 1; extents of one file must not overlap",
        )

    def test_neighbours(self) -> None:
        """Extents of one file that only touch are fine."""
        self.assertEqual(len(read("extent0 /a 1M 1M\nextent1 /a 0 1M\ntarget0 extent0 extent1 any").extents), 2)


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
            ("device0", "level and members missing; a device line is: deviceN RAID0|RAID0:CHUNK|RAID1 MEMBER"),
            ("device0 RAID1", "members missing"),
            ("device0 RAID1 vendor=A", "members missing"),
            ("device0 RAID5 extent0 extent1", "'RAID5' is no level; write RAID0 (joined), RAID0:64K (striped)"),
            ("device0 RAID10 extent0 extent1", "'RAID10' is no level"),
            ("device0 extent0 extent1", "'extent0' is no level"),
            ("device0 RAID1:64K extent0 extent1", "'RAID1:64K': a mirror has no chunk; write RAID1"),
            ("device0 RAID0: extent0 extent1", "'' is not a size"),
            ("device0 RAID0:x extent0 extent1", "'x' is not a size"),
            ("device0 RAID0:2048 extent0 extent1", "'RAID0:2048': a chunk is a power of two, 4096 or more"),
            ("device0 RAID0:96K extent0 extent1", "'RAID0:96K': a chunk is a power of two"),
            ("device0 RAID0:2M extent0 extent1", "the members of device0 have 1048576 bytes, less than a chunk of"),
            ("device0 RAID0:64K extent0", "RAID0:65536 with 1 member; a stripe needs two or more"),
            ("device0 RAID0:64K extent0 extent2", "the members of RAID0:65536 device0 have to be of one size"),
            ("device0 RAID1 extent0", "RAID1 with 1 member; a mirror needs two or more"),
            (
                "device0 RAID1 extent0 extent2",
                "the members of RAID1 device0 have to be of one size, but extent0 has 1048576 bytes and extent2"
                " 2097152",
            ),
            ("device0 RAID0 extent0 extent0", "extent0 is already used on this line; an extent or device can be used"),
            ("device0 RAID0 device0", "'device0' cannot be a part of itself"),
            ("device0 RAID0 extent7", "'extent7' is not defined; define it above this line"),
            ("device0 RAID0 banana", "'banana' is not an extent or device that is defined above"),
            ("device0 RAID0 target0", "'target0' is not an extent or device that is defined above"),
            ("device0=x RAID0 extent0", "'device0=x' holds '='"),
            ("device0 RAID0 extent0 color=red", "unknown option 'color='; a device line knows serial=, naa=,"),
        ]:
            with self.subTest(line=line):
                self.assertFault(f"extent3 /d 0 1M\n{THREE}{line}\ntarget0 extent3 any", f"F:5: {message}")

    def test_deepSizes(self) -> None:
        """Members of a mirror are equal however deep they lie."""
        self.assertFault(
            THREE + "extent3 /d 0 3M\ndevice0 RAID0 extent0 extent2\ndevice1 RAID1 device0 extent3\n"
            "extent4 /e 0 4M\ndevice2 RAID1 device1 extent4\ntarget0 device2 any",
            "F:8: the members of RAID1 device2 have to be of one size, but device1 has 3145728 bytes and extent4",
        )

    def test_unknownSizes(self) -> None:
        """Sizes that only opening tells are left to that, but those that are known have to agree."""
        text = "extent0 /a 0 size\nextent1 /b 0 1M\nextent2 /c 0 {}\ndevice0 RAID1 extent0 extent1 extent2\n"
        text += "target0 device0 any"
        self.assertEqual(read(text.format("1M")).devices[0].size, MB)
        self.assertFault(text.format("2M"), "F:4: the members of RAID1 device0 have to be of one size, but extent1")

    def test_order(self) -> None:
        """What is used is defined above."""
        self.assertFault(
            "device0 RAID0 extent0\nextent0 /a 0 1M\ntarget0 device0 any",
            "F:1: 'extent0' is defined on line 2 only; move that above this line",
        )

    def test_once(self) -> None:
        """An extent or device is used once, by a device or by a target."""
        self.assertFault(
            THREE + "device0 RAID0 extent0\ndevice1 RAID0 extent0\ntarget0 extent0 any\ndevice2 RAID0 extent1 device0\n"
            "target1 device0 any\ntarget2 extent2 any\ntarget3 extent2 any",
            "F:5: extent0 is already used by device0 on line 4; an extent or device can be used once",
            "F:6: extent0 is already used by device0 on line 4",
            "F:8: device0 is already used by device2 on line 7",
            "F:10: extent2 is already used by target2 on line 9",
        )

    def test_memberOptions(self) -> None:
        """Options of a unit on a line that is only part of a device would do nothing: an error of that line."""
        self.assertFault(
            "extent0 /a 0 1M serial=X thin=yes\nextent1 /b 0 1M readonly=no\ndevice0 RAID1 extent0 extent1\n"
            "target0 device0 any",
            "F:1: serial, thin without effect: extent0 is part of device0 (line 3); options of a unit stand on",
        )

    def test_depth(self) -> None:
        """Devices within devices have a bound, before calls nest too deep."""
        lines = ["extent0 /a 0 1M", "device0 RAID0 extent0"]
        lines += [f"device{n} RAID0 device{n - 1}" for n in range(1, 5000)]
        good = "\n".join([*lines[: MAX_DEPTH + 1], f"target0 device{MAX_DEPTH - 1} any"])
        self.assertEqual(read(good).devices[-1].depth, MAX_DEPTH)
        self.assertFault(
            "\n".join(lines), f"F:{MAX_DEPTH + 2}: device{MAX_DEPTH} is {MAX_DEPTH + 1} devices deep; the most is"
        )

    def test_tooLarge(self) -> None:
        """A device is no larger than offsets can tell."""
        self.assertFault(
            "extent0 /a 0 5E\nextent1 /b 0 5E\ndevice0 RAID0 extent0 extent1\ntarget0 device0 any",
            "F:3: device0 has 11529215046068469760 bytes; the most is 9223372036854775807",
        )


class TargetTests(TargetsTestCase):
    """Tests of target lines."""

    def one(self, line: str) -> Target:
        """The target of a line that may use three extents."""
        return read(THREE + line).targets[0]

    def test_threeColumns(self) -> None:
        """A line of three words is a writable target."""
        target = self.one("target0 extent0 10.4/16")
        self.assertEqual((target.name, target.iqn, target.readOnly), ("target0", None, False))
        self.assertEqual([storage.name for storage in target.storages], ["extent0"])
        self.assertEqual(str(target.netmask), "10.4/16")

    def test_flags(self) -> None:
        """The second word is a flag if it is one of four, in any case."""
        for word, readOnly in [("ro", True), ("R", True), ("ReadOnly", True), ("rw", False), ("RW", False)]:
            with self.subTest(word=word):
                self.assertIs(self.one(f"target0 {word} extent0 any").readOnly, readOnly)

    def test_units(self) -> None:
        """Several storages are LUN 0, 1 and so on in their order, devices among them."""
        target = self.one("device0 RAID0 extent2\ntarget0 rw extent1 device0 extent0 any")
        self.assertEqual([storage.name for storage in target.storages], ["extent1", "device0", "extent0"])

    def test_lun(self) -> None:
        """C{lunN} is another way to write C{targetN}."""
        self.assertEqual(self.one("lun3 extent0 any").targetName("iqn.x"), "iqn.x:lun3")

    def test_name(self) -> None:
        """A target has the IQN that its line gives, or one made of the base and its name."""
        target = self.one("target0=iqn.2001-04.com.example:a=b extent0 any")
        self.assertEqual((target.name, target.iqn), ("target0", "iqn.2001-04.com.example:a=b"))
        self.assertEqual(target.targetName(), "iqn.2001-04.com.example:a=b")
        self.assertEqual(self.one("target0 extent0 any").targetName(), "iqn.1994-04.org.netbsd.iscsi-target:target0")

    def test_options(self) -> None:
        """Options of the target stand at the end."""
        self.assertEqual(self.one("target0 extent0 any alias=My\\ disk").options, TargetOptions(alias="My disk"))

    def test_sharedMasks(self) -> None:
        """Equal masks of one file are one object."""
        configuration = read(THREE + "target0 extent0 10/8\ntarget1 extent1 10/8")
        self.assertIs(configuration.targets[0].netmask, configuration.targets[1].netmask)

    def test_bad(self) -> None:
        """What is not understood is an error that names the readings."""
        for line, *messages in [
            ("target0", "storage and netmask missing; a target line is: targetN[=IQN] [ro|rw] STORAGE ... NETMASK"),
            ("target0 ro", "storage and netmask missing"),
            ("target0 alias=x", "storage and netmask missing"),
            ("target0 extent0", "no netmask after 'extent0'; end with one, such as any or 10.4.0.0/16"),
            ("target0 rw extent0", "no netmask after 'extent0'"),
            ("target0 any", "no storage before 'any'"),
            ("target0 rw any", "no storage before 'any'"),
            ("target0 extent9", "no netmask after 'extent9'", "'extent9' is not defined; define it above this line"),
            ("target0 extent9 any", "'extent9' is not defined"),
            ("target0 extent0 extent1 10.4", "'10.4' is only part of an address"),
            ("target0 extent0 rx", "'rx' is not a netmask"),
            ("target0 extent0 10.0.0.0/abc", "'abc' in '10.0.0.0/abc' is no number of bits; write 0 to 32"),
            (
                "target0 banana extent0 any",
                "'banana' is neither a flag (ro, r, readonly, rw) nor a storage (an extent or device defined above)"
                " nor a netmask; correct or remove it",
            ),
            ("target0 extent0 ro any", "the flag 'ro' stands behind a storage; it belongs behind the target's name"),
            ("target0 ro rw extent0 any", "the flag 'rw' stands behind"),
            ("target0 extent0 10/8, 127/8", "the netmask '10/8,' is not last; write one, or a list with commas"),
            ("target0 extent0 any extent1", "no netmask after 'extent1'", "the netmask 'any' is not last"),
            ("target0 extent0 any alias=x y", "'y' stands where only options can"),
            ("target0 extent0 any color=red", "unknown option 'color='; a target line knows alias="),
            ("target0 extent0 any serial=1", "serial= stands on a target line; it belongs on that of an extent or a"),
            ("target0 target0 any", "'target0' is neither a flag"),
            ("target0= extent0 any", "no iSCSI name after 'target0='; write NAME=IQN, or the name alone"),
            ("target0 = iqn.x extent0 any", "'iqn.x' stands where only options can"),
        ]:
            with self.subTest(line=line):
                found = self.faults(THREE + line)
                for message in messages:
                    self.assertTrue(any(each.startswith(f"F:4: {message}") for each in found), found)

    def test_checkedNames(self) -> None:
        """Each target's name goes through the check; a complaint is a fault of its line."""

        def check(name: str) -> str | None:
            return f"no {name}" if name.endswith("bad") else None

        text = THREE + "targetbad extent0 any\ntarget1=iqn.bad extent1 any\ntarget2 extent2 any"
        error = self.assertRaises(ConfigurationErrors, parse, text, "F", check, "iqn.base")
        self.assertEqual(
            str(error).split("\n"),
            [
                "F:4: iSCSI name 'iqn.base:targetbad': no iqn.base:targetbad",
                "F:5: iSCSI name 'iqn.bad': no iqn.bad",
            ],
        )

    def test_badBase(self) -> None:
        """A bad base is not the fault of any line of the file."""

        def check(name: str) -> str | None:
            return "bad" if name.startswith("bad") else None

        self.assertEqual(len(parse(FAQ_SIMPLE, "F", check, "bad").targets), 1)

    def test_sameNames(self) -> None:
        """Two targets cannot have one iSCSI name, however its letters are written."""
        self.assertFault(
            THREE + "target0 extent0 any\ntarget1=IQN.1994-04.org.netbsd.iscsi-target:TARGET0 extent1 any\n"
            "lun{0} extent2 any",
            "F:5: the iSCSI name 'IQN.1994-04.org.netbsd.iscsi-target:TARGET0' is also that of line 4; it has to be",
        )

    def test_sameIdentities(self) -> None:
        """Two units cannot have one serial number or identifier."""
        self.assertFault(
            "extent0 /a 0 1M serial=A naa=3000000000000001\nextent1 /b 0 1M serial=A naa=3000000000000001\n"
            "extent2 /c 0 1M serial=B\ntarget0 extent0 extent1 extent2 any",
            "F:2: this serial= is also that of line 1; it has to be unique",
            "F:2: this naa= is also that of line 1; it has to be unique",
        )

    def test_manyUnits(self) -> None:
        """A target has no more units than can be addressed."""
        extents = "".join(f"extent{n} /{n} 0 1M\n" for n in range(MAX_LUNS + 1))
        names = " ".join(f"extent{n}" for n in range(MAX_LUNS))
        self.assertEqual(len(read(f"{extents}target0 {names} any").targets[0].storages), MAX_LUNS)
        self.assertFault(
            f"{extents}target0 {names} extent{MAX_LUNS} any",
            f"F:{MAX_LUNS + 2}: {MAX_LUNS + 1} storages; a target has at most {MAX_LUNS} logical units",
        )
