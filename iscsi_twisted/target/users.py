# -*- test-case-name: tests.target.test_users -*-
"""Users of the auths file, as a secret store; and who has to be one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zope.interface import implementer

from iscsi_twisted.auth.chap import SHORTEST_SECRET
from iscsi_twisted.config.auths import Auths, Credential
from iscsi_twisted.config.lines import quoted
from iscsi_twisted.config.model import Discovery, Target
from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.interfaces import Account, ICertificateStore


@implementer(ICertificateStore)
class FileUsers:
    """The users of an auths file that have a secret or a certificate."""

    def __init__(self, auths: Auths) -> None:
        self._accounts = {each.user: _account(each) for each in auths.users if each.method == "chap"}
        self._certified = {each.certificate: each.user for each in auths.users if each.certificate}

    def __eq__(self, other: object) -> bool:
        """Whether these are the same users with the same secrets and certificates."""
        same = isinstance(other, FileUsers) and self._facts() == other._facts()
        return same and self._certified == other._certified  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]

    def _facts(self) -> dict[str, tuple[bytes, str, bytes]]:
        return {
            user: (each.secret, each.targetUser, each.targetSecret) for user, each in self._accounts.items()
        }

    def __len__(self) -> int:
        return len(self._accounts) + len(self._certified)

    def __iter__(self) -> Iterator[str]:
        """Their names, each once."""
        return iter(dict.fromkeys((*self._accounts, *self._certified.values())))

    def __contains__(self, user: str) -> bool:
        return user in self._accounts or user in self._certified.values()

    def find(self, user: str) -> Account | None:
        """See L{ISecretStore}."""
        return self._accounts.get(user)

    def certified(self, names: tuple[str, ...]) -> str | None:
        """See L{ICertificateStore}; of several names the first counts that is some user's."""
        return next((self._certified[name] for name in names if name in self._certified), None)


def _account(credential: Credential) -> Account:
    return Account(credential.secret or b"", credential.targetUser, credential.targetSecret or b"")


def accessFaults(
    targets: Iterable[Target | Discovery], users: FileUsers | None
) -> Iterator[ConfigurationError]:
    """What lines ask of users that are not there."""
    for target in targets:
        options = target.options
        if (options.auth or options.users) and not users:
            what = "auth=chap" if options.auth else "users="
            yield target.where.error(
                f"{what}, and there are no users with secrets; name an auths file that has some with --auths"
            )
            continue
        for name in sorted(options.users or ()):
            if users is not None and name not in users:
                yield target.where.error(
                    f"users=: {quoted(name)} has no secret and no certificate in the auths file"
                )


def shortSecrets(auths: Auths) -> Iterator[str]:
    """A warning for each secret that is too short."""
    for each in auths.users:
        for secret in (each.secret, each.targetSecret):
            if secret and len(secret) < SHORTEST_SECRET:
                yield (
                    f"{each.where.path}:{each.where.line}: the secret of {quoted(each.user)} has less than"
                    f" {SHORTEST_SECRET} bytes: it can be guessed, and some initiators silently refuse it"
                )
                break
