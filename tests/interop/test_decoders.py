"""Raw pages and sense data of a unit as the decoders of sg3-utils read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from iscsi_twisted.errors import CheckCondition
from iscsi_twisted.interfaces import Space
from iscsi_twisted.scsi import cdb, codes
from iscsi_twisted.scsi.cdbprimary import SEND_DIAGNOSTIC
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.logs import PAGES as LOG_PAGES
from iscsi_twisted.scsi.modes import Settings
from iscsi_twisted.scsi.sense import DESTINATION, encode, progress
from iscsi_twisted.scsi.words import CODES, KEYS
from tests.scsi.cases import IDENTITY
from tests.scsi.devices import THIN, MemoryDisk
from tests.support.tasks import Nexus, Task, run


def surprised(error: BaseException, task: object) -> None:
    """Nothing may go wrong here."""
    raise error


@pytest.fixture
def unit() -> DiskUnit:
    """A thin removable disk."""
    made = DiskUnit(MemoryDisk(1 << 20, THIN), identity=IDENTITY, report=surprised, removable=True)
    made.opened()
    return made


def ask(unit: DiskUnit, command: cdb.Command, **fields: int) -> Task:
    """Execute one command."""
    return run(unit, Task(command.encode(**fields), Nexus()))


def decoded(path: Path, data: bytes, tool: str, option: str) -> str:
    """What a decoder prints, which must not complain."""
    path.write_text(data.hex(" ") + "\n")
    result = subprocess.run([tool, f"{option}={path}"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, ""), (tool, data.hex(), result)
    return result.stdout


def test_inquiry(unit: DiskUnit, tmp_path: Path) -> None:
    """Standard INQUIRY data."""
    text = decoded(tmp_path / "hex", ask(unit, cdb.INQUIRY, allocation=255).data, "sg_inq", "--inhex")
    for wanted in ("RMB=1", "[SPC-4]", "CmdQue=1", "identification: EXAMPLE", "length=96"):
        assert wanted in text


@pytest.mark.parametrize("page", sorted(DiskUnit.pages))
def test_vpd(unit: DiskUnit, tmp_path: Path, page: int) -> None:
    """Every VPD page is known by name."""
    data = ask(unit, cdb.INQUIRY, flags=1, page=page, allocation=0xFFFF).data
    text = decoded(tmp_path / "hex", data, "sg_vpd", "--inhex")
    assert "VPD page" in text
    assert "invalid" not in text.lower()


@pytest.mark.parametrize("descriptors", [False, True])
def test_sense(unit: DiskUnit, tmp_path: Path, descriptors: bool) -> None:
    """Sense data of either format tell the key, the code, INFORMATION and the field."""
    unit.adjust(Settings(descriptorSense=descriptors))
    sense = ask(unit, cdb.READ_10, lba=unit.blockCount, length=1).sense
    text = decoded(tmp_path / "hex", sense, "sg_decode_sense", "--file")
    assert "Descriptor format" in text if descriptors else "Fixed format" in text
    for wanted in ("Illegal Request", "Logical block address out of range", "byte 2"):
        assert wanted in text
    assert f"{unit.blockCount:x}" in text


def test_thirdPartyCopy(unit: DiskUnit, tmp_path: Path) -> None:
    """What can be copied, and with which commands."""
    data = ask(unit, cdb.INQUIRY, flags=1, page=0x8F, allocation=0xFFFF).data
    text = decoded(tmp_path / "hex", data, "sg_vpd", "--inhex")
    for wanted in (
        "Extended copy(LID1)",
        "Receive copy failure details(LID1)",
        "block -> block",
        "CSCD: Identification Descriptor",
        "Total concurrent copies: 16",
    ):
        assert wanted in text


@pytest.mark.parametrize("descriptors", [False, True])
@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (
            CheckCondition(codes.NOT_READY, codes.SANITIZE_IN_PROGRESS, specific=progress(0x8000)),
            ("sanitize in progress", "rogress indication: 50.00%"),
        ),
        (CheckCondition(codes.MEDIUM_ERROR, codes.WRITE_FAULT, deferred=True), ("deferred", "Write error")),
        (
            CheckCondition(
                codes.COPY_ABORTED,
                codes.THIRD_PARTY_FAILURE,
                specific=bytes((0xA0, 0, 6)),
                commandSpecific=3,
                forwarded=(DESTINATION, codes.RESERVATION_CONFLICT, b""),
            ),
            ("Copy Aborted", "Third party device failure", "segment descriptor, byte 6"),
        ),
    ],
)
def test_conditions(
    tmp_path: Path, descriptors: bool, condition: CheckCondition, wanted: tuple[str, ...]
) -> None:
    """Progress, errors of commands that have ended, and what the ends of a copy have said."""
    text = decoded(tmp_path / "hex", encode(condition, descriptors), "sg_decode_sense", "--file")
    for words in wanted:
        assert words in text
    if descriptors and condition.forwarded is not None:
        assert "Extended copy command destination" in text and "Reservation Conflict" in text


def test_words(tmp_path: Path) -> None:
    """Sense keys and additional sense codes have the names that everybody gives them."""
    told = [(codes.ILLEGAL_REQUEST, code) for code in CODES] + [(key, 0) for key in KEYS]
    for key, code in told:
        text = decoded(tmp_path / "hex", encode(CheckCondition(key, code)), "sg_decode_sense", "--file")
        assert KEYS[key].lower() in text.lower()
        assert CODES[code].lower() in text.lower()


def test_blockStatus(unit: DiskUnit, tmp_path: Path) -> None:
    """LBA status data."""
    data = ask(unit, cdb.GET_LBA_STATUS, allocation=255).data
    assert "blocks:       2048" in decoded(tmp_path / "hex", data, "sg_get_lba_status", "--inhex")


@pytest.mark.parametrize(
    "page", [(0x00, 0x00), (0x00, 0xFF), *((each.code, each.subpage) for each in LOG_PAGES)]
)
def test_logs(unit: DiskUnit, tmp_path: Path, page: tuple[int, int]) -> None:
    """Every log page is known by name, and its parameters are."""
    unit.tellsSpace = True
    unit.device.space = lambda: Space(3 << 20, 5 << 20)  # type: ignore[method-assign]
    for flags in (0x20, 0x40):
        ask(unit, SEND_DIAGNOSTIC, flags=flags)
    ask(unit, cdb.READ_10, length=1)
    data = ask(unit, cdb.LOG_SENSE, page=0x40 | page[0], subpage=page[1], allocation=0xFFFF).data
    text = decoded(tmp_path / "hex", data, "sg_logs", "--inhex")
    name, *lines = text.rstrip().splitlines()
    assert f"[{page[0]:#x}" in name, text
    assert lines, text
    for wrong in ("unknown", "reserved", "too short", "parameter code"):
        assert page[0] == 0x10 or wrong not in text.lower(), text
    for wanted in LOG_TEXTS.get(page, ()):
        assert wanted in text, text


LOG_TEXTS = {
    (0x0C, 0): ("Available LBA mapping threshold resource count: 5", "Used LBA mapping", "percentage: 62 %"),
    (0x10, 0): ("self-test code: background extended [2]", "completed without error [0]"),
    (0x15, 0): ("no background scans active",),
    (0x19, 0): ("number of read commands = 1", "idle time intervals"),
    (0x19, 0x20): ("read cache memory hits = 1",),
    (0x0D, 0): ("<not available>",),
}
"""What is wanted of some pages."""
