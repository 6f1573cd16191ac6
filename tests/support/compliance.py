"""
C{iscsi-test-cu} over the shapes of a unit, as a table of test by shape.

C{python -m tests.support.compliance} measures this target and tgt, and writes C{docs/compliance.csv}.
An interop test measures this target again, and compares.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from tests.bench.servers import OursOf, Server, Tgt

TABLE = Path(__file__).resolve().parent.parent.parent / "docs" / "compliance.csv"

PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"

USER, SECRET = "agc", "correct-horse-battery"
TARGET_USER, TARGET_SECRET = "it", "secret-of-target"

PATIENCE = 300.0
"""Seconds for one run of all tests; tgt takes a minute of them."""


@attrs.frozen
class Shape:
    """
    One kind of unit.

    @ivar name: the heading of its column.
    @ivar size: MiB.
    @ivar options: of the extent's line of a targets file.
    @ivar flag: of the target's line.
    @ivar twoPaths: whether the client is given two sessions to it.
    @ivar suites: the tests that are for it.
    @ivar device: a line of a targets file with a device C{device0} made of the extent; C{{folder}} in it
        stands for a directory with a file C{key}.
    @ivar guarded: whether initiators have to prove who they are, and so has the target (mutual CHAP).
    @ivar tgt: what C{tgtadm} calls this kind of unit.
    @ivar tgtNew: what it has to be told when it makes one.
    """

    name: str
    size: int = 64
    options: str = ""
    flag: str = "rw"
    twoPaths: bool = False
    suites: tuple[str, ...] = ("ALL",)
    device: str = ""
    guarded: bool = False
    tgt: str = ""
    tgtNew: str = ""


READERS = tuple(
    f"ALL.{suite}"
    for suite in (
        "GetLBAStatus.BeyondEol", "Inquiry", "Mandatory", "ModeSense6", "Prefetch10", "Prefetch16", "Read6",
        "Read10", "Read12", "Read16", "ReadCapacity10", "ReadCapacity16", "ReadOnly",
        "ReportSupportedOpcodes", "Reserve6", "TestUnitReady", "Verify10", "Verify12", "Verify16",
        "iSCSIcmdsn", "iSCSIdatasn",
    )
)  # fmt: skip
"""The suites that can be run where nothing may be written; the others begin with a WRITE."""

SHAPES = (
    Shape("plain", options="thin=no"),
    Shape("thin", options="thin=yes physical=512", tgt="thin_provisioning=1"),
    Shape("512e", options="thin=yes physical=4096", tgt="thin_provisioning=1,lbppbe=3"),
    Shape("4Kn", options="block=4K", tgt="thin_provisioning=1", tgtNew="--blocksize 4096"),
    Shape("removable", options="removable=yes", tgt="removable=1"),
    Shape("read-only", options="thin=yes", flag="ro", suites=READERS, tgt="readonly=1"),
    Shape("256 MiB", size=256),
    Shape("WSNZ off", size=16, options="samezero=yes"),
    Shape(
        "encrypted",
        device="device0 CRYPT extent0 key={folder}/key thin=yes physical=512",
        tgt="thin_provisioning=1",
    ),
    Shape("two paths", twoPaths=True),
    Shape("behind CHAP", options="thin=yes", guarded=True, tgt="thin_provisioning=1"),
    Shape("slow", suites=("ALL.Sanitize.Reset",), device="device0 RATE extent0 bytes=8MB"),
)

OTHER_SHAPE = (
    "Logical unit is not removable. Skipping test.",
    "Media is not removable.",
    "Logical unit is not write-protected. Skipping test.",
    "Multipath unavailable. Skipping test",
    "Logical unit is fully provisioned. Skipping test",
    "UNMAP is not implemented.",
    "SANITIZE BLOCK_ERASE is not implemented according to REPORT_SUPPORTED_OPCODES.",
    "LBPPB < 2. Skipping test",
    "SANITIZE CRYPTO_ERASE is not implemented according to REPORT_SUPPORTED_OPCODES.",
    "WRITEATOMIC16 is not implemented.",
    "WRITESAME10 does not support 0-blocks.",
    "WRITESAME16 does not support 0-blocks.",
)
"""
Why a test is skipped: it is for a unit of another shape.  (WRITE SAME of no blocks is refused, as WSNZ says
in VPD page B0h; SBC-3 6.6.4.  An encrypted unit has no WRITE ATOMIC, all others have no key to change.)
"""

DEFECTS = {
    # With more than one logical block in a physical one, line 118 asks for block i + 1, and line 132
    # wants the answer to begin with block i + lbppb.
    "GetLBAStatus.UnmapSingle": ("test_get_lba_status_unmap_single.c:135",),
    # Lines 93 to 107 and 165 want a SANITIZE of the whole unit to be under way still after it has slept
    # for three seconds, and for four; on the slow shape, where it is, the test passes.  On a machine that
    # needs about that long fewer of them fail, or none.
    "Sanitize.Reset": tuple(f"test_sanitize_reset.c:{line}" for line in (97, 102, 107, 165)),
    # With WSNZ zero it unmaps with a block of ones, which therefore have to be written (SBC-3 4.7.3.4.4), and
    # wants zeros.
    "WriteSame10.UnmapUntilEnd": ("test_writesame10_unmap_until_end.c:71",),
}
"""Tests that fail by the client's own fault, and the lines that may: which of them do can depend on time."""

