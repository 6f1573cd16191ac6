# -*- test-case-name: tests.config.test_filters -*-
"""Lines of filters and memory in the targets file."""

from __future__ import annotations

import attrs

from iscsi_twisted.config import filters
from iscsi_twisted.config.filters import (
    CryptSettings,
    DelaySettings,
    FaultsSettings,
    MemorySettings,
    OverlaySettings,
    RateSettings,
    ReadOnlySettings,
    SliceSettings,
)
from iscsi_twisted.config.model import Filtered
from iscsi_twisted.config.options import OPTIONS, UnitOptions
from iscsi_twisted.storage.delay import SHAPES
from iscsi_twisted.storage.faults import KINDS, OPERATIONS
from tests.config.reading import THREE, TargetsTestCase, read

MB = 1 << 20


class FilterLineTests(TargetsTestCase):
    """Tests of device lines that are no RAID."""

    def one(self, line: str) -> Filtered:
        """The device of a line that may use three extents."""
        (device,) = read(f"{THREE}device0 {line}\ntarget0 device0 any", "/here").devices
        assert isinstance(device, Filtered)
        return device

    def test_kinds(self) -> None:
        """Each kind has its settings, in either case, and the size of what it makes."""
        for line, settings, size in [
            ("READONLY extent0", ReadOnlySettings(), MB),
            ("slice extent0 start=1K length=512K", SliceSettings(start=1024, length=MB // 2), MB // 2),
            ("SLICE extent0 start=1K", SliceSettings(start=1024), MB - 1024),
            ("DELAY extent0 seconds=0.01", DelaySettings(seconds=0.01), MB),
            (
                "DELAY extent0 seconds=1 shape=Normal spread=0.5 seed=7 active=no",
                DelaySettings(seconds=1.0, shape="normal", spread=0.5, seed=7, active=False),
                MB,
            ),
            ("Rate extent0 iops=0.5 bytes=1MB burst=2", RateSettings(iops=0.5, bytes=MB, burst=2.0), MB),
            ("FAULTS extent0 kind=error", FaultsSettings(kind="error"), MB),
            (
                "FAULTS extent0 kind=error on=read,write probability=0.25 start=4K length=8K nth=2 every=3"
                " times=4",
                FaultsSettings(
                    kind="error", on=("read", "write"), probability=0.25, start=4096, length=8192, nth=2,
                    every=3, times=4,
                ),
                MB,
            ),
            ("FAULTS extent0 kind=hang seconds=5", FaultsSettings(kind="hang", seconds=5.0), MB),
            ("OVERLAY extent2", OverlaySettings(), 2 * MB),
            ("OVERLAY extent2 file=d/x", OverlaySettings(file="/here/d/x"), 2 * MB),
            ("CRYPT extent2 key=k", CryptSettings(key="/here/k"), 2 * MB),
            ("CRYPT extent2 key=/k sector=4K", CryptSettings(key="/k", sector=4096), 2 * MB),
            ("MEMORY size=64MB", MemorySettings(size=64 * MB), 64 * MB),
        ]:  # fmt: skip
            with self.subTest(line=line):
                device = self.one(line)
                self.assertEqual((device.settings, device.size), (settings, size))
                self.assertEqual(device.word, line.split(" ")[0].upper())

    def test_unitOptions(self) -> None:
        """Options of the unit stand beside those of the filter."""
        device = self.one("DELAY extent0 serial=A1 seconds=0.5 thin=no")
        self.assertEqual(device.options, UnitOptions(serial="A1", thin=False))

    def test_unknownSize(self) -> None:
        """A size that only opening tells is unknown, unless the filter says it; it is checked then."""
        text = "extent0 /a 0 size\ndevice0 SLICE extent0 start=1M{}\ntarget0 device0 any"
        self.assertIs(read(text.format("")).devices[0].size, None)
        configuration = read(text.format(" length=1M"))
        self.assertEqual(configuration.devices[0].size, MB)
        self.assertEqual(configuration.sizeFaults(lambda extent: 2 * MB), [])
        (fault,) = configuration.sizeFaults(lambda extent: MB)
        self.assertEqual(str(fault), "F:2: the slice reaches to byte 2097152, but there are 1048576")

    def test_nested(self) -> None:
        """Filters stand on one another and on RAIDs, and RAIDs on filters."""
        devices = read(
            THREE + "device0 DELAY extent0 seconds=1\ndevice1 FAULTS device0 kind=error\n"
            "device2 RAID1 device1 extent1\ndevice3 OVERLAY device2\ntarget0 device3 any"
        ).devices
        self.assertEqual((devices[-1].depth, devices[-1].size), (4, MB))

    def test_golden(self) -> None:
        """One base may lie under several overlays, each with a file of its own."""
        configuration = read(
            THREE + "device0 OVERLAY extent0 file=/o/0\ndevice1 OVERLAY extent0 file=/o/1\n"
            "device2 OVERLAY extent0\ntarget0 device0 any\ntarget1 device1 device2 any"
        )
        self.assertEqual([device.members[0].name for device in configuration.devices], ["extent0"] * 3)

    def test_goldenAlone(self) -> None:
        """What lies under an overlay is used by nothing else, and the other way round."""
        self.assertFault(
            THREE + "device0 OVERLAY extent0\ndevice1 RAID0 extent0\ntarget0 extent0 any\n"
            "device2 RAID0 extent1\ndevice3 OVERLAY extent1\ndevice4 OVERLAY extent0\ntarget1 device0 any",
            "F:5: extent0 is the base of device0 on line 4; other overlays can use it, nothing else",
            "F:6: extent0 is the base of device0 on line 4",
            "F:8: extent1 is already used by device2 on line 7",
        )

    def test_goldenOptions(self) -> None:
        """That options of a base have no effect is told once."""
        self.assertFault(
            "extent0 /a 0 1M serial=X\ndevice0 OVERLAY extent0\ndevice1 OVERLAY extent0\n"
            "target0 device0 device1 any",
            "F:1: serial without effect: extent0 is part of device0 (line 2)",
        )

    def test_files(self) -> None:
        """An overlay has a file of its own."""
        self.assertFault(
            THREE + "device0 OVERLAY extent0 file=/o/../a\ndevice1 OVERLAY extent1 file=/o/1\n"
            "device2 OVERLAY extent2 file=/o//1\ntarget0 device0 device1 device2 any",
            "F:4: the file of device0 is also that of extent0 on line 1; an overlay has a file of its own",
            "F:6: the file of device2 is also that of device1 on line 5",
        )

    def test_keys(self) -> None:
        """An encrypted device has a key of its own, and holds whole sectors."""
        self.assertFault(
            THREE + "device0 CRYPT extent0 key=k\ndevice1 CRYPT extent1 key=./k\n"
            "device2 CRYPT extent2 key=/a\nextent3 /d 0 1537\ndevice3 CRYPT extent3 key=/k3\n"
            "target0 device0 device1 device2 device3 any",
            "F:5: the key of device1 is also that of device0 on line 4; a CRYPT has a key of its own",
            "F:6: the key of device2 is also that of extent0 on line 1",
            "F:8: 1537 bytes are no whole number of sectors of 512",
        )

    def test_bad(self) -> None:
        """What a line cannot hold is an error that says what would be right."""
        for line, message in [
            ("DELAY extent0", "seconds= missing; a DELAY cannot do without"),
            ("DELAY seconds=1", "DELAY stands on 1 extent or device, not on 0; write deviceN DELAY MEMBER"),
            ("DELAY extent0 extent1 seconds=1", "DELAY stands on 1 extent or device, not on 2"),
            ("DELAY extent0 seconds=-1", "seconds=: seconds as a decimal number, such as 0.01, are wanted"),
            ("DELAY extent0 seconds=1e9", "seconds=: seconds as a decimal number"),
            ("DELAY extent0 seconds=9999999", "seconds=: seconds as a decimal number"),
            ("DELAY extent0 seconds=1 seconds=2", "seconds= stands twice on this line"),
            ("DELAY extent0 seconds=1 shape=round", "shape=: one of fixed, uniform, normal, exponential is"),
            ("DELAY extent0 seconds=1 seed=x", "seed=: a whole number is wanted, not 'x'"),
            (
                "DELAY extent0 seconds=1 iops=5",
                "unknown option 'iops='; a DELAY line knows seconds=, shape=",
            ),
            ("DELAY extent0 seconds=1 active=on", "active=: yes or no is wanted, not 'on'"),
            ("CRYPT extent0", "key= missing; a CRYPT cannot do without"),
            ("CRYPT extent0 key=k sector=1K", "sector=: 512 or 4K is wanted, not '1K'"),
            ("RATE extent0 burst=1", "iops= or bytes= missing; a RATE cannot do without"),
            ("RATE extent0 iops=0", "iops=: operations a second, more than 0, are wanted, not '0'"),
            ("RATE extent0 bytes=10", "bytes=: 10 bytes are less than one block (512); write a unit"),
            ("FAULTS extent0", "kind= missing"),
            ("FAULTS extent0 kind=bad", "kind=: one of error, torn, lost, hang, corrupt is wanted"),
            ("FAULTS extent0 kind=error on=eject", "on=: a list such as read,write of read, write, flush,"),
            ("FAULTS extent0 kind=torn on=read", "kind=torn cannot be on read; it can be on write"),
            ("FAULTS extent0 kind=error seconds=1", "seconds= is for kind=hang, not for kind=error"),
            ("FAULTS extent0 kind=error start=1M", "start=1048576 is beyond the end, 1048576 bytes"),
            ("FAULTS extent0 kind=error probability=2", "probability=: a number from 0 to 1 is wanted"),
            ("FAULTS extent0 kind=error nth=0", "nth=: a whole number, 1 or more, is wanted, not '0'"),
            ("SLICE extent0", "start= or length= missing"),
            ("SLICE extent0 start=1M", "the slice reaches to byte 1049088, but there are 1048576"),
            ("SLICE extent0 length=2M", "the slice reaches to byte 2097152, but there are 1048576"),
            ("MEMORY", "size= missing"),
            (
                "MEMORY extent0 size=1M",
                "MEMORY stands on no extent or device, not on 1; write deviceN",
            ),
            ("OVERLAY extent0 file=", "file=: the path of a file is wanted"),
            ("OVERLAY extent9", "'extent9' is not defined"),
            ("READONLY extent0 x", "READONLY stands on 1 extent or device, not on 2"),
            ("MIRROR extent0", "'MIRROR' is no level; write RAID0 (joined), RAID0:64K (striped) or RAID1"),
        ]:
            with self.subTest(line=line):
                faults = self.faults(f"extent3 /d 0 1M\n{THREE}device0 {line}\ntarget0 extent3 any")
                self.assertIn(f"F:5: {message}", faults[0])

    def test_words(self) -> None:
        """The words of the file are those of the devices."""
        self.assertEqual(filters.FAULTS, KINDS)
        self.assertEqual(filters.OPERATIONS, OPERATIONS)
        self.assertEqual(filters.SHAPES, tuple(SHAPES))

    def test_names(self) -> None:
        """No option of a filter has the name of one of a unit."""
        units = {option.name for option in OPTIONS}
        for kind in filters.KINDS.values():
            self.assertEqual(units & {one.name for one in attrs.fields(kind)}, set())
