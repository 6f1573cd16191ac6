"""
A target with a mirror whose members come and go while it serves, for the long runs.

Run as C{python -m tests.long.changing PORT FOLDER CHANGES}: with CHANGES, the seed of a random generator, it
adds, replaces and removes members; without any it waits until those that there are hold the same.  It tells
what it does, a line each.
"""

from __future__ import annotations

import json
import os
import sys
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from iscsi_twisted.durable import replaceFile
from iscsi_twisted.errors import LocalError
from iscsi_twisted.storage import FileExtent, Mirror
from iscsi_twisted.target.service import TargetService
from iscsi_twisted.target.transport import VectorEndpoint

TARGET = "iqn.1994-04.org.netbsd.iscsi-target:target0"
SIZE = 4096 * 512
MOST = 4
LIST = "members"
"""The file that tells the numbers of the members, as whoever composes such a target has to keep them."""


class Changing:
    """The mirror and its members."""

    def __init__(self, folder: str, reactor: Any) -> None:
        self.folder, self.reactor = folder, reactor
        self.list = os.path.join(folder, LIST)
        numbers = [0, 1]
        if os.path.exists(self.list):
            with open(self.list, encoding="ascii") as file:
                numbers = json.load(file)
        self.extents = {number: self.extent(number) for number in numbers}
        self.mirror = Mirror(self.extents.values(), reactor=reactor)

    def extent(self, number: int) -> FileExtent:
        """A member, which may be new."""
        return FileExtent(os.path.join(self.folder, f"disk{number}"), 0, SIZE, reactor=self.reactor)

    def keep(self) -> None:
        """Keep who the members are, for the next start."""
        members = self.mirror.members
        self.extents = {
            number: extent
            for number, extent in self.extents.items()
            if any(extent is member for member in members)
        }
        replaceFile(self.list, json.dumps(sorted(self.extents)).encode())

    def new(self) -> FileExtent:
        """A member that there never was; that of an earlier process may have left its file."""
        number = 0
        while os.path.exists(os.path.join(self.folder, f"disk{number}")):
            number += 1
        self.extents[number] = self.extent(number)
        return self.extents[number]

    async def change(self, random: Random) -> None:
        """Change the members for as long as it lives."""
        self.keep()
        while True:
            await self.pause(random.uniform(0.0, 0.3))
            what = random.choice(("add", "replace", "remove"))
            victim = random.choice(list(self.extents.values()))
            try:
                await self.once(what, victim, random.random() < 0.5)
            except LocalError as error:
                print(f"not done: {what}: {error}", flush=True)
            else:
                print(f"done: {what}", flush=True)

    async def once(self, what: str, victim: FileExtent, early: bool) -> None:
        """
        Change them once.

        @param early: who is to go is forgotten before he goes.
        """
        mirror = self.mirror
        if what == "remove" and len(mirror.members) > 2:
            if early and all(each.state == "in sync" for each in mirror.status().members):
                rest = [number for number, extent in self.extents.items() if extent is not victim]
                replaceFile(self.list, json.dumps(sorted(rest)).encode())
            await mirror.remove(victim)
        elif what == "add" and len(mirror.members) < MOST:
            await mirror.add(self.new())
        elif what == "replace" and len(mirror.members) < MOST:
            await mirror.replace(victim, self.new())
            while victim in mirror.members:
                self.keep()
                await self.pause(0.02)
        else:
            raise LocalError("too many or too few")
        self.keep()

    async def settle(self) -> None:
        """Wait until all hold the same."""
        while self.mirror.status().degraded or self.mirror.status().unverified:
            await self.pause(0.05)
        print(f"settled: {' '.join(map(str, sorted(self.extents)))}", flush=True)

    def pause(self, seconds: float) -> Deferred[None]:
        """Let others go on."""
        return deferLater(self.reactor, seconds)


def main(port: int, folder: str, seed: str = "") -> None:
    """Serve until a signal comes."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    changing = Changing(folder, reactor)
    service = TargetService(
        reactor,
        [VectorEndpoint(reactor, port, "127.0.0.1")],
        stateDirectory=os.path.join(folder, "state"),
    )
    service.addTarget(TARGET, [changing.mirror])
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)

    def surprised(why: Failure) -> None:
        print(f"surprise: {why.getTraceback()}", flush=True)

    def ready(_: object) -> None:
        doing = changing.change(Random(int(seed))) if seed else changing.settle()
        Deferred.fromCoroutine(doing).addErrback(surprised)

    service.whenReady().addCallbacks(ready, surprised)
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
