"""
Which sentences of RFC 7143 are proved where.

A test of this package names its sentence in the first line of its docstring, as
C{RFC 7143 SECTION: "FIRST WORDS"}.  Here stand the sentences that tests elsewhere prove, and those that
no test proves, with the reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FIRST_LINE = re.compile(r'RFC 7143 (?P<section>[0-9C][0-9.]*): "(?P<words>.+)"\Z')


class Must(NamedTuple):
    """
    One sentence.

    @ivar section: of RFC 7143.
    @ivar words: the first of the sentence, or those that matter.
    @ivar proof: the full name of a test, or why there is none.
    """

    section: str
    words: str
    proof: str


ELSEWHERE = (
    Must(
        "4.2.2.1",
        "MaxCmdSN and ExpCmdSN ... serial number arithmetic",
        "tests.session.test_session.WindowTests.test_around",
    ),
    Must(
        "4.2.7",
        "iSCSI names MUST be ... compared",
        "tests.session.test_names.NormaliseTests.test_compositions",
    ),
    Must(
        "6.1",
        "key-name ... MUST be up to 63 bytes",
        "tests.wire.test_text.TextTests.test_longestKey",
    ),
    Must(
        "6.2",
        "any key-value pair may be split over PDUs with the C bit",
        "tests.session.test_login.ContinueTests.test_parts",
    ),
    Must(
        "6.3.1",
        "Login Request: ISID, TSIH and CID of all requests of a login are the same",
        "tests.session.test_login.HeaderTests.test_changes",
    ),
    Must(
        "11.2.2.3",
        "Extended CDB AHS",
        "tests.session.test_fullfeature.SundryTests.test_extendedCDB",
    ),
    Must(
        "11.3.4",
        "Expected Data Transfer Length ... residual count",
        "tests.session.test_model.ModelTests.test_writes",
    ),
    Must(
        "11.4.5",
        "residual counts of overflow and underflow",
        "tests.session.test_model.ModelTests.test_writes",
    ),
    Must(
        "11.9.1",
        "A SCSI asynchronous event is reported in the sense data",
        "tests.session.test_connection.EndTests.test_reportEvent",
    ),
    Must(
        "13",
        "each key's default, bounds and result function",
        "tests.session.test_keys.TableTests.test_numbers",
    ),
    Must(
        "13.25",
        "obsoleted keys",
        "tests.session.test_negotiation.OfferTests.test_offers",
    ),
)

UNTESTED = (
    Must(
        "4.2.3.3",
        "MUST wait for responses on currently valid Target Transfer Tags of the affected tasks",
        "Not done, on purpose.  The initiators of today stop answering R2Ts once they have sent such a "
        "request; a target that waited would hang until they drop the session.  Data that still come are "
        "dropped by their tags, so nothing is lost.",
    ),
    Must(
        "4.2.3.4",
        "FastAbort multi-task abort semantics",
        "TaskReporting=FastAbort is never agreed upon.",
    ),
    Must(
        "6.3.6",
        "continuing a session after its last connection was lost",
        "Belongs to error recovery level 2.",
    ),
    Must(
        "7.1",
        "retransmission, recovery R2T and SNACK",
        "Belongs to error recovery levels 1 and 2.",
    ),
    Must(
        "9.3",
        "IPsec MUST be implemented",
        "A matter of the host's network stack and of its administrator.",
    ),
    Must(
        "11.16",
        "SNACK of all types",
        "Belongs to error recovery level 1; at level 0 it is rejected.",
    ),
    Must(
        "12",
        "CHAP MUST be implemented",
        "Authentication is not there yet.",
    ),
    Must(
        "13.2",
        "MaxConnections above 1",
        "A session has one connection; the result function makes 1 of every offer.",
    ),
    Must(
        "C",
        "a target MUST return all path information",
        "Of several portals of a target the one that the initiator came to is told, or what it advertises.",
    ),
)


def proved(folder: Path = Path(__file__).parent) -> Iterator[Must]:
    """The sentences that tests of this package name; read from the sources, without importing them."""
    for path in sorted(folder.glob("test_*.py")):
        for case in ast.parse(path.read_text()).body:
            if isinstance(case, ast.ClassDef):
                yield from _named(case, f"tests.conformance.{path.stem}.{case.name}")


def _named(case: ast.ClassDef, name: str) -> Iterator[Must]:
    for method in case.body:
        if isinstance(method, ast.FunctionDef) and method.name.startswith("test_"):
            found = FIRST_LINE.match((ast.get_docstring(method) or "").split("\n")[0])
            if found:
                yield Must(found["section"], found["words"], f"{name}.{method.name}")
