"""
Initiators that would get in without a secret, against a target that listens.

Each attack comes from an address of loopback of its own, since whoever fails has to wait.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from iscsi_twisted.auth.chap import SHA256, response
from iscsi_twisted.wire import numbers
from tests.support.clients import BASE, Serve, Served
from tests.support.rawclient import Closed, RawClient

SECRET, BACK = b"correct-horse-battery", b"secret-of-the-target"

USERS = f"agc:chap:{SECRET.decode()}:it:{BACK.decode()}\njoe:chap:another-secret-12\n"

TARGETS = (
    "extent0 %/a 0 20MB\nextent1 %/b 0 1MB\nextent2 %/c 0 1MB\nextent3 %/d 0 1MB\nextent4 %/e 0 1MB\n"
    "target0 extent0 any users=agc\ntarget1 extent1 192.0.2.1\ntarget2 extent2 any\n"
    "target3 extent3 any auth=none\n"
    "target4 extent4 any auth=none initiators=iqn.x.*\n"
)

NAME = f"{BASE}:target0"

ME = "iqn.2001-04.com.example:mallory"

STAY, TO_OPERATIONAL, TO_FULL = 0x00, 0x81, 0x83
"""The flags of a request in the security stage: go nowhere, or to another stage."""

FULL = 0x87
"""In the operational stage, to full feature phase."""

DISCOVERY = "Discovery"
"""In the place of a target: the list of targets is wanted."""

CUT = -1
"""In the place of a status: the connection was cut, since the PDU was longer than a login's may be."""

Status = int

Attack = Callable[["Intruder"], Status]

_places = count(2)


class Intruder(RawClient):
    """A connection from an address that nobody has come from before."""

    def __init__(self, port: int) -> None:
        self.port, self.flags = port, 0
        made = socket.socket()
        place = next(_places)
        made.bind((f"127.0.{place >> 8}.{place & 255}", 0))
        made.connect(("127.0.0.1", port))
        super().__init__(made)

    def say(self, flags: int, *pairs: tuple[str, str], target: str = "") -> Status:
        """One request, in which the names come first if there is a target; the status of its answer."""
        whom = ("SessionType", "Discovery") if target == DISCOVERY else ("TargetName", target)
        names = [("InitiatorName", ME), whom] if target else []
        answer = self.loginPDU([*names, *pairs], flags=flags)
        self.answers = answer.text
        self.flags = answer.flags
        return int.from_bytes(answer.header[36:38], "big")

    def begin(self, target: str = NAME, algorithm: str = "7") -> tuple[int, bytes]:
        """Ask for CHAP, and be challenged."""
        assert self.say(STAY, ("AuthMethod", "CHAP"), target=target) == 0
        assert self.say(STAY, ("CHAP_A", algorithm)) == 0
        return int(self.answers["CHAP_I"]), bytes.fromhex(self.answers["CHAP_C"][2:])

    def respond(self, proof: bytes | str, *more: tuple[str, str], user: str = "agc") -> Status:
        """Claim to be somebody."""
        text = proof if isinstance(proof, str) else "0x" + proof.hex()
        return self.say(TO_OPERATIONAL, ("CHAP_N", user), ("CHAP_R", text), *more)

    def prove(
        self, secret: bytes = SECRET, *more: tuple[str, str], user: str = "agc", target: str = NAME
    ) -> Status:
        """Go through with CHAP."""
        identifier, challenge = self.begin(target)
        return self.respond(response(SHA256, identifier, secret, challenge), *more, user=user)


def wrongSecret(it: Intruder) -> Status:
    return it.prove(b"wrong-horse-battery")


def unknownUser(it: Intruder) -> Status:
    return it.prove(user="nobody")


def upperCase(it: Intruder) -> Status:
    return it.prove(user="AGC")


def othersTarget(it: Intruder) -> Status:
    return it.prove(b"another-secret-12", user="joe")


def wrongForDiscovery(it: Intruder) -> Status:
    return it.prove(b"wrong-horse-battery", target=DISCOVERY)


