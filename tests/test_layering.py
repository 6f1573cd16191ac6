"""The law of the rooms: who may import whom, checked from the imports themselves."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "iscsi_twisted"

_PURE = {"wire", "session", "scsi", "auth", "config"}
"""Rooms without Twisted."""

_SEAMS = {"errors", "interfaces"}
_SMALL = {"comparing", "durable"}
_BELOW = {"wire", "session", "scsi", "storage", "auth", "config", "transport", "tls"} | _SEAMS | _SMALL

LAW: dict[str, set[str]] = {
    "interfaces": set(),
    "errors": set(),
    "wire": {"errors"},
    "session": {"wire"} | _SEAMS,
    "scsi": {"comparing"} | _SEAMS,
    "storage": {"comparing", "durable"} | _SEAMS,
    "auth": _SEAMS,
    "config": {"errors"},
    "transport": _SEAMS,
    "durable": set(),
    "comparing": {"interfaces"},
    "tls": {"errors"},
    "target": _BELOW,
    "initiator": _BELOW,
    "web": _BELOW | {"target", "initiator"},
    "cli": _BELOW | {"target", "initiator", "web"},
    "tap": _BELOW | {"target", "initiator", "web", "cli"},
    "__init__": set(),
}
"""Which other rooms each room may import."""

TYPES_ONLY: dict[str, set[str]] = {}
"""What a room may name in annotations, beyond the law, under C{if TYPE_CHECKING}."""

OUTSIDE: dict[str, set[str]] = {
    "interfaces": {"zope.interface"},
    "errors": set(),
    "wire": {"crc32c"},
    "session": {"attrs", "zope.interface"},
    "scsi": {"attrs", "zope.interface"},
    "auth": {"attrs", "zope.interface"},
    "config": {"attrs"},
}
"""Third-party packages of the rooms without Twisted; the others are free."""

_IO = {"asyncio", "select", "selectors", "socketserver", "subprocess", "threading"}
"""Of the standard library, what has no place in the rooms without Twisted."""


class Import(NamedTuple):
    """
    One import.

    @ivar name: the module, or the name in a module, in full.
    @ivar top: it happens when the module is imported.
    @ivar typing: it stands under C{if TYPE_CHECKING}.
    """

    name: str
    line: int
    top: bool
    typing: bool


def imports(source: str, module: str) -> Iterator[Import]:
    """All imports of a module's source, however deep."""
    package = module.rpartition(".")[0]
    yield from _walk(ast.parse(source), package, True, False)


def _walk(node: ast.AST, package: str, top: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, top, typing)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - child.level + 1] + ([base] if base else []))
            for alias in child.names:
                yield Import(f"{base}.{alias.name}", child.lineno, top, typing)
        else:
            inFunction = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for part in child.body:
                    yield from _walk(ast.Module([part], []), package, top, True)
                for part in child.orelse:
                    yield from _walk(ast.Module([part], []), package, top, typing)
            else:
                yield from _walk(child, package, top and not inFunction, typing)


def rooms(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Every module of the package: its room, its full name, its file."""
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield parts[1], ".".join(parts), path


def violations(root: Path) -> list[str]:
    """One line for each import that the law does not allow, and for each room that it does not know."""
    found = []
    for room, module, path in rooms(root):
        where = path.relative_to(root)
        if room not in LAW:
            found.append(f"{where}: the law names no room {room!r}")
            continue
        for one in imports(path.read_text("utf-8"), module):
            found += [f"{where}:{one.line}: {fault}" for fault in _faults(room, one)]
    return found


def _faults(room: str, one: Import) -> Iterator[str]:
    """What is wrong with one import of a room."""
    first, _, rest = one.name.partition(".")
    if first == PACKAGE:
        other = rest.partition(".")[0]
        allowed = LAW[room] | {room} | (TYPES_ONLY.get(room, set()) if one.typing else set())
        if other in LAW and other not in allowed:
            yield f"{room} may not import {one.name}"
        elif other not in LAW and room != "__init__" and other != "__version__":
            yield f"{one.name} is in no room"
    elif room in OUTSIDE and not _outside(first, one.name, OUTSIDE[room]):
        yield f"{room} may not import {one.name}"
    if one.top and _within(one.name, {"twisted.internet.reactor"}):
        yield "twisted.internet.reactor at the top of a module"


def _outside(first: str, name: str, packages: set[str]) -> bool:
    """Whether a room without Twisted may import something that is not ours."""
    return first not in _IO if first in sys.stdlib_module_names else _within(name, packages)


def _within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


class LawTests(SynchronousTestCase):
    """The rooms keep the law."""

    def test_rooms(self) -> None:
        """No module imports what its room may not."""
        found = violations(ROOT)
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_somethingIsChecked(self) -> None:
        """The walk over the package finds modules and imports in it."""
        modules = list(rooms(ROOT))
        self.assertGreater(len(modules), 20)
        self.assertLessEqual(
            {"wire", "session", "scsi", "storage", "config", "target"}, {m[0] for m in modules}
        )
        inService = imports(
            (ROOT / PACKAGE / "target" / "transport.py").read_text("utf-8"), "x.target.transport"
        )
        self.assertIn("iscsi_twisted.errors.ConfigurationError", [one.name for one in inService])

    def test_pureRoomsAreListed(self) -> None:
        """Every room without Twisted has its third-party packages listed, and Twisted is in no list."""
        self.assertLessEqual(_PURE, set(OUTSIDE))
        for packages in OUTSIDE.values():
            self.assertFalse([name for name in packages if name.startswith("twisted")])

    def test_testsKeepTheReactorOut(self) -> None:
        """No test that trial loads imports the reactor at its top, and so installs one before trial does."""
        found = [
            f"{path.relative_to(ROOT)}:{one.line}"
            for path in sorted((ROOT / "tests").rglob("*.py"))
            for one in imports(path.read_text("utf-8"), "tests.x")
            if one.top and _within(one.name, {"twisted.internet.reactor"}) and "interop" not in path.parts
        ]
        self.assertEqual(found, [])


class PluginTests(SynchronousTestCase):
    """The plugin costs nothing to those who only list plugins."""

    def test_noPackage(self) -> None:
        """There is no __init__.py under twisted/: that would hide Twisted itself."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])

    def test_lazy(self) -> None:
        """The dropin holds calls of strings and a small class, and imports nothing of this package."""
        dropins = sorted((ROOT / "twisted" / "plugins").glob("*.py"))
        self.assertEqual([path.name for path in dropins], ["iscsi_twisted_dropin.py"])
        self.assertEqual(notLazy(dropins[0].read_text("utf-8")), [])


def notLazy(source: str) -> list[str]:
    """The statements of a dropin that do more than declare plugins, or import more than that takes."""
    allowed = {
        "typing.Any",
        "twisted.application.service.ServiceMaker",
        "twisted.internet.interfaces.IStreamClientEndpointStringParserWithReactor",
        "twisted.internet.interfaces.IStreamServerEndpointStringParser",
        "twisted.plugin.IPlugin",
        "zope.interface.implementer",
    }
    found = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.ImportFrom):
            names = {f"{statement.module}.{alias.name}" for alias in statement.names}
            fine = names <= allowed
        elif isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            fine = all(isinstance(argument, ast.Constant) for argument in statement.value.args)
        elif isinstance(statement, ast.ClassDef):
            # What stands in a method happens when it is called.
            kinds = (ast.FunctionDef, ast.Expr, ast.Assign)
            fine = all(
                isinstance(one, kinds) and not isinstance(getattr(one, "value", None), ast.Call)
                for one in statement.body
            )
        else:
            fine = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not fine:
            found.append(ast.unparse(statement))
    return found


