# Run it with: python examples/cred_users.py [PORT]
# and try:     iscsi-ls -s iscsi://agc%0123456789abcdef@127.0.0.1/
#
# Users that twisted.cred knows.  CHAP needs the secret itself, so a checker is asked with credentials that
# take whatever password it compares them with; it has to keep passwords as they are, not as hashes.
# What you see: the log of logins; with another user or secret they are refused.

import sys
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.python.log import startLogging
from zope.interface import implementer

from iscsi_twisted.interfaces import Account, ISecretStore
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetService


@implementer(IUsernameHashedPassword)
class Learning:
    """Credentials that learn the password: never give them to a portal, which would let anybody in."""

    def __init__(self, username: bytes) -> None:
        self.username = username
        self.account: Account | None = None

    def checkPassword(self, password: bytes) -> bool:
        self.account = Account(password)
        return True


@implementer(ISecretStore)
class CheckerUsers:
    """The users of a checker of twisted.cred."""

    def __init__(self, checker: Any) -> None:
        self.checker = checker

    def find(self, user: str) -> Any:
        credentials = Learning(user.encode())
        found = self.checker.requestAvatarId(credentials)
        return found.addCallbacks(lambda _: credentials.account, self.unknown)

    def unknown(self, why: Failure) -> None:
        why.trap(UnauthorizedLogin)


async def main(reactor: Any, port: str = "3260") -> None:
    """Serve until Ctrl-C."""
    users = CheckerUsers(InMemoryUsernamePasswordDatabaseDontUse(agc=b"0123456789abcdef"))
    service = TargetService(reactor, [f"tcp:{port}:interface=127.0.0.1"], secrets=users)
    service.addTarget("iqn.2001-04.com.example:users", [MemoryDevice(64 << 20)], users=["agc"])
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    await Deferred()


if __name__ == "__main__":
    startLogging(sys.stdout)
    react(main, sys.argv[1:])
