"""CHAP, the initiator's side, against known answers and bad targets."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.auth import chap
from iscsi_twisted.auth.chap import (
    CHAP,
    MD5,
    SHA1,
    SHA3_256,
    SHA256,
    Credentials,
    decode,
    encode,
    identifierIn,
    response,
)
from iscsi_twisted.errors import LocalError, RemoteError

SECRET = b"0123456789abcdef"
OTHER = b"fedcba9876543210"
ONE = Credentials("me", SECRET)
BOTH = Credentials("me", SECRET, "it", OTHER)


def counting(count: int) -> bytes:
    """Random bytes, as far as these tests are concerned."""
    return bytes(range(count))


class ValueTests(SynchronousTestCase):
    """Responses and binary values."""

    def test_known(self) -> None:
        """The hash of identifier, secret and challenge, by each algorithm."""
        for algorithm, expected in (
            (MD5, "8e31442198d4ee60f86323efa06de4a3"),
            (SHA1, "998c5e7e3842f36e3cd56b50a4e325ef32b5b2da"),
            (SHA256, "d32110083382640514c8ffb0dda428d1e24b2d0abbe6e89c7641f5d9758a7e36"),
            (SHA3_256, "fb8caa179e1ee3862b1b07e1e000909788c169d0e5ce36a79f630817038648a4"),
        ):
            self.assertEqual(response(algorithm, 0x17, b"secret", b"challenge").hex(), expected)

    @given(st.binary(max_size=1024))
    def test_forms(self, value: bytes) -> None:
        """Both forms of any legal length mean the same."""
        self.assertEqual(decode("CHAP_C", encode(value)), value)
        self.assertEqual(decode("CHAP_C", "0b" + base64.b64encode(value).decode()), value)

    @given(st.text(max_size=40))
    def test_anything(self, text: str) -> None:
        """Any text is a value or refused."""
        try:
            decode("CHAP_R", text)
        except RemoteError as error:
            self.assertIn("CHAP_R", str(error))

    def test_wrong(self) -> None:
        """What is neither, or too long."""
        for text in (
            "",
            "12",
            "0xg0",
            "0b!",
            "0b=",
            "0bAAAA=",
            "0bAAA",
            "0bAA==AAAA",
            "0x" + "00" * 1025,
            "0x 00",
            "0b" + "AAAA" * 342,
        ):
            self.assertRaises(RemoteError, decode, "CHAP_C", text)
        self.assertEqual(decode("CHAP_C", "0xabc"), b"\x0a\xbc")

    def test_identifiers(self) -> None:
        """An identifier is a number of one byte; other texts are refused, however long they are."""
        for text, value in (("0", 0), ("255", 255), ("007", 7), ("0x0", 0), ("0XfF", 255), ("0x00a", 10)):
            self.assertEqual(identifierIn({"CHAP_I": text}), value)
        for text in (
            "",
            "256",
            "-1",
            "0x",
            "0x100",
            "0xg",
            "1_0",
            "0x_1",
            " 1",
            "\u0661",
            "9" * 5000,
            "0" * 5000,
        ):
            self.assertRaises(RemoteError, identifierIn, {"CHAP_I": text})
        self.assertRaises(RemoteError, identifierIn, {})


class CHAPTests(SynchronousTestCase):
    """Logins."""

    def challenge(self, **more: str) -> dict[str, str]:
        """What a target says first."""
        return {"CHAP_A": "7", "CHAP_I": "5", "CHAP_C": "0x010203", **more}

    def test_oneWay(self) -> None:
        """A challenge is answered with name and response."""
        one = CHAP(ONE, counting)
        self.assertEqual((one.methods, one.first("CHAP")), (("CHAP", "None"), [("CHAP_A", "8,7,6,5")]))
        self.assertFalse(one.complete())
        said = dict(one.answer(self.challenge()))
        self.assertEqual(said, {"CHAP_N": "me", "CHAP_R": encode(response(SHA256, 5, SECRET, b"\1\2\3"))})
        self.assertTrue(one.complete())
        self.assertEqual(one.answer({}), [])

    def test_required(self) -> None:
        """Who insists on CHAP does not offer to go without."""
        self.assertEqual(CHAP(Credentials("me", SECRET, required=True), counting).methods, ("CHAP",))

    def test_mutual(self) -> None:
        """The target has to answer ours, with the right secret and name."""
        for user, secret, right in (("it", OTHER, True), ("it", SECRET, False), ("she", OTHER, False)):
            both = CHAP(BOTH, counting)
            self.assertEqual(both.methods, ("CHAP",))
            both.first("CHAP")
            said = dict(both.answer(self.challenge()))
            self.assertFalse(both.complete())
            proof = response(SHA256, int(said["CHAP_I"]), secret, decode("CHAP_C", said["CHAP_C"]))
            answer = {"CHAP_N": user, "CHAP_R": encode(proof)}
            if right:
                both.answer(answer)
                self.assertTrue(both.complete())
            else:
                self.assertRaises(RemoteError, both.answer, answer)
                self.assertFalse(both.complete())

    def test_reflected(self) -> None:
        """A target that sends our own challenge back is refused, and so is one secret for both sides."""
        both = CHAP(BOTH, counting)
        both.first("CHAP")
        reflected = encode(counting(chap.CHALLENGE))
        self.assertRaises(RemoteError, both.answer, self.challenge(CHAP_C=reflected))
        self.assertRaises(LocalError, Credentials, "me", SECRET, "it", SECRET)

    def test_oldTarget(self) -> None:
        """One that knows no lists is offered MD5 alone."""
        one = CHAP(ONE, counting)
        one.first("CHAP")
        self.assertEqual(one.answer({"CHAP_A": "Reject"}), [("CHAP_A", "5")])
        one.answer(self.challenge(CHAP_A="5"))
        self.assertTrue(one.complete())

    def test_wrong(self) -> None:
        """Challenges that are none."""
        bad: list[dict[str, Any]] = [
            {"CHAP_A": "9"}, {"CHAP_A": ""}, {"CHAP_I": "256"}, {"CHAP_I": "-1"}, {"CHAP_I": ""},
            {"CHAP_C": "0x"}, {"CHAP_C": "xyz"},
        ]  # fmt: skip
        for fields in bad:
            one = CHAP(ONE, counting)
            one.first("CHAP")
            self.assertRaises(RemoteError, one.answer, self.challenge(**fields))
            self.assertFalse(one.complete())

    def test_unmet(self) -> None:
        """A target that skips its own proof is not met."""
        both = CHAP(BOTH, counting)
        both.first("CHAP")
        both.answer(self.challenge())
        self.assertRaises(RemoteError, both.answer, {})

    def test_secrets(self) -> None:
        """Secrets stand in no text."""
        self.assertNotIn("0123", repr(BOTH))
        self.assertNotIn("fedc", repr(BOTH))

    def test_noAlgorithm(self) -> None:
        """Without any algorithm there is no CHAP."""
        self.assertRaises(LocalError, CHAP, ONE, counting, (99,))
        self.assertRaises(LocalError, Credentials, "me", b"")
