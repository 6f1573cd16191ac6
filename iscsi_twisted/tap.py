# -*- test-case-name: tests.test_tap,tests.test_tapusers,tests.test_tapagain -*-
"""The command line of C{twistd iscsi}."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import copy
from typing import Any, Final, NoReturn, TextIO

from twisted.application.service import IService
from twisted.python import usage

from iscsi_twisted import __version__
from iscsi_twisted.auth.chap import NAMES, available
from iscsi_twisted.config.auths import readAuths
from iscsi_twisted.config.disks import fromDisks, newcomer
from iscsi_twisted.config.extents import absolute
from iscsi_twisted.config.lines import onlyOnce, quoted, visible
from iscsi_twisted.config.model import DEFAULT_BASE, Configuration, Device, Target
from iscsi_twisted.config.options import BLOCK_SIZES
from iscsi_twisted.config.steps import Steps, whole
from iscsi_twisted.config.targets import load
from iscsi_twisted.config.tree import describe
from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors
from iscsi_twisted.initiator.node import Initiator
from iscsi_twisted.initiator.remote import RemoteExtent, nameRemote
from iscsi_twisted.initiator.url import SECRET
from iscsi_twisted.interfaces import IBlockDevice
from iscsi_twisted.session.limits import NO_CHANGES
from iscsi_twisted.session.names import complaint, normalise
from iscsi_twisted.target.assembly import Plan, Remote, discovery, planning, unitIdentity
from iscsi_twisted.target.change import Wanted
from iscsi_twisted.target.command import CommandService
from iscsi_twisted.target.garbage import spared
from iscsi_twisted.target.identity import Installation, defaultStateDirectory
from iscsi_twisted.target.limiting import parseLimits, rows
from iscsi_twisted.target.listeners import Listener, groupFaults, idleGroups, listener
from iscsi_twisted.target.listeners import describe as describePortals
from iscsi_twisted.target.permissions import tooOpen
from iscsi_twisted.target.trace import KINDS
from iscsi_twisted.target.users import FileUsers, accessFaults, shortSecrets

TARGETS: Final = "/etc/iscsi/targets"
AUTHS: Final = "/etc/iscsi/auths"
PORT: Final = 3260
SHORT: Final = {"max-sessions": "s"}


NOT_DRAWN: Final = Installation(bytes(16))
LATER: Final = "(drawn at the first start)"


NOBODY_LEFT: Final = (
    "holds no users any more, and so nobody would be asked who they are; if that is meant write auth=none on"
    " the lines of all targets, or start the target anew"
)


class Options(usage.Options):
    """
    Options of C{twistd iscsi}.

    What follows is there once the options have been read.

    @ivar algorithms: that CHAP may use.
    @ivar configuration: what is to be served.
    @ivar newcomer: nobody said what to serve.
    @ivar plans: what the configuration comes to.
    @ivar users: of the auths file; None if it has none.
    @ivar warnings: what is to be said at the start.
    @ivar limits: what initiators may cost.
    @ivar listeners: where to listen.
    @ivar stateDirectory: where state is kept, as an absolute path: twistd changes the working directory.
    """

    synopsis = "[-f FILE | --disk PATH:SIZE ...] [options]"

    optParameters = [
        ["targets", "f", None, f"Extents, devices and targets.  [default: {TARGETS}]"],
        ["auths", "a", None, f"Users and their secrets.  [default: {AUTHS}, if there is one]"],
        ["port", "p", None, f"TCP port to listen on.  [default: {PORT}]"],
        ["block-size", "b", "512", "Bytes of a logical block: 512, 1024, 2048, 4096 or 8192."],
        ["target-name", "t", DEFAULT_BASE, "What the names of targets begin with that have no IQN."],
        ["chap", None, ",".join(NAMES), "Hashes that CHAP may use."],
        ["state", None, None, "Directory that keeps the identities of disks over restarts."],
        *([name, SHORT.get(name), shown, doc] for name, shown, doc in rows()),
    ]
    optFlags = [
        ["open-discovery", None, "Tell whoever asks which targets there are, even if there are users."],
        [
            "open-auths",
            None,
            "Take an auths file that everybody here can read, or its group can write.",
        ],
        ["ipv4", "4", "Listen on IPv4 only."],
        ["ipv6", "6", "Listen on IPv6 only."],
        ["check", None, "Read the configuration, print it with the disks' identities, and exit."],
    ]

    algorithms: tuple[int, ...]
    configuration: Configuration
    limits = NO_CHANGES
    newcomer = False
    plans: list[Plan]
    stateDirectory: str

    def __init__(self) -> None:
        super().__init__()
        self.users: FileUsers | None = None
        # Those of the start, which know the users that were read last.
        self._first = self
        self._initiator: Initiator | None = None
        self.warnings: list[str] = []
        self.listeners: list[Listener] = []
        self._files: dict[str, str] = {}
        self._directory: str | None = None
        self["listen"], self["disk"], self["trace"], self["force-member"] = [], [], set(), []

    def opt_listen(self, description: str) -> None:
        """Endpoint to listen on, such as tcp:3260:interface=127.0.0.1; may be repeated."""
        self["listen"].append(description)

    def opt_disk(self, disk: str) -> None:
        """PATH:SIZE of a file to serve without a targets file, such as disk0:100MB; may be repeated."""
        self["disk"].append(disk)

    def opt_trace(self, what: str) -> None:
        """Log net, iscsi, scsi or all; may be repeated."""
        self["trace"].update(KINDS if what == "all" else (what,))

    def opt_force_member(self, name: str) -> None:
        """Member of a mirror, such as extent0, that holds the truth at this start; may be repeated."""
        self["force-member"].append(name)

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"iscsi_twisted {__version__}")
        sys.exit(0)

    opt_l = opt_listen
    opt_v = opt_trace
    opt_V = opt_version

    def parseOptions(self, options: Any = None) -> None:
        """Read the command line; a fault is one line, not a page of help."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            refuse([ConfigurationError(f"{visible(str(error))} (twistd iscsi --help lists the options)")])

    def parseArgs(self, *arguments: str) -> None:
        """There are none."""
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}: options begin with a dash")

    def postOptions(self) -> None:
        """Check the options, and read the files; all faults are told at once."""
        faults: list[ConfigurationError] = []
        for check in (self._words, self._numbers, self._conflicts, self._names, self._endpoints):
            faults += check()
        with spared():
            whole(self._read(faults, self._state, self._configure, self._users, self._access))
        if faults:
            refuse(faults)
        if self["check"]:
            self._check()

    def _read(self, faults: list[ConfigurationError], *readers: Callable[[], Steps[None]]) -> Steps[None]:
        """Read the files; what is wrong with them is added to what is already known to be wrong."""
        for read in readers:
            if read == self._access and faults:
                continue
            try:
                yield from read()
            except ConfigurationErrors as errors:
                faults += errors.errors
            except ConfigurationError as error:
                faults.append(error)

    def again(self) -> Steps[Wanted]:
        """
        Read the files once more, step by step; the other options stay as they are.

        A file that was there is not done without: who removed it may have meant anything.  Nor are users,
        where there were any: a file that was truncated must not let everybody in.

        @raise ConfigurationErrors: all that is wrong.
        """
        fresh = copy(self)
        fresh.users, fresh.warnings = None, []
        fresh.update(self._files)
        # Who is to be believed was said for the start: by now others may have what that one lacks.
        fresh["force-member"] = []
        faults = [fault for path in self._files.values() for fault in onlyOnce(path)]
        if not faults:
            yield from fresh._read(faults, fresh._configure, fresh._users, fresh._access)
        if not faults and self.users and not fresh.users and any(plan.guarded for plan in fresh.plans):
            faults = [ConfigurationError(NOBODY_LEFT, self.pathOf("auths"))]
        if faults:
            raise ConfigurationErrors(faults)
        self.users = fresh.users
        return Wanted(tuple(fresh.plans), fresh.users, tuple(fresh.warnings), discovery(fresh.configuration))

    def _place(self, name: str, path: str) -> str:
        """The path of a file that is read, and where it is read again when the directory is another one."""
        self._files[name] = absolute(path, self._directory)
        return path

    def pathOf(self, name: str) -> str:
        """The absolute path of a file that is read; empty for one that is not."""
        return self._files.get(name, "")

    def _words(self) -> Iterator[ConfigurationError]:
        for name in ("targets", "auths", "state"):
            if self[name] == "":
                # What all else goes on with is the default.
                self[name] = None
                yield ConfigurationError(f"--{name}: a path is wanted")
        names = self["chap"].lower().split(",")
        for name in sorted(set(names).difference(NAMES)):
            yield ConfigurationError(f"--chap {visible(name)}: wanted are some of {', '.join(NAMES)}")
        self.algorithms = tuple(NAMES[name] for name in names if name in NAMES and available(NAMES[name]))
        if not self.algorithms and set(names) <= set(NAMES):
            yield ConfigurationError(f"--chap {visible(self['chap'])}: this platform has none of these")
        for what in sorted(self["trace"].difference(KINDS)):
            yield ConfigurationError(f"--trace {visible(what)}: wanted is {', '.join(KINDS)} or all")

    def _numbers(self) -> Iterator[ConfigurationError]:
        sizes = ", ".join(map(str, BLOCK_SIZES))
        yield from self._number("block-size", 512, sizes, BLOCK_SIZES.__contains__)
        self.limits, faults = parseLimits(self)
        yield from faults
        if self["port"] is not None:
            yield from self._number("port", None, "1 to 65535", lambda n: 0 < n < 65536)

    def _number(
        self, name: str, default: int | None, wanted: str, fits: Callable[[int], bool]
    ) -> Iterator[ConfigurationError]:
        """
        Turn an option into a number.

        @param default: what all else goes on with if it is none.
        """
        text, self[name] = self[name], default
        if text.isascii() and text.isdigit() and len(text) < 10 and fits(int(text)):
            self[name] = int(text)
        else:
            yield ConfigurationError(f"--{name} {visible(text)}: wanted is {wanted}")

    def _conflicts(self) -> Iterator[ConfigurationError]:
        for other in ("port", "ipv4", "ipv6"):
            if self["listen"] and self[other]:
                yield ConfigurationError(f"--{other} with --listen: say it in the endpoint")
        if self["disk"] and self["targets"] is not None:
            yield ConfigurationError("--disk with --targets: give one or the other")

    def _names(self) -> Iterator[ConfigurationError]:
        base = self["target-name"]
        wrong = complaint(base) or complaint(f"{base}:target0")
        if wrong is not None:
            yield ConfigurationError(
                f"--target-name {visible(base)}: as in {quoted(base + ':target0')}, {wrong}"
            )
            self["target-name"] = DEFAULT_BASE

    def _endpoints(self) -> Iterator[ConfigurationError]:
        from twisted.internet import reactor

        self.listeners = []
        for description in self["listen"]:
            try:
                self.listeners.append(listener(reactor, description))
            except ConfigurationError as error:
                yield error

    def _state(self) -> Steps[None]:
        yield
        # Files are read again when twistd has gone elsewhere.
        with suppress(OSError):
            self._directory = os.getcwd()
        self.stateDirectory = os.path.abspath(
            self["state"] or defaultStateDirectory(os.environ, os.geteuid())
        )

    def _configure(self) -> Steps[None]:
        """Find out what is to be served, and where."""
        from twisted.internet import reactor

        base = self["target-name"]
        if self["disk"]:
            self.configuration = fromDisks(self["disk"], self._directory)
        elif self["targets"] is not None or _exists(TARGETS):
            path = self._place("targets", self["targets"] or TARGETS)
            self.configuration = yield from load(path, complaint, base, self._directory, nameRemote)
        else:
            self.newcomer = True
            self.configuration = newcomer(self._directory)
        self.plans = yield from planning(
            self.configuration,
            base=base,
            blockSize=self["block-size"],
            reactor=reactor,
            remote=self._remote(reactor),
            trusted=self._trusted(),
        )
        if not self["listen"] and not self.listeners:
            self.listeners = list(_defaults(reactor, self))

    def _trusted(self) -> frozenset[str]:
        """
        The members of mirrors that are to be believed.

        @raise ConfigurationErrors: if one is no member, or two are of one mirror.
        """
        names = frozenset(self["force-member"])
        mirrors = [
            {member.name for member in device.members}
            for device in self.configuration.devices
            if isinstance(device, Device) and device.level == 1
        ]
        faults = [
            ConfigurationError(f"--force-member {visible(name)}: no mirror has such a member")
            for name in sorted(names.difference(*mirrors) if mirrors else names)
        ]
        faults += [
            ConfigurationError(
                f"--force-member {' and '.join(sorted(names & mirror))}: these are members of one mirror,"
                " and only one of them can hold the truth"
            )
            for mirror in mirrors
            if len(names & mirror) > 1
        ]
        if faults:
            raise ConfigurationErrors(faults)
        return names

    def _remote(self, reactor: Any) -> Remote:
        """Makes the extents that are units of other targets; all log in as one initiator, for good."""
        initiator = self._first._initiator
        if initiator is None:
            initiator = self._first._initiator = Initiator(reactor, seed=self._first._installation)

        def remote(
            url: str, start: int, length: int | None, *, readOnly: bool, writeCache: bool
        ) -> IBlockDevice:
            return RemoteExtent(
                initiator, url, start, length,
                readOnly=readOnly, writeCache=writeCache, secretOf=self._first._secretOf,
            )  # fmt: skip

        return remote

    def _installation(self) -> bytes:
        """What no other installation has."""
        return Installation.load(self.stateDirectory).id

    def _secretOf(self, user: str) -> bytes | None:
        """A user's secret for another target: the environment's, or that of the auths file."""
        account = self.users.find(user) if self.users is not None else None
        return os.environ.get(SECRET, "").encode() or (account.secret if account is not None else None)

    def _users(self) -> Steps[None]:
        """Read who may log in."""
        path = self["auths"]
        if path is None and not _exists(AUTHS):
            return
        path = self._place("auths", path or AUTHS)
        faults: list[ConfigurationError | None] = []
        auths = yield from readAuths(path, lambda descriptor: faults.append(tooOpen(descriptor, path)))
        self.warnings += shortSecrets(auths)
        users = FileUsers(auths)
        if users:
            self.users = users
            for fault in faults:
                if fault is not None and not self["open-auths"]:
                    raise fault

    def _access(self) -> Steps[None]:
        """What targets ask of users, now that both files have been read."""
        yield
        targets, rule = self.configuration.targets, self.configuration.discovery
        asking: list[Any] = [*targets] if rule is None else [rule, *targets]
        faults = [*accessFaults(asking, self.users), *groupFaults(targets, self.listeners)]
        if rule is not None and self["open-discovery"]:
            faults.append(
                rule.where.error("a discovery line with --open-discovery; auth=none says that here")
            )
        if faults:
            raise ConfigurationErrors(faults)
        self.warnings += idleGroups(targets, self.listeners)

    def _check(self) -> NoReturn:
        """Print the configuration as it was understood."""
        base = self["target-name"]
        try:
            installation = Installation.peek(self.stateDirectory)
        except ConfigurationError as error:
            refuse([error])

        def identityOf(target: Target, lun: int) -> Iterable[str]:
            options = target.luns[lun].options
            name = normalise(target.targetName(base))
            identity = unitIdentity(installation or NOT_DRAWN, name, lun, options)
            known = installation is not None
            return [
                f"serial {identity.serial if known or options.serial else LATER}",
                identity.designator if known or options.naa else f"naa {LATER}",
            ]

        for line in describe(self.configuration, identityOf, base):
            print(line)
        for line in (*describePortals(self.listeners), *self._discovery()):
            print(line)
        sys.exit(0)

    def _discovery(self) -> Iterator[str]:
        """Who may log in at all, and who is told of targets; never a secret."""
        if self.users is not None:
            yield f"users {visible(','.join(self.users))}"
        rule = self.configuration.discovery
        asks = self.users is not None and not self["open-discovery"]
        if rule is not None and rule.options.auth is not None:
            asks = rule.options.auth
        yield f"discovery by {'users' if asks else 'everybody'}"


