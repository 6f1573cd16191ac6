# -*- test-case-name: tests.test_documents -*-
"""The Python in the manual and in the README runs as it stands there."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import textwrap
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock

from iscsi_twisted.initiator import LUN, Initiator
from iscsi_twisted.interfaces import Account
from iscsi_twisted.scsi.paths import OPTIMIZED, STANDBY
from iscsi_twisted.storage import FileExtent, MemoryDevice, Mirror
from iscsi_twisted.target import TargetService
from tests.support.initiator import SIZE, InitiatorTests
from tests.support.mirrors import disks, opened, settled
from tests.support.platters import PlatterDisk
from tests.support.wire import makeTarget

ROOT = Path(__file__).parent.parent
RST = re.compile(r"^\.\. code-block:: python\n\n((?:[ ]+.*\n|\n)+)", re.MULTILINE)
MARKDOWN = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = "iqn.2001-04.com.example"
LATER = "later()"
"""What stands for C{...} on a line of its own: time goes by."""


def blocks() -> dict[str, list[str]]:
    """The Python in each file that has some."""
    found = {path.name: RST.findall(path.read_text()) for path in sorted((ROOT / "docs").glob("*.rst"))}
    found["README.md"] = MARKDOWN.findall((ROOT / "README.md").read_text())
    return {name: [textwrap.dedent(block) for block in each] for name, each in found.items() if each}


def text_(name: str, number: int = 0) -> str:
    """One of them, where time goes by at dots."""
    return re.sub(r"^\.\.\.$", LATER, blocks()[name][number], flags=re.MULTILINE)


class DocumentTests(InitiatorTests):
    """Each block, with the names that its text says there are."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = MemoryReactorClock()
        self.service = TargetService(self.reactor, ["tcp:3260"])
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.mkdir(folder := self.mktemp())
        os.chdir(folder)

    def block(self, name: str, number: int = 0, **names: Any) -> dict[str, Any]:
        """What there is when a block has run."""
        text = text_(name, number)
        names = {"reactor": self.reactor, "service": self.service, **names}
        exec(compile(text, name, "exec"), names)
        return names

    def served(self, service: Any, target: str) -> dict[int, Any]:
        """The units of a target, once its service runs."""
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        self.reactor.advance(1)
        return dict(service.node.targets[f"{NAME}:{target}"].units)

    def there(self, target: str) -> None:
        """The target in memory has this name too, and is wherever a text says."""
        self.node.add(makeTarget(self.device, name=target))
        self.patch(Initiator, "endpoint", lambda initiator, text: self.endpoint)

    def test_all(self) -> None:
        """All of them are tested here."""
        self.assertEqual(
            {name: len(each) for name, each in blocks().items()},
            {
                "README.md": 2, "access.rst": 1, "filters.rst": 3, "initiator.rst": 2, "mirrors.rst": 1,
                "paths.rst": 1, "start.rst": 1,
            },
        )  # fmt: skip

    def test_start(self) -> None:
        """A service in a C{.tac} file."""
        application: Any = Application("disks")
        names = self.block("start.rst", application=application)
        self.assertIn(names["service"], list(IService(application)))
        self.assertEqual(len(self.served(names["service"], "disk0")), 1)
        self.assertEqual(os.path.getsize("disk0"), 100 << 20)

    def test_access(self) -> None:
        """Users in a database."""
        asked = []

        class Database:
            def runQuery(self, query: str, arguments: tuple[str, ...]) -> Deferred[Any]:
                asked.append(arguments)
                return succeed([(b"0123456789abcdef",)])

        names = self.block("access.rst", database=Database(), disk=MemoryDevice(SIZE))
        account = self.now(names["Directory"]().find("mail"))
        self.assertEqual((type(account), account.secret), (Account, b"0123456789abcdef"))
        self.assertEqual((asked, len(self.served(names["service"], "mail"))), ([("mail",)], 1))

    def test_overlay(self) -> None:
        """Changes that are kept elsewhere, and written to the image by a program."""
        content = os.urandom(SIZE)
        Path("golden.img").write_bytes(content)
        program = text_("filters.rst")
        # What a target would have done before.
        change = program.replace("await overlay.commit(base)", "await call(overlay.write, 512, b'x' * 512)")
        change = "from iscsi_twisted.storage.pending import call\n" + change
        self.assertIn("overlay.write", change)
        for text, said in ((change, "0 bytes"), (program, "4096 bytes")):
            command = [sys.executable, "-c", text, "golden.img", "changes"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual((done.stderr, done.stdout.strip()), ("", said))
        whole = content[:512] + b"x" * 512 + content[1024:]
        self.assertEqual(Path("golden.img").read_bytes(), whole)

    def test_faults(self) -> None:
        """Devices that misbehave, made by a program, and of a targets file."""
        said = io.StringIO()
        with redirect_stdout(said):
            names = self.block("filters.rst", 1)
        self.assertEqual((said.getvalue(), len(self.served(self.service, "bad"))), ("0\n", 1))
        self.assertEqual(names["slow"].seconds, 1.0)
        Path("targets").write_text(
            "extent0 disk 0 1MB\ndevice1 FAULTS extent0 kind=error on=read\n"
            "device2 DELAY device1 seconds=0.005\ntarget0 device2 127.0.0.0/8\n"
        )
        service = self.block("filters.rst", 2)["service"]
        self.assertEqual((service.device("device1").active, service.device("device2").seconds), (False, 1.0))

    def test_initiator(self) -> None:
        """Discovery, and a disk that is written and read; and one that is served again as a mirror's half."""
        self.there(f"{NAME}:disk")
        said = io.StringIO()
        with redirect_stdout(said):
            self.now(self.block("initiator.rst")["main"](self.clock))
        self.assertIn(f"{NAME}:disk", said.getvalue())
        self.assertIn("datadata", said.getvalue())
        self.assertEqual(bytes(self.device.read(4096, 512)), b"data" * 128)
        self.block("initiator.rst", 1, session=self.session(), reactor=self.reactor)
        (unit,) = self.served(self.service, "again").values()
        mirror: Any = unit.device  # type: ignore[attr-defined]
        self.assertIsInstance(mirror, Mirror)
        self.assertEqual([type(leg.device) for leg in mirror.legs], [LUN, FileExtent])

    def test_mirror(self) -> None:
        """Members that come and go."""
        left, _, another, third = disks(4, SIZE)
        right = PlatterDisk(disks(1, SIZE)[0].platter, "right")
        scope: dict[str, Any] = {
            "left": left, "right": right, "another": another, "third": third, "reactor": self.reactor
        }  # fmt: skip

        def later() -> None:
            mirror = scope["mirror"]
            mirror.adopt(None, self.reactor)
            opened(mirror)
            settled(mirror, self.reactor)

        scope["later"] = later
        # Between two lines that change members, each has to have everything again.
        steps = re.split(r"(?m)^(?=mirror\.(?:add|remove|scrub)\()", text_("mirrors.rst"))
        for step in steps:
            exec(compile(step, "mirrors.rst", "exec"), scope)
            settled(scope["mirror"], self.reactor)
            self.reactor.pump([1] * 60)
        members = [leg.device for leg in scope["mirror"].legs]
        self.assertEqual((members, scope["mirror"].patience), ([another, third], 10))

    def test_paths(self) -> None:
        """Access states."""
        service = TargetService(self.reactor, [f"tcp:3260:tpgt={tag}" for tag in (1, 2)])
        service.addTarget(f"{NAME}:target0", [MemoryDevice(SIZE)])
        (unit,) = self.served(service, "target0").values()
        self.block("paths.rst", service=service)
        self.assertEqual([unit.paths.state(tag) for tag in (1, 2)], [STANDBY, OPTIMIZED])

    def test_readme(self) -> None:
        """A disk of one's own, served; and somebody else's, used."""
        reactor = self.reactor
        running: list[None] = []
        reactor.run = lambda: running.append(None)  # type: ignore[method-assign]
        import twisted.internet

        old = sys.modules.get("twisted.internet.reactor")
        self.addCleanup(_putBack, twisted.internet, old)
        sys.modules["twisted.internet.reactor"] = reactor  # type: ignore[assignment]
        twisted.internet.reactor = reactor  # type: ignore[attr-defined]
        names = self.block("README.md")
        service = names["service"]
        self.addCleanup(service.stopService)
        reactor.advance(1)
        (unit,) = service.node.targets[f"{NAME}:ram"].units.values()
        self.assertEqual((running, unit.device.size, len(service.ports)), ([None], 64 << 20, 1))
        self.there(f"{NAME}:disk")
        self.now(self.block("README.md", 1)["main"](self.clock, f"{NAME}:disk"))
        self.assertEqual(bytes(self.device.read(4096, 512)), b"data" * 128)


def _putBack(package: Any, old: Any) -> None:
    """The reactor that there was."""
    if old is None:
        sys.modules.pop("twisted.internet.reactor", None)
        del package.reactor
    else:
        sys.modules["twisted.internet.reactor"] = package.reactor = old
