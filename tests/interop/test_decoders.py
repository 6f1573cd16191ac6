"""Raw pages and sense data of a unit as the decoders of sg3-utils read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from iscsi_twisted.scsi import cdb
from iscsi_twisted.scsi.disk import DiskUnit
from iscsi_twisted.scsi.modes import Settings
from iscsi_twisted.scsi.vpd import DISK_PAGES
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


@pytest.mark.parametrize("page", sorted(DISK_PAGES))
def test_vpd(unit: DiskUnit, tmp_path: Path, page: int) -> None:
    """Every VPD page is known by name."""
    data = ask(unit, cdb.INQUIRY, flags=1, page=page, allocation=0xFFFF).data
    text = decoded(tmp_path / "hex", data, "sg_vpd", "--inhex")
    assert "VPD page" in text
    assert "invalid" not in text.lower()


@pytest.mark.parametrize(
    ("page", "subpage", "wanted"),
    [
        (0x00, 0x00, "0x2f"),
        (0x00, 0xFF, "0x00,0xff"),
        (0x02, 0x00, "Total bytes processed = 0"),
        (0x03, 0x00, "Total bytes processed = 0"),
        (0x2F, 0x00, "temperature = <not available>"),
    ],
)
def test_logs(unit: DiskUnit, tmp_path: Path, page: int, subpage: int, wanted: str) -> None:
    """Every log page is understood."""
    data = ask(unit, cdb.LOG_SENSE, page=page, subpage=subpage, allocation=0xFFFF).data
    assert wanted in decoded(tmp_path / "hex", data, "sg_logs", "--in")


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


def test_blockStatus(unit: DiskUnit, tmp_path: Path) -> None:
    """LBA status data."""
    data = ask(unit, cdb.GET_LBA_STATUS, allocation=255).data
    assert "blocks:       2048" in decoded(tmp_path / "hex", data, "sg_get_lba_status", "--inhex")