def refuse(faults: Iterable[Exception]) -> NoReturn:
    """Say what is wrong, one line for each fault, and end with status 1."""
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1)


def _exists(path: str) -> bool:
    """Whether a file is there, even if it cannot be read: only one that is missing may be done without."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _defaults(reactor: Any, options: Options) -> Iterator[Listener]:
    """Where to listen if no endpoint is named; a machine may lack IPv6."""
    port = options["port"] or PORT
    loopback = options.newcomer
    four = f"tcp:{port}:interface=127.0.0.1" if loopback else f"tcp:{port}"
    six = rf"tcp6:{port}:interface=\:\:1" if loopback else f"tcp6:{port}"
    if options["ipv4"] or not options["ipv6"]:
        yield listener(reactor, four)
    if options["ipv6"]:
        yield listener(reactor, six)
    elif not options["ipv4"] and not loopback:
        yield listener(reactor, six, optional=True)


def _terminal(options: Options) -> TextIO | None:
    """
    The standard error, for a service that becomes a daemon.

    twistd closes it before the service starts, and so before it is known whether it can.
    """
    parent = options.parent
    if parent is None or parent.get("nodaemon", True):
        return None
    try:
        return os.fdopen(os.dup(2), "w", errors="backslashreplace")
    except OSError:
        return None


def makeService(options: Options) -> IService:
    """Build the service; it opens nothing and listens nowhere before it is started."""
    from twisted.internet import reactor

    service = CommandService(
        reactor,
        options.listeners,
        stateDirectory=options.stateDirectory,
        limits=options.limits,
        trace=frozenset(options["trace"]),
        secrets=options.users,
        algorithms=options.algorithms,
        openDiscovery=bool(options["open-discovery"]),
        warnings=options.warnings,
        auths=options.pathOf("auths") or AUTHS,
        newcomer=options.newcomer,
        terminal=_terminal(options),
        read=options.again,
        discovery=discovery(options.configuration),
        hangup=True,
        alone=options.parent is not None,
    )
    for plan in options.plans:
        service.addPlan(plan)
    return service