_TEST = re.compile(r"^  Test: (\S+) \.\.\.", re.MULTILINE)
_SUITE = re.compile(r"^Suite: (\S+)$", re.MULTILINE)
_PLACE = re.compile(r"^    \d+\. (\S+\.c:\d+)", re.MULTILINE)
_WHY = re.compile(r"\[SKIPPED\] (.*)")


@attrs.frozen
class Result:
    """
    What became of one test.

    @ivar outcome: L{PASSED}, L{FAILED} or L{SKIPPED}.
    @ivar details: where in the client's source it failed, or why it was skipped.
    """

    outcome: str
    details: tuple[str, ...] = ()


def parse(text: str) -> dict[str, Result]:
    """The results in what the client printed, by C{Suite.Test}."""
    suites = _SUITE.split(text)
    return {
        f"{suite}.{test}": _result(printed)
        for suite, body in zip(suites[1::2], suites[2::2], strict=True)
        for test, printed in _tests(body)
    }


def _tests(body: str) -> Iterator[tuple[str, str]]:
    parts = _TEST.split(body)
    return zip(parts[1::2], parts[2::2], strict=True)


def _result(printed: str) -> Result:
    if places := _PLACE.findall(printed):
        return Result(FAILED, tuple(dict.fromkeys(places)))
    # What follows belongs to the end of the suite.
    before, passed, _ = printed.partition("passed")
    reasons = tuple(dict.fromkeys(why.strip() for why in _WHY.findall(before)))
    if not passed:
        return Result(FAILED, ("the client ended in it",))
    return Result(SKIPPED, reasons) if reasons else Result(PASSED)


def measure(url: str, shape: Shape) -> dict[str, Result]:
    """Run the client's tests for a unit of this shape."""
    if shape.guarded:
        url = url.replace("//", f"//{USER}%{SECRET}@", 1)
        url += f"?target_user={TARGET_USER}&target_password={TARGET_SECRET}"
    urls = [url] * (2 if shape.twoPaths else 1)
    results: dict[str, Result] = {}
    for suite in shape.suites:
        command = ["iscsi-test-cu", "--dataloss", "--allow-sanitize", *urls, "-t", suite]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False
        )
        results |= parse(done.stdout.decode(errors="replace"))
    return results


class OursAs(OursOf):
    """This target with a unit of one shape."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        line = f"extent0 {folder / self.name / 'disk'} 0 {shape.size}MB {shape.options}"
        served = "device0" if shape.device else "extent0"
        key = folder / "key"
        key.touch(0o600)
        key.write_bytes(os.urandom(64))
        super().__init__(
            folder, f"{line}\n{shape.device.format(folder=folder)}\ntarget0 {shape.flag} {served} any\n"
        )
        self.auths = self.file.with_name("auths") if shape.guarded else None
        if self.auths is not None:
            self.auths.touch(0o600)
            self.auths.write_text(f"{USER}:chap:{SECRET}:{TARGET_USER}:{TARGET_SECRET}\n")

    def arguments(self) -> list[str]:
        return [*super().arguments(), *(["--auths", str(self.auths)] if self.auths is not None else [])]


class TgtAs(Tgt):
    """tgt with a unit of one shape."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder)
        self.shape = shape
        self.making = shape.tgtNew

    def configure(self) -> None:
        super().configure()
        if self.shape.tgt:
            self._tell(f"--op update --mode logicalunit --lun 1 --params {self.shape.tgt}")
        if self.shape.guarded:
            for user, secret, way in ((USER, SECRET, ""), (TARGET_USER, TARGET_SECRET, "--outgoing")):
                self._tell(f"--op new --mode account --user {user} --password {secret}", "")
                self._tell(f"--op bind --mode account --user {user} {way}")


def table(kind: type[OursAs] | type[TgtAs]) -> dict[str, dict[str, Result]]:
    """
    Measure a target: by shape, by test.

    All shapes at once: the client sleeps for most of the time.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(SHAPES)) as pool:
        waiting = {}
        for number, shape in enumerate(SHAPES):
            path = Path(folder) / str(number)
            path.mkdir()
            waiting[shape.name] = pool.submit(against, kind(path, shape), shape)
        return {name: result.result() for name, result in waiting.items()}


def against(server: Server, shape: Shape) -> dict[str, Result]:
    """Measure a server that is started for it."""
    with open(server.disk, "wb") as file:
        file.truncate(shape.size << 20)
    server.start()
    try:
        return measure(server.url, shape)
    finally:
        server.stop()


def word(result: Result | None) -> str:
    """A cell of the table; a client that crashed leaves some empty."""
    if result is None:
        return ""
    return result.outcome


def main() -> None:
    """Write the table."""
    ours, tgt = table(OursAs), table(TgtAs)
    names = sorted({name for results in (*ours.values(), *tgt.values()) for name in results})
    with open(TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Test", *ours, *(f"tgt: {shape}" for shape in tgt)])
        for name in names:
            writer.writerow([name, *(word(shape.get(name)) for shape in (*ours.values(), *tgt.values()))])
    for column, results in (*ours.items(), *((f"tgt {name}", results) for name, results in tgt.items())):
        for name, result in results.items():
            if result.outcome == FAILED:
                print(column, name, *result.details)


if __name__ == "__main__":
    main()
