# -*- test-case-name: tests.config.test_options -*-
"""
The C{key=value} options of the targets file.

Each option is one row of the class for the kind of line it stands on: its name, how its text is read,
what holds when it is absent, and what the manual says of it.  A new option is a new row, nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import attrs

from iscsi_twisted.config.lines import quoted
from iscsi_twisted.config.paths import parseChangers, parseStates
from iscsi_twisted.config.portals import parseTag
from iscsi_twisted.config.sizes import parseSize
from iscsi_twisted.errors import ConfigurationError

Kind = Literal["extent", "device", "target"]

MAX_SERIAL: Final = 64
"""With vendor and product it fits a T10 designator, and the 128 characters that multipath tools keep."""

MAX_LUN: Final = 0xFFFFFF
"""The greatest number of a logical unit: what extended flat space addressing can say (SAM-5 4.7.7.5.2)."""

MAX_ALIAS: Final = 255
"""Bytes of a text value, RFC 7143 6.1."""

DISK, CDROM = "disk", "cdrom"
TYPES: Final = (DISK, CDROM)
BLOCK_SIZES: Final = (512, 1024, 2048, 4096, 8192)
MIN_PHYSICAL: Final = 512
MAX_PHYSICAL: Final = 1 << 20

SOLID: Final = 1
MIN_ROTATION: Final = 1025
MAX_ROTATION: Final = 65534
"""What VPD page B1h can say of the medium rotation rate; SBC-3 6.6.2."""

MAX_QUEUE: Final = 65536
"""Commands of a unit; each may hold 16 MiB."""

NAA_DIGITS: Final = {16: "235", 32: "6"}
"""By length, what the first digit may be: the NAA formats of SPC-5 7.7.6.6."""


# How values are read

PRINTABLE = re.compile(r"[\x20-\x7e]+")


def _printable(most: int) -> Callable[[str], str]:
    """A reader of ASCII text of 1 to C{most} characters, blanks inside allowed (SPC-5 4.3.1)."""

    def parse(text: str) -> str:
        if not 1 <= len(text) <= most or not PRINTABLE.fullmatch(text) or text != text.strip(" "):
            raise ConfigurationError(
                f"1 to {most} ASCII characters are wanted, no blank at either end, not {quoted(text)}"
            )
        return text

    return parse


def _naa(text: str) -> bytes:
    if not re.fullmatch(r"[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32}", text):
        raise ConfigurationError(f"16 or 32 hexadecimal digits are wanted, not {quoted(text)}")
    if text[0] not in NAA_DIGITS[len(text)]:
        raise ConfigurationError(
            f"an NAA of 16 digits begins with 2, 3 or 5, one of 32 with 6, not as {quoted(text)}"
        )
    return bytes.fromhex(text)


def parseYes(text: str) -> bool:
    """Read yes or no."""
    if text.lower() not in ("yes", "no"):
        raise ConfigurationError(f"yes or no is wanted, not {quoted(text)}")
    return text.lower() == "yes"


def _type(text: str) -> str:
    if text.lower() not in TYPES:
        raise ConfigurationError(f"{' or '.join(TYPES)} is wanted, not {quoted(text)}")
    return text.lower()


def _block(text: str) -> int:
    size = parseSize(text)
    if size not in BLOCK_SIZES:
        raise ConfigurationError(f"{', '.join(map(str, BLOCK_SIZES))} bytes are possible, not {quoted(text)}")
    return size


def _physical(text: str) -> int:
    size = parseSize(text)
    if size & size - 1 or not MIN_PHYSICAL <= size <= MAX_PHYSICAL:
        raise ConfigurationError(f"a power of two from {MIN_PHYSICAL} to 1M is wanted, not {quoted(text)}")
    return size


def _rotation(text: str) -> int:
    if text.lower() == "ssd":
        return SOLID
    if not re.fullmatch(r"[0-9]{1,5}", text) or not MIN_ROTATION <= int(text) <= MAX_ROTATION:
        raise ConfigurationError(
            f"ssd or {MIN_ROTATION} to {MAX_ROTATION} revolutions per minute are wanted, not {quoted(text)}"
        )
    return int(text)


def _queue(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= MAX_QUEUE:
        raise ConfigurationError(f"a number of commands from 1 to {MAX_QUEUE} is wanted, not {quoted(text)}")
    return int(text)


def _percent(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]?%", text):
        raise ConfigurationError(f"1% to 99% is wanted, not {quoted(text)}")
    return int(text[:-1])


def _patience(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", text):
        raise ConfigurationError(f"seconds such as 25 or 2.5 are wanted, not {quoted(text)}")
    return float(text)


def _days(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not float(text):
        raise ConfigurationError(f"days such as 7 or 0.5 are wanted, not {quoted(text)}")
    return float(text)


def _auth(text: str) -> bool:
    if text.lower() not in ("chap", "none"):
        raise ConfigurationError(f"chap or none is wanted, not {quoted(text)}")
    return text.lower() == "chap"


def _users(text: str) -> frozenset[str]:
    names = text.split(",")
    if not all(names):
        raise ConfigurationError(f"names with commas between them are wanted, not {quoted(text)}")
    return frozenset(names)


def _folded(text: str) -> str:
    """Names of initiators in the form in which they are compared (RFC 3722)."""
    return unicodedata.normalize("NFKC", text).lower()


def _initiators(text: str) -> tuple[str, ...]:
    patterns = tuple(_folded(text).split(","))
    if not all(re.fullmatch(r"[^\s,]{1,223}", each) for each in patterns):
        raise ConfigurationError(
            "names of initiators with commas between them are wanted, * for any characters,"
            f" not {quoted(text)}"
        )
    return patterns


def _luns(text: str) -> tuple[tuple[str, frozenset[int]], ...]:
    found = []
    for item in _folded(text).split(";"):
        match = re.fullmatch(r"([^\s,;]{1,223}):([0-9]{1,8}(?:,[0-9]{1,8})*)", item)
        if match is None:
            raise ConfigurationError(f"INITIATOR:LUN,LUN;INITIATOR:LUN is wanted, not {quoted(text)}")
        found.append((match[1], frozenset(map(int, match[2].split(",")))))
    return tuple(found)


def _portals(text: str) -> frozenset[int]:
    return frozenset(map(parseTag, text.split(",")))


def _alias(text: str) -> str:
    if not 1 <= len(text.encode("utf-8", "surrogatepass")) <= MAX_ALIAS:
        raise ConfigurationError(f"1 to {MAX_ALIAS} bytes of text are wanted")
    return text


def _lun(text: str) -> int:
    if not re.fullmatch("[0-9]{1,8}", text) or int(text) > MAX_LUN:
        raise ConfigurationError(f"0 to {MAX_LUN} is wanted, not {quoted(text)}")
    return int(text)


# The rows


def row(parse: Callable[[str], object], doc: str, default: object = None) -> Any:
    """One option, as a field of a class."""
    return attrs.field(default=default, metadata={"parse": parse, "doc": doc})


@attrs.frozen(kw_only=True)
class ExtentOptions:
    """Options of an extent, whether it is a unit or a part of a device."""

    direct: bool = row(
        parseYes,
        "Whether a file or disk is read and written past the page cache (O_DIRECT).",
        False,
    )


@attrs.frozen(kw_only=True)
class MirrorOptions:
    """Options of a mirror, whether it is a unit or a part of a device."""

    patience: float | None = row(
        _patience,
        "Seconds that a member may keep the others waiting before it counts as failed; 0 for as long as it"
        " likes.  Absent: 25.",
    )
    scrub: float | None = row(
        _days,
        "Days after which the members are compared, while they serve, again and again.  Absent: only if a"
        " program asks for it.",
    )


@attrs.frozen(kw_only=True)
class UnitOptions:
    """Options of a logical unit, on the line of the extent or device that it exports."""

    serial: str | None = row(
        _printable(MAX_SERIAL),
        "Unit serial number, in place of the one derived from the installation.",
    )
    naa: bytes | None = row(
        _naa,
        "World wide identifier (NAA), 16 or 32 hexadecimal digits, in place of the derived one.",
    )
    vendor: str | None = row(_printable(8), "Vendor identification of INQUIRY, up to 8 characters.")
    product: str | None = row(_printable(16), "Product identification of INQUIRY, up to 16 characters.")
    revision: str | None = row(_printable(4), "Product revision of INQUIRY, up to 4 characters.")
    thin: bool | None = row(
        parseYes,
        "Whether initiators are told that space can be given back (UNMAP).  Absent: as the storage can.",
    )
    threshold: int | None = row(
        _percent,
        "Initiators of a thin unit are told when no more than this much of its space is left, 1% to 99%."
        "  Absent: only if they ask for it.",
    )
    readonly: bool = row(parseYes, "Whether the unit is write-protected for everybody.", False)
    writecache: bool = row(
        parseYes,
        "Whether a write may be answered before it is durable.  With no, every write is made durable first.",
        True,
    )
    type: str = row(
        _type,
        "What kind of unit it is: disk, or cdrom for a read-only drive with an ISO image in it.",
        "disk",
    )
    block: int | None = row(
        _block,
        "Bytes of a logical block: 512, 1024, 2048, 4096 or 8192.  Absent: those of --block-size.",
    )
    physical: int | None = row(
        _physical,
        "Physical block size that is reported, a power of two from 512 to 1M.  Absent: the storage's own.",
    )
    removable: bool = row(parseYes, "Whether initiators can eject the medium and load it again.", False)
    rotation: int | None = row(
        _rotation,
        "Revolutions per minute that are reported, 1025 to 65534, or ssd.  Absent: as the storage is.",
    )
    samezero: bool = row(
        parseYes, "Whether WRITE SAME of no blocks means all blocks up to the last (WSNZ is zero).", False
    )
    queue: int | None = row(
        _queue,
        "Commands that the unit has at a time, 1 to 65536; more are sent back with TASK SET FULL or BUSY."
        "  Absent: 128.",
    )
    lun: int | None = row(
        _lun, "Logical unit number, 0 to 16777215.  Absent: its place on the target's line, from 0 on."
    )


@attrs.frozen(kw_only=True)
class TargetOptions:
    """Options of a target, on its own line."""

    alias: str | None = row(_alias, "TargetAlias that initiators are shown at login, up to 255 bytes.")
    auth: bool | None = row(
        _auth,
        "Whether initiators have to prove who they are: chap or none.  Absent: chap if the auths file has"
        " users, else none.",
    )
    users: frozenset[str] | None = row(
        _users, "Users of the auths file that may log in, with commas between them.  Absent: all of them."
    )
    initiators: tuple[str, ...] | None = row(
        _initiators,
        "Names of the initiators that may log in, with commas between them; * stands for any characters."
        "  Absent: all.",
    )
    readers: tuple[str, ...] | None = row(
        _initiators, "Names of initiators that may read and not write, written as those of initiators=."
    )
    luns: tuple[tuple[str, frozenset[int]], ...] | None = row(
        _luns,
        "INITIATOR:LUN,LUN;INITIATOR:LUN: which LUNs an initiator sees; one that is not named sees none."
        "  Absent: all see all.",
    )
    portals: frozenset[int] | None = row(
        _portals,
        "Tags of the portal groups through which it is reached, with commas between them.  Absent: all.",
    )
    alua: tuple[tuple[int, int], ...] | None = row(
        parseStates,
        "TAG:STATE,TAG:STATE: how well it is reached through each portal group: optimized, nonoptimized,"
        " standby, unavailable or offline.  Absent: all optimized.",
    )
    preferred: frozenset[int] | None = row(
        _portals, "Tags of the portal groups that are marked as preferred, with commas between them."
    )
    tpgs: int | None = row(
        parseChangers,
        "Who may change access states: none (initiators are told of none), implicit (the target alone),"
        " explicit (initiators) or both.  Absent: both where there are several portal groups, or alua= or"
        " preferred=.",
    )


class Option(NamedTuple):
    """
    One row, for those who print the vocabulary.

    @ivar places: the kinds of line it may stand on.
    """

    name: str
    places: tuple[Kind, ...]
    parse: Callable[[str], object]
    default: object
    doc: str


def rows(options: type[attrs.AttrsInstance], places: tuple[Kind, ...]) -> list[Option]:
    """The options of a class."""
    return [
        Option(one.name, places, one.metadata["parse"], one.default, one.metadata["doc"])
        for one in attrs.fields(options)
    ]


OPTIONS: Final = (
    *rows(ExtentOptions, ("extent",)),
    *rows(UnitOptions, ("extent", "device")),
    *rows(TargetOptions, ("target",)),
)
MIRROR_OPTIONS: Final = {option.name: option for option in rows(MirrorOptions, ("device",))}
"""By name, those that only the line of a mirror knows."""

NO_EXTENT_OPTIONS: Final = ExtentOptions()
NO_MIRROR_OPTIONS: Final = MirrorOptions()
NO_UNIT_OPTIONS: Final = UnitOptions()
NO_TARGET_OPTIONS: Final = TargetOptions()

_BY_NAME: Final = {option.name: option for option in OPTIONS}
NO_OPTIONS: Final[Mapping[str, Option]] = {}


def readOptions(
    words: Iterable[str], kind: Kind, more: Mapping[str, Option] = NO_OPTIONS, title: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """
    Read the options of one line.

    @param more: by name, options that only lines like this one know.
    @param title: what messages call such a line; by default its kind.
    @return: the values by name, for L{ExtentOptions} and L{UnitOptions}, or for L{TargetOptions}; and what
        is wrong.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for word in words:
        name, equals, text = word.partition("=")
        fault = None if name in more and equals else _misplaced(word, name, equals, kind, more, title)
        if fault is None and name in values:
            fault = f"{name}= stands twice on this line; remove one"
        if fault is None:
            try:
                values[name] = (more.get(name) or _BY_NAME[name]).parse(text)
            except ConfigurationError as error:
                fault = f"{name}=: {error}"
        if fault is not None:
            faults.append(fault)
    return values, faults


