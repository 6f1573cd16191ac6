# -*- test-case-name: tests.target.test_identity -*-
"""Identities that last, and that no other installation has."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.errors import ConfigurationError
from iscsi_twisted.target.identity import (
    FILE_NAME,
    ROOT_DIRECTORY,
    Installation,
    UnitIdentity,
    defaultStateDirectory,
    identify,
)

ONE = Installation(bytes(range(16)))
OTHER = Installation(bytes(range(1, 17)))
NAME = "iqn.1994-04.org.netbsd.iscsi-target:target0"


class InstallationTests(SynchronousTestCase):
    """Tests of L{Installation}."""

    def setUp(self) -> None:
        """A directory that is not there yet."""
        self.directory = os.path.join(self.mktemp(), "deep", "state")
        self.path = os.path.join(self.directory, FILE_NAME)

    def write(self, data: bytes) -> None:
        """Put this into the file."""
        os.makedirs(self.directory, exist_ok=True)
        with open(self.path, "wb") as file:
            file.write(data)

    def test_create(self) -> None:
        """The first load makes directory and file, for the owner's eyes, and leaves nothing else behind."""
        installation = Installation.load(self.directory)
        self.assertEqual(len(installation.id), 16)
        self.assertEqual(os.listdir(self.directory), [FILE_NAME])
        self.assertEqual(stat.S_IMODE(os.stat(self.directory).st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        with open(self.path) as file:
            self.assertEqual(file.read(), installation.id.hex() + "\n")

    def test_again(self) -> None:
        """Every later load gives the same number."""
        first = Installation.load(self.directory)
        self.assertEqual(
            [Installation.load(self.directory), Installation.peek(self.directory)], [first, first]
        )

    def test_different(self) -> None:
        """Two directories are two installations."""
        self.assertNotEqual(Installation.load(self.directory), Installation.load(self.directory + "2"))

    def test_peek(self) -> None:
        """A look changes nothing, whether the directory is there or not."""
        self.assertIs(Installation.peek(self.directory), None)
        self.assertFalse(os.path.exists(self.directory))
        os.makedirs(self.directory)
        self.assertIs(Installation.peek(self.directory), None)
        self.assertEqual(os.listdir(self.directory), [])

    def test_noNewline(self) -> None:
        """An editor may have eaten the newline."""
        self.write(b"00" * 15 + b"ff")
        self.assertEqual(Installation.load(self.directory).id, bytes(15) + b"\xff")

    def test_durable(self) -> None:
        """The content is durable before the file has its name, and the name before anybody relies on it."""
        calls: list[str] = []
        fsync, link = os.fsync, os.link

        def recordSync(descriptor: int) -> None:
            isDirectory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            calls.append("directory" if isDirectory else f"file of {os.fstat(descriptor).st_size}")
            fsync(descriptor)

        def recordLink(source: str, target: str) -> None:
            calls.append("link")
            link(source, target)

        os.makedirs(self.directory)
        self.patch(os, "fsync", recordSync)
        self.patch(os, "link", recordLink)
        Installation.load(self.directory)
        self.assertEqual(calls, ["file of 33", "link", "directory"])

    def test_lostRace(self) -> None:
        """A process that finds the file made in the meantime takes the other's number."""
        link = os.link

        def afterAnother(source: str, target: str) -> None:
            self.write(b"ab" * 16 + b"\n")
            link(source, target)

        self.patch(os, "link", afterAnother)
        self.assertEqual(Installation.load(self.directory).id, b"\xab" * 16)
        self.assertEqual(os.listdir(self.directory), [FILE_NAME])

    def test_vanished(self) -> None:
        """A file that somebody removes at once is an error; a number that nobody keeps is no identity."""
        link = os.link

        def vanishing(source: str, target: str) -> None:
            link(source, target)
            os.unlink(target)

        self.patch(os, "link", vanishing)
        error = self.assertRaises(ConfigurationError, Installation.load, self.directory)
        self.assertTrue(str(error).startswith(f"{self.path}: another process removed the file just made"))

    def test_race(self) -> None:
        """Of several processes that begin at once all get one number."""
        program = (
            "import sys; from iscsi_twisted.target.identity import Installation;"
            "sys.stdin.read(); print(Installation.load(sys.argv[1]).id.hex())"
        )
        arguments = [sys.executable, "-c", program, os.path.abspath(self.directory)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        processes = [
            subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        found = {process.communicate()[0] for process in processes}
        self.assertEqual(found, {Installation.load(self.directory).id.hex().encode() + b"\n"})
        self.assertEqual(os.listdir(self.directory), [FILE_NAME])

    def test_damaged(self) -> None:
        """A damaged file is an error that says what would be right, and is left as it is."""
        for data in (
            b"",
            b"\n",
            b"00" * 15,
            b"00" * 16 + b"0",
            b"0g" * 16,
            b"AB" * 16,
            b"\0" * 32,
            b"0" * 5000,
        ):
            with self.subTest(data=data[:33]):
                self.write(data)
                for read in (Installation.load, Installation.peek):
                    error = self.assertRaises(ConfigurationError, read, self.directory)
                    self.assertTrue(
                        str(error).startswith(f"{self.path}: damaged; it holds 32 digits from 0 to f")
                    )
                    self.assertNotIn("\n", str(error))
                with open(self.path, "rb") as file:
                    self.assertEqual(file.read(), data)

    def test_notAFile(self) -> None:
        """A directory in place of the file is an error; so is a FIFO, and nobody waits for its writer."""
        os.makedirs(self.path)
        error = self.assertRaises(ConfigurationError, Installation.load, self.directory)
        self.assertIn(f"{self.path}: Is a directory", str(error))
        os.rmdir(self.path)
        os.mkfifo(self.path)
        error = self.assertRaises(ConfigurationError, Installation.load, self.directory)
        self.assertIn("damaged", str(error))

    def test_directoryIsFile(self) -> None:
        """A file in place of the directory is an error in one line."""
        file = self.mktemp()
        with open(file, "w"):
            pass
        for read in (Installation.load, Installation.peek):
            error = self.assertRaises(ConfigurationError, read, file)
            self.assertEqual(
                str(error),
                f"{os.path.join(file, FILE_NAME)}: Not a directory; name one that can be used with --state",
            )

    def test_impossible(self) -> None:
        """A directory that cannot be made is an error that names it."""
        error = self.assertRaises(ConfigurationError, Installation.load, "/proc/nowhere/state")
        self.assertTrue(str(error).startswith("/proc/nowhere"))
        self.assertTrue(str(error).endswith("; name one that can be used with --state"))

    def test_full(self) -> None:
        """A disk without room is an error, and no draft is left behind."""

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        os.makedirs(self.directory)
        self.patch(os, "fsync", full)
        error = self.assertRaises(ConfigurationError, Installation.load, self.directory)
        self.assertEqual(
            str(error),
            f"{self.directory}/installation: No space left on device; name one that can be used with --state",
        )
        self.assertEqual(os.listdir(self.directory), [])


class IdentifyTests(SynchronousTestCase):
    """Tests of L{identify}."""

    def test_stable(self) -> None:
        """The derivation never changes: disks must not look like new ones after an upgrade."""
        self.assertEqual(
            identify(ONE, NAME, 0),
            UnitIdentity(
                "ffd7b379f802869f6c3953e1",
                bytes.fromhex("34f88006b1ab5610"),
                "naa.34f88006b1ab5610",
            ),
        )

    def test_form(self) -> None:
        """The designator is a locally assigned NAA, and the serial number 24 hexadecimal digits."""
        identity = identify(ONE, NAME, 7)
        self.assertEqual((len(identity.naa), identity.naa[0] >> 4), (8, 3))
        self.assertRegex(identity.serial, r"\A[0-9a-f]{24}\Z")
        self.assertEqual(identity.designator, "naa." + identity.naa.hex())

    @given(
        st.sampled_from([ONE, OTHER]), st.sampled_from([ONE, OTHER]), st.text(), st.text(), st.integers(0, 3)
    )
    def test_distinct(
        self, first: Installation, second: Installation, name: str, other: str, lun: int
    ) -> None:
        """Another installation, target or LUN is another identity; the same ones are the same."""
        one, two = identify(first, name, 1), identify(second, other, lun)
        same = (first, name, 1) == (second, other, lun)
        self.assertEqual((one.naa == two.naa, one.serial == two.serial), (same, same))

    def test_overrides(self) -> None:
        """A serial number or designator from the configuration takes the place of the derived one alone."""
        derived = identify(ONE, NAME, 0)
        self.assertEqual(
            identify(ONE, NAME, 0, serialOverride="A1"), UnitIdentity("A1", derived.naa, derived.designator)
        )
        naa = bytes.fromhex("6" + "0" * 30 + "1")
        self.assertEqual(
            identify(ONE, NAME, 0, naaOverride=naa),
            UnitIdentity(derived.serial, naa, "naa.60000000000000000000000000000001"),
        )


class DirectoryTests(SynchronousTestCase):
    """Tests of L{defaultStateDirectory}."""

    def test_root(self) -> None:
        """Root keeps state with the system, whatever the environment says."""
        self.assertEqual(defaultStateDirectory({"XDG_STATE_HOME": "/x"}, 0), ROOT_DIRECTORY)

    def test_user(self) -> None:
        """Others keep it where the XDG specification says, a relative setting being none."""
        for environ, wanted in [
            ({"XDG_STATE_HOME": "/x", "HOME": "/home/a"}, "/x/iscsi_twisted"),
            ({"XDG_STATE_HOME": "x", "HOME": "/home/a"}, "/home/a/.local/state/iscsi_twisted"),
            ({"XDG_STATE_HOME": "", "HOME": "/home/a"}, "/home/a/.local/state/iscsi_twisted"),
            ({"HOME": "/home/a"}, "/home/a/.local/state/iscsi_twisted"),
        ]:
            self.assertEqual(defaultStateDirectory(environ, 1000), wanted)

    def test_homeless(self) -> None:
        """Without any home the state directory has to be named."""
        error = self.assertRaises(ConfigurationError, defaultStateDirectory, {}, 2**31 - 5)
        self.assertEqual(str(error), "no home directory to keep state in; name a directory with --state")
