# -*- test-case-name: tests.config.test_targets -*-
"""The targets file."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from iscsi_twisted.config.model import Configuration, Device, Extent, Target, Where
from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.config.options import TargetOptions
from iscsi_twisted.config.steps import whole
from iscsi_twisted.config.targets import MAX_LUNS, load, parse
from iscsi_twisted.errors import ConfigurationErrors
from tests.config.reading import THREE, TargetsTestCase, noComplaint, read

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

LIKELY = (
    "extent0 extent1 extent device0 device1 target0 target0=iqn.x lun1 RAID0 RAID1 RAID0:64K raid1: ro RW 0"
    " 1M size 100MB /a a any none 10.4 10.4/16, ::1 serial=1 naa=6 thin=yes alias=\\{x} = # \\ \\\\ \0 \udcff"
)
"""Words that a targets file may hold, right or wrong."""


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
            [
                [member.name for member in device.members]
                for device in top.members
                if isinstance(device, Device)
            ],
            [["extent0", "extent1"], ["extent2", "extent3"], ["extent4", "extent5"]],
        )
        self.assertEqual([storage.size for storage in plain.storages], [100 << 30])
        self.assertEqual(
            [str(target.netmask) for target in configuration.targets], ["10.4.0.0/16", "127.0.0.0/8"]
        )
        self.assertEqual([target.readOnly for target in configuration.targets], [False, False])


class LineTests(TargetsTestCase):
    """What holds for every kind of line."""

    def test_unknownWord(self) -> None:
        """A line that begins with nothing known is an error, upper case included."""
        for word in ("extnt0", "Extent0", "TARGET0", "include", "0extent"):
            with self.subTest(word=word):
                self.assertFault(
                    f"{FAQ_SIMPLE}{word} extent0 any",
                    f"F:6: '{word}' begins no definition; a line begins with extent,",
                )

    def test_discovery(self) -> None:
        """One line may say who asks for targets: by netmask, and by options that say who comes."""
        self.assertIsNone(read(FAQ_SIMPLE).discovery)
        found = read(FAQ_SIMPLE + "discovery 10.0.0.0/8 auth=chap users=a,b initiators=iqn.x:*\n").discovery
        assert found is not None
        self.assertEqual((str(found.netmask), found.where), ("10.0.0.0/8", Where("F", 6)))
        options = found.options
        self.assertEqual(
            (options.auth, options.users, options.initiators), (True, frozenset(("a", "b")), ("iqn.x:*",))
        )
        form = "a discovery line is: discovery NETMASK [auth=chap|none] [users=USER,...] [initiators="
        for line, fault in (
            ("discovery", f"one netmask is wanted; {form}"),
            ("discovery extent0 any", f"one netmask is wanted; {form}"),
            ("discovery any luns=*:0", f"luns= says nothing of discovery; {form}"),
            ("discovery any serial=1", "serial= stands on a target line"),
            ("discovery 10.x", "'10.x' is"),
            ("discovery any auth=none users=a", "users= with auth=none"),
            ("discoveries any", "'discoveries' begins no definition"),
        ):
            self.assertFault(f"{FAQ_SIMPLE}{line}\n", f"F:6: {fault}")
        self.assertFault(
            FAQ_SIMPLE + "discovery any\ndiscovery any\n", "F:7: 'discovery' is already defined on line 6"
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
        (extent,), (device,), (target,) = configuration.extents, configuration.devices, configuration.targets
        self.assertEqual([extent.where, device.where, target.where], [Where("F", n) for n in (2, 4, 6)])
        self.assertEqual(str(device.where.error("broken")), "F:4: broken")

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
        error = self.assertRaises(ConfigurationErrors, whole, load("/nonexistent/targets", noComplaint))
        self.assertEqual(str(error), "/nonexistent/targets: cannot be read: No such file or directory")

    def test_load(self) -> None:
        """A file is read from disk, and messages call it as the caller did."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(FAQ_SIMPLE)
        self.assertEqual(whole(load(path, noComplaint)), read(FAQ_SIMPLE))
        with open(path, "w") as file:
            file.write("banana")
        error = self.assertRaises(ConfigurationErrors, whole, load(path, noComplaint))
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
                st.sampled_from(LIKELY.split(" ")),
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
        self.assertEqual(
            self.one("target0 extent0 any").targetName(), "iqn.1994-04.org.netbsd.iscsi-target:target0"
        )

    def test_options(self) -> None:
        """Options of the target stand at the end."""
        self.assertEqual(
            self.one("target0 extent0 any alias=My\\ disk").options, TargetOptions(alias="My disk")
        )

    def test_luns(self) -> None:
        """Units are numbered by their places, or as lun= says, which luns= goes by too."""
        target = read(
            "extent0 a 0 1M\nextent1 b 0 1M lun=300\nextent2 c 0 1M\n"
            "target0 extent0 extent1 extent2 any luns=*:2,300"
        ).targets[0]
        self.assertEqual([(lun, one.name) for lun, one in target.luns.items()], [
            (0, "extent0"), (300, "extent1"), (2, "extent2"),
        ])  # fmt: skip
        start = "extent0 a 0 1M\nextent1 b 0 1M lun=0\ntarget0 "
        both = "'extent0' and 'extent1' both are LUN 0; lun= on the line of one of them"
        self.assertFault(start + "extent0 extent1 any", f"F:3: {both}")
        self.assertFault(start + "extent1 any luns=*:1", "F:3: luns=: there is no LUN 1; there is 0")

    def test_sharedMasks(self) -> None:
        """Equal masks of one file are one object."""
        configuration = read(THREE + "target0 extent0 10/8\ntarget1 extent1 10/8")
        self.assertIs(configuration.targets[0].netmask, configuration.targets[1].netmask)

    def test_bad(self) -> None:
        """What is not understood is an error that names the readings."""
        for line, *messages in [
            (
                "target0",
                "storage and netmask missing; a target line is: targetN[=IQN] [ro|rw] STORAGE ... NETMASK",
            ),
            ("target0 ro", "storage and netmask missing"),
            ("target0 extent0 any auth=none users=a", "users= with auth=none"),
            ("target0 extent0 any luns=*:0,3", "luns=: there is no LUN 3; there is 0"),
            ("target0 alias=x", "storage and netmask missing"),
            ("target0 extent0", "no netmask after 'extent0'; end with one, such as any or 10.4.0.0/16"),
            ("target0 rw extent0", "no netmask after 'extent0'"),
            ("target0 any", "no storage before 'any'"),
            ("target0 rw any", "no storage before 'any'"),
            (
                "target0 extent9",
                "no netmask after 'extent9'",
                "'extent9' is not defined; define it above this line",
            ),
            ("target0 extent9 any", "'extent9' is not defined"),
            ("target0 extent0 extent1 10.4", "'10.4' is only part of an address"),
            ("target0 extent0 rx", "'rx' is not a netmask"),
            ("target0 extent0 10.0.0.0/abc", "'abc' in '10.0.0.0/abc' is no number of bits; write 0 to 32"),
            (
                "target0 banana extent0 any",
                "'banana' is neither a flag (ro, r, readonly, rw) nor a storage (an extent or device defined"
                " above) nor a netmask; correct or remove it",
            ),
            (
                "target0 extent0 ro any",
                "the flag 'ro' stands behind a storage; it belongs behind the target's name",
            ),
            ("target0 ro rw extent0 any", "the flag 'rw' stands behind"),
            (
                "target0 extent0 10/8, 127/8",
                "the netmask '10/8,' is not last; write one, or a list with commas",
            ),
            ("target0 extent0 any extent1", "no netmask after 'extent1'", "the netmask 'any' is not last"),
            ("target0 extent0 any alias=x y", "'y' stands where only options can"),
            ("target0 extent0 any color=red", "unknown option 'color='; a target line knows alias="),
            (
                "target0 extent0 any serial=1",
                "serial= stands on a target line; it belongs on that of an extent or a",
            ),
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
            "F:5: the iSCSI name 'IQN.1994-04.org.netbsd.iscsi-target:TARGET0' is also that of line 4;",
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
