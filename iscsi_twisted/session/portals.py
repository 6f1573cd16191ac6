# -*- test-case-name: tests.session.test_portals -*-
"""Network portals and their groups: what an initiator is told of where a target is (RFC 7143 4.4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import attrs

PLAIN: Final = "tcp"
"""The carrier of those portals that need nothing beneath iSCSI but TCP."""


def _tag(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    # In iSCSI 0 is possible, but the tag also is the relative port identifier, where 0 means no port.
    if not 1 <= value <= 0xFFFF:
        raise ValueError(f"portal group tag {value} is not from 1 to 65535")


@attrs.frozen
class Portal:
    """
    One network portal: an address at which a portal group is reached.

    @ivar tag: target portal group tag, 1 to 65535.
    @ivar advertised: C{host:port} that initiators are told instead of the address they came to, or None.
    @ivar carrier: what iSCSI is carried by there.  No address can tell that, so initiators are told of those
        portals alone that are reached as the one is that they came by.
    @ivar listening: C{host:port} where it listens, IPv6 in brackets; None before it does, and where that
        means nothing (a UNIX socket).
    @ivar guarded: nobody comes there who has not shown a certificate.
    """

    tag: int = attrs.field(default=1, validator=_tag)
    advertised: str | None = None
    carrier: str = PLAIN
    listening: str | None = None
    guarded: bool = False


def addresses(
    portals: Iterable[Portal], groups: frozenset[int] | None, came: Portal, here: str | None
) -> Iterator[tuple[str, int]]:
    """
    Where a target is, as an initiator is told that came by one of its portals.

    @param groups: the tags of the target's portal groups; None for all.
    @param came: the portal by which the initiator came.
    @param here: C{host:port} to which it came, IPv6 in brackets; None where that means nothing.
    @return: addresses and portal group tags, that by which it came first, and none twice.
    """
    told: dict[tuple[str, int], None] = {}
    own = came.advertised or here
    if own is not None and _in(came, groups):
        told[own, came.tag] = None
    for portal in portals:
        if portal == came or portal.carrier != came.carrier or not _in(portal, groups):
            continue
        address = portal.advertised or _reached(portal.listening, here)
        if address is not None:
            told[address, portal.tag] = None
    return iter(told)


def _in(portal: Portal, groups: frozenset[int] | None) -> bool:
    return groups is None or portal.tag in groups


def _reached(listening: str | None, here: str | None) -> str | None:
    """
    Where somebody who came to one address reaches a portal that listens at another.

    A portal that listens on all addresses of a family is reached at the one that he came to, if that is of
    the same family; one on loopback from nowhere else.
    """
    if listening is None:
        return None
    theirs, ours = _host(listening), _host(here or "")
    if theirs is None:
        return None
    if theirs.is_unspecified:
        if here is None or ours is None or ours.version != theirs.version:
            return None
        return f"{here.rpartition(':')[0]}:{listening.rpartition(':')[2]}"
    if theirs.is_loopback and not (ours is not None and ours.is_loopback):
        return None
    return listening


def _host(address: str) -> IPv4Address | IPv6Address | None:
    """The IP address in C{host:port}; None if there is none."""
    try:
        return ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None
