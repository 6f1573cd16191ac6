# -*- test-case-name: tests.initiator.test_url -*-
"""URLs as libiscsi writes them: C{iscsi://[USER[%SECRET]@]HOST[:PORT][/TARGET[/LUN]]}."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

import attrs

from iscsi_twisted.errors import LocalError
from iscsi_twisted.session.names import complaint

PORT: Final = 3260
"""Where targets listen (RFC 7143 13.8)."""

SECRET: Final = "ISCSI_SECRET"
"""The environment variable that a secret may be in."""

MASKED: Final = "***"
_FORM: Final = "iscsi://[USER@]HOST[:PORT][/TARGET[/LUN]]"

_URL = re.compile(
    r"iscsi://(?:(?P<user>[^@/%]*)(?:%(?P<secret>[^@]*))?@)?(?P<host>\[[^\]/]+\]|[^:/@\[\]]+)(?::(?P<port>\d+))?"
    r"(?:/(?P<target>[^/?]+)?(?:/(?P<lun>\d+))?)?/?\Z"
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
    """

    host: str
    port: int = PORT
    target: str = ""
    lun: int | None = None
    user: str = ""
    secret: str = attrs.field(default="", repr=False)

    def __str__(self) -> str:
        """The URL, its secret masked."""
        secret = f"%{MASKED}" if self.secret else ""
        user = f"{self.user}{secret}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        target = f"/{self.target}" if self.target else ""
        lun = "" if self.lun is None else f"/{self.lun}"
        return f"iscsi://{user}{host}:{self.port}{target}{lun}"

    def description(self) -> str:
        """The client endpoint that leads there, in Twisted's language."""
        escaped = self.host.replace("\\", r"\\").replace(":", r"\:")
        return f"tcp:host={escaped}:port={self.port}"


def parseURL(text: str) -> URL:
    """
    Take a URL apart.

    @raise LocalError: if it is none; a secret in it is not told.
    """
    found = _URL.match(text)
    if found is None:
        raise LocalError(f"{masked(text)!r} should read {_FORM}")
    port = int(found["port"] or PORT)
    if not 0 < port < 65536:
        raise LocalError(f"{masked(text)!r}: a port is a number from 1 to 65535")
    target = unquote(found["target"] or "")
    why = complaint(target) if target else None
    if why is not None:
        raise LocalError(f"{masked(text)!r}: {why}")
    lun = None if found["lun"] is None else int(found["lun"])
    host = found["host"].strip("[]")
    return URL(host, port, target, lun, unquote(found["user"] or ""), unquote(found["secret"] or ""))


def masked(text: str) -> str:
    """A text that may be a URL with a secret, without it."""
    return re.sub(r"(//[^@/%]*)%.*@", rf"\1%{MASKED}@", text)
