# -*- test-case-name: tests.config.test_netmasks -*-
"""Which hosts may use a target: the last column of a target line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, NamedTuple

from iscsi_twisted.config.lines import quoted
from iscsi_twisted.errors import ConfigurationError

ALL_FOUR: Final = 0xFFFFFFFF
ALL_SIX: Final = (1 << 128) - 1
MAPPED: Final = 0xFFFF
"""The upper 96 bits of an IPv4 address in IPv6 clothes (RFC 4291 2.5.5.2)."""

LOOPBACK: Final = 127 << 24
"""This machine in IPv4: a network of 8 bits (RFC 1122 3.2.1.3)."""

SHORT = re.compile(r"[0-9]+(?:\.[0-9]+){0,3}")
FORMS: Final = (
    "ADDRESS/BITS (10.4.0.0/16, 2001:db8::/32), an address, any, any4, any6, none, or a comma list,"
    " with ! before what is excluded"
)


Ranges = tuple[tuple[int, int], ...]
"""Pairs of a mask and a network."""


class Hosts(NamedTuple):
    """
    The hosts that one item of a list stands for.

    @ivar four: C{(mask, network)} of IPv4 as numbers, or None.
    @ivar six: the same of IPv6.
    @ivar rest: peers without an address, too.
    """

    four: tuple[int, int] | None = None
    six: tuple[int, int] | None = None
    rest: bool = False


WORDS: Final = {
    "any": Hosts((0, 0), (0, 0), True),
    "all": Hosts((0, 0), (0, 0), True),
    "any4": Hosts(four=(0, 0)),
    "any6": Hosts(six=(0, 0)),
    "none": Hosts(),
}


class Admission:
    """What a peer is asked, whoever is admitted."""

    __slots__ = ("_everyone", "_local")

    _everyone: bool
    _local: bool

    def admits(self, address: str | None) -> bool:
        """Whether a peer at this address is admitted; None for a peer that has no address."""
        if self._everyone:
            return True
        if address is None:
            return self._local
        found = _locate(address)
        return found is not None and self._has(*found)

    def _has(self, number: int, isFour: bool) -> bool:
        """Whether one at this address is."""
        raise NotImplementedError


class Netmask(Admission):
    """
    The hosts that are admitted.  It has the shape of L{iscsi_twisted.interfaces.IAccessPolicy}.

    A host with an IPv4 address is judged by that address even if it came over an IPv6 socket
    (C{::ffff:10.4.1.5}).  A peer without an address (a UNIX socket) is admitted by C{any} and C{all} alone.
    What has a C{!} before it is excluded, wherever it stands in the list.
    A mask of no bits at all, C{0.0.0.0/0}, is every host of either family, as the old manuals
    promise; C{any4} is every host of IPv4 and none of IPv6.  C{127.0.0.0/8} is this machine in both families:
    on many C{localhost} is C{::1} first.
    """

    __slots__ = ("_four", "_notFour", "_notSix", "_six", "_text")

    def __init__(self, text: str) -> None:
        """
        @param text: one mask or a comma list of them, without blanks.
        @raise ConfigurationError: if any of them cannot be understood.
        """
        items = text.split(",")
        if len(items) > 1 and any(item.lower() == "none" for item in items):
            raise ConfigurationError(f"'none' in the list {quoted(text)}; it can only stand alone")
        hosts = [_hosts(item) for item in items if not item.startswith("!")]
        others = [_excluded(item) for item in items if item.startswith("!")]
        if not hosts:
            raise ConfigurationError(
                f"{quoted(text)} admits nobody; write any,{text} to admit all the others"
            )
        self._text = text
        self._local = any(each.rest for each in hosts)
        self._everyone = self._local and not others
        self._four, self._six = _ranges(hosts)
        self._notFour, self._notSix = _ranges(others)

    def _has(self, number: int, isFour: bool) -> bool:
        if isFour:
            return _within(number, self._four) and not _within(number, self._notFour)
        return _within(number, self._six) and not _within(number, self._notSix)

    @staticmethod
    def together(masks: Sequence[Netmask]) -> AnyNetmask:
        """See L{iscsi_twisted.interfaces.IJoinedPolicy}."""
        return AnyNetmask(masks)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Netmask({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Netmask) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


class AnyNetmask(Admission):
    """Whoever any of many masks admits; what that takes depends on how many lengths of masks there are."""

    def __init__(self, masks: Sequence[Netmask]) -> None:
        self._everyone = any(mask._everyone for mask in masks)
        self._local = any(mask._local for mask in masks)
        self._four: dict[int, set[int]] = {}
        self._six: dict[int, set[int]] = {}
        self._others = []
        for mask in masks:
            if mask._notFour or mask._notSix:
                self._others.append(mask)
                continue
            for ranges, networks in ((mask._four, self._four), (mask._six, self._six)):
                for bits, network in ranges:
                    networks.setdefault(bits, set()).add(network)

    def _has(self, number: int, isFour: bool) -> bool:
        networks = self._four if isFour else self._six
        if any(number & mask in each for mask, each in networks.items()):
            return True
        return any(mask._has(number, isFour) for mask in self._others)


def _locate(address: str) -> tuple[int, bool] | None:
    """An address as a number, and whether it is of IPv4; None for what is no address."""
    try:
        if ":" not in address:
            return int.from_bytes(inet_pton(AF_INET, address)), True
        number = int.from_bytes(inet_pton(AF_INET6, address.partition("%")[0]))
    except (OSError, ValueError):
        return None
    return (number & ALL_FOUR, True) if number >> 32 == MAPPED else (number, False)


def _ranges(hosts: list[Hosts]) -> tuple[Ranges, Ranges]:
    """The ranges of IPv4 and of IPv6."""
    return (
        tuple(each.four for each in hosts if each.four is not None),
        tuple(each.six for each in hosts if each.six is not None),
    )


def _within(number: int, ranges: Ranges) -> bool:
    for mask, network in ranges:  # noqa: SIM110 - half the cost of a generator; discovery asks for each target
        if number & mask == network:
            return True
    return False


def _excluded(item: str) -> Hosts:
    """What one item that begins with C{!} excludes."""
    hosts = _hosts(item[1:])
    if hosts.rest or hosts == WORDS["none"]:
        raise ConfigurationError(
            f"{quoted(item)} excludes {'everybody' if hosts.rest else 'nobody'}; write an address or a mask"
            " after the !, or none alone"
        )
    return hosts


def _hosts(item: str) -> Hosts:
    """What one item of a list stands for."""
    word = WORDS.get(item.lower())
    if word is not None:
        return word
    if not item:
        raise ConfigurationError("an empty item in the netmask; commas stand between masks, without blanks")
    address, slash, bits = item.partition("/")
    if ":" in address:
        return _six(item, address, bits if slash else "128")
    if SHORT.fullmatch(address) and address.isascii():
        return _four(item, address, bits if slash else None)
    raise ConfigurationError(
        f"{quoted(item)} is not a netmask (names of hosts are not looked up); write {FORMS}"
    )


def _four(item: str, address: str, bits: str | None) -> Hosts:
    """An IPv4 mask; missing octets are zeros, but only before a slash."""
    missing = 3 - address.count(".")
    full = address + ".0" * missing
    try:
        number = int.from_bytes(inet_pton(AF_INET, full))
    except OSError:
        raise ConfigurationError(
            f"{quoted(item)} is not an IPv4 address; write numbers from 0 to 255, without leading zeros"
        ) from None
    if bits is None:
        if missing:
            raise ConfigurationError(
                f"{quoted(item)} is only part of an address; write {address}/{32 - 8 * missing}"
                f" for that network, or {full} for one host"
            )
        bits = "32"
    length = _dotted(item, bits) if "." in bits else _bits(item, bits, 32)
    mask = ALL_FOUR << 32 - length & ALL_FOUR
    return Hosts((mask, number & mask), _sameInSix(mask, number & mask, length))


def _sameInSix(mask: int, network: int, length: int) -> tuple[int, int] | None:
    """Which hosts of IPv6 an IPv4 mask means as well."""
    if not length:
        return 0, 0
    if length <= 8 and LOOPBACK & mask == network:
        return ALL_SIX, 1
    return None


def _six(item: str, address: str, bits: str) -> Hosts:
    """An IPv6 mask; one of IPv4 addresses in IPv6 clothes is an IPv4 mask."""
    if "%" in address:
        raise ConfigurationError(
            f"{quoted(item)} names a zone; write the address without '%' and what follows it"
        )
    try:
        number = int.from_bytes(inet_pton(AF_INET6, address))
    except (OSError, ValueError):
        raise ConfigurationError(
            f"{quoted(item)} is not an IPv6 address; write one like 2001:db8::/32"
        ) from None
    length = _bits(item, bits, 128)
    if number >> 32 == MAPPED and length >= 96:
        mask = ALL_FOUR << 128 - length & ALL_FOUR
        return Hosts(four=(mask, number & mask))
    mask = ALL_SIX << 128 - length & ALL_SIX
    return Hosts(six=(mask, number & mask))


def _bits(item: str, bits: str, most: int) -> int:
    if re.fullmatch(r"[0-9]{1,3}", bits) and int(bits) <= most:
        return int(bits)
    raise ConfigurationError(f"{quoted(bits)} in {quoted(item)} is no number of bits; write 0 to {most}")


def _dotted(item: str, text: str) -> int:
    """The number of bits of a mask such as C{255.255.0.0}."""
    try:
        mask = int.from_bytes(inet_pton(AF_INET, text))
    except (OSError, ValueError):
        mask = 1
    hole = ~mask & ALL_FOUR
    if hole & hole + 1:
        raise ConfigurationError(
            f"{quoted(text)} in {quoted(item)} is not a mask; write one such as 255.255.0.0, or 0 to 32"
        )
    return mask.bit_count()
