# -*- test-case-name: tests.target.test_service,tests.target.test_stopping -*-
"""
The target as a Twisted service.

Its life: devices are opened, then portals listen (both in C{privilegedStartService}, so that block
devices and low ports can be had before privileges are shed); at the end initiators are asked to log
out, connections close, and devices are flushed and closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from iscsi_twisted.auth.chap import STRONGEST_FIRST
from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.config.options import NO_UNIT_OPTIONS, UnitOptions
from iscsi_twisted.errors import CheckCondition, ConfigurationError, ConfigurationErrors, LocalError
from iscsi_twisted.interfaces import IAccessPolicy, ISecretStore
from iscsi_twisted.scsi.codes import ACCESS_CHANGED
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.lun import encodeLUN
from iscsi_twisted.scsi.sense import encode
from iscsi_twisted.session.connection import Connection
from iscsi_twisted.session.limits import NO_CHANGES, Limits
from iscsi_twisted.session.names import normalise
from iscsi_twisted.session.node import Node
from iscsi_twisted.target import upkeep
from iscsi_twisted.target.assembly import Discovery, Plan
from iscsi_twisted.target.building import disks, gather
from iscsi_twisted.target.change import Wanted
from iscsi_twisted.target.commit import Changes
from iscsi_twisted.target.farewell import farewell, within
from iscsi_twisted.target.journal import Journal
from iscsi_twisted.target.listeners import Listener, listener, tags
from iscsi_twisted.target.protocol import TargetFactory, TargetProtocol
from iscsi_twisted.target.reload import Read, Reloading
from iscsi_twisted.target.serving import Serving
from iscsi_twisted.target.status import ServiceStatus, portalStatus, sessionStatus, targetStatus, where
from iscsi_twisted.target.tell import Told
from iscsi_twisted.transport import trimMalloc, tuneMalloc

NO_STATES: Final[Mapping[int, int]] = {}

TICK: Final = 5.0
"""Seconds between looks at the clocks of all connections."""


class TargetService(Service):
    """
    Serves disks over iSCSI.

    An application adds targets, gives it a parent or starts it, and may ask for its C{status}.  It may be
    started again once it has stopped.

    @ivar node: the targets and sessions.
    @ivar journal: the counters and the log of session life.
    @ivar ports: where it listens.
    """

    log = Logger(namespace="iscsi_twisted")

    def __init__(
        self,
        reactor: Any,
        listeners: Iterable[Listener | IStreamServerEndpoint | str] = (),
        *,
        stateDirectory: str | None = None,
        secrets: ISecretStore | None = None,
        algorithms: tuple[int, ...] = STRONGEST_FIRST,
        openDiscovery: bool = False,
        limits: Limits = NO_CHANGES,
        stopTime: float = 5.0,
        trace: frozenset[str] = frozenset(),
        read: Read | None = None,
        discovery: Discovery | None = None,
    ) -> None:
        """
        @param listeners: where to listen: endpoints, or descriptions of such (C{tcp:3260}).
        @param stateDirectory: keeps the identities of the units over restarts.  Without one they are
            new at each start, unless a unit's options give them.
        @param secrets: the users that may log in; without it initiators need not say who they are.
        @param algorithms: of CHAP, those that are allowed.
        @param openDiscovery: whether discovery asks nobody who they are even so.
        @param limits: what initiators may cost.
        @param stopTime: seconds that stopping may take at most.
        @param trace: what to trace into the log: some of C{net}, C{iscsi}, C{scsi}.
        @param read: says what is to be served, when the service is asked to L{reload}; it may raise
            L{ConfigurationErrors<iscsi_twisted.errors.ConfigurationErrors>}, and return a L{Deferred} or a
            generator that returns it: others are served while that is waited for, and between its steps.
        @param discovery: who may ask for targets; it goes before C{openDiscovery}.
        @raise ConfigurationError: for a description that cannot be understood.
        """
        self.reactor = reactor
        self.journal = Journal()
        self.node = Node(self.journal, limits=limits)
        self._listeners = [listener(reactor, item) for item in listeners]
        self._serving = Serving(
            reactor, self.journal, self.node, stateDirectory=stateDirectory,
            secrets=secrets, algorithms=algorithms, openDiscovery=openDiscovery, groups=tags(self._listeners),
            discovery=discovery,
        )  # fmt: skip
        self._reloading = Reloading(self._serving, self._protocols)
        self._read = read
        self.factories: list[TargetFactory] = []
        self.ports: list[IListeningPort] = []
        self._stopTime = stopTime
        self._trace = trace
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor
        self._strain = (False, False)
        self._begun = False
        self._starting: Deferred[None] | None = None
        self._clearing: Deferred[None] = succeed(None)
        self._abandoned = False
        self._stopping = False
        self._outcome: Failure | None = None
        self._waiting: list[Deferred[None]] = []

    # What is served

    def addTarget(
        self,
        name: str,
        devices: Sequence[Any] | Mapping[int, Any],
        *,
        policy: IAccessPolicy | None = None,
        alias: str = "",
        readOnly: bool = False,
        blockSize: int = 512,
        options: UnitOptions = NO_UNIT_OPTIONS,
        guarded: bool = True,
        users: Iterable[str] | None = None,
        portals: Iterable[int] | None = None,
        access: Mapping[int, int] = NO_STATES,
        preferred: Iterable[int] = (),
        tpgs: int | None = None,
    ) -> None:
        """
        Serve devices as the units of one target.  To be called before the service starts.

        @param name: an iSCSI name.
        @param devices: block devices (L{iscsi_twisted.interfaces.IBlockDevice}, or what
            L{iscsi_twisted.storage.asDevice} makes one of) as LUN 0, 1, 2 and so on; or by their LUNs.
        @param policy: who may come; everybody if there is none.
        @param blockSize: 512, 1024, 2048, 4096 or 8192 bytes.
        @param options: of every unit.
        @param guarded: whether initiators have to authenticate themselves, if the service has C{secrets}.
        @param users: those that may log in; None for all that there are.
        @param portals: tags of the portal groups through which it is reached; None for all.
        @param access: the access states of portal groups (L{iscsi_twisted.scsi.paths}) that are not
            active/optimized.
        @param preferred: tags of the portal groups that are marked as preferred.
        @param tpgs: who may change access states; None for both, if there is anything to change.
        @raise LocalError: for a name that is none or is taken, a block size that is none of these, or portal
            groups that there are not.
        """
        self.addPlan(
            Plan(
                name,
                disks(devices, options, blockSize, readOnly),
                policy if policy is not None else cast(IAccessPolicy, Netmask("any")),
                alias,
                readOnly,
                guarded,
                None if users is None else frozenset(users),
                None if portals is None else frozenset(portals),
                access,
                frozenset(preferred),
                tpgs,
            )
        )

    def addPlan(self, plan: Plan) -> None:
        """
        Serve what a plan says.

        @raise LocalError: for a name that is none or is taken.
        """
        if self._begun:
            raise LocalError("targets are added before the service starts")
        serving = self._serving
        gather(serving.plans, plan, serving.secrets is not None, serving.groups)

    # Its life

    def privilegedStartService(self) -> None:
        """
        Open the devices, then listen.

        @raise ConfigurationErrors: if that fails at once; nothing is served then.
        """
        super().privilegedStartService()
        self._begin()

    def startService(self) -> None:
        """Begin, if that has not been done with privileges; raises what that raises."""
        self._begin()
        super().startService()
        if not self._ticking.running:
            self._ticking.start(TICK, now=False)

    def whenReady(self) -> Deferred[None]:
        """
        Wait for the start.

        @return: fires when devices are open and portals listen; fails with L{ConfigurationErrors} if that
            cannot be.
        """
        if not self._begun or self._starting is not None:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            return waiting
        return succeed(None) if self._outcome is None else fail(self._outcome)

    def _begin(self) -> None:
        if self._stopping or self._abandoned:
            raise LocalError("the service has not stopped yet")
        if self._begun:
            return
        if not self._clearing.called:
            raise LocalError("what a failed start has opened is not closed yet")
        tuneMalloc()
        self._begun = True
        self._outcome = None
        starting = self._starting = ensureDeferred(self._start())
        starting.addBoth(self._started)
        failure = self._outcome
        if failure is not None:
            self._begun = False
            failure.raiseException()
        if self._starting is not None:
            # What fails from now on nobody can be told by an exception.
            starting.addCallback(self._complain)

    def _started(self, outcome: Failure | None) -> None:
        self._starting = None
        self._abandoned = False
        self._outcome = outcome
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None) if outcome is None else one.errback(outcome)

    def _complain(self, _: None) -> None:
        if self._outcome is not None and not self._outcome.check(LocalError):
            self.log.critical(
                "nothing is served: {error}", error=self._outcome.getErrorMessage(), event="failed"
            )

    async def _start(self) -> None:
        serving = self._serving
        try:
            serving.start()
            await serving.open(place.mount for place in serving.places.values())
            serving.builder.opened(place.disk.device for place in serving.places.values())
            self._checkWanted()
            await self._listenAll()
            self._checkWanted()
        except BaseException:
            # Not awaited: twistd must be told at once.
            self._clearing = ensureDeferred(self._closeAll())
            raise

    def _checkWanted(self) -> None:
        if self._abandoned:
            raise LocalError("the service was stopped while it started")

    async def _listenAll(self) -> None:
        faults = []
        for each in self._listeners:
            factory = TargetFactory(self.node, self.reactor, each.portal, self._trace)
            try:
                made = await each.listen(factory)
            except ConfigurationError as error:
                faults.append(error)
                continue
            if made is not None:
                port, factory.portal = made
                self.factories.append(factory)
                self.ports.append(port)
        if not self.ports and self._listeners and not faults:
            faults.append(ConfigurationError("cannot listen on any address"))
        if faults:
            raise ConfigurationErrors(faults)
        self.node.portals = tuple(factory.portal for factory in self.factories)

    def stopService(self) -> Deferred[None]:
        """
        Stop in order: initiators are asked to log out, connections end, devices are flushed and closed.

        @return: fires when that is done, or its time is over.
        """
        super().stopService()
        if self._ticking.running:
            self._ticking.stop()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        """Half of the time is the initiators', the rest that of connections and devices."""
        end = self.reactor.seconds() + self._stopTime
        self._stopping = True
        try:
            starting = self._starting
            if starting is not None:
                self._abandoned = True
                self._serving.abandon()
                await within(self.reactor, starting, end)
            await within(self.reactor, self._clearing, end)
            await within(self.reactor, self._reloading.stop(), end)
            await self._closePorts()
            await self._farewell(end)
            if not await within(self.reactor, ensureDeferred(self._closeAll()), end):
                self.log.error(
                    "not all devices could be flushed and closed within {timeout} s", timeout=self._stopTime
                )
        finally:
            self._stopping = self._begun = False

    async def _farewell(self, end: float) -> None:
        """Ask all sessions to log out; end those that do not, and connections that have none."""
        factories = self.factories
        gone = DeferredList([factory.whenIdle() for factory in factories])
        if not await farewell(
            self.reactor, self.connections, gone, "the target stops", end, self._stopTime / 2
        ):
            for factory in factories:
                factory.abort()

    def _closePorts(self) -> Deferred[Any]:
        ports, self.ports = self.ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)

    async def _closeAll(self) -> None:
        """Stop listening, and close all devices that are open."""
        factories, self.factories = self.factories, []
        for factory in factories:
            factory.abort()
        await DeferredList([self._closePorts(), ensureDeferred(self._serving.closeAll())])

    # Changing what is served

    def reload(self) -> Deferred[Changes]:
        """
        Find out anew what is to be served, and serve that: what stays the same is not disturbed.
        Certificates that have changed are taken up, too.

        @return: fires with what has changed; fails if it cannot be done, with all that is wrong
            (L{ConfigurationErrors<iscsi_twisted.errors.ConfigurationErrors>}).  Then nothing has changed.
            Both are logged as well.
        """
        for each in self._listeners:
            each.renew()
        read = self._read
        if read is None:
            return fail(LocalError("this service has nothing to read anew: tell it by change()"))
        return self._change(read)

    def change(
        self,
        plans: Iterable[Plan],
        secrets: ISecretStore | None = None,
        discovery: Discovery | None = None,
    ) -> Deferred[Changes]:
        """
        Serve this instead: what stays the same is not disturbed.

        A device that is the same object as before stays open.

        @param plans: all that is to be served.
        @param secrets: the users that may log in, as for the constructor; C{discovery} likewise.
        @return: as of L{reload}.
        """
        wanted = Wanted(tuple(plans), secrets, discovery=discovery)
        return self._change(lambda: wanted)

    def _change(self, read: Read) -> Deferred[Changes]:
        if not self._begun or self._starting is not None or self._stopping:
            return fail(LocalError("the service does not run, so there is nothing to change"))
        return self._reloading.perform(read)

    # Looking at it

    def connections(self) -> list[Connection]:
        """All connections, those that are still logging in too."""
        return [connection for factory in self.factories for connection in factory.connections()]

    def _protocols(self) -> list[TargetProtocol]:
        return [protocol for factory in self.factories for protocol in factory.protocols]

    def status(self) -> ServiceStatus:
        """A snapshot of everything."""
        connections = self.connections()
        journal = self.journal
        return ServiceStatus(
            running=bool(self.running),
            addresses=tuple(where(port) for port in self.ports),
            targets=tuple(targetStatus(target) for target in self.node.targets.values()),
            sessions=tuple(sessionStatus(c.session, c) for c in connections if c.session is not None),
            connections=len(connections),
            logins=journal.logins,
            refusals=journal.refusals,
            losses=journal.losses,
            surprises=journal.surprises,
            portals=tuple(
                portalStatus(factory.portal, port, len(factory.protocols))
                for factory, port in zip(self.factories, self.ports, strict=False)
            ),
        )

    # Taking care of it

    def device(self, name: str) -> Any:
        """
        The device that a line of a targets file defines, to be switched while it serves.

        @param name: the first word of the line, such as C{device0}.
        @raise LocalError: if there is no such device.
        """
        planned = (disk.device for plan in self._serving.plans.values() for disk in plan.disks)
        return upkeep.named([unit.device for unit in self._units()] or planned, name)

    def rescan(self) -> list[str]:
        """
        Look whether files have grown whose extents go to their end, and tell initiators (CAPACITY DATA HAS
        CHANGED).  A file that has become too short is logged.

        @return: the files that have grown.
        """
        return upkeep.rescan(unit.device for unit in self._units())

    def reopen(self, name: str, lun: int) -> Deferred[None]:
        """
        Open the files of a unit anew, after a flush has failed and its cause was mended.

        @raise LocalError: for a target or unit that there is not.
        @return: fires when it is done, or fails with a L{DeviceError}.
        """
        place = self._serving.places.get((normalise(name), lun))
        if place is None:
            raise LocalError(f"there is no unit {lun} of a target {name!r}")
        return ensureDeferred(upkeep.reopen(place.unit))

    def _units(self) -> Iterator[DiskUnit]:
        return (place.unit for place in self._serving.places.values())

    def setAccess(self, name: str, states: Mapping[int, int], lun: int | None = None) -> None:
        """
        Let the units of a target have other access states through some portal groups; initiators are told.

        @param states: by portal group tag, as in L{iscsi_twisted.scsi.paths}.
        @param lun: of one unit alone.
        @raise LocalError: for a target, unit, group or state that there is not.
        """
        target = self.node.targets.get(normalise(name))
        if target is None:
            raise LocalError(f"there is no target {name!r}")
        told = Told()
        for number, unit in target.units.items():
            if lun in (None, number) and unit.setAccess(states):  # type: ignore[attr-defined]
                told.unit(target, number, [ACCESS_CHANGED])
        if lun is not None and lun not in target.units:
            raise LocalError(f"{target.name} has no LUN {lun}")
        told.send()

    def reportEvent(self, name: str, lun: int, condition: CheckCondition) -> int:
        """
        Tell the initiators of a target of a SCSI asynchronous event (RFC 7143 11.9.1).

        @return: how many were told.
        """
        return self.node.targets[normalise(name)].reportEvent(encodeLUN(lun), encode(condition))

    def _relieve(self) -> None:
        """Give memory back that was needed for a while, for sessions or for data that waited."""
        load, (busy, pressed) = self.node.load, self._strain
        self._strain = bool(self.node.sessions), load.pressed
        if (busy and not self.node.sessions) or (pressed and not load.pressed):
            trimMalloc()

    def _tick(self) -> None:
        now = self.reactor.seconds()
        self.journal.tick(now)
        self._relieve()
        for connection in self.connections():
            connection.tick(now)
        self._serving.tick()
