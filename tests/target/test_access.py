"""Who may do what, by the line of a target."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from iscsi_twisted.config.netmasks import Netmask
from iscsi_twisted.config.targets import parse
from iscsi_twisted.interfaces import Asker, Grant, ILoginPolicy
from iscsi_twisted.session.names import complaint, normalise
from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target.access import LinePolicy, linePolicy
from iscsi_twisted.wire import numbers
from tests.session.cases import NAMES, LoginTests
from tests.support import pdus
from tests.support.wire import INITIATOR, TARGET, Line, makeNode, makeTarget, read10, write10

BASE = "iqn.1994-04.org.netbsd.iscsi-target"
OTHER = "iqn.1999-01.org.example:b"


def policy(options: str) -> Any:
    """That of a target line with these options."""
    names = [f"extent{number}" for number in range(5)]
    lines = [f"{name} {name} 0 1M" for name in names]
    text = "\n".join([*lines, f"target0 {' '.join(names)} any {options}"])
    (target,) = parse(text, "F", complaint, BASE).targets
    return linePolicy(target)


class AccessTests(LoginTests):
    """Tests of L{LinePolicy}."""

    def grant(self, options: str, initiator: str = INITIATOR) -> Grant | None:
        """What an initiator may do."""
        found = policy(options)
        self.assertTrue(verifyObject(ILoginPolicy, found))
        grant: Grant | None = found.decide(Asker("192.0.2.7", initiator, "", None, TARGET))
        return grant

    def lined(self, options: str) -> Line:
        """A line to a target of two disks."""
        self.target = makeTarget(MemoryDevice(1 << 20), MemoryDevice(1 << 20), policy=policy(options))
        self.node, self.diary = makeNode(self.target)
        return Line(self.node)

    def test_plain(self) -> None:
        """Without such options the netmask is all there is to ask."""
        self.assertNotIsInstance(policy("alias=x"), LinePolicy)

    def test_together(self) -> None:
        """Asked together they admit whom any of their netmasks admits."""
        policies = [policy("luns=*:0"), policy("initiators=iqn.*")]
        policies[0]._mask, policies[1]._mask = Netmask("10/8"), Netmask("11/8,!11.1/16")
        joined = LinePolicy.together(policies)
        admitted = [joined.admits(f"{each}.1.1.1") for each in (9, 10, 11)]
        self.assertEqual(admitted, [False, True, False])
        self.assertTrue(joined.admits("11.2.1.1"))

    def test_initiators(self) -> None:
        """Patterns are of whole names, in any case, with * for anything."""
        for pattern in (
            INITIATOR,
            INITIATOR.upper(),
            "iqn.2001-04.com.example:*",
            "*",
            f"x,{INITIATOR}",
            "*example*",
        ):
            self.assertEqual(self.grant(f"initiators={pattern}"), Grant(), pattern)
        for pattern in (
            OTHER,
            "iqn.2001-04.com.example",
            "iqn.2001-04?com.example:*",
            "iqn.*:x",
            INITIATOR[1:],
        ):
            self.assertIsNone(self.grant(f"initiators={pattern}"), pattern)

    @given(st.text("ab*", min_size=1, max_size=8), st.text("ab", max_size=8))
    def test_likeness(self, pattern: str, name: str) -> None:
        """A star is any characters, or none."""
        self.assertEqual(self.grant(f"initiators={pattern}", name) is not None, fnmatchcase(name, pattern))

    def test_evil(self) -> None:
        """No name makes the target look for long: this one would be tried in a million million ways."""
        name = f"iqn.2001-04.com.example:{'-' * 199}"
        self.assertIsNone(self.grant("initiators=*-*-*-*-*-*-*x", name))
        self.assertIsNotNone(self.grant("initiators=*-*-*-*-*-*-*", name))

    def test_readers(self) -> None:
        """Some may only read."""
        self.assertEqual(self.grant(f"readers={INITIATOR}"), Grant(readOnly=True))
        self.assertEqual(self.grant(f"readers={OTHER}"), Grant())

    def test_scripts(self) -> None:
        """Names of other scripts are compared in their normal form, as the initiator's own is."""
        given = "iqn.2001-04.com.example:\uff21\u00c4"
        name = normalise(given)
        self.assertNotEqual(name, given.lower())
        self.assertEqual(self.grant(f"readers={given}", name), Grant(readOnly=True))
        self.assertEqual(self.grant(f"initiators={given}", name), Grant())
        self.assertEqual(self.grant(f"luns={given}:1", name), Grant(luns=frozenset((1,))))

    def test_luns(self) -> None:
        """An initiator sees the LUNs of all names that fit it; none if none does."""
        options = f"luns={INITIATOR}:0,1;iqn.*:4;{OTHER}:3"
        self.assertEqual(self.grant(options), Grant(luns=frozenset((0, 1, 4))))
        self.assertEqual(self.grant(f"luns={OTHER}:3"), Grant(luns=frozenset()))

    def test_refused(self) -> None:
        """Who is not named cannot log in, and does not find the target."""
        self.assertRefused(0x0202, NAMES, self.lined(f"initiators={OTHER}"))
        line = Line(self.node)
        line.login(SessionType="Discovery")
        for wanted in (b"SendTargets=All\0", f"SendTargets={TARGET}\0".encode()):
            (answer,) = line.say(pdus.textRequest(wanted))
            self.assertEqual(answer["data"], b"")

    def test_reads(self) -> None:
        """A reader reads; its writes are refused as WRITE PROTECTED."""
        line = self.lined(f"readers={INITIATOR}")
        line.login()
        self.assertEqual(line.command(read10(0, 1), read=512)[-1]["status"], 0)
        answer = line.command(write10(0, 1), data=bytes(512), write=512)[-1]
        self.assertEqual((answer["status"], answer["data"][4] & 15), (2, 7))

    def test_masked(self) -> None:
        """A LUN that is not seen is not there: neither for commands nor for functions."""
        line = self.lined(f"luns={INITIATOR}:1")
        line.login()
        answer = line.command(read10(0, 1), read=512)[-1]
        self.assertEqual((answer["status"], answer["data"][4] & 15), (2, 5))
        self.assertEqual(line.command(read10(0, 1), read=512, lun=b"\0\1" + bytes(6))[-1]["status"], 0)
        session = line.core.session
        assert session is not None
        assert session.nexus is not None
        self.assertIs(self.target.addressed(bytes(8), session.nexus)[1], self.target.absent)
        self.assertEqual(self.target.reportEvent(bytes(8), bytes(18)), 0)
        self.assertEqual(self.target.reportEvent(b"\0\1" + bytes(6), bytes(18)), 1)
        for function in (numbers.LOGICAL_UNIT_RESET, numbers.TARGET_WARM_RESET):
            answer = line.say(pdus.taskManagement(function, cmdSN=line.cmdSN, lun=bytes(8)))[-1]
            wanted = (
                numbers.NO_SUCH_LUN
                if function == numbers.LOGICAL_UNIT_RESET
                else numbers.FUNCTION_NOT_AUTHORIZED
            )
            self.assertEqual(answer["response"], wanted)
