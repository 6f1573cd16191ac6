# -*- test-case-name: tests.session.test_login,tests.session.test_loginkeys -*-
"""The login phase, the target's side (RFC 7143 6.3, 11.12, 11.13)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import (
    FramingError,
    LoginError,
    NotAuthenticated,
    RemoteError,
    UnknownUser,
)
from iscsi_twisted.interfaces import Buffer, Grant
from iscsi_twisted.session.names import complaint, normalise
from iscsi_twisted.session.negotiation import Negotiation
from iscsi_twisted.session.parameters import CHOICES, MAX_RECEIVE, OURS, Parameters
from iscsi_twisted.session.proof import PREFIX, Proof
from iscsi_twisted.session.session import Session
from iscsi_twisted.session.target import Nexus, Target
from iscsi_twisted.wire import layout, numbers, text
from iscsi_twisted.wire.framer import LOGIN_SEGMENT

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection

_IDENTITY: Final = frozenset(("InitiatorName", "SessionType", "TargetName"))


class Login:
    """
    One login on one connection.

    @ivar stage: the current stage (CSG).
    @ivar initiatorName: in normal form, once it is known.
    @ivar kind: C{Normal} or C{Discovery}.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._negotiation = Negotiation(OURS, CHOICES)
        self._text = b""
        self._unsent = b""
        self._offered: dict[str, str] = {}
        self._identified = False
        self._declared = False
        self._requests = self._received = 0
        self._latest: tuple[int, ...] | None = None
        self._fixed: tuple[bytes, int, int, int] | None = None
        self._target: Target | None = None
        self._proof = Proof(connection)
        self._named = ""
        self._joined: Session | None = None
        self.stage: int | None = None
        self.initiatorName = ""
        self.kind = "Normal"

    def request(self, chunk: Buffer, offset: int, data: Buffer) -> None:
        """A Login Request PDU; whatever is wrong with it is answered with a Login Response."""
        if self._latest is None:
            self._connection.node.spoke(self._connection)
        fields = self._latest = layout.LOGIN_REQUEST.unpack(chunk, offset)
        self._attempt(fields, partial(self._request, fields, bytes(data)))

    def _attempt(self, fields: tuple[int, ...], step: Callable[[], None]) -> None:
        """Go one step; whatever keeps the login from going on is told to the initiator."""
        try:
            step()
        except Exception as error:
            self._fail(fields, error)

    def abandon(self) -> None:
        """The connection is closing: nobody wants to know any more who comes."""
        self._proof.abandon()

    def reconsider(self) -> None:
        """What is served has changed: a login that cannot succeed any more ends."""
        if not self._identified:
            return
        connection, target = self._connection, self._target
        try:
            if target is None:
                self._checkDoor()
            elif connection.node.find(target.name, connection.peer, connection.portal) is not target:
                raise LoginError(numbers.TARGET_REMOVED, "the target is another one now")
        except LoginError as error:
            connection.abandon(str(error))
        except Exception:
            # A policy of an application's: the end of the login asks it again, and reports what is wrong.
            return

    def interrupt(self) -> None:
        """
        Another PDU came before the login was complete (RFC 7143 6.3).

        @raise FramingError: if no login has begun; then there is nothing that could be answered.
        """
        if self._latest is None:
            raise FramingError("a PDU other than Login before the login")
        self._refuse(self._latest, numbers.INVALID_DURING_LOGIN, "a PDU other than Login during the login")

    def _request(self, fields: tuple[int, ...], data: bytes) -> None:
        _, flags, _, versionMin, _, isid, tsih, itt, cid, _, _ = fields
        if versionMin > 0:
            raise LoginError(
                numbers.UNSUPPORTED_VERSION, f"it wants version {versionMin} at least; ours is 0"
            )
        if self._proof.waits:
            raise LoginError(numbers.INITIATOR_ERROR, "a request before the last one was answered")
        transit, goesOn = flags & numbers.FINAL, flags & numbers.CONTINUE
        self._checkStage(flags)
        self._checkFixed((isid, tsih, itt, cid))  # type: ignore[arg-type]
        if self._unsent:
            if data or goesOn:
                raise LoginError(numbers.INITIATOR_ERROR, "text before the answer was complete")
        elif not self._take(data, fields):
            return
        self._answer(fields, flags & 3 if transit else None)

    def _take(self, data: bytes, fields: tuple[int, ...]) -> bool:
        """Take the text of one request; whether it can be answered now."""
        _, flags, _, _, _, isid, tsih, _, cid, _, _ = fields
        self._text += data
        self._received += len(data)
        most = self._connection.node.limits.loginBytes
        if self._received > most:
            raise LoginError(numbers.INITIATOR_ERROR, f"the login text is longer than {most} bytes")
        if flags & numbers.CONTINUE:
            self._respond(fields, b"", 0)
            return False
        pairs, self._text = text.decode(self._text), b""
        self._offered = dict(pairs)
        answers = self._answers(pairs, isid, tsih, cid)  # type: ignore[arg-type]
        said = [pair for pair in pairs if pair[0].startswith(PREFIX)]
        if len(dict(said)) < len(said):
            raise LoginError(numbers.INITIATOR_ERROR, "a key of CHAP is given twice")
        if said:
            return self._authenticate(fields, answers, dict(said))
        self._unsent = text.encode(answers)
        return True

    def _authenticate(
        self, fields: tuple[int, ...], answers: list[tuple[str, str]], said: dict[str, str]
    ) -> bool:
        """Hand on what belongs to the authentication (RFC 7143 12.1); whether it can be answered now."""
        agreed = self._negotiation.results["AuthMethod"] == "CHAP"
        if not self._proof.asked or self.stage != numbers.SECURITY or not agreed:
            raise LoginError(numbers.INITIATOR_ERROR, "CHAP keys where CHAP was not agreed upon")
        then, failed = partial(self._proved, fields, answers), partial(self._fail, fields)
        proof = self._proof.take(said, self.initiatorName, then, failed)
        if proof is None:
            return False
        self._unsent = text.encode(answers + proof)
        return True

    def _proved(
        self, fields: tuple[int, ...], answers: list[tuple[str, str]], proof: list[tuple[str, str]]
    ) -> None:
        """The authentication could be judged, after a while."""
        self._unsent = text.encode(answers + proof)
        self._goOn(fields)

    def _goOn(self, fields: tuple[int, ...]) -> None:
        """Answer a request that had to wait."""
        flags = fields[1]
        following = flags & 3 if flags & numbers.FINAL else None
        self._attempt(fields, partial(self._answer, fields, following))
        self._connection.flush()

    def _fail(self, fields: tuple[int, ...], error: Exception) -> None:
        """Refuse a request; if a store or a policy of an application's could not answer, nobody is let in."""
        if isinstance(error, RemoteError):
            status = error.status if isinstance(error, LoginError) else numbers.INITIATOR_ERROR
            self._refuse(fields, status, str(error), error)
        else:
            self._connection.node.events.surprise(error, "finding out who may log in")
            self._refuse(fields, numbers.TARGET_ERROR, "it could not be found out whether it may")
        self._connection.flush()

    def _answer(self, fields: tuple[int, ...], following: int | None) -> None:
        """Send what the initiator takes at a time, and go on to another stage once that is all."""
        part, self._unsent = self._unsent[:LOGIN_SEGMENT], self._unsent[LOGIN_SEGMENT:]
        if self._unsent:
            self._respond(fields, part, numbers.CONTINUE)
        elif following is None or not self._leaves():
            self._respond(fields, part, 0)
        else:
            if following == numbers.FULL_FEATURE:
                self._complete(fields, part)
            else:
                self._respond(fields, part, numbers.FINAL | following)
                self.stage = following

    def _checkStage(self, flags: int) -> None:
        """The stage bits (RFC 7143 11.12.1 to 11.12.3)."""
        stage, following = flags >> 2 & 3, flags & 3
        self._requests += 1
        most = self._connection.node.limits.loginRequests
        if self._requests > most:
            raise LoginError(numbers.INITIATOR_ERROR, f"the login takes more than {most} requests")
        if self.stage is None and stage in (numbers.SECURITY, numbers.OPERATIONAL):
            self.stage = stage
        if stage != self.stage:
            raise LoginError(numbers.INITIATOR_ERROR, f"stage {stage} in stage {self.stage}")
        if not flags & numbers.FINAL:
            return
        if flags & numbers.CONTINUE:
            raise LoginError(numbers.INITIATOR_ERROR, "both the T and the C bit")
        if following <= stage or following == 2:
            raise LoginError(numbers.INITIATOR_ERROR, f"a transit from stage {stage} to {following}")

    def _checkFixed(self, fixed: tuple[bytes, int, int, int]) -> None:
        """ISID, TSIH, task tag and CID are those of the first request (RFC 7143 11.12)."""
        if self._fixed is None:
            self._fixed = fixed
            if fixed[2] == numbers.NO_TAG:
                raise LoginError(numbers.INITIATOR_ERROR, "the task tag is the reserved one")
        elif fixed != self._fixed:
            raise LoginError(numbers.INITIATOR_ERROR, "ISID, TSIH, task tag or CID changed during the login")

    def _answers(
        self, pairs: list[tuple[str, str]], isid: bytes, tsih: int, cid: int
    ) -> list[tuple[str, str]]:
        """Negotiate, after the first request's names have been looked at."""
        answers: list[tuple[str, str]] = []
        if not self._identified:
            self._identify(dict(pairs), isid)
            if tsih:
                self._join(isid, tsih, cid)
            self._identified = True
            begin = (self._target or self._connection.node).authenticate
            methods = self._proof.require(begin, self.initiatorName, self.stage)
            if self._proof.asked:
                self._negotiation.accept("AuthMethod", methods)
            if self._target is not None:
                answers.append(("TargetPortalGroupTag", str(self._connection.portal.tag)))
                if self._target.alias:
                    answers.append(("TargetAlias", self._target.alias))
        elif any(name in _IDENTITY for name, _ in pairs):
            raise LoginError(numbers.INITIATOR_ERROR, "a name or session type after the first request")
        answers += self._negotiation.answer(pair for pair in pairs if not pair[0].startswith(PREFIX))
        if self.stage == numbers.OPERATIONAL and not self._declared:
            self._declared = True
            answers.append(("MaxRecvDataSegmentLength", str(MAX_RECEIVE)))
        return answers

    def _identify(self, pairs: dict[str, str], isid: bytes) -> None:
        """Who logs in to what (RFC 7143 6.3.1)."""
        initiator = pairs.get("InitiatorName")
        if initiator is None:
            raise LoginError(numbers.MISSING_PARAMETER, "there is no InitiatorName")
        wrong = complaint(initiator)
        if wrong is not None:
            raise LoginError(numbers.INITIATOR_ERROR, f"InitiatorName: {wrong}")
        self.initiatorName = normalise(initiator)
        self._connection.initiator = initiator
        kind = pairs.get("SessionType", "Normal")
        if kind not in ("Normal", "Discovery"):
            raise LoginError(
                numbers.SESSION_TYPE_NOT_SUPPORTED, "the SessionType is neither Normal nor Discovery"
            )
        self.kind = kind
        self._negotiation.discovery = kind == "Discovery"
        if kind == "Discovery":
            self._checkDoor()
            self._named = normalise(pairs.get("TargetName", ""))
        else:
            if "TargetName" not in pairs:
                raise LoginError(numbers.MISSING_PARAMETER, "there is no TargetName in a normal session")
            self._target = self._connection.node.find(
                pairs["TargetName"], self._connection.peer, self._connection.portal
            )

    def _checkDoor(self) -> None:
        """@raise LoginError: if this peer, or this user of it, may not ask which targets there are."""
        door = self._connection.node.door
        if door is not None and door.grant(self._connection.peer, self.initiatorName, self.user) is None:
            raise LoginError(numbers.AUTHORIZATION_FAILURE, "discovery is not for this initiator")

    def _join(self, isid: bytes, tsih: int, cid: int) -> None:
        """A TSIH that is not 0 names a session; its connection may be reinstated (RFC 7143 6.3.1)."""
        sessions = self._target.sessions if self._target is not None else self._connection.node.discoveries
        named = self.initiatorName, isid, tsih
        found = (s for s in sessions.values() if (s.initiatorName, s.isid, s.tsih) == named)
        session = next(found, None)
        old = session.connection if session is not None else None
        if old is None:
            raise LoginError(numbers.SESSION_DOES_NOT_EXIST, f"there is no session with TSIH {tsih}")
        if old.portal.tag != self._connection.portal.tag:
            raise LoginError(numbers.CANT_INCLUDE_IN_SESSION, "the session belongs to another portal group")
        if old.cid != cid:
            raise LoginError(numbers.TOO_MANY_CONNECTIONS, "a session has one connection (MaxConnections=1)")
        self._joined = session
        self._negotiation.leading = False

    @property
    def authenticating(self) -> bool:
        """Whether the initiator has to say who it is, or has said so by a certificate."""
        return self._proof.authenticating

    @property
    def user(self) -> str:
        """Who was authenticated, by a secret or by a certificate; empty if nobody was."""
        return self._proof.user

    def _leaves(self) -> bool:
        """
        Whether this stage may be left now.

        @raise LoginError: if it can never be.
        """
        if self.stage != numbers.SECURITY:
            return True
        agreed = str(self._negotiation.results["AuthMethod"])
        if self._proof.binds(agreed):
            complete = self._proof.complete(agreed)
            if self._target is not None and not self._target.allows(self.user):
                raise LoginError(
                    numbers.AUTHORIZATION_FAILURE, f"the user {self.user!r} may not use {self._target.name}"
                )
            return complete
        offered = self._offered.get("AuthMethod")
        if offered is not None and "None" not in offered.split(","):
            raise LoginError(
                numbers.AUTHENTICATION_FAILURE, "it offers no AuthMethod that is known here (None)"
            )
        return True

    def _complete(self, fields: tuple[int, ...], part: bytes) -> None:
        """The last response, and the session that it begins or goes on with."""
        connection, session = self._connection, self._joined
        self._checkAsked()
        if session is None:
            session = self._session(fields)
            session.user = self.user
            session.begin(connection)
        elif session.connection is None:
            raise LoginError(numbers.SESSION_DOES_NOT_EXIST, "the session has ended meanwhile")
        elif session.user != self.user:
            raise LoginError(numbers.AUTHORIZATION_FAILURE, "the session belongs to another user")
        else:
            grant = self._grant(self._target)
            session.rejoin(connection, session.parameters.rejoined(self._negotiation))
            if grant is not None and self._target is not None:
                # It may come from elsewhere, or a policy have changed its mind.
                self._target.regrant(session, grant)
        connection.cid = fields[8]
        self._respond(fields, part, numbers.FINAL | numbers.FULL_FEATURE, session.tsih)
        if self._declared:
            connection.framer.maxSegment = MAX_RECEIVE
        connection.loggedIn(session)

    def _checkAsked(self) -> None:
        """@raise LoginError: if authentication was not required when the login began, and is by now."""
        asks = (self._target or self._connection.node).authenticate
        if asks is not None and not self._proof.asked:
            raise LoginError(numbers.AUTHENTICATION_FAILURE, "authentication is required since it began")

    def _grant(self, target: Target | None) -> Grant | None:
        """
        What the initiator may do with a target; None for discovery.

        @raise LoginError: if it may do nothing.
        """
        if target is None:
            self._checkDoor()
            return None
        grant = target.grant(self._connection.peer, self.initiatorName, self.user)
        if grant is None:
            raise LoginError(numbers.AUTHORIZATION_FAILURE, f"this initiator may not use {target.name}")
        return grant

    def _session(self, fields: tuple[int, ...]) -> Session:
        connection, node, target = self._connection, self._connection.node, self._target
        isid: bytes = fields[5]  # type: ignore[assignment]
        parameters = Parameters.agreed(self._negotiation)
        grant = self._grant(target)
        if target is None or grant is None:
            key = self.initiatorName, isid, connection.portal.tag, self._named
            self._reinstate(node.discoveries.get(key))
            return Session(node, self.initiatorName, isid, node.nextTSIH(), fields[9], parameters, key=key)
        readOnly = target.readOnly or grant.readOnly
        nexus = Nexus(self.initiatorName, isid, target.name, connection.portal.tag, readOnly, grant.luns)
        self._reinstate(target.sessions.get(nexus.key))
        return Session(
            node, self.initiatorName, isid, target.nextTSIH(), fields[9], parameters, target, nexus
        )  # fmt: skip

    def _reinstate(self, old: Session | None) -> None:
        """The same initiator port again: the old session ends first (RFC 7143 6.3.5)."""
        if old is not None and old.user != self.user:
            raise LoginError(numbers.AUTHORIZATION_FAILURE, "the initiator's session belongs to another user")
        if old is not None and old.connection is not None:
            old.connection.abandon("the initiator logged in anew")
        node = self._connection.node
        most = node.limits.sessions
        if most and len(node.sessions) >= most:
            raise LoginError(numbers.OUT_OF_RESOURCES, f"there are {most} sessions already")

    def _respond(self, fields: tuple[int, ...], part: bytes, flags: int, tsih: int | None = None) -> None:
        self._send(fields, (self.stage or 0) << 2 | flags, numbers.SUCCESS, part, tsih)

    def _refuse(
        self, fields: tuple[int, ...], status: int, reason: str, error: Exception | None = None
    ) -> None:
        connection = self._connection
        events, verdicts = connection.node.events, connection.node.verdicts
        if verdicts and isinstance(error, NotAuthenticated):
            verdicts.failures.failed(connection.peer.address)
        self._send(fields, 0, status, b"", None)
        # What is logged, and so how long that takes, says whether there is such a user: answer first.
        connection.dismiss()
        if isinstance(error, UnknownUser):
            events.unknownUser(connection, error.user)
        events.refused(connection, status, reason)

    def _send(self, fields: tuple[int, ...], flags: int, status: int, data: bytes, tsih: int | None) -> None:
        connection = self._connection
        cmdSN = fields[9]
        window = cmdSN + connection.node.depth - 1
        if self._joined is not None:
            cmdSN, window = self._joined.expCmdSN, self._joined.maxCmdSN
        header = layout.LOGIN_RESPONSE.pack(
            numbers.LOGIN_RESPONSE, flags, 0, 0, len(data), fields[5], fields[6] if tsih is None else tsih,
            fields[7], connection.nextStatSN(), cmdSN, window & 0xFFFFFFFF, status,
        )  # fmt: skip
        connection.put(header, data)
