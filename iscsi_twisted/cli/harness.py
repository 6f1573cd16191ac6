# -*- test-case-name: tests.cli.test_harness -*-
"""C{iscsi-harness}: have a target do everything, and say how it did."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from iscsi_twisted import __version__
from iscsi_twisted.cli.exercises import Exercises, Failed
from iscsi_twisted.cli.running import Running, runCommand, sayAloud, unbroken
from iscsi_twisted.cli.values import number
from iscsi_twisted.config.auths import Credential, loadAuths
from iscsi_twisted.initiator import LUN, URL, Credentials, Initiator, Session
from iscsi_twisted.session.answers import LoginRefused, MethodsRejected
from iscsi_twisted.wire import numbers

AUTHS: Final = "/etc/iscsi/auths"
DIGESTS: Final = {
    "none": ("no", "no"),
    "header": ("yes", "no"),
    "data": ("no", "yes"),
    "both": ("yes", "yes"),
    "all": ("yes", "yes"),
}
TIMEOUT: Final = 30.0
"""Seconds after which a command that was not answered is a failure."""

BANNER: Final = """
****************************************************
* all tests were completed successfully            *
****************************************************"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="iscsi-harness",
        add_help=False,
        description="Have an iSCSI target do everything: log in, answer, write and read.",
        epilog="Invoke it as: iscsi-harness -n 3 -h localhost.  What it writes it puts back at the end.",
    )
    add = made.add_argument
    add("-h", dest="host", metavar="HOST", default="localhost", help="where the target is")
    add("-p", dest="port", metavar="PORT", type=number(1, 65535), default=3260, help="its TCP port (3260)")
    add("-n", dest="iterations", metavar="NUMBER", type=number(1), default=1, help="how often to do all (1)")
    add("-t", dest="target", metavar="NAME", default="", help="which target; the first that is found")
    add("-l", dest="lun", metavar="LUN", type=number(0, 0xFFFFFF), default=0, help="which logical unit (0)")
    add("-u", dest="user", metavar="USER", default="", help="whom to authenticate as; who runs this")
    add("-a", dest="method", choices=("chap", "none"), help="authentication; CHAP if the user has a secret")
    add("-d", dest="digest", choices=tuple(DIGESTS), default="none", help="digests (none)")
    family = made.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")
    add("--tls", action="store_true", help="speak TLS")
    add("--ca", metavar="FILE", default="", help="speak TLS, and trust these (the platform's authorities)")
    add("--cert", metavar="FILE", default="", help="speak TLS, and show this certificate")
    add("--key", metavar="FILE", default="", help="its private key (in the file of the certificate)")
    add("--auths", metavar="FILE", default=AUTHS, help=f"users and secrets ({AUTHS})")
    add("--destructive", action="store_true", help="do not put back what was on the disk")
    add("-V", "--version", action="version", version=f"iscsi-harness {__version__}")
    add("--help", action="help", help="this text")
    return made


