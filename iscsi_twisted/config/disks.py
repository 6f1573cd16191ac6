# -*- test-case-name: tests.config.test_disks -*-
"""Configurations without a file: disks named on the command line, and the one that a newcomer gets."""

from __future__ import annotations

from collections.abc import Sequence

from iscsi_twisted.config.extents import absolute, overlaps, parseLength
from iscsi_twisted.config.lines import Faults, quoted
from iscsi_twisted.config.model import Configuration, Extent, Target
from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.errors import ConfigurationError


def fromDisks(disks: Sequence[str], directory: str | None = None) -> Configuration:
    """
    C{target0}, C{target1} and so on, of one extent each, for everybody.

    @param disks: C{PATH:SIZE} each; the size may be C{size}.
    @param directory: what relative paths are relative to; by default the current directory.
    @raise ConfigurationErrors: all that is wrong, one line each.
    """
    faults = Faults(None)
    extents: list[Extent] = []
    for number, disk in enumerate(disks):
        try:
            extents.append(_extent(number, disk, directory))
        except ConfigurationError as error:
            faults.add(f"--disk {quoted(disk)}: {error}")
    for later, earlier in overlaps(extents):
        faults.add(f"--disk: {quoted(later.given)} is the same file as {quoted(earlier.given)}; give it once")
    if not disks:
        faults.add("--disk: no disk is given; write PATH:SIZE, such as disk0:100MB")
    faults.settle()
    targets = (
        Target(f"target{n}", None, False, (extent,), Netmask("any")) for n, extent in enumerate(extents)
    )
    return Configuration(tuple(extents), (), tuple(targets))


def newcomer(directory: str | None = None) -> Configuration:
    """The manual's simple example: C{target0} is a file of 100 MB here, for everybody who can connect."""
    return fromDisks(["iscsi-target0:100MB"], directory)


def _extent(number: int, disk: str, directory: str | None) -> Extent:
    path, _, size = disk.rpartition(":")
    if not path or not size:
        raise ConfigurationError("write PATH:SIZE, such as disk0:100MB, or PATH:size for a file that exists")
    if "\0" in path:
        raise ConfigurationError("a path cannot hold a NUL character")
    return Extent(f"extent{number}", absolute(path, directory), 0, parseLength(size, 0), given=path)
