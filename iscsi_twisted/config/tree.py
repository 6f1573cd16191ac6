# -*- test-case-name: tests.config.test_tree -*-
"""A configuration as text, for people who want to see how it was understood."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs

from iscsi_twisted.config.lines import visible
from iscsi_twisted.config.model import DEFAULT_BASE, Configuration, Device, Extent, Filtered, Storage, Target
from iscsi_twisted.config.options import TargetOptions
from iscsi_twisted.config.paths import CHANGERS, STATES

IdentityOf = Callable[[Target, int], Iterable[str]]
"""Given a target and a LUN: lines about the unit's identity."""


def describe(configuration: Configuration, identityOf: IdentityOf, base: str = DEFAULT_BASE) -> Iterator[str]:
    """
    One line for each target, and below it, one tab deeper for each level, what it consists of.

    @param base: what the names of targets begin with that have no IQN of their own.
    @return: lines without line ends.
    """
    if configuration.discovery is not None:
        yield f"discovery:{configuration.discovery.netmask}"
        yield from (f"\t{line}" for line in _access(configuration.discovery.options))
    for target in configuration.targets:
        mode = "ro" if target.readOnly else "rw"
        yield f"{visible(target.name)}:{mode}:{target.netmask}"
        yield f"\tTargetName {visible(target.targetName(base))}"
        yield from (f"\t{line}" for line in _access(target.options))
        for lun, storage in target.luns.items():
            for line in identityOf(target, lun):
                yield f"\tLUN {lun}: {line}"
            yield from _storage(storage, "\t")


def _access(options: TargetOptions) -> Iterator[str]:
    """Who gets in, as far as the target's line says it; never a secret, for none stands there."""
    if options.auth is not None:
        yield f"auth {'chap' if options.auth else 'none'}"
    for what, names in (
        ("users", sorted(options.users or ())),
        ("initiators", options.initiators),
        ("readers", options.readers),
    ):
        if names:
            yield f"{what} {visible(','.join(names))}"
    if options.portals is not None:
        yield f"portals {','.join(map(str, sorted(options.portals)))}"
    if options.alua is not None:
        yield f"alua {','.join(f'{tag}:{_nameOf(STATES, state)}' for tag, state in options.alua)}"
    if options.preferred is not None:
        yield f"preferred {','.join(map(str, sorted(options.preferred)))}"
    if options.tpgs is not None:
        yield f"tpgs {_nameOf(CHANGERS, options.tpgs)}"
    for pattern, luns in options.luns or ():
        yield f"luns of {visible(pattern)}: {','.join(map(str, sorted(luns)))}"


def _nameOf(names: Mapping[str, int], value: int) -> str:
    return next(name for name, one in names.items() if one == value)


def _storage(storage: Storage, indent: str) -> Iterator[str]:
    name = visible(storage.name)
    if isinstance(storage, Extent):
        length = "size" if storage.length is None else storage.length
        direct = ":direct" if storage.own.direct else ""
        yield f"{indent}{name}:{visible(storage.given)}:{storage.start}:{length}{direct}"
        return
    yield f"{indent}{name}:{storage.raid if isinstance(storage, Device) else _filter(storage)}"
    for member in storage.members:
        yield from _storage(member, indent + "\t")


def _filter(device: Filtered) -> str:
    """What a filter is, and those of its settings that are not the usual ones."""
    fields = attrs.fields(type(device.settings))
    values = ((one.name, getattr(device.settings, one.name), one.default) for one in fields)
    return " ".join(
        [device.word, *(f"{name}={_value(value)}" for name, value, usual in values if value != usual)]
    )


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return visible(",".join(value) if isinstance(value, tuple) else str(value))
