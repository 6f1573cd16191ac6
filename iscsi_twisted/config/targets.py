# -*- test-case-name: tests.config.test_targets -*-
"""The targets file: what it offers to whom; its extents and devices have a module of their own."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Final

from iscsi_twisted.config.extents import noRemotes
from iscsi_twisted.config.lines import Line, quoted, readText, statements
from iscsi_twisted.config.luns import lunFaults
from iscsi_twisted.config.model import (
    DEFAULT_BASE,
    Configuration,
    Discovery,
    Extent,
    Storage,
    Target,
    Where,
)
from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.config.options import (
    NO_TARGET_OPTIONS,
    TargetOptions,
)
from iscsi_twisted.config.steps import Steps, whole
from iscsi_twisted.config.storages import NameRemote, Storages, apart
from iscsi_twisted.errors import ConfigurationError

CheckName = Callable[[str], str | None]
"""Given an iSCSI name: what is wrong with it, or None."""

FLAGS: Final = {"ro": True, "r": True, "readonly": True, "rw": False}
"""The second word of a target line, in any case, and whether it makes the target read-only."""

MAX_LUNS: Final = 16384
"""What flat space addressing can tell apart (SAM-5 4.7.7.3)."""

DISCOVERY_FORM: Final = "discovery NETMASK [auth=chap|none] [users=USER,...] [initiators=NAME,...]"
DISCOVERY_NAMES: Final = frozenset(("auth", "users", "initiators"))
TARGET_FORM: Final = "targetN[=IQN] [ro|rw] STORAGE ... NETMASK [KEY=VALUE ...]"


def load(
    path: str,
    checkName: CheckName,
    base: str = DEFAULT_BASE,
    directory: str | None = None,
    nameRemote: NameRemote = noRemotes,
) -> Steps[Configuration]:
    """
    Read a targets file, step by step.

    @param checkName: called with the iSCSI name of each target.
    @param base: what the names of targets begin with that have no IQN of their own.
    @param directory: what relative paths of extents are relative to; by default the current directory.
    @param nameRemote: called with the URL of each extent that is a unit of another target.
    @raise ConfigurationErrors: all that is wrong, one line each that begins with the file's name as given.
    """
    reading = _Reading(path, checkName, base, directory, nameRemote)
    return (yield from reading.read(readText(path)))


def parse(
    text: str,
    path: str | None,
    checkName: CheckName,
    base: str = DEFAULT_BASE,
    directory: str | None = None,
    nameRemote: NameRemote = noRemotes,
) -> Configuration:
    """
    Read the text of a targets file, all at once; otherwise as L{load}.

    @param path: what messages call it.
    """
    return whole(_Reading(path, checkName, base, directory, nameRemote).read(text))


class _Reading(Storages):
    """
    One targets file while it is read.

    @ivar targets: those that are in order.
    """

    def __init__(
        self,
        path: str | None,
        checkName: CheckName,
        base: str,
        directory: str | None,
        nameRemote: NameRemote,
    ) -> None:
        super().__init__(path, directory, nameRemote)
        self.base = base
        self.checkName = checkName
        # A bad base is one fault of the one who gave it, not one of each target.
        self.baseFits = checkName(base) is None
        self.targets: list[Target] = []
        self.netmasks: dict[str, Netmask] = {}
        self.discovery: Discovery | None = None

    def read(self, text: str) -> Steps[Configuration]:
        """
        Read all of it, line by line.

        @raise ConfigurationErrors: if anything is wrong.
        """
        lines = []
        for line in statements(text, self.faults):
            lines.append(line)
            self.definitions.setdefault(line.words[0].partition("=")[0], line.number)
            yield
        for line in lines:
            if not line.broken:
                self._define(line)
                yield
        extents = tuple(each for each in self.storages.values() if isinstance(each, Extent))
        devices = tuple(each for each in self.storages.values() if not isinstance(each, Extent))
        self._overlaps(extents)
        self._ownFiles(extents, devices)
        if not self.targets and not self.faults.errors:
            self.faults.add(f"no target is defined; a target line is: {TARGET_FORM}")
        self.faults.settle()
        return Configuration(extents, devices, tuple(self.targets), self.path, self.discovery)

    def _define(self, line: Line) -> None:
        """Hand a line to the one who knows its kind of definition."""
        word = line.words[0]
        # Of a line that somebody meant for the auths file the secret is not told.
        shown = quoted(word.partition(":")[0])
        if word.startswith("extent"):
            self._store(line, self._extent(line))
        elif word.startswith("device"):
            self._store(line, self._device(line))
        elif word.startswith(("target", "lun")):
            self._target(line)
        elif word == "discovery":
            self._discovery(line)
        else:
            self._fault(
                line,
                f"{shown} begins no definition; a line begins with extent, device, target or lun"
                " (in lower case) and a number, or with # for a comment",
            )

    # Targets

    def _target(self, line: Line) -> None:
        name, equals, iqn = line.words[0].partition("=")
        columns, words = apart(line.words[1:])
        values = self._options(line, "target", words) if words else {}
        self._checkUsers(line, values or {})
        named = self._isFirst(line, name) and self._nameFits(line, name, iqn if equals else None)
        flag = FLAGS.get(columns[0].lower()) if columns else None
        if flag is not None:
            columns = columns[1:]
        storages, netmask = self._offer(line, columns)
        if not named or values is None or storages is None or netmask is None:
            return
        options = TargetOptions(**values) if values else NO_TARGET_OPTIONS
        where = Where(self.path, line.number)
        target = Target(name, iqn or None, flag is True, storages, netmask, options, where)
        for fault in lunFaults(target):
            self._fault(line, fault)
        self.targets.append(target)

    def _discovery(self, line: Line) -> None:
        """Who may ask which targets there are."""
        columns, words = apart(line.words[1:])
        values = self._options(line, "target", words) if words else {}
        if not self._isFirst(line, "discovery") or values is None:
            return
        surplus = sorted(set(values).difference(DISCOVERY_NAMES))
        if surplus or len(columns) != 1:
            what = f"{surplus[0]}= says nothing of discovery" if surplus else "one netmask is wanted"
            self._fault(line, f"{what}; a discovery line is: {DISCOVERY_FORM}")
            return
        self._checkUsers(line, values)
        netmask = self._attempt(line, self._netmask, columns[0])
        if netmask is not None:
            self.discovery = Discovery(netmask, TargetOptions(**values), Where(self.path, line.number))

    def _checkUsers(self, line: Line, values: dict[str, Any]) -> None:
        if values.get("auth") is False and "users" in values:
            self._fault(line, "users= with auth=none, which asks nobody who they are; remove one of the two")

    def _nameFits(self, line: Line, name: str, iqn: str | None) -> bool:
        """Check the iSCSI name of a target."""
        if iqn == "":
            self._fault(line, f"no iSCSI name after {quoted(name + '=')}; write NAME=IQN, or the name alone")
            return False
        full = f"{self.base}:{name}" if iqn is None else iqn
        complaint = self.checkName(full) if self.baseFits or iqn is not None else None
        if complaint is not None:
            self._fault(line, f"iSCSI name {quoted(full)}: {complaint}")
            return False
        folded = unicodedata.normalize("NFKC", full).lower()  # how such names are compared, RFC 3722
        self._claim(line, "name", folded, f"the iSCSI name {quoted(full)}")
        return True

    def _offer(self, line: Line, columns: Sequence[str]) -> tuple[tuple[Storage, ...] | None, Netmask | None]:
        """What stands between flag and options: storages, and the netmask at the end.  None is for faults."""
        if not columns:
            self._fault(line, f"storage and netmask missing; a target line is: {TARGET_FORM}")
            return None, None
        *names, last = columns
        netmask = None
        if last.startswith(("extent", "device")):
            names.append(last)
            self._fault(line, f"no netmask after {quoted(last)}; end with one, such as any or 10.4.0.0/16")
        else:
            netmask = self._attempt(line, self._netmask, last)
            if not names and netmask is not None:
                self._fault(line, f"no storage before {quoted(last)}; a target line is: {TARGET_FORM}")
        if len(names) > MAX_LUNS:
            self._fault(line, f"{len(names)} storages; a target has at most {MAX_LUNS} logical units")
        return self._units(line, names), netmask

    def _units(self, line: Line, names: Sequence[str]) -> tuple[Storage, ...] | None:
        """The storages of a target; None after a fault."""
        units: list[Storage] = []
        for name in names:
            if name.startswith(("extent", "device")):
                storage = self._use(line, name)
                if storage is not None:
                    units.append(storage)
            else:
                self._fault(line, self._misread(name))
        return tuple(units) if units and len(units) == len(names) <= MAX_LUNS else None

    def _netmask(self, text: str) -> Netmask:
        """A netmask; files repeat the same few."""
        netmask = self.netmasks.get(text)
        if netmask is None:
            netmask = self.netmasks[text] = Netmask(text)
        return netmask

    def _misread(self, word: str) -> str:
        """What is to be said of a word that stands where a storage belongs."""
        if word.lower() in FLAGS:
            return f"the flag {quoted(word)} stands behind a storage; it belongs behind the target's name"
        try:
            Netmask(word.strip(","))
        except ConfigurationError:
            return (
                f"{quoted(word)} is neither a flag (ro, r, readonly, rw) nor a storage (an extent or device"
                " defined above) nor a netmask; correct or remove it"
            )
        return f"the netmask {quoted(word)} is not last; write one, or a list with commas and no blanks"
