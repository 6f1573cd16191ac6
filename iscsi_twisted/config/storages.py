# -*- test-case-name: tests.config.test_storages -*-
"""The extent and device lines of a targets file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs

from iscsi_twisted.config.extents import SCHEMES, absolute, overlaps, parseLength
from iscsi_twisted.config.filters import KINDS, CryptSettings, OverlaySettings, missing
from iscsi_twisted.config.filters import OPTIONS as FILTER_OPTIONS
from iscsi_twisted.config.lines import Faults, Line, quoted
from iscsi_twisted.config.model import (
    Device,
    Extent,
    Filtered,
    Storage,
    Where,
)
from iscsi_twisted.config.options import (
    MIRROR_OPTIONS,
    NO_OPTIONS,
    NO_UNIT_OPTIONS,
    ExtentOptions,
    Kind,
    MirrorOptions,
    Option,
    UnitOptions,
    given,
    readOptions,
    useless,
)
from iscsi_twisted.config.sizes import MAX_BYTES, parseSize
from iscsi_twisted.errors import ConfigurationError

_T = TypeVar("_T")

NameRemote = Callable[[str], str]
"""Given the URL of another target's unit: what to call it, without a secret; raises L{ConfigurationError}."""

RAID = re.compile(r"raid([01])(?:(:)(.*))?", re.IGNORECASE | re.DOTALL)
UNIT = re.compile(r"[kmgtpe]i?b?|b", re.IGNORECASE)

MIN_CHUNK: Final = 4096
"""Bytes of a page: a request that is cut finer costs more than it moves."""

MAX_DEPTH: Final = 64
"""Devices within devices: each level is a call on every I/O, and calls do not nest without end."""

EXTENT_NAMES: Final = frozenset(attrs.fields_dict(ExtentOptions))
"""The options that are the extent's own, and not those of a unit."""

EXTENT_FORM: Final = "extentN PATH START LENGTH [KEY=VALUE ...]"
DEVICE_FORM: Final = "deviceN RAID0|RAID0:CHUNK|RAID1 MEMBER ... [KEY=VALUE ...]"


