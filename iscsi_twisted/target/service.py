# -*- test-case-name: tests.target.test_service -*-
"""
The target as a Twisted service.

Its life: devices are opened, then portals listen (both in C{privilegedStartService}, so that block
devices and low ports can be had before privileges are shed); at the end initiators are asked to log
out, connections close, and devices are flushed and closed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.config.options import NO_UNIT_OPTIONS, UnitOptions
from iscsi_twisted.errors import ConfigurationError, ConfigurationErrors, DeviceError, LocalError
from iscsi_twisted.interfaces import IAccessPolicy, INexus
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.inventory import AbsentUnit
from iscsi_twisted.scsi.lun import decodeLUN
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.names import complaint, normalise
from iscsi_twisted.session.node import Node, Portal, Target
from iscsi_twisted.storage import asDevice
from iscsi_twisted.target.assembly import Disk, Plan, absentIdentity, faultsOf, makeUnit
from iscsi_twisted.target.identity import Installation
from iscsi_twisted.target.journal import Journal
from iscsi_twisted.target.protocol import TargetFactory
from iscsi_twisted.target.status import ServiceStatus, sessionStatus, targetStatus
from iscsi_twisted.target.transport import tuneMalloc

TICK: Final = 5.0
"""Seconds between looks at the clocks of all connections."""


class Listener:
    """
    Where to listen.

    @ivar endpoint: a server endpoint.
    @ivar portal: the portal that it is.
    @ivar optional: whether the service goes on where the machine cannot listen there
        (no IPv6, for example).
    """

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        portal: Portal | None = None,
        *,
        name: str = "",
        optional: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.portal = portal if portal is not None else Portal()
        self.name = name or str(endpoint)
        self.optional = optional


class TargetService(Service):
    """
    Serves disks over iSCSI.

    An application adds targets, gives it a parent or starts it, and may ask for its C{status}.

    @ivar node: the targets and sessions.
    @ivar journal: the counters and the log of session life.
    @ivar ready: fires when devices are open and portals listen; fails with L{ConfigurationErrors}.
    """

    log = Logger(namespace="iscsi_twisted")

    def __init__(
        self,
        reactor: Any,
        listeners: Iterable[Listener | IStreamServerEndpoint] = (),
        *,
        stateDirectory: str | None = None,
        maxSessions: int = 0,
        stopTime: float = 5.0,
        trace: frozenset[str] = frozenset(),
    ) -> None:
        """
        @param listeners: where to listen.
        @param stateDirectory: keeps the identities of the units over restarts.  Without one they are
            new at each start, unless a unit's options give them.
        @param maxSessions: 0 for no limit.
        @param stopTime: seconds that stopping may take at most.
        @param trace: what to trace into the log: some of C{net}, C{iscsi}, C{scsi}.
        """
        self.reactor = reactor
        self.journal = Journal()
        self.node = Node(self.journal, maxSessions=maxSessions)
        self.factories: list[TargetFactory] = []
        self.ports: list[IListeningPort] = []
        self._listeners = [item if isinstance(item, Listener) else Listener(item) for item in listeners]
        self._stateDirectory = stateDirectory
        self._stopTime = stopTime
        self._trace = trace
        self._plans: dict[str, Plan] = {}
        self._units: list[DiskUnit] = []
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor
        self.ready: Deferred[None] | None = None

    # What is served

    def addTarget(
        self,
        name: str,
        devices: Sequence[Any],
        *,
        policy: IAccessPolicy | None = None,
        alias: str = "",
        readOnly: bool = False,
        blockSize: int = 512,
        options: UnitOptions = NO_UNIT_OPTIONS,
    ) -> None:
        """
        Serve devices as LUN 0, 1, 2 and so on of one target.  To be called before the service starts.

        @param name: an iSCSI name.
        @param devices: block devices (L{iscsi_twisted.interfaces.IBlockDevice}, or what
            L{iscsi_twisted.storage.asDevice} makes one of).
        @param policy: who may come; everybody if there is none.
        @param blockSize: 512, 1024, 2048, 4096 or 8192 bytes.
        @param options: of every unit.
        @raise LocalError: for a name that is none or is taken.
        """
        disks = tuple(Disk(asDevice(device), options, blockSize, readOnly) for device in devices)
        if policy is None:
            policy = cast(IAccessPolicy, Netmask("any"))
        self.addPlan(Plan(name, disks, policy, alias, readOnly))

    def addPlan(self, plan: Plan) -> None:
        """
        Serve what a plan says.

        @raise LocalError: for a name that is none or is taken.
        """
        name = normalise(plan.name)
        wrong = complaint(plan.name)
        if wrong is None and name in self._plans:
            wrong = "there is a target of this name already"
        if wrong is not None:
            raise LocalError(f"target {plan.name!r}: {wrong}")
        if self.ready is not None:
            raise LocalError("targets are added before the service starts")
        # Identities derive from the name: one spelling, one disk.
        self._plans[name] = attrs.evolve(plan, name=name)

    # Its life

    def privilegedStartService(self) -> None:
        """
        Open the devices, then listen.

        @raise ConfigurationErrors: if that fails at once; nothing is served then.
        """
        super().privilegedStartService()
        self._begin()

    def startService(self) -> None:
        """Begin, if that has not been done with privileges."""
        super().startService()
        self._begin()
        if not self._ticking.running:
            self._ticking.start(TICK, now=False)

    def _begin(self) -> None:
        if self.ready is not None:
            return
        tuneMalloc()
        failures: list[BaseException] = []
        ready = self.ready = ensureDeferred(self._start())

        def failed(failure: Failure) -> None:
            failures.append(failure.value or LocalError("no reason"))

        ready.addErrback(failed)
        if failures:
            raise failures[0]
        if not ready.called:
            self.ready = ready.addCallback(lambda _: self._raiseLater(failures))

    def _raiseLater(self, failures: list[BaseException]) -> None:
        """The devices took their time, and then could not be opened."""
        if failures:
            self.log.critical("nothing is served: {error}", error=failures[0], event="failed")
            raise failures[0]

    async def _start(self) -> None:
        try:
            self._build()
            await self._openAll()
            await self._listenAll()
        except BaseException:
            await self._closeAll()
            raise

    def _build(self) -> None:
        """Make units and targets of the plans."""
        if self._stateDirectory is not None:
            installation = Installation.load(self._stateDirectory)
        else:
            installation = Installation(secrets.token_bytes(16))
        faults = []
        for plan in self._plans.values():
            try:
                self.node.add(self._target(plan, installation))
            except ConfigurationError as error:
                faults.append(error)
        if faults:
            raise ConfigurationErrors(faults)

    def _target(self, plan: Plan, installation: Installation) -> Target:
        units = {lun: makeUnit(plan, lun, installation, self._report) for lun in range(len(plan.disks))}
        absent = AbsentUnit(absentIdentity(plan.name), self._report)
        luns = tuple(sorted(units))

        def inventory(nexus: INexus) -> Sequence[int]:
            return luns

        for unit in (*units.values(), absent):
            unit.inventory = inventory
        self._units += units.values()
        return Target(
            plan.name, plan.policy, units, absent, decodeLUN, alias=plan.alias, readOnly=plan.readOnly
        )

    def _report(self, error: BaseException, task: object) -> None:
        self.journal.surprise(error, "serving a command")

    async def _openAll(self) -> None:
        """Open all devices, and tell all that is wrong with them at once."""
        opening = [maybeDeferred(unit.device.open, unit.changed) for unit in self._units]
        faults = []
        for unit, result in zip(self._units, opening, strict=True):
            try:
                await result
                unit.opened()
            except (DeviceError, LocalError, OSError) as error:
                faults += faultsOf(unit.device) or [ConfigurationError(str(error))]
        if faults:
            raise ConfigurationErrors(faults)

    async def _listenAll(self) -> None:
        faults = []
        for listener in self._listeners:
            factory = TargetFactory(self.node, self.reactor, listener.portal, self._trace)
            try:
                port = await listener.endpoint.listen(factory)
            except Exception as error:
                if not listener.optional:
                    faults.append(ConfigurationError(f"cannot listen on {listener.name}: {_reason(error)}"))
                continue
            self.factories.append(factory)
            self.ports.append(port)
        if not self.ports and self._listeners and not faults:
            faults.append(ConfigurationError("cannot listen on any address"))
        if faults:
            raise ConfigurationErrors(faults)

    def stopService(self) -> Deferred[None]:
        """
        Stop in order: initiators are asked to log out, connections end, devices are flushed and closed.

        @return: fires when that is done, or its time is over.
        """
        super().stopService()
        if self._ticking.running:
            self._ticking.stop()
        stopping = ensureDeferred(self._stop())
        stopping.addTimeout(self._stopTime, self.reactor, onTimeoutCancel=self._late)
        return stopping

    def _late(self, result: object, timeout: float) -> None:
        self.log.error("not all devices could be flushed and closed within {timeout} s", timeout=timeout)

    async def _stop(self) -> None:
        ports, self.ports = self.ports, []
        listening = [maybeDeferred(port.stopListening) for port in ports]
        await DeferredList(listening, consumeErrors=True)
        await self._farewell()
        await self._closeAll()
        self.ready = None

    async def _farewell(self) -> None:
        """Ask all sessions to log out; end those that do not."""
        grace = self._stopTime / 2
        for connection in self.connections():
            connection.requestLogout(max(1, int(grace)))
        waited = 0.0
        while any(c.session is not None for c in self.connections()) and waited < grace:
            await deferLater(self.reactor, 0.05)
            waited += 0.05
        for connection in self.connections():
            connection.abandon("the target stops")

    async def _closeAll(self) -> None:
        """Flush and close all devices; a failure of one does not keep the others from it."""
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        self.ports = []
        units, self._units = self._units, []
        for unit in units:
            unit.closed()
        closing = [maybeDeferred(_flushAndClose, unit) for unit in units]
        for success, result in await DeferredList(closing, consumeErrors=True):
            if not success:
                self.log.error("a device could not be closed: {error}", error=result.getErrorMessage())
        self.node.targets.clear()

    # Looking at it

    def connections(self) -> list[Connection]:
        """All connections, those that are still logging in too."""
        return [connection for factory in self.factories for connection in factory.connections()]

    def status(self) -> ServiceStatus:
        """A snapshot of everything."""
        connections = self.connections()
        journal = self.journal
        return ServiceStatus(
            running=bool(self.running),
            addresses=tuple(str(port.getHost()) for port in self.ports),
            targets=tuple(targetStatus(target) for target in self.node.targets.values()),
            sessions=tuple(sessionStatus(c.session, c) for c in connections if c.session is not None),
            connections=len(connections),
            logins=journal.logins,
            refusals=journal.refusals,
            losses=journal.losses,
            surprises=journal.surprises,
        )

    def _tick(self) -> None:
        now = self.reactor.seconds()
        for connection in self.connections():
            connection.tick(now)


def _reason(error: Exception) -> str:
    """One line that says why listening failed."""
    cause = getattr(error, "socketError", None)
    return getattr(cause, "strerror", None) or str(cause or error) or type(error).__name__


def _flushAndClose(unit: DiskUnit) -> Any:
    return unit.device.close()
