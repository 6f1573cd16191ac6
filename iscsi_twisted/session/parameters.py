# -*- test-case-name: tests.session.test_login -*-
"""What a login has agreed upon, in the form in which the full feature phase needs it."""

from __future__ import annotations

from typing import Final

import attrs

from iscsi_twisted.session.keys import Value
from iscsi_twisted.session.negotiation import Negotiation

MAX_RECEIVE: Final = 262144
"""Our MaxRecvDataSegmentLength: a whole 256 KiB write comes as one PDU, and one PDU never needs more."""

OURS: Final[dict[str, Value]] = {
    "MaxConnections": 1,
    "InitialR2T": False,
    "ImmediateData": True,
    "MaxBurstLength": 1 << 20,
    "FirstBurstLength": 262144,
    "DefaultTime2Wait": 0,
    # At recovery level 0 nothing is kept of a session whose connection is gone.
    "DefaultTime2Retain": 0,
    "MaxOutstandingR2T": 8,
    "ErrorRecoveryLevel": 0,
    "iSCSIProtocolLevel": 1,
}

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "AuthMethod": ("None",),
    "HeaderDigest": ("CRC32C", "None"),
    "DataDigest": ("CRC32C", "None"),
    # With one connection in a session every response stands behind those before it: a fence at no cost.
    "TaskReporting": ("ResponseFence", "RFC3720"),
}


@attrs.frozen
class Parameters:
    """
    Operational parameters of one session and its connection.

    @ivar maxSegment: longest data segment that the initiator takes, in bytes (RFC 7143 13.12).
    @ivar maxBurst: MaxBurstLength, bytes (13.13).
    @ivar firstBurst: FirstBurstLength, bytes, never above C{maxBurst} (13.14).
    @ivar initialR2T: no unsolicited Data-Out (13.10).
    @ivar immediateData: data may come with a command (13.11).
    @ivar maxOutstandingR2T: per task (13.17).
    @ivar headerDigest: CRC32C after headers (13.1).
    @ivar dataDigest: CRC32C after data segments (13.1).
    """

    maxSegment: int = 8192
    maxBurst: int = 262144
    firstBurst: int = 65536
    initialR2T: bool = True
    immediateData: bool = True
    maxOutstandingR2T: int = 1
    headerDigest: bool = False
    dataDigest: bool = False

    def rejoined(self, negotiation: Negotiation) -> Parameters:
        """The same for a further connection of the session: only what belongs to a connection is new."""
        fresh = Parameters.agreed(negotiation)
        return attrs.evolve(
            self, maxSegment=fresh.maxSegment, headerDigest=fresh.headerDigest, dataDigest=fresh.dataDigest
        )

    @classmethod
    def agreed(cls, negotiation: Negotiation) -> Parameters:
        """The outcome of a negotiation."""
        results = negotiation.results
        maxBurst = int(results["MaxBurstLength"])
        return cls(
            maxSegment=int(negotiation.declared.get("MaxRecvDataSegmentLength", 8192)),
            maxBurst=maxBurst,
            firstBurst=min(int(results["FirstBurstLength"]), maxBurst),
            initialR2T=bool(results["InitialR2T"]),
            immediateData=bool(results["ImmediateData"]),
            maxOutstandingR2T=int(results["MaxOutstandingR2T"]),
            headerDigest=results["HeaderDigest"] == "CRC32C",
            dataDigest=results["DataDigest"] == "CRC32C",
        )
