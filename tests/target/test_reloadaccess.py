# -*- test-case-name: tests.target.test_reloadaccess -*-
"""A service changes who may do what, and sessions that there are go on with that, or end."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from iscsi_twisted.config.auths import parseAuths
from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.interfaces import Account, Asker, Grant, IAccessPolicy
from iscsi_twisted.scsi import codes
from iscsi_twisted.target.assembly import Discovery
from iscsi_twisted.target.farewell import LOGOUT
from iscsi_twisted.target.protocol import TargetProtocol
from iscsi_twisted.target.users import FileUsers
from iscsi_twisted.wire import numbers
from tests.auth.test_verifier import Store
from tests.support import pdus
from tests.support.served import PEER
from tests.support.wire import INITIATOR, TARGET, TEST_UNIT_READY, read10, write10
from tests.target.test_reload import OTHER, Client, Masked, ReloadTestCase, disk, plan, ready

RESERVE = b"\x16" + bytes(5)
NEAR = IPv4Address("TCP", "10.0.0.1", 40000)
NAMES = {"InitiatorName": INITIATOR, "TargetName": TARGET}


class AccessTests(ReloadTestCase):
    """Who may do what changes for sessions that there are."""

    def test_netmask(self) -> None:
        """A client that is not admitted any more is asked to log out, then ended, and that is logged."""
        client = Client(self.memory)
        policy = cast(IAccessPolicy, Netmask("10.0.0.0/8"))
        with capturedLogs() as events:
            changes = self.change(plan(disk(self.device), policy=policy))
        self.assertEqual(changes.ended, 1)
        (line,) = [formatEvent(each) or "" for each in events if each.get("event") == "revoked"]
        self.assertIn("on 192.0.2.7 may not use", line)
        self.assertIn("the netmask does not admit it any more", line)
        self.assertEqual(client.events(), [(numbers.EVENT_LOGOUT_REQUEST, int(LOGOUT))])
        self.advance(LOGOUT + 1)
        self.assertTrue(client.gone)
        self.assertEqual(self.device.closings, 0)

    def test_netmaskMeanwhile(self) -> None:
        """Who has not logged in yet and is admitted by no target any more is cut, with a word in the log."""
        silent, slow, near = (self.memory.line(peer) for peer in (PEER, PEER, NEAR))
        slow.say(pdus.loginRequest(NAMES, stage=0, following=None))
        policy = cast(IAccessPolicy, Netmask("10.0.0.0/8"))
        with capturedLogs() as events:
            self.change(plan(disk(self.device), policy=policy))
            for line, gone in ((silent, True), (slow, True), (near, False)):
                self.assertEqual(line.transport.disconnected, gone)
            silent.lose()
            slow.lose()
        told = [each["address"] for each in events if each.get("event") == "turnedAway"]
        self.assertEqual(told, ["192.0.2.7"] * 2)
        self.assertEqual(list(self.memory.service.node.unfinished), [near.protocol.core])
        self.assertEqual([each for each in events if each.get("event") == "lost"], [])
        self.assertEqual(near.login()["status"], 0)

    def test_netmaskOfOneMeanwhile(self) -> None:
        """A login under way to a target that does not admit it any more ends; those to others go on."""
        other = plan(disk(ready()), name=OTHER)
        self.memory = self.serve(self.first, other)
        lines = []
        for name in (TARGET, OTHER):
            lines.append(self.memory.line())
            lines[-1].say(pdus.loginRequest({**NAMES, "TargetName": name}, stage=0, following=None))
        policy = cast(IAccessPolicy, Netmask("10.0.0.0/8"))
        with capturedLogs() as events:
            self.change(plan(disk(self.device), policy=policy), other)
        self.assertEqual([line.transport.disconnecting for line in lines], [True, False])
        (lost,) = [each for each in events if each.get("event") == "lost"]
        self.assertIn("the netmask of", lost["reason"])

    def test_removedMeanwhile(self) -> None:
        """So does one to a target that is served no more."""
        line = self.memory.line()
        line.say(pdus.loginRequest(NAMES, stage=0, following=None))
        self.change()
        self.assertTrue(line.transport.disconnecting)

    def test_discoveryMeanwhile(self) -> None:
        """Who is about to ask for targets, and may not any more, need not go on."""
        line = self.memory.line()
        names = {"InitiatorName": INITIATOR, "SessionType": "Discovery"}
        line.say(pdus.loginRequest(names, stage=0, following=None))
        rule = Discovery(cast(IAccessPolicy, Netmask("10.0.0.0/8")))
        self.successResultOf(self.memory.service.change([self.first], discovery=rule))
        self.assertTrue(line.transport.disconnecting)

    def test_brokenMeanwhile(self) -> None:
        """A policy that fails is asked again when the login is to end; then nobody is let in."""

        class Broken:
            def admits(self, address: str | None) -> bool:
                raise ZeroDivisionError

        line = self.memory.line()
        line.say(pdus.loginRequest(NAMES, stage=0, following=None))
        self.change(plan(disk(self.device), policy=Broken()))
        self.assertFalse(line.transport.disconnecting)
        (refused,) = line.say(pdus.loginRequest({}, stage=0, following=3))
        self.assertEqual(refused["status"], numbers.TARGET_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def wrapped(self) -> tuple[TargetProtocol, StringTransport]:
        """A connection through a wrapper, of which the first bytes tell who it is."""
        factory = self.memory.service.factories[0]
        wrapper = ProtocolWrapper(WrappingFactory(factory), Protocol())
        transport = StringTransport(peerAddress=PEER, lenient=True)
        protocol = factory.buildProtocol(None)
        wrapper.makeConnection(transport)
        protocol.makeConnection(wrapper)
        return protocol, transport

    def test_unknownMeanwhile(self) -> None:
        """Whom a wrapper has not told yet is not judged by the address that the wrapper has."""
        policy = cast(IAccessPolicy, Netmask("10.0.0.0/8"))
        before = self.wrapped()
        self.change(plan(disk(self.device), policy=policy))
        for protocol, transport in (before, self.wrapped()):
            self.assertFalse(transport.disconnected)
            protocol.dataReceived(b"x")
            self.assertTrue(transport.disconnected)

    def test_knownMeanwhile(self) -> None:
        """Whom a wrapper has told is judged as all others."""
        policy = cast(IAccessPolicy, Netmask("10.0.0.0/8"))
        protocol, transport = self.wrapped()
        protocol.dataReceived(pdus.loginRequest(NAMES, stage=0, following=None))
        self.assertFalse(transport.disconnected)
        self.change(plan(disk(self.device), policy=policy))
        self.assertTrue(transport.disconnected)

    def test_masked(self) -> None:
        """A session that sees other LUNs than before is told; what it does not see is not there."""
        devices = [disk(self.device), disk(ready())]
        self.memory = self.serve(plan(*devices, policy=Masked(0, 1)))
        client = Client(self.memory, luns=2)
        self.change(plan(*devices, policy=Masked(0)))
        self.assertEqual(client.events(), [(numbers.EVENT_SCSI, codes.LUNS_CHANGED)])
        self.assertEqual(client.attentions(), [codes.LUNS_CHANGED])
        refused = client.do(TEST_UNIT_READY, 1)
        self.assertEqual(int.from_bytes(refused["data"][14:16], "big"), codes.LUN_NOT_SUPPORTED)
        self.change(plan(*devices, policy=Masked(0, 1)))
        self.assertEqual(client.attentions(1), [codes.NEXUS_LOSS_OCCURRED, codes.LUNS_CHANGED])

    def test_maskedMeanwhile(self) -> None:
        """What a session has under way on a LUN that it sees no more ends, and its reservation too."""
        slow = ready()
        devices = [disk(self.device), disk(slow)]
        self.memory = self.serve(plan(*devices, policy=Masked(0, 1)))
        client = Client(self.memory, luns=2)
        self.assertEqual(client.do(RESERVE, 1)["status"], 0)
        slow.synchronous = False
        client.send(read10(0, 1), 1, read=512)
        self.change(plan(*devices, policy=Masked(0)))
        (answer,) = [each for each in client.line.take() if each["opcode"] == numbers.SCSI_RESPONSE]
        self.assertEqual(answer["status"], codes.TASK_ABORTED)
        unit: Any = self.memory.service.node.targets[TARGET].units[1]
        self.assertIsNone(unit.holder)

    def test_reader(self) -> None:
        """A session that may only read from now on is told, cannot write, and keeps nobody out."""
        client = Client(self.memory)
        self.assertEqual(client.do(RESERVE)["status"], 0)
        self.change(plan(disk(self.device), policy=Masked(0, readOnly=True)))
        unit: Any = self.memory.service.node.targets[TARGET].units[0]
        self.assertIsNone(unit.holder)
        self.assertEqual(client.attentions(), [codes.NEXUS_LOSS_OCCURRED, codes.MODE_PARAMETERS_CHANGED])
        refused = client.do(write10(0, 1), data=bytes(512), write=512)
        self.assertEqual(refused["data"][14:16], codes.WRITE_PROTECTED.to_bytes(2, "big"))

    def test_readerMeanwhile(self) -> None:
        """What it had begun to write, and has not sent, is not written any more; it reads on."""
        client = Client(self.memory)
        (wanted,) = client.send(write10(0, 1), write=512)
        self.device.synchronous = False
        client.send(read10(0, 1), read=512)
        self.change(plan(disk(self.device), policy=Masked(0, readOnly=True)))
        (answer,) = [each for each in client.line.take() if each["opcode"] == numbers.SCSI_RESPONSE]
        self.assertEqual((answer["status"], answer["itt"]), (codes.TASK_ABORTED, wanted["itt"]))
        client.line.say(pdus.dataOut(b"x" * 512, itt=wanted["itt"], ttt=wanted["ttt"]))
        self.assertEqual({name for name, _ in self.device.history}, {"read"})

    def test_refused(self) -> None:
        """An initiator that a policy lets in no more has to go, and so has one that a policy fails for."""

        class Broken(Masked):
            def decide(self, asker: Asker) -> Grant | None:
                raise ZeroDivisionError

        for policy in (Masked(), Broken()):
            self.setUp()
            client = Client(self.memory)
            self.assertEqual(self.change(plan(disk(self.device), policy=policy)).ended, 1)
            self.assertEqual(client.events()[0][0], numbers.EVENT_LOGOUT_REQUEST)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_discovery(self) -> None:
        """Who may not ask for targets any more is not let in, and has to go if it is there."""
        self.memory = self.serve(self.first)
        asking = self.memory.line()
        self.assertEqual(asking.login(None)["status"], 0)
        rule = Discovery(cast(IAccessPolicy, Netmask("10.0.0.0/8")))
        changes = self.successResultOf(self.memory.service.change([self.first], discovery=rule))
        self.assertEqual(changes.ended, 1)
        self.assertEqual(self.memory.line().login(None)["status"], 0x0202)
        self.assertEqual(self.memory.line().login(self.first.name)["status"], 0)
        self.advance(LOGOUT + 1)
        self.assertTrue(asking.transport.disconnecting)
        self.successResultOf(self.memory.service.change([self.first]))
        self.assertEqual(self.memory.line().login(None)["status"], 0)

    def test_discoveryMasked(self) -> None:
        """Whoever asks for targets, and is admitted by none any more, has to go."""
        self.memory.line().login(None)
        policy = cast(IAccessPolicy, Netmask("10.0.0.0/8"))
        with capturedLogs() as events:
            self.assertEqual(self.change(plan(disk(self.device), policy=policy)).ended, 1)
        (revoked,) = [each for each in events if each.get("event") == "revoked"]
        self.assertEqual(revoked["why"], "no target admits it any more")

    def test_discoveryBroken(self) -> None:
        """A policy that fails lets nobody ask."""

        class Broken(Masked):
            def decide(self, asker: Asker) -> Grant | None:
                raise ZeroDivisionError

        self.memory.line().login(None)
        rule = Discovery(cast(IAccessPolicy, Broken()))
        changes = self.successResultOf(self.memory.service.change([self.first], discovery=rule))
        self.assertEqual(changes.ended, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_users(self) -> None:
        """Where users are required from now on, sessions of nobody have to go; discovery too."""
        discovery, client = self.memory.line(), Client(self.memory)
        discovery.login(None)
        changes = self.change(self.first, secrets=users("joe:chap:correct-horse-battery"))
        self.assertEqual((changes.ended, client.events()[0][0]), (2, numbers.EVENT_LOGOUT_REQUEST))
        refused = self.memory.line().login()
        self.assertEqual(refused["status"], numbers.AUTHENTICATION_FAILURE)
        self.advance(LOGOUT + 1)
        self.change(self.first)
        self.assertEqual(self.memory.line().login()["status"], 0)

    def test_user(self) -> None:
        """A user that is none any more, or may not any more, has to go; one with a new secret stays."""
        both = users("joe:chap:correct-horse-battery", "ann:chap:another-horse-battery")
        for other, options, ended in (
            (users("joe:chap:changed-horse-battery"), {}, 0),
            (users("ann:chap:another-horse-battery"), {}, 1),
            (both, {"users": frozenset(("ann",))}, 1),
            (both, {"users": frozenset(("joe",))}, 0),
        ):
            self.memory = self.serve(self.first)
            client = Client(self.memory)
            client.line.protocol.core.session.user = "joe"  # type: ignore[union-attr]
            changes = self.change(plan(disk(self.device), **options), secrets=other)
            self.assertEqual((changes.ended, bool(client.events())), (ended, bool(ended)))

    def test_userMeanwhile(self) -> None:
        """A user who logs in while the new store is asked for others has to go as well, if it is none."""
        self.memory = self.serve(self.first)
        Client(self.memory).line.protocol.core.session.user = "joe"  # type: ignore[union-attr]
        store = Store(joe=Account(b"correct-horse-battery"))
        store.asked = []
        waiting = self.memory.service.change([plan(disk(self.device))], store)
        late = self.memory.line()
        late.login(InitiatorName="iqn.2001-04.com.example:late")
        late.protocol.core.session.user = "ann"  # type: ignore[union-attr]
        store.asked[0].callback(store.accounts["joe"])
        self.assertNoResult(waiting)
        store.asked[1].callback(None)
        self.assertEqual(self.successResultOf(waiting).ended, 1)

    def test_certified(self) -> None:
        """A user whom a certificate proves is none any more when it proves nobody."""
        for line, ended in (("joe:tls:cn", 0), ("ann:tls:cn", 1), ("joe:tls:other", 1)):
            self.memory = self.serve(self.first)
            core = Client(self.memory).line.protocol.core
            core.session.user = "joe"  # type: ignore[union-attr]
            core.peer = evolve(core.peer, certificate=("cn",))  # type: ignore[union-attr]
            self.assertEqual(self.change(self.first, secrets=users(line)).ended, ended, line)

    def test_certifiedMeanwhile(self) -> None:
        """So it does if a certificate has said who it is where nobody is asked."""
        first = plan(disk(self.device), guarded=False)
        self.memory = self.serve(first, secrets=users("joe:tls:cn"))
        line = self.memory.line()
        core = line.protocol.core
        assert core is not None
        core.peer = evolve(core.peer, certificate=("cn",))
        names = {"InitiatorName": "iqn.2001-04.com.example:x", "TargetName": TARGET}
        line.say(pdus.loginRequest(names, stage=0, following=1))
        self.successResultOf(self.memory.service.change([first], users("ann:tls:cn")))
        self.assertTrue(line.transport.disconnecting)

    def test_meanwhile(self) -> None:
        """A login that is under way when the users change begins anew; without a change it goes on."""
        old = users("joe:chap:correct-horse-battery")
        for new, gone in (
            (users("joe:chap:correct-horse-battery"), False),
            (users("ann:chap:1234567890ab"), True),
        ):
            self.memory = self.serve(self.first, secrets=old)
            line = self.memory.line()
            pairs = {"InitiatorName": "iqn.2001-04.com.example:i", "TargetName": TARGET, "AuthMethod": "CHAP"}
            line.say(pdus.loginRequest(pairs, stage=0, following=None))
            self.change(self.first, secrets=new)
            self.assertEqual(line.transport.disconnecting, gone)


def users(*lines: str) -> FileUsers:
    """Those of an auths file."""
    return FileUsers(parseAuths("".join(f"{line}\n" for line in lines), None))
