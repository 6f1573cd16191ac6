"""A whole session as tshark sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from tests.support.clients import Serve, good, run, watch

SIMPLE = "extent0 %/disk0 0 64MB\ntarget0 extent0 0.0.0.0/0\n"
LOGOUT_RESPONSE = "0x26"


@pytest.mark.parametrize("digest", [False, True])
@ensureDeferred
async def test_decoded(serve: Serve, tmp_path: Path, digest: bool) -> None:
    """A session of discovery, reads, writes and logout holds no PDU that tshark cannot decode."""
    served = await serve(SIMPLE)
    fields = ("iscsi.opcode", "_ws.malformed", "_ws.expert.message", "tcp.dstport")
    options = [part for field in fields for part in ("-e", field)]
    tshark = watch(
        "tshark", "-l", "-n", "-i", "lo", "-f", f"tcp port {served.port}",
        "-d", f"tcp.port=={served.port},iscsi", "-Y", "iscsi", "-T", "fields", "-E", "separator=|", *options,
    )  # fmt: skip
    await tshark.line(lambda line: "Capture started" in line)
    await good("iscsi-ls", f"iscsi://{served.portal()}/")
    await good(
        "qemu-io", "--image-opts", "-c", "write -P 7 0 700k", "-c", "read -P 7 0 700k", "-c", "discard 0 64k",
        "-c", "flush", served.qemu(digest=digest),
    )  # fmt: skip
    logouts = 0

    def second(line: str) -> bool:
        nonlocal logouts
        logouts += LOGOUT_RESPONSE in line.split("|")[0]
        return logouts >= 2

    await tshark.line(second)
    await tshark.interrupt()
    decoded = [line for line in tshark.lines if line.startswith("0x")]
    seen = {opcode for line in decoded for opcode in line.split("|")[0].split(",")}
    assert {"0x03", "0x23", "0x04", "0x24", "0x01", "0x21", "0x25", "0x06", "0x26"} <= seen, seen
    bad = [line for line in decoded if "iSCSI" in line.split("|")[2] and "alformed" in line]
    assert not bad, bad
    assert not [line for line in decoded if line.split("|")[1] and "SCSI" not in line], decoded


SUITES = (
    "CompareAndWrite", "ExtendedCopy", "GetLBAStatus", "Inquiry", "Mandatory", "ModeSense6", "PrinReadKeys",
    "PrinReportCapabilities", "ProutRegister", "ProutReserve", "ReadCapacity16", "ReadDefectData10",
    "ReceiveCopyResults", "ReportSupportedOpcodes", "TestUnitReady", "Unmap", "WriteSame16", "iSCSIcmdsn",
    "iSCSIdatasn",
)  # fmt: skip
"""Those of iscsi-test-cu that ask for structured answers, or meet errors."""


@ensureDeferred
async def test_compliance(serve: Serve) -> None:
    """Of what iscsi-test-cu is answered tshark can decode all but what an allocation length has cut off."""
    served = await serve("extent0 %/disk0 0 64MB removable=yes physical=512\ntarget0 extent0 any\n")
    fields = (
        "tcp.srcport", "iscsi.opcode", "iscsi.initiatortasktag", "iscsi.datasegmentlength",
        "iscsi.scsicommand.expecteddatatransferlength", "_ws.malformed", "_ws.col.Info",
    )  # fmt: skip
    options = [part for field in fields for part in ("-e", field)]
    tshark = watch(
        "tshark", "-l", "-n", "-i", "lo", "-B", "64", "-f", f"tcp port {served.port}",
        "-d", f"tcp.port=={served.port},iscsi", "-Y", "iscsi", "-T", "fields", "-E", "separator=|", *options,
    )  # fmt: skip
    await tshark.line(lambda line: "Capture started" in line)
    for suite in SUITES:
        await good("iscsi-test-cu", "--dataloss", served.url(), "-t", f"ALL.{suite}")
    # What comes last is told apart from all else.
    await run("iscsi-inq", served.url("absent"))
    await tshark.line(lambda line: "Target not found" in line)
    await tshark.interrupt()
    lines = [line.split("|") for line in tshark.lines if line.count("|") == len(fields) - 1]
    assert len(lines) > 1000
    wanted = {each[2]: each[4] for each in lines if each[1] == "0x01"}
    bad = [
        each for each in lines if each[5] and each[0] == str(served.port) and each[3] != wanted.get(each[2])
    ]
    assert not bad, bad
