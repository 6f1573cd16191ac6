# -*- test-case-name: tests.initiator.test_url -*-
"""
URLs as libiscsi writes them: C{iscsi://[USER[%SECRET]@]HOST[:PORT][/TARGET[/LUN]]}.

C{iscsis://} is our own, and means TLS; behind a question mark it says whom to trust and who we are.
"""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import quote, unquote

import attrs

from iscsi_twisted.errors import LocalError
from iscsi_twisted.session.names import complaint

PORT: Final = 3260
"""Where targets listen (RFC 7143 13.8)."""

SECRET: Final = "ISCSI_SECRET"
"""The environment variable that a secret may be in."""

MASKED: Final = "***"
_FORM: Final = "iscsi://[USER@]HOST[:PORT][/TARGET[/LUN]]"
_SECURE: Final = "iscsis://[USER@]HOST[:PORT][/TARGET[/LUN]][?ca=FILE&cert=FILE&key=FILE&name=HOST]"

WORDS: Final = {"ca": "caFile", "cert": "cert", "key": "key", "name": "name"}
"""What may stand behind the question mark, and what C{iscsi-tls:} calls it."""

_URL = re.compile(
    r"iscsi(?P<secure>s?)://(?:(?P<user>[^@/%]*)(?:%(?P<secret>[^@]*))?@)?(?P<host>\[[^\]/]+\]|[^:/@\[\]]+)(?::(?P<port>\d+))?"
    r"(?:/(?P<target>[^/?]+)?(?:/(?P<lun>\d+))?)?/?(?:\?(?P<words>.*))?\Z"
)


@attrs.frozen
class URL:
    """
    A portal, and a target and a unit there.

    @ivar host: a name or an address, without brackets.
    @ivar port: TCP port.
    @ivar target: iSCSI name; empty for none.
    @ivar lun: logical unit number; None for none.
    @ivar user: whom to authenticate as; empty for nobody.
    @ivar secret: that user's, if it stands in the URL, where it is seen by all who see the URL.
    @ivar secure: whether TLS is spoken there.
    @ivar words: of TLS, by the names in L{WORDS}.
    """

    host: str
    port: int = PORT
    target: str = ""
    lun: int | None = None
    user: str = ""
    secret: str = attrs.field(default="", repr=False)
    secure: bool = False
    words: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The URL, its secret masked."""
        secret = f"%{MASKED}" if self.secret else ""
        user = f"{self.user}{secret}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        target = f"/{self.target}" if self.target else ""
        lun = "" if self.lun is None else f"/{self.lun}"
        words = "&".join(f"{name}={quote(value, '/:')}" for name, value in self.words)
        scheme = "iscsis" if self.secure else "iscsi"
        return f"{scheme}://{user}{host}:{self.port}{target}{lun}{'?' * bool(words)}{words}"

    def description(self) -> str:
        """The client endpoint that leads there, in Twisted's language."""
        parts = {"host": self.host, "port": str(self.port)}
        parts |= {WORDS[name]: value for name, value in self.words}
        kind = "iscsi-tls" if self.secure else "tcp"
        return ":".join([kind, *(f"{name}={_escaped(value)}" for name, value in parts.items())])


def parseURL(text: str) -> URL:
    """
    Take a URL apart.

    @raise LocalError: if it is none; a secret in it is not told.
    """
    found = _URL.match(text)
    if found is None:
        form = _SECURE if text.startswith("iscsis:") else _FORM
        raise LocalError(f"{masked(text)!r} should read {form}")
    secure = bool(found["secure"])
    words = _words(found["words"], secure, masked(text))
    port = int(found["port"] or PORT)
    if not 0 < port < 65536:
        raise LocalError(f"{masked(text)!r}: a port is a number from 1 to 65535")
    target = unquote(found["target"] or "")
    why = complaint(target) if target else None
    if why is not None:
        raise LocalError(f"{masked(text)!r}: {why}")
    lun = None if found["lun"] is None else int(found["lun"])
    host = found["host"].strip("[]")
    user, secret = unquote(found["user"] or ""), unquote(found["secret"] or "")
    return URL(host, port, target, lun, user, secret, secure, words)


def isURL(text: str) -> bool:
    """Whether a text is meant to be such a URL."""
    return text.startswith(("iscsi:", "iscsis:"))


def _words(text: str | None, secure: bool, shown: str) -> tuple[tuple[str, str], ...]:
    """What stands behind the question mark."""
    if text is None:
        return ()
    if not secure:
        raise LocalError(f"{shown!r}: nothing stands behind a ? in iscsi://; TLS is iscsis://")
    found: dict[str, str] = {}
    for each in text.split("&"):
        name, _, value = each.partition("=")
        if name not in WORDS or name in found or not value:
            known = ", ".join(f"{one}=" for one in WORDS)
            raise LocalError(f"{shown!r}: {name}= should be one of {known}, each once, and say something")
        # Whoever opens it may have changed the directory by then.
        found[name] = unquote(value) if name == "name" else os.path.abspath(unquote(value))
    return tuple(found.items())


def _escaped(text: str) -> str:
    """A value as it stands in the description of an endpoint."""
    return text.replace("\\", r"\\").replace(":", r"\:")


def masked(text: str) -> str:
    """A text that may be a URL with a secret, without it; where the host is missing, without the rest."""
    if "@" not in text and "[" not in text:
        # A bracket belongs to an address, where a percent sign names an interface.
        return re.sub(r"%.*", f"%{MASKED}", text, flags=re.DOTALL)
    return hidden(text)


def hidden(text: str) -> str:
    """A text, without the secret of a URL in it."""
    return re.sub(r"%.*@", f"%{MASKED}@", text, flags=re.DOTALL)
