# -*- test-case-name: tests.session.test_login -*-
"""The login phase, the target's side (RFC 7143 6.3, 11.12, 11.13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iscsi_twisted.errors import FramingError, LoginError, TextError
from iscsi_twisted.interfaces import Buffer
from iscsi_twisted.session.names import complaint, normalise
from iscsi_twisted.session.negotiation import Negotiation
from iscsi_twisted.session.node import Nexus, Target
from iscsi_twisted.session.parameters import CHOICES, MAX_RECEIVE, OURS, Parameters
from iscsi_twisted.session.session import Session
from iscsi_twisted.wire import layout, numbers, text
from iscsi_twisted.wire.framer import LOGIN_SEGMENT

if TYPE_CHECKING:
    from iscsi_twisted.session.connection import Connection

LONGEST_LOGIN: Final = 65536
"""Bytes of text in one exchange of a login, over all its PDUs."""

MOST_REQUESTS: Final = 64
"""Login Requests in one login: several times what any method of authentication takes."""

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
        self._identified = False
        self._declared = False
        self._requests = 0
        self._latest: tuple[int, ...] | None = None
        self._fixed: tuple[bytes, int, int, int] | None = None
        self._target: Target | None = None
        self.stage: int | None = None
        self.initiatorName = ""
        self.kind = "Normal"

    def request(self, chunk: Buffer, offset: int, data: Buffer) -> None:
        """A Login Request PDU; whatever is wrong with it is answered with a Login Response."""
        fields = self._latest = layout.LOGIN_REQUEST.unpack(chunk, offset)
        try:
            self._request(fields, bytes(data))
        except TextError as error:
            self._refuse(fields, numbers.INITIATOR_ERROR, str(error))
        except LoginError as error:
            self._refuse(fields, error.status, str(error))

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
        transit, goesOn = flags & numbers.FINAL, flags & numbers.CONTINUE
        self._checkStage(flags)
        self._checkFixed((isid, tsih, itt, cid))  # type: ignore[arg-type]
        self._text += data
        if len(self._text) > LONGEST_LOGIN:
            raise LoginError(numbers.INITIATOR_ERROR, f"the login text is longer than {LONGEST_LOGIN} bytes")
        if goesOn:
            self._respond(fields, [], 0)
            return
        pairs, self._text = text.decode(self._text), b""
        answers = self._answers(pairs, isid, tsih)  # type: ignore[arg-type]
        following = flags & 3 if transit else None
        if following is not None:
            self._leave(following, pairs)
        answered = numbers.FINAL | following if following is not None else 0
        if following == numbers.FULL_FEATURE:
            self._complete(fields, answers, answered)
            return
        self._respond(fields, answers, answered)
        if following is not None:
            self.stage = following

    def _checkStage(self, flags: int) -> None:
        """The stage bits (RFC 7143 11.12.1 to 11.12.3)."""
        stage, following = flags >> 2 & 3, flags & 3
        self._requests += 1
        if self._requests > MOST_REQUESTS:
            raise LoginError(numbers.INITIATOR_ERROR, f"the login takes more than {MOST_REQUESTS} requests")
        if self.stage is None and stage in (numbers.SECURITY, numbers.OPERATIONAL):
            self.stage = stage
        if stage != self.stage:
            raise LoginError(numbers.INVALID_DURING_LOGIN, f"stage {stage} in stage {self.stage}")
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
        elif fixed != self._fixed:
            raise LoginError(
                numbers.INVALID_DURING_LOGIN, "ISID, TSIH, task tag or CID changed during the login"
            )

    def _answers(self, pairs: list[tuple[str, str]], isid: bytes, tsih: int) -> list[tuple[str, str]]:
        """Negotiate, after the first request's names have been looked at."""
        answers: list[tuple[str, str]] = []
        if not self._identified:
            self._identify(dict(pairs), isid, tsih)
            self._identified = True
            if self._target is not None:
                answers.append(("TargetPortalGroupTag", str(self._connection.portal.tag)))
                if self._target.alias:
                    answers.append(("TargetAlias", self._target.alias))
        elif any(name in _IDENTITY for name, _ in pairs):
            raise LoginError(numbers.INITIATOR_ERROR, "a name or session type after the first request")
        answers += self._negotiation.answer(pairs)
        if self.stage == numbers.OPERATIONAL and not self._declared:
            self._declared = True
            answers.append(("MaxRecvDataSegmentLength", str(MAX_RECEIVE)))
        if len(text.encode(answers)) > LOGIN_SEGMENT:
            # Hundreds of keys that nobody knows: more than the initiator must take in one PDU.
            raise LoginError(numbers.INITIATOR_ERROR, f"the answer is longer than {LOGIN_SEGMENT} bytes")
        return answers

    def _identify(self, pairs: dict[str, str], isid: bytes, tsih: int) -> None:
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
        if kind == "Normal":
            if "TargetName" not in pairs:
                raise LoginError(numbers.MISSING_PARAMETER, "there is no TargetName in a normal session")
            self._target = self._connection.node.find(pairs["TargetName"], self._connection.peer)
        if tsih:
            self._checkSession(isid, tsih)

    def _checkSession(self, isid: bytes, tsih: int) -> None:
        """A TSIH that is not 0 names a session to which a connection is added (RFC 7143 6.3.1)."""
        sessions = self._target.sessions.values() if self._target is not None else ()
        named = self.initiatorName, isid, tsih
        if not any((session.initiatorName, session.isid, session.tsih) == named for session in sessions):
            raise LoginError(numbers.SESSION_DOES_NOT_EXIST, f"there is no session with TSIH {tsih}")
        raise LoginError(numbers.TOO_MANY_CONNECTIONS, "a session has one connection (MaxConnections=1)")

    def _leave(self, following: int, pairs: list[tuple[str, str]]) -> None:
        """May this stage be left?"""
        if self.stage != numbers.SECURITY:
            return
        offered = dict(pairs).get("AuthMethod")
        if offered is not None and "None" not in offered.split(","):
            raise LoginError(
                numbers.AUTHENTICATION_FAILURE, "it offers no AuthMethod that is known here (None)"
            )

    def _complete(self, fields: tuple[int, ...], answers: list[tuple[str, str]], flags: int) -> None:
        """The last response, and the session that it begins."""
        session = self._session(fields)
        session.begin(self._connection)
        self._connection.cid = fields[8]
        self._respond(fields, answers, flags, session.tsih)
        if self._declared:
            self._connection.framer.maxSegment = MAX_RECEIVE
        self._connection.loggedIn(session)

    def _session(self, fields: tuple[int, ...]) -> Session:
        connection, node, target = self._connection, self._connection.node, self._target
        isid: bytes = fields[5]  # type: ignore[assignment]
        parameters = Parameters.agreed(self._negotiation)
        if target is None:
            self._checkRoom()
            return Session(node, self.initiatorName, isid, 1, fields[9], parameters)
        nexus = Nexus(self.initiatorName, isid, target.name, connection.portal.tag, target.readOnly)
        old = target.sessions.get(nexus.key)
        if old is not None and old.connection is not None:
            # The same nexus again: the old session ends first (RFC 7143 6.3.5).
            old.connection.abandon("the initiator logged in anew")
        self._checkRoom()
        return Session(
            node, self.initiatorName, isid, target.nextTSIH(), fields[9], parameters, target, nexus
        )  # fmt: skip

    def _checkRoom(self) -> None:
        node = self._connection.node
        if node.maxSessions and len(node.sessions) >= node.maxSessions:
            raise LoginError(numbers.OUT_OF_RESOURCES, f"there are {node.maxSessions} sessions already")

    def _respond(
        self, fields: tuple[int, ...], answers: list[tuple[str, str]], flags: int, tsih: int | None = None
    ) -> None:
        self._send(fields, (self.stage or 0) << 2 | flags, numbers.SUCCESS, text.encode(answers), tsih)

    def _refuse(self, fields: tuple[int, ...], status: int, reason: str) -> None:
        connection = self._connection
        self._send(fields, 0, status, b"", None)
        connection.node.events.refused(connection, status, reason)
        connection.ended = True
        connection.finish()

    def _send(self, fields: tuple[int, ...], flags: int, status: int, data: bytes, tsih: int | None) -> None:
        connection = self._connection
        cmdSN = fields[9]
        window = cmdSN + connection.node.depth - 1
        header = layout.LOGIN_RESPONSE.pack(
            numbers.LOGIN_RESPONSE, flags, 0, 0, len(data), fields[5], fields[6] if tsih is None else tsih,
            fields[7], connection.nextStatSN(), cmdSN, window & 0xFFFFFFFF, status,
        )  # fmt: skip
        connection.put(header, data)
