# -*- test-case-name: tests.target.test_mount -*-
"""Tests for L{iscsi_twisted.target.mount}."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from iscsi_twisted.storage import MemoryDevice
from tests.support.served import MemoryService


class SmallTests(SynchronousTestCase):
    """Devices that have not one block."""

    def told(self, size: int) -> list[str]:
        """What the log says of a device of so many bytes."""
        with capturedLogs() as events:
            MemoryService(MemoryDevice(size)).service.startService()
        return [formatEvent(event) for event in events if event.get("event") == "small"]

    def test_told(self) -> None:
        """That is told, for initiators only see that it is not ready."""
        (line,) = self.told(511)
        self.assertIn("its 511 bytes are not one block of 512, so it is not ready until it grows", line)
        self.assertEqual(self.told(512), [])