def apart(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words before the first option, and the rest."""
    for index, word in enumerate(words):
        if "=" in word:
            return words[:index], words[index:]
    return words, ()


def _raid(text: str) -> tuple[int, int | None]:
    """Level and chunk of a RAID word."""
    found = RAID.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            f"{quoted(text)} is no level; write RAID0 (joined), RAID0:64K (striped) or RAID1 (mirrored),"
            f" or one of {', '.join(KINDS)}"
        )
    level, colon, chunk = found.groups()
    if not colon:
        return int(level), None
    if level == "1":
        raise ConfigurationError(f"{quoted(text)}: a mirror has no chunk; write RAID1")
    size = parseSize(chunk)
    if size < MIN_CHUNK or size & size - 1:
        raise ConfigurationError(f"{quoted(text)}: a chunk is a power of two, {MIN_CHUNK} or more")
    return 0, size


def _deviceFaults(device: Device) -> Iterator[str]:
    """What is wrong with a device whose members are all in order."""
    count = len(device.members)
    if count == 1 and (device.level == 1 or device.chunk is not None):
        what = "mirror" if device.level == 1 else "stripe"
        yield f"{device.raid} with 1 member; a {what} needs two or more (RAID0 joins any number)"
    yield from _storageFaults(device)


def _storageFaults(device: Device | Filtered) -> Iterator[str]:
    """What may be wrong with any device."""
    if device.depth > MAX_DEPTH:
        yield f"{device.name} is {device.depth} devices deep; the most is {MAX_DEPTH}"
    fault = device.sizeFault([member.size for member in device.members])
    if fault is not None:
        yield fault
    if device.size is not None and device.size > MAX_BYTES:
        yield f"{device.name} has {device.size} bytes; the most is {MAX_BYTES}"


class Storages:
    """
    The extents and devices of one targets file while it is read.

    @ivar definitions: the line of the first definition of each name, faulty ones included, so that one
        mistake is not complained of again wherever the name is used.
    @ivar storages: by name, the extents and devices that are in order.
    @ivar users: by name of an extent or device, who uses it and on which line.
    @ivar bases: names of those that overlays use, and only overlays.
    @ivar claims: the line of the first that has something which has to be unique.
    """

    def __init__(self, path: str | None, directory: str | None, nameRemote: NameRemote) -> None:
        self.faults = Faults(path)
        self.path = path
        self.directory = directory
        self.nameRemote = nameRemote
        self.definitions: dict[str, int] = {}
        self.storages: dict[str, Storage] = {}
        self.users: dict[str, tuple[str, int]] = {}
        self.bases: set[str] = set()
        self.claims: dict[tuple[str, object], int] = {}

    def _fault(self, line: Line, message: str) -> None:
        self.faults.add(message, line.number)

    def _attempt(self, line: Line, read: Callable[[str], _T], text: str) -> _T | None:
        """What C{read} makes of a text, or None after a fault."""
        try:
            return read(text)
        except ConfigurationError as error:
            self._fault(line, str(error))
            return None

    def _isFirst(self, line: Line, name: str) -> bool:
        """Whether no line before this one defines the same name; if one does, that is a fault."""
        first = self.definitions[name]
        if first == line.number:
            return True
        self._fault(line, f"{quoted(name)} is already defined on line {first}; give one of them another name")
        return False

    def _claim(self, line: Line, kind: str, value: object, what: str) -> None:
        """Take what only one line can have; it is a fault if an earlier one has it."""
        first = self.claims.setdefault((kind, value), line.number)
        if first != line.number:
            self._fault(line, f"{what} is also that of line {first}; it has to be unique")

    def _overlaps(self, extents: Sequence[Extent]) -> None:
        for later, earlier in overlaps(extents):
            self.faults.add(
                f"{later.name} shares bytes of {quoted(later.given)} with {earlier.name} on line"
                f" {earlier.where.line}; extents of one file must not overlap",
                later.where.line,
            )

    def _ownFiles(self, extents: Sequence[Extent], devices: Sequence[Device | Filtered]) -> None:
        """An overlay writes to a file that is nothing else, and who changes a key changes no other's."""
        users: dict[str, Storage] = {
            os.path.normpath(each.path): each for each in extents if each.url is None
        }
        for device in devices:
            path, what, whose = _ownFile(device)
            if path is None:
                continue
            first = users.setdefault(os.path.normpath(path), device)
            if first is not device:
                self.faults.add(
                    f"the {what} of {device.name} is also that of {first.name} on line {first.where.line};"
                    f" {whose} has a {what} of its own",
                    device.where.line,
                )

    # Extents and devices

    def _store(self, line: Line, storage: Storage | None) -> None:
        """Keep an extent or device, if there was nothing wrong with it."""
        name, equals, _ = line.words[0].partition("=")
        if equals:
            self._fault(line, f"{quoted(line.words[0])} holds '='; only a target line begins NAME=IQN")
        if self._isFirst(line, name) and storage is not None and not equals:
            self.storages[name] = storage

    def _claimed(self, line: Line, values: dict[str, Any]) -> UnitOptions:
        """Options of a unit, some of which no other unit can have."""
        wrong = useless(values)
        if wrong is not None:
            self._fault(line, wrong)
        for key in ("serial", "naa"):
            if key in values:
                self._claim(line, key, values[key], f"this {key}=")
        return UnitOptions(**values) if values else NO_UNIT_OPTIONS

    def _options(
        self,
        line: Line,
        kind: Kind,
        words: Sequence[str],
        more: Mapping[str, Option] = NO_OPTIONS,
        title: str = "",
    ) -> dict[str, Any] | None:
        """The options of a line; None after a fault."""
        values, faults = readOptions(words, kind, more, title and f"a {title}")
        for fault in faults:
            self._fault(line, fault)
        return None if faults else values

    def _extent(self, line: Line) -> Extent | None:
        name, *columns = line.words
        if len(columns) < 3:
            missing = " and ".join(("PATH", "START", "LENGTH")[len(columns) :])
            self._fault(line, f"{missing} missing; an extent line is: {EXTENT_FORM}")
            return None
        written, startText, lengthText, *words = columns
        if words and UNIT.fullmatch(words[0]):
            self._fault(line, f"a blank before {quoted(words[0])}; write number and unit as one word: 100MB")
            return None
        values = self._options(line, "extent", words) if words else {}
        remote = written.startswith(SCHEMES)
        path = self._attempt(line, self.nameRemote if remote else self._absolute, written)
        start = self._attempt(line, parseSize, startText)
        length = self._attempt(line, lambda text: (parseLength(text, start or 0),), lengthText)
        if values and remote and values.get("direct"):
            self._fault(line, "direct= is for files and disks of this machine; remove it here")
            return None
        if values is None or path is None or start is None or length is None:
            return None
        own = ExtentOptions(**{one: values.pop(one) for one in EXTENT_NAMES & values.keys()})
        options = self._claimed(line, values)
        where = Where(self.path, line.number)
        given, url = (path, written) if remote else (written, None)
        return Extent(name, path, start, length[0], options, where, given, url, own)

    def _absolute(self, path: str) -> str:
        return absolute(path, self.directory)

    def _device(self, line: Line) -> Device | Filtered | None:
        name = line.words[0]
        columns, words = apart(line.words[1:])
        if columns and columns[0].upper() in KINDS:
            return self._filtered(line, columns[0].upper(), columns[1:], words)
        isMirror = bool(columns) and columns[0].upper() == "RAID1"
        values = self._options(line, "device", words, *((MIRROR_OPTIONS, "RAID1") if isMirror else ()))
        if len(columns) < 2:
            missing = " and ".join(("level", "members")[len(columns) :])
            self._fault(line, f"{missing} missing; a device line is: {DEVICE_FORM}")
            return None
        raid = self._attempt(line, _raid, columns[0])
        members = self._members(line, columns[1:])
        if values is None or raid is None or members is None:
            return None
        own = MirrorOptions(**{one: values.pop(one) for one in MIRROR_OPTIONS.keys() & values.keys()})
        where = Where(self.path, line.number)
        device = Device(name, *raid, members, self._claimed(line, values), where, own)
        faults = list(_deviceFaults(device))
        for fault in faults:
            self._fault(line, fault)
        return None if faults else device

    def _filtered(self, line: Line, word: str, names: Sequence[str], words: Sequence[str]) -> Filtered | None:
        """A device that is no RAID."""
        kind = KINDS[word]
        own = FILTER_OPTIONS[word]
        values, faults = readOptions(words, "device", own, f"a {word}")
        if len(names) != kind.members:
            faults.append(
                f"{word} stands on {kind.members or 'no'} extent or device, not on {len(names)}; write"
                f" deviceN {word}{' MEMBER' * kind.members} [KEY=VALUE ...]"
            )
        lacking = missing(kind, values)
        if lacking is not None:
            faults.append(f"{lacking} missing; a {word} cannot do without")
        for fault in faults:
            self._fault(line, fault)
        members = self._members(line, names, kind is OverlaySettings)
        settings = {name: values.pop(name) for name in own if name in values}
        for name in ("file", "key"):
            if settings.get(name) is not None:
                settings[name] = self._attempt(line, self._absolute, settings[name])
        options = self._claimed(line, values)
        if faults or members is None:
            return None
        where = Where(self.path, line.number)
        device = Filtered(line.words[0], word, members, kind(**settings), options, where)
        wrong = list(_storageFaults(device))
        for fault in wrong:
            self._fault(line, fault)
        return None if wrong else device

    def _members(self, line: Line, names: Sequence[str], asBase: bool = False) -> tuple[Storage, ...] | None:
        """
        The members of a device; None after a fault.

        @param asBase: they lie below an overlay, and may lie below others.
        """
        members = [member for name in names if (member := self._use(line, name, asBase)) is not None]
        for member in members:
            options = given(member.options)
            if options and self.users[member.name][1] == line.number:
                self.faults.add(
                    f"{', '.join(options)} without effect: {member.name} is part of {line.words[0]} (line"
                    f" {line.number}); options of a unit stand on the line of what a target exports",
                    member.where.line,
                )
        return tuple(members) if len(members) == len(names) else None

    def _use(self, line: Line, name: str, asBase: bool = False) -> Storage | None:
        """An extent or device that this line uses; None after a fault, here or on the line of the storage."""
        storage = self.storages.get(name)
        if storage is None:
            self._unknown(line, name)
            return None
        if name not in self.users:
            self.users[name] = (line.words[0].partition("=")[0], line.number)
            if asBase:
                self.bases.add(name)
            return storage
        user, number = self.users[name]
        if name in self.bases:
            if asBase:
                return storage
            self._fault(
                line,
                f"{name} is the base of {user} on line {number}; other overlays can use it, nothing else",
            )
            return None
        where = "on this line" if number == line.number else f"by {user} on line {number}"
        self._fault(line, f"{name} is already used {where}; an extent or device can be used once")
        return None

    def _unknown(self, line: Line, name: str) -> None:
        """Complain of a name that is no storage, unless its own line has been complained of."""
        first = self.definitions.get(name)
        storage = name.startswith(("extent", "device"))
        if first is None and storage:
            self._fault(line, f"{quoted(name)} is not defined; define it above this line")
        elif first == line.number and storage:
            self._fault(line, f"{quoted(name)} cannot be a part of itself")
        elif first is not None and first > line.number and storage:
            self._fault(line, f"{quoted(name)} is defined on line {first} only; move that above this line")
        elif not storage:
            self._fault(line, f"{quoted(name)} is not an extent or device that is defined above")


def _ownFile(device: Device | Filtered) -> tuple[str | None, str, str]:
    """The file that a device needs for itself, and what messages call it and the device."""
    settings = device.settings if isinstance(device, Filtered) else None
    if isinstance(settings, CryptSettings):
        return settings.key, "key", "a CRYPT"
    return (settings.file if isinstance(settings, OverlaySettings) else None), "file", "an overlay"
