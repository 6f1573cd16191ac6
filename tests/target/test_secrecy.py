"""No secret in anything that is shown: logs, traces, messages, representations, what is printed."""

from __future__ import annotations

import base64
import gc
import io
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, setDebugging
from twisted.internet.endpoints import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, eventAsJSON, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted import tap
from iscsi_twisted.auth.chap import CHAP, Credentials
from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.config.auths import parseAuths
from iscsi_twisted.config.steps import whole
from iscsi_twisted.errors import ConfigurationErrors, ISCSIError
from iscsi_twisted.initiator import Initiator, MemoryEndpoint
from iscsi_twisted.initiator.url import parseURL
from iscsi_twisted.interfaces import Account
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target.assembly import Plan
from iscsi_twisted.target.change import Wanted
from iscsi_twisted.target.trace import KINDS
from iscsi_twisted.target.users import FileUsers
from iscsi_twisted.tls.files import loadIdentity
from tests.support.certificates import Authority
from tests.support.served import MemoryService
from tests.support.wire import TARGET
from tests.test_tap import FILE, OptionsTestCase

CANARY, TARGETS_CANARY = "yellow-canary-sings", "green-canary-whistles"
BIRDS = (CANARY, TARGETS_CANARY)
USERS = f"agc:chap:{CANARY}:it:{TARGETS_CANARY}\njoe:chap:{CANARY}2\n"


def heard(text: str) -> list[str]:
    """The secrets that a text shows, in one form or another."""
    found = []
    for bird in BIRDS:
        data = bird.encode()
        forms = (
            bird,
            bird[:8],
            bird[-8:],
            data.hex(),
            base64.b64encode(data).decode()[:16],
            repr(bird)[1:-1],
        )
        found += [form for form in forms if form.lower() in text.lower()]
    return found


def shown(event: LogEvent) -> Iterator[str]:
    """All that an observer may make of an event."""
    yield eventAsText(event, includeTraceback=True)
    yield eventAsJSON(event)
    for name, value in event.items():
        yield f"{name} {value!r} {value}"
    if "log_failure" in event:
        failure = event["log_failure"]
        for detail in ("brief", "default"):
            yield failure.getTraceback(detail=detail)


class SecrecyTestCase(SynchronousTestCase):
    """Listens for canaries."""

    def assertSilent(self, text: str) -> None:
        """Nothing of a secret is in this."""
        self.assertEqual(heard(text), [], text[:500])

    def assertSilentLog(self, events: list[LogEvent]) -> None:
        """Nothing of a secret is in these events, whoever writes them."""
        self.assertNotEqual(events, [])
        for event in events:
            for text in shown(event):
                self.assertSilent(text)


class ObjectTests(SecrecyTestCase):
    """What objects say of themselves."""

    def test_heard(self) -> None:
        """What listens for canaries hears them."""
        for text in (
            CANARY,
            CANARY.upper(),
            CANARY.encode().hex(),
            repr(TARGETS_CANARY.encode()),
            "x" + CANARY[:9],
        ):
            self.assertNotEqual(heard(text), [])

    def test_objects(self) -> None:
        """Whatever holds a secret keeps it."""
        auths = parseAuths(USERS, "F")
        users = FileUsers(auths)
        credentials = Credentials("agc", CANARY.encode(), "it", TARGETS_CANARY.encode())
        url = parseURL(f"iscsi://agc%{CANARY}@host/{TARGET}/0")
        path, key = Authority(self.mktemp()).issue("localhost")
        identity = loadIdentity(path, key)
        with open(key) as file:
            pem = file.read()
        holders: list[Any] = [
            auths, auths.users, auths.users[0], users, list(users), users.find("agc"), credentials,
            credentials.oneWay(), CHAP(credentials, os.urandom), Verifier(users, os.urandom), url,
            Wanted((), users), identity, evolve(auths.users[0], user="other"), Initiator(Clock()),
        ]  # fmt: skip
        for holder in holders:
            for text in (repr(holder), str(holder), f"{holder}", repr([holder]), repr({"it": holder})):
                self.assertSilent(text)
                self.assertNotIn(pem[40:80], text)

    def test_failures(self) -> None:
        """Objects that cannot be made say why without telling of what."""
        for make in (
            lambda: Credentials("agc", CANARY.encode(), "it", CANARY.encode()),
            lambda: Credentials("", CANARY.encode()),
            lambda: parseURL(f"iscsi://agc%{CANARY}@host:99999/"),
            lambda: parseURL(f"iscsi://agc%{CANARY}@host/no name"),
            lambda: parseURL(f"iscsi://agc%{CANARY}@/{TARGET}"),
            lambda: parseURL(f"iscsis://agc%{CANARY}@host/{TARGET}?x=y"),
            lambda: parseURL(f"iscsi://a/g%{CANARY}@host"),
            lambda: parseURL(f"iscsi:agc%{CANARY}@host"),
        ):
            error = self.assertRaises(ISCSIError, make)
            self.assertSilent(str(error))
            self.assertSilent(repr(error))