def _misplaced(
    word: str, name: str, equals: str, kind: Kind, more: Mapping[str, Option], title: str
) -> str | None:
    """Why a word cannot be an option of this kind of line, if it cannot."""
    if not equals or not name:
        return f"{quoted(word)} stands where only options can; an option is written key=value, without blanks"
    option = _BY_NAME.get(name)
    if option is None:
        known = ", ".join([*(f"{one}=" for one in more), _known(kind)])
        return f"unknown option {quoted(name + '=')}; {title or _article(kind)} line knows {known}"
    if kind not in option.places:
        right = " or ".join(map(_article, option.places))
        return f"{name}= stands on {_article(kind)} line; it belongs on that of {right}"
    return None


def _article(kind: Kind) -> str:
    return "an extent" if kind == "extent" else f"a {kind}"


def _known(kind: Kind) -> str:
    return ", ".join(option.name + "=" for option in OPTIONS if kind in option.places)


OF_DISKS: Final = (
    "thin", "threshold", "writecache", "block", "physical", "removable", "rotation", "samezero"
)  # fmt: skip
"""Options that a C{cdrom} has no use for."""


def useless(values: Mapping[str, Any]) -> str | None:
    """What is wrong with options of a unit beside one another, if anything is."""
    names = [name for name in OF_DISKS if name in values] if values.get("type") == CDROM else []
    if not names:
        return None
    return (
        f"{', '.join(f'{name}=' for name in names)} without effect: a cdrom is read-only and removable, and"
        " has blocks of 2048 bytes"
    )


def given(options: UnitOptions) -> list[str]:
    """The names of the options whose values are not the default ones."""
    return [
        option.name
        for option in OPTIONS
        if "device" in option.places and getattr(options, option.name) != option.default
    ]
