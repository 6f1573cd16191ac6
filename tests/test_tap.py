# -*- test-case-name: tests.test_tap -*-
"""The command line."""

from __future__ import annotations

import os
import re
import sys
from io import StringIO
from typing import Any

from twisted.application.service import IService
from twisted.python.usage import Options as AnyOptions
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted import __version__, tap
from iscsi_twisted.config.model import DEFAULT_BASE
from iscsi_twisted.config.steps import whole
from iscsi_twisted.session.portals import Portal
from iscsi_twisted.target.identity import ROOT_DIRECTORY, Installation
from tests.support.certificates import Authority

FILE = """\
extent0 disk0 0 100MB
extent1 disk1 0 1MB serial=S1
target0 extent0 any
target1=iqn.2001-04.com.example:one ro extent1 10.4.0.0/16
"""


class OptionsTestCase(SynchronousTestCase):
    """
    Reads command lines in a directory of its own, on a machine without the default files.

    @ivar directory: the working directory.
    """

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        self.patch(tap, "TARGETS", os.path.join(self.directory, "etc", "targets"))
        self.patch(tap, "AUTHS", os.path.join(self.directory, "etc", "auths"))
        self.write("F", FILE)

    def write(self, name: str, text: str) -> None:
        """Make a file."""
        os.makedirs(os.path.dirname(os.path.abspath(name)), exist_ok=True)
        with open(name, "w") as file:
            file.write(text)

    def options(self, *arguments: str) -> tap.Options:
        """Read a command line that is right."""
        options = tap.Options()
        options.parseOptions(arguments)
        return options

    def refusal(self, *arguments: str) -> list[str]:
        """What a wrong command line says on the standard error; it ends with status 1."""
        output, errors = StringIO(), StringIO()
        self.patch(sys, "stdout", output)
        self.patch(sys, "stderr", errors)
        exit = self.assertRaises(SystemExit, self.options, *arguments)
        self.assertEqual((exit.code, output.getvalue()), (1, ""))
        self.assertTrue(errors.getvalue().endswith("\n"))
        return errors.getvalue()[:-1].split("\n")

    def printed(self, *arguments: str) -> str:
        """What a command line that only prints prints; it ends with status 0."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        exit = self.assertRaises(SystemExit, self.options, *arguments)
        self.assertEqual(exit.code, 0)
        return output.getvalue()


def listeners(options: tap.Options) -> list[tuple[str, bool]]:
    """Where it would listen, and whether it may go on without."""
    return [(listener.name, listener.optional) for listener in options.listeners]


class WhatTests(OptionsTestCase):
    """Tests of the options that say what is served."""

    def test_newcomer(self) -> None:
        """Without options and files it serves the example, on loopback only."""
        options = self.options()
        self.assertTrue(options.newcomer)
        (extent,) = options.configuration.extents
        self.assertEqual((extent.path, extent.length), (f"{self.directory}/iscsi-target0", 100 << 20))
        self.assertEqual([plan.name for plan in options.plans], [f"{DEFAULT_BASE}:target0"])
        self.assertEqual(listeners(options), [("tcp:3260:interface=127.0.0.1", False)])

    def test_newcomerPort(self) -> None:
        """Another port or family does not take the newcomer off loopback."""
        six = r"tcp6:3261:interface=\:\:1"
        self.assertEqual(listeners(self.options("-p3261", "-6")), [(six, False)])
        four = "tcp:3261:interface=127.0.0.1"
        self.assertEqual(listeners(self.options("-p3261", "-4")), [(four, False)])
        self.assertEqual(listeners(self.options("-p3261", "-46")), [(four, False), (six, False)])

    def test_default(self) -> None:
        """The default targets file is read if there is one."""
        self.write(tap.TARGETS, FILE)
        options = self.options()
        self.assertFalse(options.newcomer)
        self.assertEqual(len(options.configuration.targets), 2)

    def test_unreadable(self) -> None:
        """A default file that is there but cannot be read is a fault, and not a missing one."""
        os.makedirs(tap.TARGETS)
        self.assertEqual(self.refusal(), [f"{tap.TARGETS}: cannot be read: Is a directory; wanted is a file"])
        os.rmdir(tap.TARGETS)
        os.symlink("nowhere", tap.TARGETS)
        self.assertEqual(self.refusal(), [f"{tap.TARGETS}: cannot be read: No such file or directory"])

    def test_targets(self) -> None:
        """C{-f} and C{--targets} name the file; its paths are those of the working directory."""
        for arguments in (("-f", "F"), ("--targets", "F"), ("--targets=F",)):
            options = self.options(*arguments)
            self.assertEqual(
                [plan.name for plan in options.plans],
                [f"{DEFAULT_BASE}:target0", "iqn.2001-04.com.example:one"],
            )
            self.assertEqual(options.configuration.extents[0].path, f"{self.directory}/disk0")

    def test_missing(self) -> None:
        """A named file that is missing is a fault."""
        self.assertEqual(self.refusal("-f", "none"), ["none: cannot be read: No such file or directory"])

    def test_faults(self) -> None:
        """All faults of a file are told, one line each, with the file as it was given and the line."""
        self.write("sub/bad", "extent0 a 0\ntarget0 extent9 any\nnonsense\n")
        found = self.refusal("--targets", "sub/../sub/bad")
        self.assertEqual(
            [re.sub(": .*", "", line) for line in found], [f"sub/../sub/bad:{n}" for n in (1, 2, 3)]
        )

    def test_together(self) -> None:
        """Faults of options, endpoints and files are told together."""
        found = self.refusal(
            "-b", "513", "-p", "0", "-4", "-l", "foo:1", "-s", "few", "-t", "me", "-f", "x", "-a", "y"
        )
        self.assertEqual(
            [line.split(":")[0] for line in found],
            [
                "--block-size 513",
                "--max-sessions few",
                "--port 0",
                "--ipv4 with --listen",
                "--target-name me",
                "endpoint 'foo",
                "x",
                "y",
            ],
        )

    def test_forceMember(self) -> None:
        """C{--force-member} names a member of a mirror; at most one of each."""
        self.write(
            "M",
            "".join(f"extent{n} f{n} 0 1M\n" for n in range(3))
            + ("device0 RAID1 extent0 extent1\ntarget0 device0 any\ntarget1 extent2 any\n"),
        )
        options = self.options("-f", "M", "--force-member", "extent1")
        mirror: Any = options.plans[0].disks[0].device
        self.assertIs(mirror.life.trusted, mirror.leg("extent1"))
        mirror = whole(options.again()).plans[0].disks[0].device
        self.assertIsNone(mirror.life.trusted)
        self.assertEqual(
            self.refusal("-f", "M", "--force-member", "extent2"),
            ["--force-member extent2: no mirror has such a member"],
        )
        self.assertEqual(
            self.refusal("-f", "M", "--force-member=extent1", "--force-member=extent0"),
            [
                "--force-member extent0 and extent1: these are members of one mirror, and only one of"
                " them can hold the truth"
            ],
        )

    def test_disk(self) -> None:
        """C{--disk} serves files without a targets file, as target0, target1 and so on, for everybody."""
        options = self.options("--disk", "a:1MB", "--disk", "/b:2MB")
        self.assertEqual([plan.name[-8:] for plan in options.plans], [":target0", ":target1"])
        self.assertEqual(
            [extent.path for extent in options.configuration.extents], [f"{self.directory}/a", "/b"]
        )
        self.assertEqual(listeners(options), [("tcp:3260", False), (r"tcp6:3260", True)])

    def test_diskWrong(self) -> None:
        """A disk without a size is a fault, and so are disks beside a targets file."""
        (found,) = self.refusal("--disk", "a")
        self.assertTrue(found.startswith("--disk 'a': write PATH:SIZE"), found)
        self.assertEqual(
            self.refusal("--disk", "a:1MB", "-f", "F"),
            ["--disk with --targets: give one or the other"],
        )

    def test_diskBesideDefault(self) -> None:
        """Disks stand in for the default targets file."""
        self.write(tap.TARGETS, FILE)
        self.assertEqual(len(self.options("--disk", "a:1MB").plans), 1)

    def test_base(self) -> None:
        """C{-t} changes what names begin with, but not those that are given in full."""
        options = self.options("-f", "F", "-t", "iqn.2001-04.com.example:x")
        self.assertEqual(
            [plan.name for plan in options.plans],
            ["iqn.2001-04.com.example:x:target0", "iqn.2001-04.com.example:one"],
        )

    def test_baseWrong(self) -> None:
        """A base from which no iSCSI name can be made is a fault, with a file or without."""
        for base in (
            "me",
            "",
            "eui.0123456789abcdef",
            "iqn.2001-04.com.example:" + 195 * "x",
            "iqn.2001-04.a:b c",
        ):
            for more in (("-f", "F"), ("--disk", "a:1MB"), ()):
                found = self.refusal("-t", base, *more)
                self.assertEqual(len(found), 1, found)
                self.assertTrue(found[0].startswith(f"--target-name {base}: "), found)

    def test_blockSize(self) -> None:
        """The five sizes of blocks are accepted, and no others."""
        for size in (512, 1024, 2048, 4096, 8192):
            (disk,) = self.options("-b", str(size), "--disk", "a:1MB").plans[0].disks
            self.assertEqual(disk.blockSize, size)
        for wrong in ("0", "513", "16384", "4K", "-512", "", "٥١٢"):
            (found,) = self.refusal("--block-size", wrong)
            self.assertEqual(found, f"--block-size {wrong}: wanted is 512, 1024, 2048, 4096, 8192")

    def test_unsupported(self) -> None:
        """What the file asks for and cannot be had is a fault of its line."""
        self.write("P", "extent0 a 0 1M physical=512\ntarget0 extent0 any\n")
        (found,) = self.refusal("-f", "P", "-b", "4096")
        self.assertTrue(found.startswith("P:1: physical=512 is less than the block size"), found)


class WhereTests(OptionsTestCase):
    """Tests of the options that say where it listens, and of all others."""

    def test_both(self) -> None:
        """By default it listens on IPv4 and, where there is one, IPv6."""
        self.assertEqual(listeners(self.options("-f", "F")), [("tcp:3260", False), ("tcp6:3260", True)])

    def test_families(self) -> None:
        """C{-4} and C{-6} choose a family, which then has to be there."""
        self.assertEqual(listeners(self.options("-f", "F", "-4")), [("tcp:3260", False)])
        self.assertEqual(listeners(self.options("-f", "F", "--ipv6")), [("tcp6:3260", False)])
        self.assertEqual(
            listeners(self.options("-f", "F", "-4", "-6")), [("tcp:3260", False), ("tcp6:3260", False)]
        )

    def test_port(self) -> None:
        """C{-p} changes the port of both."""
        self.assertEqual(
            listeners(self.options("-f", "F", "--port=860")), [("tcp:860", False), ("tcp6:860", True)]
        )
        for wrong in ("0", "65536", "http", "-1", "1e3", ""):
            self.assertEqual(self.refusal("-f", "F", "-p", wrong), [f"--port {wrong}: wanted is 1 to 65535"])

    def test_listen(self) -> None:
        """C{-l} names endpoints of any kind, in place of the default."""
        options = self.options("-f", "F", "-l", "tcp:1:interface=127.0.0.1", "--listen", "unix:s")
        self.assertEqual(listeners(options), [("tcp:1:interface=127.0.0.1", False), ("unix:s", False)])

    def test_groups(self) -> None:
        """C{tpgt=} and C{advertise=} are ours; a group of no portal is a fault, one of no target is told."""
        self.write("G", "extent0 a 0 1M\ntarget0 extent0 any portals=2\n")
        options = self.options("-f", "G", "-l", "tcp:1:tpgt=2:advertise=a:5", "-l", "tcp:2")
        self.assertEqual([each.portal for each in options.listeners], [Portal(2, "a:5"), Portal()])
        self.assertEqual(options.plans[0].portals, frozenset((2,)))
        self.assertEqual(options.warnings, ["no target is reached through tcp:2: portals= of none has 1"])
        (fault,) = self.refusal("-f", "G")
        self.assertTrue(fault.startswith("G:2: portals=: no portal belongs to group 2; there is 1"), fault)
        self.write(
            "G", "extent0 a 0 1M\ntarget0 extent0 any alua=1:standby,2:offline preferred=2 portals=1\n"
        )
        self.assertEqual(
            self.refusal("-f", "G"),
            [
                f"G:2: {name}=: portal group 2 does not lead to this target; 1 would (see portals= and"
                " --listen)"
                for name in ("alua", "preferred")
            ],
        )
        (fault,) = self.refusal("-f", "G", "-l", "tcp:1:tpgt=x")
        self.assertEqual(fault, "endpoint 'tcp:1:tpgt=x': tpgt=: 1 to 65535 is wanted, not 'x'")

    def test_conflicts(self) -> None:
        """What an endpoint says itself cannot be said beside it."""
        for arguments, name in ((("-p", "1"), "port"), (("-4",), "ipv4"), (("-6",), "ipv6")):
            self.assertEqual(
                self.refusal("-f", "F", "-l", "tcp:1", *arguments),
                [f"--{name} with --listen: say it in the endpoint"],
            )

    def test_endpoints(self) -> None:
        """All endpoints that cannot be understood are told, one line each."""
        found = self.refusal(
            "-f", "F", "-l", "foo:1", "-l", "tcp:1", "-l", "tcp:x", "-l", "ssl:1:privateKey=none"
        )
        self.assertEqual([line.split(": ")[0] for line in found], [
            "endpoint 'foo:1'", "endpoint 'tcp:x'", "endpoint 'ssl:1:privateKey=none'"
        ])  # fmt: skip

    def test_state(self) -> None:
        """The state directory is an absolute path; by default it is the user's or the system's."""
        self.assertEqual(self.options("--state", "s").stateDirectory, f"{self.directory}/s")
        self.patch(os, "environ", {"HOME": "/home/x"})
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(self.options().stateDirectory, "/home/x/.local/state/iscsi_twisted")
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(self.options().stateDirectory, ROOT_DIRECTORY)

    def test_homeless(self) -> None:
        """A user without a home directory is told to name a state directory."""
        self.patch(os, "environ", {"HOME": ""})
        self.patch(os, "geteuid", lambda: (1 << 32) - 7)
        self.assertIn("name a directory with --state", self.refusal()[0])

    def test_sessions(self) -> None:
        """C{-s} bounds sessions; 0 is no bound, and anything but a number is a fault."""
        self.assertEqual([self.options("-s", each).limits.sessions for each in ("0", "16")], [0, 16])
        for wrong in ("-1", "many", ""):
            (found,) = self.refusal("-s", wrong)
            self.assertTrue(found.startswith(f"--max-sessions {wrong}: wanted is"), found)

    def test_trace(self) -> None:
        """C{-v} names what to trace, more than once if need be; C{all} is all of it."""
        self.assertEqual(self.options()["trace"], set())
        self.assertEqual(self.options("-v", "net", "--trace", "scsi")["trace"], {"net", "scsi"})
        self.assertEqual(self.options("-v", "all")["trace"], {"net", "iscsi", "scsi"})
        faults = self.refusal("-v", "loud", "-v", "net", "-v", "s\nc", "-b", "7")
        self.assertEqual(len(faults), 3)
        self.assertIn("--trace loud: wanted is net, iscsi, scsi or all", faults)

    def test_unknown(self) -> None:
        """Unknown options, missing values and stray words are one line that says where help is."""
        for arguments in (("--frob",), ("-f",), ("word",), ("--ipv4=yes",), ("a\nb",), ("--a\nb",)):
            (found,) = self.refusal(*arguments)
            self.assertTrue(found.endswith("(twistd iscsi --help lists the options)"), found)

    def test_empty(self) -> None:
        """An option that was given an empty value is not one that was left out."""
        for option, name in (("-f", "targets"), ("-a", "auths"), ("--state", "state")):
            self.assertEqual(self.refusal(option, ""), [f"--{name}: a path is wanted"])

    def test_version(self) -> None:
        """C{-V} prints the version and nothing else."""
        for option in ("-V", "--version"):
            self.assertEqual(self.printed(option), f"iscsi_twisted {__version__}\n")

    def test_help(self) -> None:
        """Help names every option, with a word about it."""
        text = self.printed("--help")
        for option in (
            "-f, --targets", "-a, --auths", "-l, --listen", "-p, --port", "-4, --ipv4", "-6, --ipv6",
            "-b, --block-size", "-s, --max-sessions", "-t, --target-name", "--state", "-v, --trace",
            "-V, --version", "--disk", "--check", "--open-discovery",
            "--open-auths", "--chap",
        ):  # fmt: skip
            self.assertRegex(text, rf"{option}=? +[A-Z]")


class CheckTests(OptionsTestCase):
    """Tests of C{--check}."""

    def test_tree(self) -> None:
        """It prints a tree of what is served, with the identities that are known, and creates nothing."""
        before = sorted(os.listdir("."))
        text = self.printed("--check", "-f", "F", "--state", "state")
        self.assertEqual(
            text,
            f"target0:rw:any\n"
            f"\tTargetName {DEFAULT_BASE}:target0\n"
            f"\tLUN 0: serial (drawn at the first start)\n"
            f"\tLUN 0: naa (drawn at the first start)\n"
            f"\textent0:disk0:0:104857600\n"
            f"target1:ro:10.4.0.0/16\n"
            f"\tTargetName iqn.2001-04.com.example:one\n"
            f"\tLUN 0: serial S1\n"
            f"\tLUN 0: naa (drawn at the first start)\n"
            f"\textent1:disk1:0:1048576\n"
            f"portal tcp:3260: group 1\n"
            f"portal tcp6:3260: group 1\n"
            f"discovery by everybody\n",
        )
        self.assertEqual(sorted(os.listdir(".")), before)

    def test_access(self) -> None:
        """It prints portals with their groups, and who may log in; secrets it does not."""
        certificate, key = Authority("tls").issue("san.example.com")
        self.write("A", "joe:chap:correct-horse-battery\nagc:tls\njoe:tls\n")
        os.chmod("A", 0o600)
        secure = f"iscsi-tls:1:cert={certificate}:key={key}:clientCA=tls/authority.pem:tpgt=2"
        arguments = ("--check", "-f", "F", "--state", "state", "-a", "A", "-l", secure)
        text = self.printed(*arguments, "-l", "tcp:2:advertise=a:5")
        self.assertIn(
            f"portal {secure}: group 2, TLS as san.example.com, certificates required\n"
            "portal tcp:2:advertise=a:5: group 1, told as a:5\n"
            "users joe,agc\n"
            "discovery by users\n",
            text,
        )
        self.assertNotIn("correct-horse", text)
        optional = self.printed(*arguments, "--open-discovery", "-l", f"{secure}:clientCert=optional")
        self.assertIn("certificates optional\n", optional)
        self.assertTrue(optional.endswith("discovery by everybody\n"))
        self.write("F", FILE + "discovery 10.0.0.0/8 auth=none\n")
        text = self.printed(*arguments)
        self.assertIn("discovery:10.0.0.0/8\n\tauth none\n", text)
        self.assertTrue(text.endswith("discovery by everybody\n"))
        (fault,) = self.refusal(*arguments, "--open-discovery")
        self.assertIn(": a discovery line with --open-discovery; auth=none says that here", fault)

    def test_identities(self) -> None:
        """Once there is a state directory it prints the identities that initiators see."""
        Installation.load("state")
        with open("disk1", "wb") as file:
            file.truncate(1 << 20)
        text = self.printed("--check", "-f", "F", "--state", "state")
        self.assertNotIn("drawn", text)
        options = self.options("-f", "F", "--state", "state")
        options.listeners.clear()
        service = tap.makeService(options)
        service.startService()  # type: ignore[attr-defined]
        self.addCleanup(service.stopService)  # type: ignore[attr-defined]
        for target in service.status().targets:  # type: ignore[attr-defined]
            self.assertIn(f"\tLUN 0: serial {target.units[0].serial}\n", text)
            self.assertIn(f"\tLUN 0: naa.{target.units[0].naa}\n", text)

    def test_newcomer(self) -> None:
        """It works for the example too."""
        self.assertIn("\textent0:iscsi-target0:0:104857600\n", self.printed("--check"))

    def test_wrong(self) -> None:
        """A configuration with faults ends with status 1, and prints no tree."""
        self.assertEqual(len(self.refusal("--check", "-f", "none")), 1)
        self.assertEqual(len(self.refusal("--check", "-f", "F", "-l", "foo:1")), 1)

    def test_damaged(self) -> None:
        """So does a state directory that is damaged."""
        self.write("state/installation", "what?")
        (found,) = self.refusal("--check", "-f", "F", "--state", "state")
        self.assertTrue(found.startswith(f"{self.directory}/state/installation: damaged"), found)


class MakeServiceTests(OptionsTestCase):
    """Tests of C{makeService}."""

    def test_opensNothing(self) -> None:
        """It creates no file and opens no descriptor."""
        options = self.options("-f", "F", "-l", "tcp:0:interface=127.0.0.1", "-l", "unix:socket")
        before = sorted(os.listdir(".")), sorted(os.listdir("/proc/self/fd"))
        service = tap.makeService(options)
        self.assertEqual((sorted(os.listdir(".")), sorted(os.listdir("/proc/self/fd"))), before)
        self.assertTrue(IService.providedBy(service))

    def test_passedOn(self) -> None:
        """What the options say reaches the service."""
        service = tap.makeService(self.options("-s", "3", "--disk", "a:1MB"))
        self.assertEqual(service.node.limits.sessions, 3)  # type: ignore[attr-defined]
        self.assertFalse(service.newcomer)  # type: ignore[attr-defined]
        self.assertTrue(tap.makeService(self.options()).newcomer)  # type: ignore[attr-defined]

    def test_terminal(self) -> None:
        """Under a twistd that becomes a daemon the standard error is kept until the start is over."""
        for nodaemon, kept in ((True, 0), (False, 1)):
            options = self.options("--disk", "a:1MB", "-l", "tcp:0:interface=127.0.0.1")
            options.parent = AnyOptions()
            options.parent["nodaemon"] = nodaemon
            before = len(os.listdir("/proc/self/fd"))
            service = tap.makeService(options)
            self.assertEqual(len(os.listdir("/proc/self/fd")), before + kept)
            del service
