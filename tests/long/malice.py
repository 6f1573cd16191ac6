"""Targets that spoil a conversation with our initiator: no hang, nothing wrong believed, nothing kept."""

from __future__ import annotations

import time
import traceback
from random import Random

from twisted.logger import capturedLogs

from tests.support.mangling import KINDS, Conversation, Spoiling

LAST = 70
"""PDUs of one conversation; there are more when it has to begin again."""


def malice(seconds: float, seed: int) -> tuple[list[str], list[str]]:
    """
    Conversations for so long.

    @return: what was done, and what went wrong.
    """
    deadline, number, pdus = time.monotonic() + seconds, 0, 0
    while time.monotonic() < deadline:
        random = Random(seed + number)
        spoilings: dict[int, Spoiling] = {
            random.randrange(LAST): (
                random.choice(KINDS), random.choice((random.randrange(80), random.randrange(1 << 16))),
                random.choice((random.randrange(256), random.randrange(1 << 32))),
            )
            for _ in range(random.choice((1, 1, 2, 4, 10)))
        }  # fmt: skip
        conversation = Conversation(spoilings, random.random() < 0.5)
        with capturedLogs():
            try:
                wrong = conversation.run()
            except Exception:
                wrong = [traceback.format_exc()]
        pdus += conversation.endpoint.seen
        if wrong:
            return [], [f"conversation {number} (seed {seed + number}): {'; '.join(wrong)}"]
        number += 1
    return [f"{number} conversations, {pdus} PDUs"], []
