# -*- test-case-name: tests.auth.test_chap -*-
"""CHAP (RFC 7143 12.1.3, RFC 1994): who knows a secret proves it without telling it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import attrs

from iscsi_twisted.errors import LocalError, RemoteError

Pairs = list[tuple[str, str]]

MD5, SHA1, SHA256, SHA3_256 = 5, 6, 7, 8
"""Algorithms, as CHAP_A says them (IANA, PPP Authentication Algorithms)."""

STRONGEST_FIRST: Final = (SHA3_256, SHA256, SHA1, MD5)

_HASHES: Final = {MD5: "md5", SHA1: "sha1", SHA256: "sha256", SHA3_256: "sha3_256"}

NAMES: Final = {"md5": MD5, "sha1": SHA1, "sha256": SHA256, "sha3-256": SHA3_256}
"""What people call the algorithms."""

_IDENTIFIER: Final = re.compile(r"0[xX]0{0,9}([0-9a-fA-F]{1,2})|0{0,9}([0-9]{1,3})")
"""A number as text (RFC 7143 6.1), and no more zeros before it than anybody writes."""

_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
"""Base64 (RFC 4648 section 4), which Python reads less strictly."""

LONGEST: Final = 1024
"""Bytes of a large-binary-value (RFC 7143 6.1)."""

CHALLENGE: Final = 32
"""Bytes of a challenge of ours."""

SHORTEST_SECRET: Final = 12
"""Bytes below which a secret is too easily guessed (RFC 7143 12.1.3: 96 bits)."""


def available(algorithm: int) -> bool:
    """Whether this platform has an algorithm: some have no MD5 any more."""
    try:
        hashlib.new(_HASHES[algorithm], usedforsecurity=True)
    except (KeyError, ValueError):
        return False
    return True


@cache
def usable(algorithms: tuple[int, ...]) -> tuple[int, ...]:
    """
    Those of some algorithms that this platform has, in their order.

    @raise LocalError: if it has none of them.
    """
    found = tuple(filter(available, algorithms))
    if not found:
        raise LocalError("this platform has none of the algorithms that CHAP may use here")
    return found


def response(algorithm: int, identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """What proves that one knows a secret (RFC 1994 4.1)."""
    return hashlib.new(_HASHES[algorithm], bytes((identifier,)) + secret + challenge).digest()


def encode(value: bytes) -> str:
    """A binary value as text, in hexadecimal."""
    return "0x" + value.hex()


def decode(name: str, text: str) -> bytes:
    """
    A binary value from text, in hexadecimal or base64 (RFC 7143 6.1).

    @raise RemoteError: if it is neither, or too long.
    """
    form, digits = text[:2].lower(), text[2:]
    value = b""
    try:
        if len(digits) > 2 * LONGEST:
            value = bytes(LONGEST + 1)
        elif form == "0x" and not any(map(str.isspace, digits)):
            value = bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)
        elif form == "0b" and _BASE64.fullmatch(digits):
            value = base64.b64decode(digits)
        else:
            raise ValueError(form)
    except ValueError:
        raise RemoteError(f"{name} is neither hexadecimal (0x…) nor base64 (0b…)") from None
    if len(value) > LONGEST:
        raise RemoteError(f"{name} is longer than {LONGEST} bytes")
    return value


@attrs.frozen
class Credentials:
    """
    Names and secrets for logins.

    @ivar user: whom the initiator is.
    @ivar secret: that user's.
    @ivar targetUser: whom the target has to be, for mutual authentication; empty for anybody who knows its
        secret.
    @ivar targetSecret: the target's; empty for one-way authentication.
    @ivar required: whether there is to be no session with a target that does not ask for them.
    """

    user: str
    secret: bytes = attrs.field(repr=False)
    targetUser: str = ""
    targetSecret: bytes = attrs.field(default=b"", repr=False)
    required: bool = False

    def __attrs_post_init__(self) -> None:
        """@raise LocalError: for an empty secret, or one for both directions."""
        if not self.user or not self.secret:
            raise LocalError("CHAP needs a user and a secret")
        if hmac.compare_digest(self.secret, self.targetSecret):
            raise LocalError("the target's secret has to be another than the initiator's (RFC 7143 12.1.3)")

    def oneWay(self) -> Credentials:
        """The same, insisting on nothing: for discovery, where many targets ask nobody who they are."""
        return Credentials(self.user, self.secret)


class CHAP:
    """
    The initiator's side of one login; see L{iscsi_twisted.session.request.Authentication}.

    @ivar methods: what is offered: CHAP; and None, unless CHAP is required, or the target has to prove who
        it is.
    """

    def __init__(
        self,
        credentials: Credentials,
        random: Callable[[int], bytes],
        algorithms: tuple[int, ...] = STRONGEST_FIRST,
    ) -> None:
        """
        @param random: gives so many bytes that nobody can foresee, such as C{os.urandom}.
        @raise LocalError: if none of the algorithms is there.
        """
        self._credentials, self._random = credentials, random
        self._algorithms = usable(algorithms)
        sure = credentials.targetSecret or credentials.required
        self.methods: tuple[str, ...] = ("CHAP",) if sure else ("CHAP", "None")
        self._offered = self._algorithms
        self._algorithm = 0
        self._identifier = 0
        self._challenge = b""
        self._proved = self._met = False

    def first(self, method: str) -> Pairs:
        """The algorithms, the strongest first."""
        if method == "None":
            self._proved = self._met = True
            return []
        return [("CHAP_A", ",".join(map(str, self._offered)))]

    def spoken(self) -> bool:
        """Whether this side has nothing more to say; what it says last is said with the wish to go on."""
        return self._proved

    def complete(self) -> bool:
        """Whether both sides have proved what they had to."""
        return self._proved and (self._met or not self._credentials.targetSecret)

    def answer(self, pairs: Mapping[str, str]) -> Pairs:
        """
        To a challenge our response; to a response of the target's nothing.

        @raise RemoteError: if the target breaks the protocol or does not prove who it is.
        """
        if not self._proved:
            if pairs.get("CHAP_A") == "Reject" and MD5 in self._offered and len(self._offered) > 1:
                # Old targets know no lists.
                self._offered = (MD5,)
                return [("CHAP_A", str(MD5))]
            return self._prove(pairs)
        if not self.complete():
            self._meet(pairs)
        elif pairs:
            raise RemoteError(f"the target said {', '.join(pairs)} after its authentication")
        return []

    def _prove(self, pairs: Mapping[str, str]) -> Pairs:
        chosen = pairs.get("CHAP_A", "")
        if chosen not in map(str, self._offered):
            raise RemoteError(f"the target chose CHAP_A={chosen}, where {self._offered} was offered")
        self._algorithm = int(chosen)
        challenge = decode("CHAP_C", pairs.get("CHAP_C", ""))
        if not challenge:
            raise RemoteError("CHAP_C is empty")
        identifier = identifierIn(pairs)
        credentials = self._credentials
        proof = response(self._algorithm, identifier, credentials.secret, challenge)
        said = [("CHAP_N", credentials.user), ("CHAP_R", encode(proof))]
        self._proved = True
        if credentials.targetSecret:
            self._identifier = self._random(1)[0]
            self._challenge = self._random(CHALLENGE)
            if self._challenge == challenge:
                raise RemoteError("the target's challenge is ours")
            said += [("CHAP_I", str(self._identifier)), ("CHAP_C", encode(self._challenge))]
        return said

    def _meet(self, pairs: Mapping[str, str]) -> None:
        """The target proves who it is."""
        credentials = self._credentials
        name = pairs.get("CHAP_N", "")
        expected = response(self._algorithm, self._identifier, credentials.targetSecret, self._challenge)
        right = hmac.compare_digest(decode("CHAP_R", pairs.get("CHAP_R", "")), expected)
        if not right or (credentials.targetUser and name != credentials.targetUser):
            raise RemoteError("the target did not prove who it is (mutual CHAP)")
        self._met = True


def identifierIn(pairs: Mapping[str, str]) -> int:
    """
    The identifier of a challenge.

    @raise RemoteError: if there is none.
    """
    found = _IDENTIFIER.fullmatch(pairs.get("CHAP_I", ""))
    value = -1 if found is None else int(found[1], 16) if found[1] else int(found[2])
    if not 0 <= value <= 255:
        raise RemoteError("CHAP_I is no number from 0 to 255")
    return value