class Harness:
    """
    One run.

    @ivar options: of the command line.
    @ivar say: prints a line.
    """

    def __init__(
        self,
        reactor: Any,
        options: argparse.Namespace,
        say: Callable[[str], Any] = print,
        endpoint: Any = None,
        repeat: int = 1000,
    ) -> None:
        """
        @param endpoint: where the target is, instead of what the options say.
        @param repeat: how often a latency is measured.
        """
        self.reactor, self.options, self.say, self.repeat = reactor, options, say, repeat
        self.user = options.user or getpass.getuser()
        self._endpoint = endpoint if endpoint is not None else self._description()
        self.initiator = Initiator(reactor, f"iqn.1994-04.org.netbsd.iscsi-initiator:{_nameable(self.user)}")

    def _description(self) -> str:
        options = self.options
        host = options.host
        if options.family is not None:
            # Only a literal address or a name of that family will do.
            host = _address(host, options.family)
        if options.tls or options.ca or options.cert:
            words = {"ca": options.ca, "cert": options.cert, "key": options.key, "name": options.host}
            return URL(
                host, options.port, secure=True, words=tuple(each for each in words.items() if each[1])
            ).description()
        return f"[{host}]:{options.port}" if ":" in host else f"{host}:{options.port}"

    async def run(self) -> None:
        """
        All iterations.

        @raise ISCSIError: at the first failure.
        """
        credentials = self._credentials()
        for count in range(1, self.options.iterations + 1):
            self.say(f"<ITERATION {count}>")
            try:
                await self._iteration(credentials)
            except (LoginRefused, MethodsRejected) as error:
                status = getattr(error, "status", numbers.AUTHENTICATION_FAILURE)
                if status == numbers.AUTHENTICATION_FAILURE and credentials is None:
                    raise self._unproven() from error
                raise
        self.say(BANNER)

    async def _iteration(self, credentials: Credentials | None) -> None:
        target = await self._discover(credentials)
        header, data = DIGESTS[self.options.digest]
        sessions: list[Session] = []

        async def enter() -> LUN:
            login = self.initiator.login(
                self._endpoint, target, credentials=credentials, headerDigest=header, dataDigest=data
            )
            lun = LUN(await unbroken(self.reactor, login, sessions.append), self.options.lun, timeout=TIMEOUT)
            await lun.open()
            return lun

        try:
            lun = await enter()
            self.say(f"logged in to {target}")
            await Exercises(
                lun, self.say, time.perf_counter, self.repeat, self.options.destructive, enter
            ).all()
        finally:
            for one in sessions:
                await one.logout()
        self.say("logged out")

    async def _discover(self, credentials: Credentials | None) -> str:
        offered = None if credentials is None else credentials.oneWay()
        discovery = self.initiator.discover(self._endpoint, credentials=offered)
        found = await unbroken(self.reactor, discovery, lambda found: None)
        names = [one.name for one in found]
        self.say(f"discovered {len(names)} targets: {', '.join(names) or 'none'}")
        wanted: str = self.options.target
        if wanted and wanted not in names:
            raise Failed(f"the target {wanted} was not found, or does not admit this machine")
        if not names:
            raise Failed("no target was found, or none admits this machine")
        return wanted or names[0]

    def _credentials(self) -> Credentials | None:
        """The user's, unless no authentication is asked for."""
        options = self.options
        if options.method == "none":
            return None
        entry = self._entry()
        if entry is None or not entry.secret:
            if options.method == "chap":
                raise self._noEntry()
            return None
        return Credentials(
            self.user,
            entry.secret,
            entry.targetUser,
            entry.targetSecret or b"",
            required=options.method == "chap",
        )

    def _entry(self) -> Credential | None:
        """The user's entry in the auths file."""
        options = self.options
        if options.auths == AUTHS and not os.path.exists(options.auths):
            return None
        return loadAuths(options.auths).find(self.user)

    def _unproven(self) -> Failed:
        """The target asks who comes, and was told nothing."""
        if self.options.method == "none" and self._entry() is not None:
            return Failed("the target asks for authentication: leave out -a none")
        return self._noEntry()

    def _noEntry(self) -> Failed:
        return Failed(
            f"No matching user configuration entry for `{self.user}' was found\n"
            f"Please add an entry for `{self.user}' to `{self.options.auths}'"
        )


def _nameable(user: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in user.lower()) or "user"


def _address(host: str, family: int) -> str:
    """
    The first address of a host in one family.

    @raise Failed: if it has none.
    """
    import socket

    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    try:
        return str(socket.getaddrinfo(host, None, kind, socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise Failed(f"{host} has no IPv{family} address: {error.strerror or error}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    made = parser()
    if not given:
        made.print_usage(sys.stderr)
        raise SystemExit(1)
    options = made.parse_args(given)

    async def command(reactor: Any) -> None:
        await Harness(reactor, options, sayAloud).run()

    runCommand(Running(), command)
