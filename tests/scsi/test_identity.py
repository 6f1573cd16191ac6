"""Tests for L{iscsi_twisted.scsi.identity}."""

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.scsi.cases import IDENTITY

REFUSED = [
    {"vendor": "NINECHARS"},
    {"product": "seventeen letters"},
    {"revision": "12345"},
    {"serial": "tab\t"},
    {"vendor": "bäd"},
    {"naa": b""},
    {"naa": bytes.fromhex("30000000123456")},
    {"naa": bytes.fromhex("6000000012345678")},
    {"naa": bytes.fromhex("f000000012345678")},
    {"deviceName": ""},
    {"deviceName": "x" * 256},
]


class IdentityTests(SynchronousTestCase):
    """The names of a unit."""

    def test_refused(self) -> None:
        """Names that do not fit their fields are refused."""
        for change in REFUSED:
            with self.assertRaises(ValueError, msg=change):
                attrs.evolve(IDENTITY, **change)

    def test_long(self) -> None:
        """NAA type 6 has sixteen bytes."""
        naa = bytes.fromhex("60000000123456780000000000000001")
        self.assertEqual(attrs.evolve(IDENTITY, naa=naa).naa, naa)
