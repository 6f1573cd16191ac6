# -*- test-case-name: tests.cli.test_running -*-
"""Running a command to its end, whether it comes there by itself or is interrupted."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react

from iscsi_twisted.errors import ConfigurationErrors, ISCSIError, LocalError
from iscsi_twisted.transport import tuneMalloc

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

GRACE: Final = 3.0

T = TypeVar("T")
Command = Callable[[Any], Coroutine[Any, Any, None]]


class Running:
    """
    One command that runs.

    @ivar signal: the number of the signal that has interrupted it; 0 for none.
    """

    def __init__(self, name: str = "", asJSON: bool = False) -> None:
        """
        @param name: what failures begin with; nothing if it is empty.
        @param asJSON: whether they are told as JSON.
        """
        self.signal = 0
        self._name, self._asJSON = name, asJSON
        self._command: Deferred[None] | None = None

    def interrupt(self, number: int) -> None:
        """A signal came: what the command waits for is cancelled, and it ends as after any failure."""
        self.signal = number
        if self._command is not None:
            self._command.cancel()

    async def run(self, command: Coroutine[Any, Any, None]) -> None:
        """
        Run it, and tell of failures in one line.

        @raise SystemExit: with status 1, if it fails; with 128 and the number of the signal, if one came.
        """
        self._command = Deferred.fromCoroutine(command)
        try:
            await self._command
        except SystemExit:
            raise
        except (ISCSIError, ConfigurationErrors) as error:
            self._fail(str(error))
        except OSError as error:
            self._fail(_ofSystem(error))
        except Exception as error:  # what endpoints fail with has no common class
            self._fail(str(error) or type(error).__name__)
        if self.signal:
            raise SystemExit(128 + self.signal)

    def _fail(self, why: str) -> None:
        if self.signal:
            why = f"interrupted by {signal.Signals(self.signal).name}"
        line = json.dumps({"error": why}) if self._asJSON else f"{self._name}: {why}" if self._name else why
        if sys.stderr is not None:  # else print would take standard output
            print(line, file=sys.stderr, flush=True)
        if not self.signal:
            raise SystemExit(1)

    def listen(self, reactor: Any) -> None:
        """Be told of signals.  The second one of a kind ends the process without a word."""

        def told(number: int, frame: object) -> None:
            signal.signal(number, signal.SIG_DFL)
            reactor.callFromThread(self.interrupt, number)

        for number in SIGNALS:
            signal.signal(number, told)


def sayAloud(line: str) -> None:
    """
    Print a line.

    @raise OSError: if it does not arrive, which is a failure of the command.
    @raise LocalError: if there is no standard output.
    """
    if sys.stdout is None:
        raise LocalError("standard output is closed")
    try:
        print(line, flush=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def _ofSystem(error: OSError) -> str:
    """What the system says, and of what: its number tells nothing more."""
    why = error.strerror or str(error)
    return why if error.filename is None else f"{error.filename}: {why}"


async def unbroken(
    reactor: Any, coroutine: Coroutine[Any, Any, T], keep: Callable[[T], Any], grace: float = GRACE
) -> T:
    """
    Do something that should not be interrupted half way, such as a login, after which there is one more
    session to log out from at the target, and nobody here who knows.

    @param keep: is called with the result, also after an interruption.
    @param grace: seconds that it may take after an interruption.
    """
    doing = Deferred.fromCoroutine(coroutine)
    waiting: Deferred[Any] = Deferred()
    late: Deferred[Any] = Deferred()
    # A Failure becomes a failure.
    doing.addBoth(lambda result: (late if waiting.called else waiting).callback(result))
    try:
        result: T = await waiting
    except CancelledError:
        reactor.callLater(grace, doing.cancel)
        keep(await late)
        raise
    keep(result)
    return result


def runCommand(running: Running, command: Command) -> NoReturn:
    """Run the reactor until a command has ended, and end the process."""

    def main(reactor: Any) -> Deferred[None]:
        # The reactor sets its own handlers first.
        reactor.callWhenRunning(running.listen, reactor)
        tuneMalloc()
        return Deferred.fromCoroutine(running.run(command(reactor)))

    react(main)
