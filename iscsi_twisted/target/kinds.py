# -*- test-case-name: tests.target.test_kinds -*-
"""Which devices of two configurations are the same: what is may stay open from the one to the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import attrs

from iscsi_twisted.config.filters import CryptSettings, OverlaySettings
from iscsi_twisted.config.model import Device, Extent, Filtered, Storage
from iscsi_twisted.config.options import NO_UNIT_OPTIONS, UnitOptions

_SHOWN: Final = (
    *("block", "lun", "naa", "physical", "product", "removable"),
    *("queue", "revision", "rotation", "samezero", "serial", "thin", "threshold", "vendor"),
)
"""Options that say how a unit looks, and nothing of its device."""

_TRANSPARENT: Final = frozenset(("READONLY", "DELAY", "RATE", "FAULTS"))
"""Filters that leave every byte where it is."""


@attrs.frozen
class Kind:
    """
    What a device was made of.

    @ivar definition: equal where the devices are.
    @ivar content: equal where the first byte of both is the same byte of the same storage.
    @ivar files: those that it locks, and what else it may have to itself.
    """

    # Of another target's unit these hold the URL, perhaps with a secret.
    definition: object = attrs.field(repr=False)
    content: object = attrs.field(repr=False)
    files: frozenset[str] = attrs.field(default=frozenset(), repr=False)


def kindOf(storage: Storage, readOnly: bool) -> Kind:
    """
    What the device of a logical unit is made of.

    @param readOnly: whether the target's line, or the device's, says so.
    """
    shown = {name: getattr(NO_UNIT_OPTIONS, name) for name in _SHOWN}
    options = attrs.evolve(storage.options, readonly=readOnly, **shown)
    return Kind(_named(storage, options), _content(storage), frozenset(_files(storage)))


def _named(storage: Storage, options: UnitOptions) -> Storage:
    """A storage without what only people call its parts."""
    if isinstance(storage, Extent):
        return attrs.evolve(storage, name="", options=options)
    return attrs.evolve(
        storage, options=options, members=tuple(_named(each, each.options) for each in storage.members)
    )


def _content(storage: Storage) -> object:
    """Where the first byte is."""
    if isinstance(storage, Extent):
        return storage.path, storage.url, storage.start
    if isinstance(storage, Filtered) and storage.word in _TRANSPARENT:
        return _content(storage.members[0])
    # How the bytes of several members lie depends on how large these are.
    return type(storage), _plainly(storage)


def _plainly(storage: Storage) -> object:
    if isinstance(storage, Extent):
        return storage.path, storage.url, storage.start, storage.length
    if isinstance(storage, Filtered) and storage.word in _TRANSPARENT:
        return _plainly(storage.members[0])
    members = tuple(_plainly(each) for each in storage.members)
    if isinstance(storage, Device):
        return storage.level, storage.chunk, members
    return storage.word, storage.settings, members


def _files(storage: Storage) -> Iterator[str]:
    if isinstance(storage, Extent):
        yield storage.url or os.path.realpath(storage.path)
        return
    settings = storage.settings if isinstance(storage, Filtered) else None
    if isinstance(settings, OverlaySettings) and settings.file is not None:
        yield os.path.realpath(settings.file)
    if isinstance(settings, CryptSettings):
        yield os.path.realpath(settings.key)
    for each in storage.members:
        yield from _files(each)