def unknownForDiscovery(it: Intruder) -> Status:
    return it.prove(user="nobody", target=DISCOVERY)


def leftForDiscovery(it: Intruder) -> Status:
    it.begin(DISCOVERY)
    return it.say(FULL)


def otherMethod(it: Intruder) -> Status:
    """CHAP it was, and None it is to be."""
    it.begin()
    return it.say(TO_FULL, ("AuthMethod", "None"))


def twoUsers(it: Intruder) -> Status:
    """One whose secret is known, and one who is wanted."""
    identifier, challenge = it.begin()
    proof = "0x" + response(SHA256, identifier, b"another-secret-12", challenge).hex()
    return it.say(TO_OPERATIONAL, ("CHAP_N", "agc"), ("CHAP_R", proof), ("CHAP_N", "joe"))


def secondProof(it: Intruder) -> Status:
    """Who has proved to be one goes on to be another."""
    identifier, challenge = it.begin()
    proof = "0x" + response(SHA256, identifier, SECRET, challenge).hex()
    assert it.say(STAY, ("CHAP_N", "agc"), ("CHAP_R", proof)) == 0
    return it.say(TO_OPERATIONAL, ("CHAP_N", "joe"), ("CHAP_R", proof))


def secondChallenge(it: Intruder) -> Status:
    """Another challenge, for another try."""
    it.begin()
    return it.say(STAY, ("CHAP_A", "7"))


def proofInNextStage(it: Intruder) -> Status:
    assert it.prove() == 0
    return it.say(FULL, ("CHAP_N", "joe"), ("CHAP_R", "0x00"))


def proofInPieces(it: Intruder) -> Status:
    """A login that goes on (C bit) past its stage."""
    it.begin()
    return it.say(TO_OPERATIONAL | 0x40, ("CHAP_N", "agc"))


def noMethod(it: Intruder) -> Status:
    return it.say(TO_OPERATIONAL, ("AuthMethod", "None"), target=NAME)


def nothingOffered(it: Intruder) -> Status:
    return it.say(TO_FULL, target=NAME)


def skipped(it: Intruder) -> Status:
    return it.say(FULL, target=NAME)


def skippedForDiscovery(it: Intruder) -> Status:
    return it.say(FULL, ("InitiatorName", ME), ("SessionType", "Discovery"))


def leftBeforeProof(it: Intruder) -> Status:
    """The next stage, though the target has not agreed to it."""
    it.begin()
    return it.say(FULL)


def ownFullFeature(it: Intruder) -> Status:
    """From the security stage straight to full feature phase, with CHAP under way: the target stays."""
    assert it.say(TO_FULL, ("AuthMethod", "CHAP"), target=NAME) == 0
    assert it.say(TO_FULL, ("CHAP_A", "7")) == 0
    assert not it.flags & 0x80
    assert it.say(TO_FULL) == 0
    assert not it.flags & 0x80
    return it.say(FULL)


def proofWithoutChallenge(it: Intruder) -> Status:
    assert it.say(STAY, ("AuthMethod", "CHAP"), target=NAME) == 0
    return it.respond(bytes(32))


def identityChanged(it: Intruder) -> Status:
    """Another target, once the one has been proved to."""
    it.begin()
    return it.say(STAY, ("TargetName", f"{BASE}:target3"))


def secondTry(it: Intruder) -> Status:
    """One challenge, two responses: the connection is over after the first."""
    status = wrongSecret(it)
    try:
        it.say(STAY, ("CHAP_N", "agc"), ("CHAP_R", "0x00"))
    except Closed:
        return status
    return 0


def reflected(it: Intruder) -> Status:
    """The target's own challenge."""
    identifier, challenge = it.begin()
    proof = response(SHA256, identifier, SECRET, challenge)
    return it.respond(proof, ("CHAP_I", "1"), ("CHAP_C", "0x" + challenge.hex()))


