# -*- test-case-name: tests.target.test_trace -*-
"""Tracing, and what of PDUs it shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from iscsi_twisted.target import TargetFactory
from iscsi_twisted.wire import layout, numbers
from iscsi_twisted.wire.dump import dump
from tests.support import pdus
from tests.support.served import MemoryLine
from tests.support.wire import TARGET, makeNode, makeTarget, read10

LAYOUTS = [name for name in vars(layout) if name.isupper() and name in vars(numbers)]


class DumpTests(SynchronousTestCase):
    """Tests of L{dump}."""

    def test_fields(self) -> None:
        """A header is shown by name and fields, with its lengths decoded."""
        ping = pdus.nopOut(b"12345", itt=0x4D, cmdSN=7)
        self.assertEqual(
            dump(ping[:48]),
            "NOP_OUT immediate flags=0x80 lun=0000000000000000 itt=0x4d ttt=0xffffffff cmdSN=0x7"
            " expStatSN=0x0 ahs=0 data=5",
        )

    @given(st.binary(min_size=48, max_size=48))
    def test_anything(self, header: bytes) -> None:
        """Whatever 48 bytes come, they can be shown on one line."""
        self.assertTrue(dump(header).isprintable())

    def test_names(self) -> None:
        """Every PDU that has a layout is shown by its name."""
        self.assertGreaterEqual(len(LAYOUTS), 18)
        for name in LAYOUTS:
            self.assertEqual(dump(bytes([getattr(numbers, name)]) + bytes(47)).split()[0], name)


class TraceTests(SynchronousTestCase):
    """Tests of L{iscsi_twisted.target.trace.Trace}, in a factory that traces."""

    def makeLine(self, *kinds: str) -> MemoryLine:
        """A connection that is traced."""
        node, _ = makeNode(makeTarget(MemoryDevice(1 << 20)))
        return MemoryLine(TargetFactory(node, Clock(), trace=frozenset(kinds)))

    def trace(self, *kinds: str, **keys: str) -> list[str]:
        """What a session with one READ leaves in the log."""
        with capturedLogs() as events:
            line = self.makeLine(*kinds)
            self.assertEqual(line.login(**keys)["status"], 0)
            digests = line.digests
            line.say(pdus.scsiCommand(bytes(6), itt=1, cmdSN=1, digests=digests))
            line.say(pdus.scsiCommand(read10(8, 2), itt=2, cmdSN=2, read=1024, digests=digests))
            line.lose()
        self.assertFalse(self.flushLoggedErrors())
        found = [event for event in events if event["log_namespace"].endswith(".Trace")]
        for event in found:
            self.assertIn(event["kind"], kinds)
        return [formatEvent(event).split(" ", 3)[3] for event in found]

    def test_net(self) -> None:
        """C{net} shows how many bytes come and go, and when a connection begins and ends."""
        lines = self.trace("net")
        self.assertEqual(lines[0], "connected")
        self.assertEqual(lines[-1], "ended: Connection was closed cleanly.")
        self.assertEqual(lines[-3:-1], ["> 48 bytes", "< 1072 bytes in 2 buffers"])
        self.assertNotIn("00" * 64, "".join(lines))

    def test_iscsi(self) -> None:
        """C{iscsi} shows every PDU both ways, with the beginning of its data."""
        lines = self.trace("iscsi")
        names = [
            "LOGIN_REQUEST",
            "LOGIN_RESPONSE",
            "SCSI_COMMAND",
            "SCSI_RESPONSE",
            "SCSI_COMMAND",
            "DATA_IN",
        ]
        self.assertEqual([line.split()[1] for line in lines], names)
        self.assertEqual([line[0] for line in lines], [">", "<"] * 3)
        self.assertTrue(lines[-1].endswith("data=1024 " + "00" * 64 + "..."), lines[-1])

    def test_scsi(self) -> None:
        """C{scsi} shows commands, and their status with sense."""
        lines = self.trace("scsi")
        self.assertEqual(
            lines,
            [
                "> CDB " + "00" * 16 + " LUN 0000000000000000 tag 0x1",
                "< status 0x02 tag 0x1 sense 700006000000000a00000000290000000000",
                "> CDB 28000000000800000200" + "00" * 6 + " LUN 0000000000000000 tag 0x2",
                "< status 0x00 tag 0x2 1024 bytes",
            ],
        )

    def test_digests(self) -> None:
        """Digests that a login agrees on do not upset what is shown after it."""
        plain = self.trace("iscsi", "scsi")
        digested = self.trace("iscsi", "scsi", HeaderDigest="CRC32C", DataDigest="CRC32C")
        self.assertEqual(plain[-4:], digested[-4:])

    def test_pipelined(self) -> None:
        """What is answered in one batch with the last Login Response is cut right, digests and all."""
        with capturedLogs() as events:
            line = self.makeLine("iscsi")
            keys = {
                "InitiatorName": "iqn.2001-04.com.example:i",
                "TargetName": TARGET,
                "HeaderDigest": "CRC32C",
            }
            command = pdus.scsiCommand(bytes(6), itt=1, cmdSN=1, digests=(True, False))
            line.protocol.dataReceived(pdus.loginRequest(keys) + command)
        self.assertFalse(self.flushLoggedErrors())
        shown = [formatEvent(event) for event in events if "kind" in event and event.get("kind") == "iscsi"]
        self.assertEqual(
            [text.split()[4] for text in shown],
            ["LOGIN_REQUEST", "SCSI_COMMAND", "LOGIN_RESPONSE", "SCSI_RESPONSE"],
        )

    def test_secrets(self) -> None:
        """Nothing of what a login carries is shown: there may be secrets in it."""
        with capturedLogs() as events:
            line = self.makeLine("net", "iscsi", "scsi")
            line.login(**{"X-com.example.secret": "correct horse battery"})
        shown = "\n".join(map(formatEvent, events))
        self.assertIn("LOGIN_REQUEST", shown)
        self.assertNotIn("correct horse", shown)
        self.assertNotIn(b"correct horse".hex(), shown)

    def test_untraced(self) -> None:
        """A connection that is not traced writes nothing, and calls its core without a step between."""
        self.assertEqual(self.trace(), [])
        line = self.makeLine()
        self.assertEqual(line.protocol.dataReceived, line.protocol.core.receive)  # type: ignore[union-attr]

    def test_apart(self) -> None:
        """Connections from one address can be told apart."""
        with capturedLogs() as events:
            self.makeLine("net")
            self.makeLine("net")
        self.assertEqual(len(set(map(formatEvent, events))), 2)
