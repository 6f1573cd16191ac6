"""Logins to targets that ask who comes."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from iscsi_twisted.auth.chap import STRONGEST_FIRST, Credentials, encode, response
from iscsi_twisted.auth.verifier import Verifier
from iscsi_twisted.errors import RemoteError
from iscsi_twisted.interfaces import Account, Asker, Grant
from iscsi_twisted.session.answers import LoginRefused
from iscsi_twisted.session.doors import Peer
from iscsi_twisted.wire import numbers, text
from tests.auth.test_verifier import OTHER, SECRET, Store
from tests.session.cases import DISCOVERY, NAMES, LoginTests
from tests.support import pdus
from tests.support.initiator import InitiatorTests
from tests.support.wire import INITIATOR, Anybody, Line

ME, YOU = Credentials("me", SECRET), Credentials("you", OTHER)


class GuardedTests(InitiatorTests):
    """Our own initiator."""

    def setUp(self) -> None:
        super().setUp()
        self.store = Store(me=Account(SECRET, "it", OTHER), you=Account(OTHER))
        self.target.authenticate = self.node.authenticate = lambda: Verifier(self.store, os.urandom)
        self.target.users = frozenset(("me",))

    def refused(self, status: int, **options: Any) -> None:
        """The login is refused with this status."""
        waiting = self.initiator.login(self.endpoint, self.target.name, **options)
        self.assertEqual(self.fails(LoginRefused, waiting).status, status)
        self.assertEqual(self.node.sessions, set())

    def test_hashes(self) -> None:
        """Every algorithm, one-way and mutual; the session knows its user."""
        for algorithm in STRONGEST_FIRST:
            for credentials in (ME, Credentials("me", SECRET, "it", OTHER)):
                session = self.session(credentials=credentials, algorithms=(algorithm,))
                (ours,) = self.node.sessions
                self.assertEqual(ours.user, "me")
                self.now(session.logout())

    def test_refused(self) -> None:
        """Nobody, a wrong secret, an unknown user, and one who is not allowed here."""
        self.refused(numbers.AUTHENTICATION_FAILURE)
        self.refused(numbers.AUTHENTICATION_FAILURE, credentials=Credentials("me", b"wrong"))
        self.refused(numbers.AUTHENTICATION_FAILURE, credentials=Credentials("nobody", SECRET))
        self.assertIn(("unknownUser", "nobody"), self.diary.entries)
        self.refused(numbers.AUTHORIZATION_FAILURE, credentials=YOU)

    def test_wrongTarget(self) -> None:
        """An initiator that wants to know the target does not stay with another."""
        waiting = self.initiator.login(
            self.endpoint, self.target.name, credentials=Credentials("me", SECRET, "it", b"another")
        )
        self.fails(RemoteError, waiting)
        self.assertEqual(self.node.sessions, set())

    def test_discovery(self) -> None:
        """Discovery asks too, and lists only what the user may use."""
        self.fails(LoginRefused, self.initiator.discover(self.endpoint))
        self.assertEqual(self.now(self.initiator.discover(self.endpoint, credentials=YOU)), [])
        (found,) = self.now(self.initiator.discover(self.endpoint, credentials=ME))
        self.assertEqual(found.name, self.target.name)

    def test_certified(self) -> None:
        """Whoever a certificate proves needs no secret, in whichever stage the login begins."""
        self.node.certified = {("me@example.com",): "me", ("you",): "you"}.get
        for certificate, stage, method, status in (
            ("me@example.com", numbers.OPERATIONAL, None, numbers.SUCCESS),
            ("me@example.com", numbers.SECURITY, "None", numbers.SUCCESS),
            ("me@example.com", numbers.SECURITY, "None,CHAP", numbers.SUCCESS),
            ("me@example.com", numbers.SECURITY, "KRB5", numbers.AUTHENTICATION_FAILURE),
            ("you", numbers.OPERATIONAL, None, numbers.AUTHORIZATION_FAILURE),
            ("you", numbers.SECURITY, "None", numbers.AUTHORIZATION_FAILURE),
            ("stranger", numbers.OPERATIONAL, None, numbers.AUTHENTICATION_FAILURE),
            ("stranger", numbers.SECURITY, "None", numbers.AUTHENTICATION_FAILURE),
        ):
            with self.subTest(certificate=certificate, stage=stage, method=method):
                line = Line(self.node)
                line.core.peer = Peer("192.0.2.7", "", None, (certificate,))
                names = {"InitiatorName": INITIATOR, "TargetName": self.target.name}
                if method is not None:
                    names["AuthMethod"] = method
                (response,) = line.say(pdus.loginRequest(names, stage=stage))
                self.assertEqual(response["status"], status)
                self.assertEqual([each.user for each in self.node.sessions], [] if status else ["me"])
                line.core.lost("")

    def test_certifiedMayProveMore(self) -> None:
        """A user with a certificate who chooses CHAP has to go through with it."""
        self.node.certified = lambda names: "me"
        line = Line(self.node)
        line.core.peer = Peer("192.0.2.7", "", None, ("me",))
        names = {"InitiatorName": INITIATOR, "TargetName": self.target.name, "AuthMethod": "CHAP,None"}
        (response,) = line.say(pdus.loginRequest(names, stage=numbers.SECURITY))
        self.assertEqual(response["status"], numbers.SUCCESS)
        self.assertEqual(response["flags"] & numbers.FINAL, 0)
        self.assertEqual(self.node.sessions, set())
        line.core.lost("")

    def test_later(self) -> None:
        """A store may take its time; others log in meanwhile, and a login that was given up is forgotten."""
        self.store.asked = []
        waiting = self.started()
        gone = self.started()
        self.assertEqual(len(self.store.asked), 2)
        self.endpoint.transports[-1].abortConnection()
        self.store.asked[0].callback(self.store.accounts["me"])
        self.store.asked[1].callback(self.store.accounts["me"])
        self.turn()
        self.successResultOf(waiting)
        self.failureResultOf(gone)
        self.assertEqual(len(self.node.sessions), 1)

    def test_brokenStore(self) -> None:
        """A store that fails lets nobody in; that is told as a fault of the target."""
        self.store.asked = []
        waiting = self.started()
        self.store.asked[0].errback(OSError("no database"))
        self.turn()
        self.assertEqual(self.failureResultOf(waiting, LoginRefused).value.status, numbers.TARGET_ERROR)
        self.assertEqual([entry[0] for entry in self.diary.entries], ["surprise", "refused"])
        self.diary.entries.clear()

    def test_brokenAtOnce(self) -> None:
        """So it is if the store fails at once, or a policy does, however long the store took."""

        class Broken:
            def admits(self, address: str | None) -> bool:
                return True

            def decide(self, asker: Asker) -> Grant | None:
                raise ZeroDivisionError

        self.target.policy = Broken()
        for later in (False, True):
            self.store.asked = [] if later else None
            waiting = Deferred.fromCoroutine(
                self.initiator.login(self.endpoint, self.target.name, credentials=ME)
            )
            self.turn()
            for asked in self.store.asked or ():
                asked.callback(self.store.accounts["me"])
            self.turn()
            self.assertEqual(self.failureResultOf(waiting, LoginRefused).value.status, numbers.TARGET_ERROR)
        self.target.policy = Anybody()
        self.store.find = lambda user: 1 // 0  # type: ignore[method-assign]
        self.refused(numbers.TARGET_ERROR, credentials=ME)
        self.assertEqual(self.node.sessions, set())
        told = [entry[0] for entry in self.diary.entries]
        self.assertEqual((told.count("surprise"), told.count("refused")), (3, 3))
        self.diary.entries.clear()

    def test_laterRefused(self) -> None:
        """What the store tells after a while is refused as what it tells at once."""
        self.store.asked = []
        waiting = self.started()
        self.store.asked[0].callback(None)
        self.turn()
        error = self.failureResultOf(waiting, LoginRefused).value
        self.assertEqual(error.status, numbers.AUTHENTICATION_FAILURE)

    def started(self) -> Any:
        """A login that waits for the store."""
        waiting = Deferred.fromCoroutine(
            self.initiator.login(self.endpoint, self.target.name, credentials=ME)
        )
        self.turn()
        self.assertNoResult(waiting)
        return waiting

    def test_othersSession(self) -> None:
        """A user cannot take the place of another's session by giving the same names."""
        self.target.users = None
        session = self.session(credentials=ME)
        self.initiator.isids.next = lambda: session.wish.isid  # type: ignore[method-assign]
        waiting = self.initiator.login(self.endpoint, self.target.name, credentials=YOU)
        self.assertEqual(self.fails(LoginRefused, waiting).status, numbers.AUTHORIZATION_FAILURE)
        self.assertEqual(self.now(session.ping(b"still")), b"still")