class CheckerTests(SynchronousTestCase):
    """The checker finds what it is for."""

    def check(self, path: str, source: str) -> list[str]:
        """The violations of a package of one module."""
        root = Path(self.mktemp())
        file = root / PACKAGE / path
        file.parent.mkdir(parents=True)
        file.write_text(source, "utf-8")
        return violations(root)

    def test_planted(self) -> None:
        """Every kind of forbidden import is found, wherever in a module it stands."""
        for path, source in [
            ("wire/a.py", "from iscsi_twisted.session import task"),
            ("wire/a.py", "from ..session.task import Task"),
            ("wire/a.py", "from .. import session"),
            ("session/a.py", "import iscsi_twisted.scsi.unit"),
            ("session/a.py", "from twisted.internet.defer import Deferred"),
            ("scsi/a.py", "def f():\n    from iscsi_twisted.storage import Mirror"),
            ("scsi/a.py", "class C:\n    import twisted"),
            (
                "scsi/a.py",
                "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import iscsi_twisted.wire",
            ),
            ("storage/a.py", "from iscsi_twisted import scsi"),
            ("config/a.py", "try:\n    from iscsi_twisted.interfaces import ITask\nexcept ImportError: pass"),
            ("target/a.py", "from twisted.internet import reactor"),
            ("tap.py", "if True:\n    from twisted.internet import reactor"),
            ("target/a.py", "from iscsi_twisted.tap import makeService"),
            ("target/a.py", "from iscsi_twisted.web import metrics"),
            ("interfaces.py", "import attrs"),
            ("session/a.py", "import asyncio"),
            ("cellar/a.py", ""),
        ]:
            with self.subTest(path=path, source=source):
                self.assertEqual(len(self.check(path, source)), 1, source)

    def test_allowed(self) -> None:
        """What the law allows is not reported."""
        for path, source in [
            (
                "session/a.py",
                "from iscsi_twisted.wire import layout\nfrom . import keys\nimport struct, attrs",
            ),
            ("target/a.py", "def f():\n    from twisted.internet import reactor"),
            (
                "storage/a.py",
                "from twisted.internet.defer import Deferred\nfrom iscsi_twisted.errors import InUse",
            ),
            ("web/a.py", "from iscsi_twisted.target.service import TargetService"),
        ]:
            self.assertEqual(self.check(path, source), [])

    def test_notLazy(self) -> None:
        """A dropin that imports or computes is found."""
        self.assertEqual(len(notLazy("from iscsi_twisted import tap")), 1)
        self.assertEqual(len(notLazy("import twisted.application.service")), 1)
        self.assertEqual(len(notLazy("x = ServiceMaker('a', f(), 'b', 'c')")), 1)
        self.assertEqual(len(notLazy("for x in range(3): pass")), 1)
        self.assertEqual(len(notLazy("class C:\n    import iscsi_twisted")), 1)
        self.assertEqual(len(notLazy("class C:\n    x = f()")), 1)
        self.assertEqual(notLazy("class C:\n    x = 'a'\n    def f():\n        import iscsi_twisted"), [])
