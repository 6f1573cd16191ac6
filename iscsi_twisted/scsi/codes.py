# -*- test-case-name: tests.scsi.test_cdb -*-
"""
Numbers that T10 gave to things.

Plain integers: an enumeration's members cost five times as much where every microsecond counts.
Additional sense codes and their qualifiers are one 16-bit number, as in C{0x2400} for 24h/00h.
"""

from typing import Final

# Status, SAM-5 5.3.1
GOOD: Final = 0x00
CHECK_CONDITION: Final = 0x02
CONDITION_MET: Final = 0x04
BUSY: Final = 0x08
RESERVATION_CONFLICT: Final = 0x18
TASK_SET_FULL: Final = 0x28
ACA_ACTIVE: Final = 0x30
TASK_ABORTED: Final = 0x40

# Sense keys, SPC-4 4.5.6
NO_SENSE: Final = 0x0
RECOVERED_ERROR: Final = 0x1
NOT_READY: Final = 0x2
MEDIUM_ERROR: Final = 0x3
HARDWARE_ERROR: Final = 0x4
ILLEGAL_REQUEST: Final = 0x5
UNIT_ATTENTION: Final = 0x6
DATA_PROTECT: Final = 0x7
COPY_ABORTED: Final = 0xA
ABORTED_COMMAND: Final = 0xB
MISCOMPARE: Final = 0xE

# Additional sense codes, SPC-4 annex F.2
NO_ADDITIONAL_SENSE: Final = 0x0000
OPERATION_IN_PROGRESS: Final = 0x0016
NOT_READY_CAUSE_NOT_REPORTABLE: Final = 0x0400
BECOMING_READY: Final = 0x0401
FORMAT_IN_PROGRESS: Final = 0x0404
SELF_TEST_IN_PROGRESS: Final = 0x0409
IN_TRANSITION: Final = 0x040A
"""Logical unit not accessible, asymmetric access state transition."""
IN_STANDBY: Final = 0x040B
"""Logical unit not accessible, target port in standby state."""
IN_UNAVAILABLE: Final = 0x040C
"""Logical unit not accessible, target port in unavailable state."""
UNIT_OFFLINE: Final = 0x0412
SANITIZE_IN_PROGRESS: Final = 0x041B
UNREACHABLE_COPY_TARGET: Final = 0x0804
"""... that no descriptor describes."""
THIRD_PARTY_FAILURE: Final = 0x0D01
COPY_TARGET_NOT_REACHABLE: Final = 0x0D02
WRONG_COPY_TARGET_TYPE: Final = 0x0D03
COMMUNICATION_TIMEOUT: Final = 0x0801
WRITE_FAULT: Final = 0x0C00
UNRECOVERED_READ_ERROR: Final = 0x1100
PARAMETER_LIST_LENGTH_ERROR: Final = 0x1A00
MISCOMPARE_DURING_VERIFY: Final = 0x1D00
INVALID_OPCODE: Final = 0x2000
LBA_OUT_OF_RANGE: Final = 0x2100
INVALID_FIELD_IN_CDB: Final = 0x2400
LUN_NOT_SUPPORTED: Final = 0x2500
INVALID_FIELD_IN_PARAMETER_LIST: Final = 0x2600
TOO_MANY_TARGETS: Final = 0x2606
UNSUPPORTED_TARGET: Final = 0x2607
TOO_MANY_SEGMENTS: Final = 0x2608
UNSUPPORTED_SEGMENT: Final = 0x2609
UNEXPECTED_INEXACT_SEGMENT: Final = 0x260A
INLINE_DATA_TOO_LONG: Final = 0x260B
INVALID_RELEASE: Final = 0x2604
"""... of a persistent reservation."""
WRITE_PROTECTED: Final = 0x2700
SOFTWARE_WRITE_PROTECTED: Final = 0x2702
SPACE_ALLOCATION_FAILED: Final = 0x2707
MEDIUM_MAY_HAVE_CHANGED: Final = 0x2800
POWER_ON: Final = 0x2900
POWER_ON_OCCURRED: Final = 0x2901
BUS_RESET_OCCURRED: Final = 0x2902
DEVICE_RESET_OCCURRED: Final = 0x2903
DEVICE_INTERNAL_RESET: Final = 0x2904
NEXUS_LOSS_OCCURRED: Final = 0x2907
MODE_PARAMETERS_CHANGED: Final = 0x2A01
LOG_PARAMETERS_CHANGED: Final = 0x2A02
RESERVATIONS_PREEMPTED: Final = 0x2A03
RESERVATIONS_RELEASED: Final = 0x2A04
REGISTRATIONS_PREEMPTED: Final = 0x2A05
ACCESS_CHANGED: Final = 0x2A06
"""Asymmetric access state changed."""
ACCESS_NOT_CHANGED: Final = 0x2A07
"""Implicit asymmetric access state transition failed."""
CAPACITY_CHANGED: Final = 0x2A09
TIMESTAMP_CHANGED: Final = 0x2A10
COMMAND_SEQUENCE_ERROR: Final = 0x2C00
PREVIOUS_BUSY: Final = 0x2C07
PREVIOUS_FULL: Final = 0x2C08
PREVIOUS_CONFLICT: Final = 0x2C09
"""A status that the nexus was given before (UA_INTLCK_CTRL; SPC-4 7.5.8)."""
COMMANDS_CLEARED: Final = 0x2F00
FORMAT_CORRUPTED: Final = 0x3100
SANITIZE_FAILED: Final = 0x3103
SOFT_THRESHOLD_REACHED: Final = 0x3807
"""Thin provisioning soft threshold reached."""
SAVING_NOT_SUPPORTED: Final = 0x3900
MEDIUM_NOT_PRESENT: Final = 0x3A02
"""... because the tray is open."""
FAILED_SELF_TEST: Final = 0x3E03
MICROCODE_CHANGED: Final = 0x3F01
INQUIRY_CHANGED: Final = 0x3F03
DEVICE_IDENTIFIER_CHANGED: Final = 0x3F05
LUNS_CHANGED: Final = 0x3F0E
INTERNAL_TARGET_FAILURE: Final = 0x4400
RESERVATIONS_LOST: Final = 0x4401
"""Persistent reservation information lost."""
INVALID_MESSAGE: Final = 0x4900
MEDIUM_REMOVAL_PREVENTED: Final = 0x5302
INSUFFICIENT_REGISTRATIONS: Final = 0x5504
"""Insufficient registration resources."""

# Task attributes, SAM-5 8.6; on the wire RFC 7143 11.3.1
UNTAGGED: Final = 0
SIMPLE: Final = 1
ORDERED: Final = 2
HEAD_OF_QUEUE: Final = 3
ACA: Final = 4

# Bits that stand in many CDBs
NACA: Final = 0x04
"""In the CONTROL byte (SAM-5 5.2): normal ACA."""
PROTECT: Final = 0xE0
"""RDPROTECT or WRPROTECT (SBC-3 5.8): protection information."""
DPO: Final = 0x10
"""Disable page out: a hint about caching."""
FUA: Final = 0x08
"""Force unit access: the medium, not a volatile cache."""
