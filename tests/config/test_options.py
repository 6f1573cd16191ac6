# -*- test-case-name: tests.config.test_options -*-
"""The C{key=value} options."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.config.options import (
    NO_UNIT_OPTIONS,
    OPTIONS,
    ExtentOptions,
    Kind,
    TargetOptions,
    UnitOptions,
    given,
    readOptions,
    useless,
)
from iscsi_twisted.config.targets import parse
from iscsi_twisted.errors import ConfigurationErrors

GOOD: list[tuple[Kind, str, object]] = [
    ("extent", "direct=yes", True),
    ("extent", "serial=A-1 b", "A-1 b"),
    ("extent", "lun=0", 0),
    ("device", "lun=16777215", 0xFFFFFF),
    ("device", "serial=" + "x" * 64, "x" * 64),
    ("extent", "naa=3123456789abcDEF", bytes.fromhex("3123456789abcdef")),
    ("extent", "naa=2000000000000000", bytes.fromhex("2000000000000000")),
    ("extent", "naa=5000000000000000", bytes.fromhex("5000000000000000")),
    ("device", "naa=6" + "0" * 31, b"\x60" + bytes(15)),
    ("extent", "vendor=ACME=1", "ACME=1"),
    ("extent", "vendor=12345678", "12345678"),
    ("extent", "product=1234567890123456", "1234567890123456"),
    ("extent", "revision=1.0a", "1.0a"),
    ("extent", "thin=yes", True),
    ("extent", "thin=No", False),
    ("extent", "threshold=5%", 5),
    ("extent", "threshold=99%", 99),
    ("extent", "readonly=YES", True),
    ("device", "writecache=no", False),
    ("extent", "type=disk", "disk"),
    ("device", "type=CDROM", "cdrom"),
    ("extent", "block=4K", 4096),
    ("device", "block=512", 512),
    ("extent", "physical=512", 512),
    ("extent", "physical=4K", 4096),
    ("extent", "physical=1M", 1 << 20),
    ("extent", "removable=yes", True),
    ("device", "removable=no", False),
    ("extent", "rotation=ssd", 1),
    ("extent", "rotation=SSD", 1),
    ("extent", "rotation=1025", 1025),
    ("device", "rotation=65534", 65534),
    ("extent", "samezero=yes", True),
    ("extent", "queue=1", 1),
    ("device", "queue=65536", 65536),
    ("target", "alias=gr\u00f6\u00dfe #1", "gr\u00f6\u00dfe #1"),
    ("target", "alias=" + "x" * 255, "x" * 255),
    ("target", "auth=CHAP", True),
    ("target", "auth=none", False),
    ("target", "users=agc,Joe Doe", frozenset(("agc", "Joe Doe"))),
    ("target", "initiators=iqn.x:A*,eui.0*", ("iqn.x:a*", "eui.0*")),
    ("target", "readers=*", ("*",)),
    ("target", "luns=iqn.x:a:0,1;*:2", (("iqn.x:a", frozenset((0, 1))), ("*", frozenset((2,))))),
    ("target", "portals=1,65535", frozenset((1, 65535))),
    ("target", "alua=1:Optimized,2:non-optimized,3:offline", ((1, 0), (2, 1), (3, 14))),
    ("target", "preferred=1,3", frozenset((1, 3))),
    ("target", "tpgs=Implicit", 1),
]

BAD: list[tuple[Kind, str, str]] = [
    ("extent", "lun=", "lun=: 0 to 16777215 is wanted, not ''"),
    ("extent", "lun=16777216", "lun=: 0 to 16777215 is wanted, not '16777216'"),
    ("extent", "lun=-1", "lun=: 0 to 16777215"),
    ("device", "direct=yes", "direct= stands on a device line; it belongs on that of an extent"),
    ("extent", "direct=1", "direct=: yes or no is wanted, not '1'"),
    ("extent", "serial=", "serial=: 1 to 64 ASCII characters are wanted, no blank at either end, not ''"),
    ("extent", "serial=" + "x" * 65, "serial=: 1 to 64"),
    ("extent", "serial= a", "serial=: 1 to 64"),
    ("extent", "serial=gr\u00f6\u00dfe", "serial=: 1 to 64"),
    ("extent", "serial=a\tb", "serial=: 1 to 64"),
    ("extent", "naa=", "naa=: 16 or 32 hexadecimal digits are wanted, not ''"),
    ("extent", "naa=0x3123456789abcdef", "naa=: 16 or 32"),
    ("extent", "naa=312345678", "naa=: 16 or 32"),
    ("extent", "naa=3123456789abcdeg", "naa=: 16 or 32"),
    (
        "extent",
        "naa=6123456789abcdef",
        "naa=: an NAA of 16 digits begins with 2, 3 or 5, one of 32 with 6, not as",
    ),
    ("extent", "naa=3" + "0" * 31, "naa=: an NAA of 16 digits begins"),
    ("extent", "vendor=123456789", "vendor=: 1 to 8 ASCII"),
    ("extent", "product=12345678901234567", "product=: 1 to 16 ASCII"),
    ("extent", "revision=12345", "revision=: 1 to 4 ASCII"),
    ("extent", "thin=maybe", "thin=: yes or no is wanted, not 'maybe'"),
    *(
        ("extent", f"threshold={text}", f"threshold=: 1% to 99% is wanted, not {text!r}")
        for text in ("", "5", "0%", "100%", "x%")
    ),
    ("extent", "readonly=", "readonly=: yes or no is wanted, not ''"),
    (
        "extent",
        "block=3K",
        "block=: 512, 1024, 2048, 4096, 8192 bytes are possible, not '3K'",
    ),
    ("extent", "type=tape", "type=: disk or cdrom is wanted, not 'tape'"),
    ("extent", "block=", "block=: '' is not a size"),
    ("extent", "physical=256", "physical=: a power of two from 512 to 1M is wanted, not '256'"),
    ("extent", "physical=3K", "physical=: a power of two"),
    ("extent", "physical=2M", "physical=: a power of two"),
    ("extent", "physical=x", "physical=: 'x' is not a size"),
    ("target", "auth=yes", "auth=: chap or none is wanted, not 'yes'"),
    ("target", "users=a,,b", "users=: names with commas between them are wanted, not 'a,,b'"),
    ("target", "users=", "users=: names with commas"),
    ("target", "initiators=a,", "initiators=: names of initiators with commas between them are wanted"),
    ("target", "readers=", "readers=: names of initiators"),
    ("target", "luns=iqn.x", "luns=: INITIATOR:LUN,LUN;INITIATOR:LUN is wanted, not 'iqn.x'"),
    ("target", "luns=iqn.x:0;", "luns=: INITIATOR:LUN"),
    ("target", "portals=0", "portals=: 1 to 65535 is wanted, not '0'"),
    ("target", "portals=1,", "portals=: 1 to 65535 is wanted, not ''"),
    ("target", "alua=0:standby", "alua=: 1 to 65535 is wanted, not '0'"),
    ("target", "alua=1:standby,1:offline", "alua=: portal group 1 stands twice"),
    (
        "target",
        "alua=1:best",
        "alua=: TAG:STATE,TAG:STATE is wanted, where STATE is one of optimized, nonoptimized, standby,"
        " unavailable, offline; not '1:best'",
    ),
    ("target", "tpgs=yes", "tpgs=: one of none, implicit, explicit, both is wanted, not 'yes'"),
    ("target", "alias=", "alias=: 1 to 255 bytes of text are wanted"),
    ("target", "alias=" + "\u00f6" * 128, "alias=: 1 to 255 bytes"),
    (
        "extent",
        "colour=red",
        "unknown option 'colour='; an extent line knows direct=, serial=, naa=, vendor=, product=, revision=,"
        " thin=, threshold=, readonly=, writecache=, type=, block=, physical=, removable=, rotation=,"
        " samezero=, queue=, lun=",
    ),
    ("target", "colour=red", "unknown option 'colour='; a target line knows alias="),
    ("extent", "Serial=1", "unknown option 'Serial='"),
    ("extent", "removable=", "removable=: yes or no is wanted, not ''"),
    (
        "extent",
        "rotation=1024",
        "rotation=: ssd or 1025 to 65534 revolutions per minute are wanted, not '1024'",
    ),
    ("extent", "rotation=65535", "rotation=: ssd or 1025"),
    ("extent", "rotation=fast", "rotation=: ssd or 1025"),
    ("extent", "rotation=", "rotation=: ssd or 1025"),
    ("extent", "queue=0", "queue=: a number of commands from 1 to 65536 is wanted, not '0'"),
    ("extent", "queue=65537", "queue=: a number of commands"),
    ("extent", "queue=1K", "queue=: a number of commands"),
    ("extent", "alias=x", "alias= stands on an extent line; it belongs on that of a target"),
    ("target", "naa=1", "naa= stands on a target line; it belongs on that of an extent or a device"),
    (
        "extent",
        "word",
        "'word' stands where only options can; an option is written key=value, without blanks",
    ),
    ("extent", "=word", "'=word' stands where only options can"),
]


class OptionsTests(SynchronousTestCase):
    """Tests of L{readOptions} and its rows."""

    def test_good(self) -> None:
        """Each option is read into its value."""
        for kind, word, value in GOOD:
            with self.subTest(word=word):
                self.assertEqual(readOptions([word], kind), ({word.partition("=")[0]: value}, []))

    def test_bad(self) -> None:
        """What an option cannot hold, or where it cannot stand, is an error that says what would be right."""
        for kind, word, message in BAD:
            with self.subTest(word=word):
                values, faults = readOptions([word], kind)
                self.assertEqual((values, len(faults)), ({}, 1))
                self.assertEqual(faults[0][: len(message)], message)

    def test_twice(self) -> None:
        """An option stands once on a line."""
        values, faults = readOptions(["thin=yes", "serial=A", "thin=no"], "extent")
        self.assertEqual(values, {"thin": True, "serial": "A"})
        self.assertEqual(faults, ["thin= stands twice on this line; remove one"])

    def test_rows(self) -> None:
        """Every row is an attribute with the same default, and has a sentence for the manual."""
        self.assertEqual(
            {option.name: option.default for option in OPTIONS},
            attrs.asdict(ExtentOptions()) | attrs.asdict(UnitOptions()) | attrs.asdict(TargetOptions()),
        )
        for option in OPTIONS:
            self.assertRegex(option.doc, r"^[A-Z].*\.$")

    def test_everyRow(self) -> None:
        """Every row is among the good examples, on a line where it may stand."""
        shown = {(word.partition("=")[0], kind) for kind, word, _ in GOOD}
        for option in OPTIONS:
            self.assertTrue(shown & {(option.name, place) for place in option.places}, option.name)

    def test_given(self) -> None:
        """The options that differ from the defaults can be named."""
        self.assertEqual(given(NO_UNIT_OPTIONS), [])
        self.assertEqual(given(UnitOptions(thin=False, readonly=False, naa=b"3")), ["naa", "thin"])


class UselessTests(SynchronousTestCase):
    """Options that make no sense beside others."""

    def test_cdrom(self) -> None:
        """What says how a disk looks has no effect on an optical unit, and is told."""
        self.assertIsNone(useless({"type": "disk", "thin": True}))
        self.assertIsNone(useless({"type": "cdrom", "serial": "x", "readonly": True}))
        self.assertEqual(
            useless({"type": "cdrom", "block": 512, "thin": True}),
            "thin=, block= without effect: a cdrom is read-only and removable, and has blocks of 2048 bytes",
        )
        faults = self.assertRaises(
            ConfigurationErrors, parse, "extent0 a 0 size type=cdrom thin=no\ntarget0 extent0 any", "F", str
        )
        self.assertIn("F:1: thin= without effect", str(faults))
