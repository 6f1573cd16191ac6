# Run it with: python examples/own_policy.py [PORT]
# and try:     iscsi-ls -s iscsi://guest%0123456789abcdef@127.0.0.1/ (or owner%fedcba9876543210)
#
# A policy of one's own decides about each login: by address, initiator, user and TLS certificate.  Here the
# owner may do all; guests of this machine see the first of two disks, and may read it; others get nothing.
# What you see: two disks as the owner, one as a guest.  Ctrl-C stops it.

import sys
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.log import startLogging
from zope.interface import implementer

from iscsi_twisted.interfaces import Account, Asker, Grant, ILoginPolicy, ISecretStore
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetService


@implementer(ILoginPolicy)
class HousePolicy:
    """The owner, and guests."""

    def admits(self, address: str | None) -> bool:
        """Asked when somebody connects: who may do nothing is cut off."""
        return address is not None and ip_address(address).is_loopback

    def decide(self, asker: Asker) -> Grant | None:
        """Asked when it is known who comes, at each login, when targets are listed, and after changes."""
        if asker.user == "owner":
            return Grant()
        if asker.initiatorName.endswith(":noisy"):
            return None
        return Grant(readOnly=True, luns=frozenset((0,)))


@implementer(ISecretStore)
class Users:
    """Two users; find() might as well ask a database, and return a Deferred."""

    accounts = {"owner": Account(b"fedcba9876543210"), "guest": Account(b"0123456789abcdef")}

    def find(self, user: str) -> Account | None:
        return self.accounts.get(user)


async def main(reactor: Any, port: str = "3260") -> None:
    """Serve until Ctrl-C."""
    service = TargetService(reactor, [f"tcp:{port}:interface=127.0.0.1"], secrets=Users())
    disks = [MemoryDevice(64 << 20) for _ in range(2)]
    service.addTarget("iqn.2001-04.com.example:house", disks, policy=HousePolicy())
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    await Deferred()


if __name__ == "__main__":
    startLogging(sys.stdout)
    react(main, sys.argv[1:])
