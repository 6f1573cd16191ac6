# -*- test-case-name: tests.target.test_command -*-
"""The service as C{twistd iscsi} runs it: it also speaks to people."""

from __future__ import annotations

import atexit
import os
import resource
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, NoReturn, TextIO

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort

from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors, LocalError
from iscsi_twisted.target.commit import Changes
from iscsi_twisted.target.garbage import settle, spared
from iscsi_twisted.target.hangup import Hangup
from iscsi_twisted.target.service import TargetService
from iscsi_twisted.target.status import TargetStatus, targetStatus, unlocked, where

SHOWN: Final = 20
"""Targets that are named in the log at start; of more, only how many."""


class StartFailed(Exception, SystemExit):
    """
    The service cannot start.

    twistd removes its pid file and tells a waiting parent process for an C{Exception}; the
    interpreter prints no traceback for a C{SystemExit}.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(1)
        self.code = 1
        self._reason = reason

    def __str__(self) -> str:
        return self._reason


class CommandService(TargetService):
    """
    A target service for the command line.

    @ivar newcomer: nobody said what to serve, so say more.
    """

    def __init__(
        self,
        reactor: Any,
        listeners: Any,
        *,
        newcomer: bool = False,
        terminal: TextIO | None = None,
        end: Callable[[], None] | None = None,
        hangup: bool = False,
        warnings: Iterable[str] = (),
        auths: str = "",
        alone: bool = False,
        **options: Any,
    ) -> None:
        """
        @param terminal: where faults are told, and which is closed when the start is over; by default the
            standard error.
        @param warnings: to be logged at the start.
        @param auths: the file in which users are looked for, for messages.
        @param alone: the process is there for this service, and nothing else.
        @param hangup: whether SIGHUP means L{reload}.
        @param end: ends the process with status 1; called when the start fails after it seemed to go well.
        """
        super().__init__(reactor, listeners, **options)
        self.newcomer = newcomer
        self._terminal = terminal
        self._warnings = tuple(warnings)
        self._alone = alone
        if auths:
            self.journal.auths = auths
        self._end = end or self._endProcess
        self._hangup = Hangup(reactor, self._reloadOnceReady) if hangup else None
        self.whenReady().addCallbacks(self._announce, lambda _: None)

    def privilegedStartService(self) -> None:
        """
        Open and listen, or say why not.

        @raise StartFailed: after a line for each fault on the terminal.
        """
        self._orRefuse(super().privilegedStartService)

    def startService(self) -> None:
        """The same where nobody gives privileges; and begin to serve."""
        self._orRefuse(super().startService)

    def _reloadOnceReady(self) -> Deferred[Changes]:
        return self.whenReady().addCallback(lambda _: self.reload())

    def reload(self) -> Deferred[Changes]:
        """See L{TargetService}; also says who need not say who they are."""

        def warn(changes: Changes) -> Changes:
            self._warnOpen()
            return changes

        return super().reload().addCallback(warn)

    def stopService(self) -> Deferred[None]:
        """Stop, and then let SIGHUP be what it was: by itself it would end the process at once."""
        stopping = super().stopService()
        return stopping if self._hangup is None else stopping.addBoth(self._calm)

    def _calm(self, outcome: Any) -> Any:
        assert self._hangup is not None
        self._hangup.remove()
        return outcome

    def _orRefuse(self, start: Callable[[], None]) -> None:
        raiseDescriptorLimit()
        if self._hangup is not None:
            # By itself the signal would end a process that is about to serve.
            self._hangup.install()
        try:
            with spared():
                start()
        except (ConfigurationError, ConfigurationErrors) as error:
            self._refuse(error)
        finally:
            if self._starting is None:
                self._letGo()

    def _letGo(self) -> None:
        """The start is over, and the terminal its user's own again."""
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.close()

    def _tell(self, line: str) -> None:
        """Print a fault, if anybody is left to read it."""
        with suppress(OSError):
            # twistd has put its log in the place of sys.stderr.
            print(line, file=self._terminal or sys.__stderr__, flush=True)

    def _refuse(self, error: ConfigurationError | ConfigurationErrors) -> NoReturn:
        for line in str(error).splitlines():
            self._tell(line)
            self.log.critical("{line}", line=line, event="failed")
        raise StartFailed(str(error)) from None

    def _complain(self, _: None) -> None:
        """A process that serves nothing must not look as if it did."""
        super()._complain(_)
        outcome = self._outcome
        failed = outcome is not None and not outcome.check(LocalError)
        if outcome is not None and failed:
            self._tell(outcome.getErrorMessage())
        self._letGo()
        if failed:
            self._end()

    def _endProcess(self) -> None:
        # twistd has no other way to say with which status it ends than by a signal.
        atexit.register(_exitFailed)
        self.reactor.stop()

    def _announce(self, _: None) -> None:
        """Log what is served, and where."""
        if self._alone:
            settle()
        targets = self.node.targets
        for target in list(targets.values())[:SHOWN]:
            for lun, unit in target.units.items():
                self.log.info(
                    "serving {target} LUN {lun}: {size} bytes, {device}",
                    target=target.name,
                    lun=lun,
                    size=unit.blockCount * unit.blockSize,  # type: ignore[attr-defined]
                    device=str(unit.device),  # type: ignore[attr-defined]
                )
        for target in targets.values():
            self._warn(targetStatus(target))
        if len(targets) > SHOWN:
            self.log.info("serving {count} targets in all", count=len(targets))
        for line in self._warnings:
            self.log.warn("{line}", line=line)
        self._warnOpen()
        for port in self.ports:
            self.log.info("listening on {address}", address=where(port))
        if self.newcomer and self.ports:
            self._welcome(next(iter(targets)), where(self.ports[0]))

    def _warnOpen(self) -> None:
        """Whoever can reach a port from elsewhere may use what asks nobody who they are."""
        places = {
            factory.portal: where(port)
            for factory, port in zip(self.factories, self.ports, strict=True)
            if not (factory.portal.guarded or _loopback(port))
        }
        names = [
            each.name
            for each in self.node.targets.values()
            if each.authenticate is None and any(map(each.reachedBy, places))
        ]
        if names:
            self.log.warn(
                "no authentication: whom netmasks admit at {addresses} may use {targets}",
                addresses=", ".join(places.values()),
                targets=", ".join(names[:SHOWN]) + (" and others" if len(names) > SHOWN else ""),
                event="open",
            )

    def _warn(self, target: TargetStatus) -> None:
        for unit in target.units:
            for name in unlocked(unit.device):
                self.log.warn(
                    "{device}: its file system has no locks, so nothing keeps others from using it as well",
                    device=name,
                )

    def _welcome(self, target: str, address: str) -> None:
        self.log.info("There is no targets file, so this is an example: a disk of 100 MB in ./iscsi-target0.")
        self.log.info("Try it: iscsi-ls -s iscsi://{address}/", address=address)
        self.log.info(
            "or: qemu-img convert -n -f raw -O raw IMAGE iscsi://{address}/{target}/0",
            address=address,
            target=target,
        )


def _loopback(port: IListeningPort) -> bool:
    host = getattr(port.getHost(), "host", None)
    try:
        return host is None or ip_address(host).is_loopback
    except ValueError:
        return False


def _exitFailed() -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(1)


def raiseDescriptorLimit() -> None:
    """Every session and every extent needs a file descriptor: take as many as are allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        # The kernel's own maximum may be below the hard limit; what there is must do.
        return