def reflectedElsewhere(it: Intruder) -> Status:
    """The challenge of one connection on another one, to have it answered there by the target."""
    identifier, challenge = it.begin()
    with Intruder(it.port) as other:
        other.begin()
        more = ("CHAP_I", str(identifier)), ("CHAP_C", "0x" + challenge.hex())
        assert other.respond(bytes(32), *more) == numbers.AUTHENTICATION_FAILURE
        assert "CHAP_R" not in other.answers
    return it.respond(bytes(32))


def targetsSecret(it: Intruder) -> Status:
    """What the target proves itself with is worth nothing to an initiator."""
    return it.prove(BACK)


def weakAlgorithm(it: Intruder) -> Status:
    assert it.say(STAY, ("AuthMethod", "CHAP"), target=NAME) == 0
    return it.say(STAY, ("CHAP_A", "1,2,3,4"))


def malformed(name: str, text: str) -> Attack:
    """A value that is none, in the last step."""

    def attack(it: Intruder) -> Status:
        identifier, challenge = it.begin()
        said = {"CHAP_N": "agc", "CHAP_R": "0x" + response(SHA256, identifier, SECRET, challenge).hex()}
        if name in ("CHAP_I", "CHAP_C"):
            said |= {"CHAP_I": "1", "CHAP_C": "0x0102"}
        said[name] = text
        try:
            return it.say(TO_OPERATIONAL, *said.items())
        except Closed:
            return CUT

    attack.__name__ = f"{name}={text[:8]}({len(text)})"
    return attack


def flood(it: Intruder) -> Status:
    """Text that never ends."""
    status = it.say(0x40, ("AuthMethod", "CHAP"), target=NAME)
    while status == 0:
        status = it.say(0x40, ("X" * 60, "y" * 8000))
    return status


def rounds(it: Intruder) -> Status:
    """Requests that never end."""
    status = it.say(STAY, ("AuthMethod", "CHAP"), target=NAME)
    while status == 0:
        status = it.say(STAY)
    return status


AUTHENTICATION, AUTHORIZATION, ERROR = (
    numbers.AUTHENTICATION_FAILURE, numbers.AUTHORIZATION_FAILURE, numbers.INITIATOR_ERROR,
)  # fmt: skip

TRUNCATED = ("0x", "0x1", "0x" + "00" * 31, "0x" + "00" * 1024, "0bAAAA")
"""Binary values, but not those that were asked for."""

MALFORMED = {
    "CHAP_R": (
        "",
        "0",
        "00",
        "0xzz",
        "0x 00",
        "0b=",
        "0b!",
        "0x" + "0" * 2049,
        "0x" + "0" * 7000,
        "0b" + "A" * 7000,
        "0bAA",
        "0bAAA",
        "0bAAAA=",
        "0bA A=",
        "0bAA==AA==",
        "0b-_8=",
        "0x\u0661\u0661",
    ),
    "CHAP_N": ("", "a" * 256, "a" * 7000),
    "CHAP_I": ("", "256", "-1", "0x100", "9" * 7000, "0x", "0x_1"),
    "CHAP_C": ("", "0x", "12", "0x" + "00" * 1025, "0b" + "A" * 1400),
}
"""What is no value of its key."""

ATTACKS: list[tuple[Attack, Status]] = [
    (wrongSecret, AUTHENTICATION), (unknownUser, AUTHENTICATION), (upperCase, AUTHENTICATION),
    (targetsSecret, AUTHENTICATION), (othersTarget, AUTHORIZATION),
    (noMethod, AUTHENTICATION), (nothingOffered, AUTHENTICATION), (skipped, AUTHENTICATION),
    (skippedForDiscovery, AUTHENTICATION), (wrongForDiscovery, AUTHENTICATION),
    (unknownForDiscovery, AUTHENTICATION), (leftForDiscovery, ERROR), (otherMethod, ERROR), (twoUsers, ERROR),
    (secondProof, ERROR), (secondChallenge, ERROR), (proofInNextStage, ERROR), (proofInPieces, ERROR),
    (leftBeforeProof, ERROR), (ownFullFeature, ERROR),
    (proofWithoutChallenge, ERROR), (identityChanged, ERROR), (secondTry, AUTHENTICATION),
    (reflected, AUTHENTICATION), (reflectedElsewhere, AUTHENTICATION), (weakAlgorithm, AUTHENTICATION),
    (flood, ERROR), (rounds, ERROR),
    *((malformed("CHAP_R", text), AUTHENTICATION) for text in TRUNCATED),
    *((malformed(name, text), ERROR) for name, texts in MALFORMED.items() for text in texts),
    *((malformed(name, "0x" + "0" * 60000), CUT) for name in MALFORMED),
]  # fmt: skip


