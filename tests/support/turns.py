"""Single turns of a reactor that is a clock."""

from __future__ import annotations

from twisted.internet.task import Clock


def turn(clock: Clock, turns: int = 1) -> None:
    """Make the calls that are due, but not those that they make due: these have their turn later."""
    for _ in range(turns):
        for call in [each for each in clock.getDelayedCalls() if each.getTime() <= clock.seconds()]:
            function, arguments, keywords = call.func, call.args, call.kw
            call.cancel()
            function(*arguments, **keywords)
