"""All tests of libiscsi's test tool, over the shapes of a unit; the table in the manual is what they give."""

from __future__ import annotations

import csv

import pytest

from tests.support.compliance import (
    DEFECTS,
    FAILED,
    OTHER_SHAPE,
    PASSED,
    SHAPES,
    SKIPPED,
    TABLE,
    OursAs,
    Result,
    Shape,
    parse,
    table,
)

Measured = dict[str, dict[str, Result]]


@pytest.fixture(scope="module")
def measured() -> Measured:
    """The results by shape and test."""
    return table(OursAs)


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_shape(measured: Measured, shape: Shape) -> None:
    """No test fails but by the client's fault; skipped are tests for another shape."""
    results = measured[shape.name]
    for name, result in results.items():
        if result.outcome == FAILED:
            assert result.details, name
            assert set(result.details) <= set(DEFECTS.get(name, ())), (name, result.details)
        elif result.outcome == SKIPPED:
            assert set(result.details) <= set(OTHER_SHAPE), name
    with open(TABLE, newline="", encoding="utf-8") as file:
        told = {row["Test"]: row[shape.name] for row in csv.DictReader(file) if row[shape.name]}
    outcomes = {name: result.outcome for name, result in results.items()}
    for name in DEFECTS:
        # A client's fault that depends on time does not show on a machine that is slow enough.
        if outcomes.get(name) == PASSED and told.get(name) == FAILED:
            outcomes[name] = FAILED
    assert told == outcomes, "docs/compliance.csv is out of date: run python -m tests.support.compliance"


def test_everyTest() -> None:
    """There is no test that is skipped by all shapes: each passes with at least one of them."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 230
    assert [row["Test"] for row in rows if not any(row[shape.name] == PASSED for shape in SHAPES)] == []


def test_parse() -> None:
    """What the client prints is understood: passed, skipped, failed, and a crash."""
    printed = """
Suite: One
  Test: A ...passed
  Test: B ...    [SKIPPED] THIS is not implemented.
passed
  Test: C ...FAILED
    1. test_c.c:135  - CU_FAIL("x")    [SKIPPED] at the end of the suite

Suite: Two
  Test: D ..."""
    assert {name: (one.outcome, one.details) for name, one in parse(printed).items()} == {
        "One.A": ("passed", ()),
        "One.B": ("skipped", ("THIS is not implemented.",)),
        "One.C": ("FAILED", ("test_c.c:135",)),
        "Two.D": ("FAILED", ("the client ended in it",)),
    }
