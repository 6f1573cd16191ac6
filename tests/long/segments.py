"""The conversations of the tests, each chunk cut in two: at another place for each run."""

from __future__ import annotations

import time
from random import Random
from unittest import TestLoader

from twisted.trial.reporter import TestResult

from tests.session.test_segments import Turning, again, cases


def segments(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Run test cases, in any order, for so long.

    @return: what was done, and what went wrong.
    """
    random = Random(seed)
    deadline = time.monotonic() + seconds
    result = TestResult()
    while time.monotonic() < deadline:
        start = random.randrange(1 << 16)
        case = again(random.choice(list(cases())), f"Cut{start}", lambda start=start: Turning(start))  # type: ignore[misc]
        TestLoader().loadTestsFromTestCase(case).run(result)
    faults = [f"{test.id()}: {failure}" for test, failure in (*result.failures, *result.errors)]
    return [f"{result.testsRun} tests"], faults