SAID = st.dictionaries(
    st.sampled_from(
        ("AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R", "SessionType", "TargetName")
    ),
    st.sampled_from(("CHAP", "None,CHAP", "None", "5", "9,7", "me", "you", "0x00", "Discovery", "")),
    max_size=4,
)
"""What an initiator may say: keys of a login, with values of this key or of another."""


class AttackTests(LoginTests):
    """Initiators that would rather not say who they are."""

    def setUp(self) -> None:
        super().setUp()
        self.store = Store(me=Account(SECRET))
        self.target.authenticate = self.node.authenticate = lambda: Verifier(self.store, os.urandom)

    def test_skipped(self) -> None:
        """The security stage cannot be skipped, nor left before its end, nor with another method."""
        for names in (NAMES, DISCOVERY):
            self.assertRefused(0x0201, names, Line(self.node), stage=1, following=3)
            self.assertRefused(0x0201, names, Line(self.node), stage=0, following=1)
            self.assertRefused(0x0201, names, Line(self.node), stage=0, following=3)
            for method in ("None", "SRP,KRB5", "", "CHAPS"):
                line = Line(self.node)
                self.assertRefused(0x0201, names | {"AuthMethod": method}, line, stage=0, following=1)

    def test_eager(self) -> None:
        """Who wants to go on too early is kept in the stage."""
        for following in (1, 3):
            line = Line(self.node)
            answer = self.ask(NAMES | {"AuthMethod": "CHAP"}, line, stage=0, following=following)
            self.assertEqual((answer["status"], answer["flags"] & 0x80), (0, 0))
            self.assertEqual(answer["keys"]["AuthMethod"], "CHAP")
            answer = self.ask({"CHAP_A": "5"}, line, stage=0, following=following)
            self.assertEqual(answer["flags"] & 0x80, 0)
            answer = self.ask({}, line, stage=0, following=following)
            self.assertEqual(answer["flags"] & 0x80, 0)
            self.assertIsNone(line.core.session)

    def test_unasked(self) -> None:
        """Keys of an authentication that was not agreed upon, or in another stage, are an error."""
        self.assertRefused(0x0200, NAMES | {"CHAP_A": "5"}, stage=0, following=None)
        self.target.authenticate = None
        self.assertRefused(0x0200, NAMES | {"CHAP_A": "5"}, Line(self.node), stage=0, following=None)
        self.assertRefused(0x0200, NAMES | {"CHAP_N": "me"}, Line(self.node), stage=1, following=None)

    def test_twice(self) -> None:
        """A key that is given twice is an error, not a choice."""
        for first, more in (
            ({"CHAP_A": "5"}, b"CHAP_A=7\0"),
            ({"CHAP_N": "me", "CHAP_R": "0x00"}, b"CHAP_N=you\0"),
        ):
            line = Line(self.node)
            self.ask(NAMES | {"AuthMethod": "CHAP"}, line, stage=0, following=None)
            if "CHAP_R" in first:
                self.ask({"CHAP_A": "5"}, line, stage=0, following=None)
            request = pdus.loginRequest(text.encode(first.items()) + more, stage=0, following=None)
            (answer,) = line.say(request)
            self.assertEqual(answer["status"], numbers.INITIATOR_ERROR)

    def test_renegotiated(self) -> None:
        """Who has agreed to CHAP cannot change to another method, nor from one that was rejected."""
        for method in ("CHAP", "KRB5"):
            line = Line(self.node)
            self.ask(NAMES | {"AuthMethod": method}, line, stage=0, following=None)
            self.assertRefused(0x0200, {"AuthMethod": "None"}, line, stage=0, following=1)
            self.assertEqual(self.node.sessions, set())

    def test_secondRound(self) -> None:
        """Who has proved who it is says no more of that: neither again, nor in the next stage."""
        for stage, said in (
            (0, {"CHAP_A": "5"}),
            (0, {"CHAP_N": "you", "CHAP_R": "0x00"}),
            (1, {"CHAP_A": "5"}),
        ):
            line = Line(self.node)
            self.ask(NAMES | {"AuthMethod": "CHAP"}, line, stage=0, following=None)
            keys = self.ask({"CHAP_A": "5"}, line, stage=0, following=None)["keys"]
            proof = response(5, int(keys["CHAP_I"]), SECRET, bytes.fromhex(keys["CHAP_C"][2:]))
            proved = {"CHAP_N": "me", "CHAP_R": encode(proof)}
            answer = self.ask(proved, line, stage=0, following=1 if stage else None)
            self.assertEqual(answer["status"], 0)
            self.assertRefused(0x0200, said, line, stage=stage, following=3)
            self.assertEqual(self.node.sessions, set())

    def test_oversized(self) -> None:
        """Values that are too long are an error, and nothing is kept of them."""
        line = Line(self.node)
        self.ask(NAMES | {"AuthMethod": "CHAP"}, line, stage=0, following=None)
        self.ask({"CHAP_A": "5"}, line, stage=0, following=None)
        self.assertRefused(
            0x0200, {"CHAP_N": "me", "CHAP_R": "0x" + "00" * 2000}, line, stage=0, following=None
        )

    def test_while(self) -> None:
        """A request that comes while the store is asked ends the login."""
        self.store.asked = []
        line = Line(self.node)
        self.ask(NAMES | {"AuthMethod": "CHAP"}, line, stage=0, following=None)
        self.ask({"CHAP_A": "5"}, line, stage=0, following=None)
        request = pdus.loginRequest({"CHAP_N": "me", "CHAP_R": "0x00"}, stage=0, following=1)
        self.assertEqual(line.say(request), [])
        self.assertRefused(0x0200, {}, line, stage=0, following=1)
        self.store.asked[0].callback(Account(SECRET))
        self.assertTrue(line.closed)

    def test_requiredMeanwhile(self) -> None:
        """A login that began when nobody was asked does not end as a session once somebody is."""
        for names, door in ((NAMES, self.target), (DISCOVERY, self.node)):
            with self.subTest(names=names):
                door.authenticate = None
                line = Line(self.node)
                (first,) = line.say(pdus.loginRequest(names | {"AuthMethod": "None"}, stage=0, following=1))
                self.assertEqual((first["status"], first["flags"]), (numbers.SUCCESS, 0x81))
                door.authenticate = lambda: Verifier(Store(me=Account(SECRET)), os.urandom)
                (last,) = line.say(pdus.loginRequest({}, stage=1))
                self.assertEqual(last["status"], numbers.AUTHENTICATION_FAILURE)
                self.assertEqual(self.node.sessions, set())

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.sampled_from((0, 0, 1)), st.sampled_from((None, 1, 3)), SAID), max_size=6))
    def test_anything(self, steps: list[tuple[int, int | None, dict[str, str]]]) -> None:
        """Whatever is said without the secret, and in whatever order, nobody gets in, and nothing breaks."""
        line = Line(self.node)
        heard: dict[str, str] = {}
        for number, (stage, following, said) in enumerate(steps):
            names = {} if number else DISCOVERY if "SessionType" in said else NAMES
            # What the target has said may be said to it.
            pairs = names | {
                name: heard.get(name, value) for name, value in said.items() if name not in names
            }
            answers = line.say(pdus.loginRequest(pairs, stage=stage, following=following))
            for answer in answers:
                heard |= dict(text.decode(answer["data"]))
            if line.closed:
                break
        self.assertEqual(self.node.sessions, set())
        self.assertNotIn("surprise", [entry[0] for entry in self.diary.entries])
        line.core.lost("")