class FileTests(SecrecyTestCase):
    """Auths files that cannot be understood."""

    def faults(self, text: str) -> str:
        """What is said of a file."""
        try:
            return repr(parseAuths(text, "F"))
        except ConfigurationErrors as error:
            return str(error)

    def test_broken(self) -> None:
        """A line that is wrong is told by its number."""
        for line in (
            f"agc:chap:{CANARY}:", f"agc:chap:{CANARY}:it", f"agc:chap:{CANARY}:it:{CANARY}",
            f"agc:chap:{CANARY}:it:{TARGETS_CANARY}:more", f"agc:chap: {CANARY}", f"agc:chap:{CANARY} ",
            f"agc:chap:{CANARY} # mine", f"agc:{CANARY}", f"agc::{CANARY}", f":chap:{CANARY}",
            f"agc:none:{CANARY}", f"agc:chp:{CANARY}", f"agc:chap:{CANARY}\x01", f"agc:chap:{CANARY}\\",
            f"agc:chap:{CANARY}\nagc:chap:{CANARY}x", f"{'a' * 300}:chap:{CANARY}",
            f"agc:tls:cn:{CANARY}", f"agc chap {CANARY}\nagc chap {CANARY}", f"agc={CANARY}\nagc={CANARY}",
            f"agc:chap:{CANARY}:it:{TARGETS_CANARY}\njoe:chap:{TARGETS_CANARY}",
            f"\ufeff\ufeffagc:chap:{CANARY}",
        ):  # fmt: skip
            self.assertSilent(self.faults(line + "\n"))

    @given(st.data())
    def test_anything(self, data: st.DataObject) -> None:
        """However a good line is spoilt behind its method, its secrets are not told."""
        line = f"agc:chap:{CANARY}:it:{TARGETS_CANARY}"
        at = data.draw(st.integers(9, len(line)))
        spoilt = line[:at] + data.draw(st.text(max_size=3)) + line[at + data.draw(st.integers(0, 2)) :]
        self.assertSilent(self.faults(spoilt))


class OptionsTests(OptionsTestCase, SecrecyTestCase):
    """The command line, and what is printed for people."""

    def setUp(self) -> None:
        super().setUp()
        self.write("A", USERS)
        os.chmod("A", 0o600)

    def test_check(self) -> None:
        """C{--check} prints users, not what they know."""
        printed = self.printed("-f", "F", "-a", "A", "--check")
        self.assertIn("users agc,joe", printed)
        self.assertSilent(printed)

    def test_refusals(self) -> None:
        """Files that are refused are not quoted; nor is a URL's secret."""
        self.write("F", FILE + f"extent5 iscsi://agc%{CANARY}@host/{TARGET}/0 0 size\ntarget5 extent5 any\n")
        self.assertSilent(self.printed("-f", "F", "-a", "A", "--check"))
        service = tap.makeService(self.options("-f", "F", "-a", "A"))
        for plan in service._serving.plans.values():  # type: ignore[attr-defined]
            self.assertSilent(f"{plan!r} {[str(disk.device) for disk in plan.disks]}")
        self.write("F", FILE + f"extent5 iscsi://agc%{CANARY}@host/no name 0 size\ntarget9 extent9 any\n")
        self.assertSilent("\n".join(self.refusal("-f", "F", "-a", "A")))
        self.write("F", FILE)
        os.chmod("A", 0o666)
        self.assertSilent("\n".join(self.refusal("-f", "F", "-a", "A")))
        self.assertSilent("\n".join(self.refusal("-f", "A", "-a", "A", "--open-auths")))

    def test_options(self) -> None:
        """Options and services show no users' secrets, nor what is read again."""
        options = self.options("-f", "F", "-a", "A")
        service = tap.makeService(options)
        again = whole(options.again())
        for holder in (options, options.users, service, again, options.warnings, vars(options)):
            self.assertSilent(f"{holder!r} {holder}")