async def attacked(serve: Serve, **options: Any) -> Served:
    """A target for users."""
    served: Served = await serve(TARGETS, users=USERS, **options)
    return served


@ensureDeferred
async def test_attacks(serve: Serve) -> None:
    """None of them gets in, each gets the status that is due, and after all of them a user does get in."""
    served = await attacked(serve)

    def run() -> list[str]:
        wrong = []
        for attack, due in ATTACKS:
            with Intruder(served.port) as it:
                status = attack(it)
                if status != due:
                    wrong.append(f"{attack.__name__}: {status:04x} instead of {due:04x}")
        return wrong

    assert await deferToThread(run) == []
    assert not served.service.node.sessions

    def right() -> Status:
        with Intruder(served.port) as it:
            status = it.prove()
            assert it.say(FULL) == 0
            return status

    assert await deferToThread(right) == 0


def forms(proof: bytes) -> Iterator[str]:
    """All the ways in which a proof may be written."""
    digits = proof.hex()
    yield "0x" + digits
    yield "0X" + digits.upper()
    yield "0x" + "0" * (digits[0] == "0") + digits.removeprefix("0")
    for prefix in ("0b", "0B"):
        yield prefix + base64.b64encode(proof).decode()


@ensureDeferred
async def test_forms(serve: Serve) -> None:
    """Whoever knows the secret gets in, however it writes numbers and whatever else it can do."""
    served = await attacked(serve)

    def run() -> list[tuple[str, Status]]:
        wrong = []
        for offered, chosen in (("5", 5), ("99,foo,,7,5", 7), ("8", 8), ("6,7", 6)):
            for number in range(5):
                with Intruder(served.port) as it:
                    identifier, challenge = it.begin(algorithm=offered)
                    proof = list(forms(response(chosen, identifier, SECRET, challenge)))[number]
                    ours = ("CHAP_I", "0x7f"), ("CHAP_C", "0b" + base64.b64encode(bytes(1024)).decode())
                    status = it.respond(proof, *ours)
                    right = "0x" + response(chosen, 0x7F, BACK, bytes(1024)).hex()
                    if status or it.answers != {"CHAP_N": "it", "CHAP_R": right}:
                        wrong.append((f"{offered} {proof}", status))
        return wrong

    assert await deferToThread(run) == []


@ensureDeferred
async def test_replay(serve: Serve) -> None:
    """A login that somebody has recorded is worth nothing afterwards."""
    served = await attacked(serve)

    def run() -> Iterator[Status]:
        with Intruder(served.port) as first:
            identifier, challenge = first.begin()
            proof = response(SHA256, identifier, SECRET, challenge)
            yield first.respond(proof)
        for more in ((), (("CHAP_I", "1"), ("CHAP_C", "0x0102"))):
            with Intruder(served.port) as second:
                second.begin()
                yield second.respond(proof, *more)

    statuses = await deferToThread(lambda: list(run()))
    assert statuses == [0, AUTHENTICATION, AUTHENTICATION]


@ensureDeferred
async def test_challenges(serve: Serve) -> None:
    """No challenge comes twice, and all have 16 bytes or more."""
    served = await attacked(serve)

    def run() -> list[bytes]:
        found = []
        for _ in range(300):
            with Intruder(served.port) as it:
                found.append(it.begin()[1])
        return found

    found = await deferToThread(run)
    assert len(set(found)) == 300
    assert min(map(len, found)) >= 16
