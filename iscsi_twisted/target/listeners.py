# -*- test-case-name: tests.target.test_listeners -*-
"""Where a service listens, and to which portal group each of these places belongs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from errno import EADDRNOTAVAIL, EAFNOSUPPORT, EPFNOSUPPORT, EPROTONOSUPPORT
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint

from iscsi_twisted.config.lines import visible
from iscsi_twisted.config.model import Target
from iscsi_twisted.config.portals import takeApart
from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.session.portals import PLAIN, Portal
from iscsi_twisted.target.status import where
from iscsi_twisted.target.transport import portal as endpointOf

LACKING: Final = frozenset((EAFNOSUPPORT, EPFNOSUPPORT, EPROTONOSUPPORT, EADDRNOTAVAIL))
"""How a system says that it has no such kind of address, or not that one."""

CARRIERS: Final = {"tcp4": PLAIN, "tcp6": PLAIN, "systemd": PLAIN, "ssl": "tls", "iscsi-tls": "tls"}
"""What carries iSCSI at a kind of endpoint that is not called so."""


class Listener:
    """
    Where to listen.

    @ivar endpoint: a server endpoint.
    @ivar portal: the portal that it is.
    @ivar name: what messages call it.
    @ivar optional: whether the service goes on where the machine lacks such addresses
        (no IPv6, for example).
    """

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        portal: Portal | None = None,
        *,
        name: str = "",
        optional: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.portal = portal if portal is not None else Portal()
        self.name = name or str(endpoint)
        self.optional = optional

    def renew(self) -> None:
        """Take up keys and certificates that have changed; what is wrong with them is logged."""
        renew = getattr(self.endpoint, "renew", None)
        if renew is not None:
            renew()

    async def listen(self, factory: IProtocolFactory) -> tuple[IListeningPort, Portal] | None:
        """
        Listen.

        @return: the port, and the portal with its address; None where the machine lacks such addresses
            and need not have them.
        @raise ConfigurationError: if that cannot be.
        """
        try:
            port = await self.endpoint.listen(factory)
        except Exception as error:
            if self.optional and _lacking(error):
                return None
            raise ConfigurationError(f"cannot listen on {self.name}: {_reason(error)}") from error
        hasAddress = hasattr(port.getHost(), "host")
        return port, attrs.evolve(self.portal, listening=where(port) if hasAddress else None)


def listener(reactor: Any, item: Listener | IStreamServerEndpoint | str, optional: bool = False) -> Listener:
    """
    A listener for what names one: an endpoint, or the description of one.

    @raise ConfigurationError: for a description that cannot be understood.
    """
    if isinstance(item, Listener):
        return item
    if not isinstance(item, str):
        return Listener(item, optional=optional)
    try:
        described = takeApart(item)
    except ConfigurationError as error:
        raise ConfigurationError(f"endpoint {item!r}: {error}") from error
    endpoint = endpointOf(reactor, described.endpoint)
    portal = Portal(
        described.tag,
        described.advertised,
        CARRIERS.get(described.kind, described.kind),
        guarded=getattr(endpoint, "guarded", False),
    )
    return Listener(endpoint, portal, name=item, optional=optional)


def tags(listeners: Iterable[Listener]) -> list[int]:
    """The portal groups that there are, in order."""
    return sorted({each.portal.tag for each in listeners})


def describe(listeners: Iterable[Listener]) -> Iterator[str]:
    """A line for each portal, for people who want to see how it was understood."""
    for each in listeners:
        told = f", told as {each.portal.advertised}" if each.portal.advertised else ""
        terms = getattr(each.endpoint, "terms", "")
        yield f"portal {visible(each.name)}: group {each.portal.tag}{told}{', ' * bool(terms)}{terms}"


def groupFaults(targets: Iterable[Target], listeners: Iterable[Listener]) -> Iterator[ConfigurationError]:
    """Targets whose options name portal groups which there are not, or which do not lead to them."""
    there = tags(listeners)
    for target in targets:
        options = target.options
        for tag in sorted((options.portals or frozenset()).difference(there)):
            yield target.where.error(
                f"portals=: no portal belongs to group {tag}; there {'is' if len(there) == 1 else 'are'}"
                f" {', '.join(map(str, there))}, and --listen {'tcp:3260:tpgt='}{tag} would make one"
            )
        leading = there if options.portals is None else sorted(options.portals)
        for name, named in (("alua", dict(options.alua or ())), ("preferred", options.preferred or ())):
            for tag in sorted(set(named).difference(leading)):
                yield target.where.error(
                    f"{name}=: portal group {tag} does not lead to this target;"
                    f" {', '.join(map(str, leading))} would (see portals= and --listen)"
                )


def idleGroups(targets: Iterable[Target], listeners: Iterable[Listener]) -> Iterator[str]:
    """A warning for each portal through which nothing is reached."""
    tied = [each.options.portals for each in targets]
    for each in listeners:
        if tied and all(groups is not None and each.portal.tag not in groups for groups in tied):
            yield f"no target is reached through {each.name}: portals= of none has {each.portal.tag}"


def _reason(error: Exception) -> str:
    """One line that says why listening failed."""
    cause = getattr(error, "socketError", None) or error
    return getattr(cause, "strerror", None) or str(cause) or type(error).__name__


def _lacking(error: Exception) -> bool:
    """Whether listening failed because the machine has no such address."""
    return getattr(getattr(error, "socketError", error), "errno", None) in LACKING
