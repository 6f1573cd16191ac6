# -*- test-case-name: tests.test_tapagain -*-
"""Reading the files of C{twistd iscsi} again."""

from __future__ import annotations

import os
from typing import Any

from iscsi_twisted import tap
from iscsi_twisted.config.steps import whole
from iscsi_twisted.errors import ConfigurationErrors
from tests.test_tap import FILE, OptionsTestCase


class AgainTests(OptionsTestCase):
    """Tests of L{tap.Options.again}."""

    def setUp(self) -> None:
        super().setUp()
        self.write("A", "joe:chap:correct-horse-battery\n")
        os.chmod("A", 0o600)

    def faults(self, options: tap.Options) -> list[str]:
        """What is wrong with the files now."""
        return str(self.assertRaises(ConfigurationErrors, whole, options.again())).splitlines()

    def test_files(self) -> None:
        """Both files are read anew, from where they were, though the process has gone elsewhere."""
        options = self.options("-f", "F", "-a", "A")
        self.write("F", FILE.replace("extent0 any", "extent0 10.0.0.0/8"))
        self.write("A", "ann:chap:short\n")
        os.mkdir("elsewhere")
        os.chdir("elsewhere")
        wanted = whole(options.again())
        self.assertEqual([plan.name for plan in wanted.plans], [plan.name for plan in options.plans])
        for new, old in zip(wanted.plans, options.plans, strict=True):
            self.assertEqual([disk.kind for disk in new.disks], [disk.kind for disk in old.disks])
        assert wanted.secrets is not None
        self.assertIsNotNone(wanted.secrets.find("ann"))
        self.assertIsNone(wanted.secrets.find("joe"))
        self.assertIn("the secret of 'ann' has less than", wanted.warnings[0])

    def test_wrong(self) -> None:
        """All that is wrong with both is told."""
        options = self.options("-f", "F", "-a", "A")
        self.write("F", "nonsense\n")
        self.write("A", "joe:nonsense:1234567890ab\n")
        first, second = self.faults(options)
        self.assertTrue(first.startswith(f"{self.directory}/F:1: "), first)
        self.assertTrue(second.startswith(f"{self.directory}/A:1: "), second)

    def test_secrets(self) -> None:
        """Extents of other targets log in with the secret that the file has now, whenever they were read."""
        self.write(
            "F", FILE + "extent5 iscsi://joe@host/iqn.2001-04.com.example:a/0 0 1MB\ntarget5 extent5 any\n"
        )
        options = self.options("-f", "F", "-a", "A")
        self.write("A", "joe:chap:changed-horse-battery\n")
        plans = [*options.plans, *whole(options.again()).plans]
        self.write("A", "joe:chap:another-horse-battery\n")
        plans += whole(options.again()).plans
        remotes: list[Any] = [each.disks[0].device for each in plans if each.name.endswith("target5")]
        secrets = [each.member._secretOf("joe") for each in remotes]
        self.assertEqual(secrets, 3 * [b"another-horse-battery"])

    def test_ports(self) -> None:
        """Extents of other targets log in from the same ports, also after a restart and a reload."""
        self.write(
            "F", FILE + "extent5 iscsi://host/iqn.2001-04.com.example:a/0 0 1MB\ntarget5 extent5 any\n"
        )
        options = self.options("-f", "F")
        again, restarted = whole(options.again()), self.options("-f", "F")
        remotes: list[Any] = [
            each.disks[0].device
            for one in (options, again, restarted)
            for each in one.plans
            if each.name.endswith("target5")
        ]
        isids = [each.member._initiator.isids for each in remotes]
        self.assertIs(isids[0], isids[1])
        self.assertIsNot(isids[0], isids[2])
        self.assertEqual(isids[0].claim("x"), isids[2].claim("x"))
        self.assertNotEqual(isids[0].claim("x"), isids[2].claim("y"))

    def test_emptied(self) -> None:
        """Where there were users, and are none any more, nobody is let in for that, unless it is said so."""
        options = self.options("-f", "F", "-a", "A")
        for text in ("", "# nobody\n", "joe:none\n"):
            self.write("A", text)
            (fault,) = self.faults(options)
            self.assertTrue(fault.startswith(f"{self.directory}/A: holds no users any more"), fault)
        self.write("F", FILE.replace("any", "any auth=none").replace("/16", "/16 auth=none"))
        self.assertIsNone(whole(options.again()).secrets)
        self.write("F", FILE)
        self.assertIsNone(whole(options.again()).secrets)

    def test_pipe(self) -> None:
        """A pipe in the place of a file is not read: that would wait until somebody writes to it."""
        options = self.options("-f", "F", "-a", "A")
        for name in ("A", "F"):
            os.rename(name, "kept")
            os.mkfifo(name)
            (fault,) = self.faults(options)
            self.assertEqual(
                fault, f"{self.directory}/{name}: is no regular file, and is read at the start only"
            )
            os.rename("kept", name)
        whole(options.again())

    def test_discovery(self) -> None:
        """Who may ask for targets is read anew, too."""
        options = self.options("-f", "F", "-a", "A")
        self.assertIsNone(whole(options.again()).discovery)
        self.write("F", FILE + "discovery 10.0.0.0/8 users=joe\n")
        found = whole(options.again()).discovery
        assert found is not None
        self.assertEqual((found.guarded, found.users), (None, frozenset(("joe",))))
        self.assertEqual([found.policy.admits(each) for each in ("10.1.1.1", "11.1.1.1")], [True, False])
        self.write("F", FILE + "discovery any users=ann\n")
        (fault,) = self.faults(options)
        self.assertIn("users=: 'ann' has no secret and no certificate", fault)

    def test_vanished(self) -> None:
        """A file that was there and is not is a fault, at the usual places too."""
        self.write(tap.TARGETS, FILE)
        self.write(tap.AUTHS, "joe:chap:correct-horse-battery\n")
        os.chmod(tap.AUTHS, 0o600)
        options = self.options()
        whole(options.again())
        os.remove(tap.AUTHS)
        (fault,) = self.faults(options)
        self.assertIn(tap.AUTHS, fault)
        os.remove(tap.TARGETS)
        self.assertEqual(len(self.faults(options)), 2)

    def test_disks(self) -> None:
        """What the command line says stays."""
        options = self.options("--disk", "d:1MB")
        os.mkdir("elsewhere")
        os.chdir("elsewhere")
        (plan,) = whole(options.again()).plans
        self.assertEqual(plan.disks[0].kind, options.plans[0].disks[0].kind)