class LogTests(SecrecyTestCase):
    """What a service logs of logins that succeed and fail, with all that can be traced."""

    def setUp(self) -> None:
        setDebugging(True)
        self.addCleanup(setDebugging, False)
        self.users: Any = FileUsers(parseAuths(USERS, None))
        self.memory = MemoryService(MemoryDevice(1 << 20), secrets=self.users, trace=frozenset(KINDS))
        self.memory.service.startService()
        self.clock = Clock()
        self.endpoint: IStreamClientEndpoint = MemoryEndpoint(self.clock, self.memory.service.factories[0])

    def turn(self) -> None:
        """Let what was sent arrive."""
        for _ in range(60):
            self.clock.advance(0)
            self.memory.reactor.advance(0)

    def login(self, user: str, secret: str, *theirs: str) -> Any:
        """Log in; the session, or the error."""
        credentials = Credentials(user, secret.encode(), *(theirs and (theirs[0], theirs[1].encode())))
        made = Deferred.fromCoroutine(
            Initiator(self.clock).login(self.endpoint, TARGET, credentials=credentials)
        )
        outcome: list[Any] = []
        made.addBoth(outcome.append)
        self.turn()
        self.memory.reactor.advance(10)
        self.turn()
        (result,) = outcome
        return getattr(result, "value", result)

    def test_logins(self) -> None:
        """Right and wrong secrets, unknown users, mutual CHAP, and a target that is another."""
        with capturedLogs() as events:
            told = [
                self.login("agc", CANARY),
                self.login("agc", CANARY, "it", TARGETS_CANARY),
                self.login("agc", TARGETS_CANARY),
                self.login("nobody", CANARY),
                self.login("joe", CANARY + "2", "it", TARGETS_CANARY),
                self.login("agc", CANARY, "it", "another"),
            ]
            status = self.memory.service.status()
        for each in told:
            self.assertSilent(f"{each!r} {each}")
        self.assertSilent(f"{status!r} {status}")
        self.assertIn("unknownUser", [event.get("event") for event in events])
        self.assertSilentLog(events)

    def test_surprises(self) -> None:
        """A store that fails with a secret at hand: the log has the traceback, and no values."""

        class Broken:
            def find(self, user: str) -> Any:
                account = Account(CANARY.encode(), "it", TARGETS_CANARY.encode())
                raise KeyError(type(account))

        class Late(Broken):
            def find(self, user: str) -> Any:
                waiting: Deferred[Any] = Deferred()
                waiting.addCallback(lambda secret: 1 // 0)
                waiting.callback(CANARY)
                return waiting

        for store in (Broken(), Late()):
            self.memory.service._serving.ask(store)
            target = self.memory.service.node.targets[TARGET]
            target.authenticate = self.memory.service.node.authenticate
            with capturedLogs() as events:
                error = self.login("agc", CANARY)
            self.assertEqual(error.status, 0x0300)
            self.assertIn("surprise", [event.get("event") for event in events])
            self.assertSilentLog(events)
        self.assertEqual(len(self.flushLoggedErrors(KeyError, ZeroDivisionError)), 2)

    def test_reload(self) -> None:
        """What has changed is told, and what was wrong; nothing of the users."""

        def broken() -> Wanted:
            return Wanted((), FileUsers(parseAuths(f"agc:chap:{CANARY}:it:{CANARY}\n", "A")))

        service = self.memory.service
        with capturedLogs() as events:
            self.failureResultOf(service._reloading.perform(broken), ConfigurationErrors)
            plans: list[Plan] = list(service._serving.plans.values())
            changed = service.change(plans, FileUsers(parseAuths(f"joe:chap:{CANARY}3\n", "A")))
            self.assertSilent(repr(self.successResultOf(changed)))
        self.assertSilentLog(events)

    def test_standing(self) -> None:
        """Of the objects that a login leaves none shows a secret."""
        session = self.login("agc", CANARY, "it", TARGETS_CANARY)
        self.assertSilent(f"{session!r} {vars(session) if hasattr(session, '__dict__') else ''}")
        for one in gc.get_objects():
            if str(type(one).__module__).startswith("iscsi_twisted."):
                self.assertSilent(repr(one))

    def test_streams(self) -> None:
        """Nothing is printed past the log."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            self.login("agc", CANARY)
            self.login("agc", "wrong-canary-sings")
        self.assertEqual((out.getvalue(), err.getvalue()), ("", ""))
