"""
Long runs, each for its share of the time: fuzzing cores without sockets, units without iSCSI, both guided by
coverage, an initiator whose target spoils what it says, the conversations of the tests cut otherwise, models
of mirrors, a real service on loopback among good and bad clients, a real process that is killed again and
again, what it has to remember through that, copies and sanitizes that are killed, commands that are
interrupted, floods after which memory has to be as it was, and storms of SIGHUPs.

C{python -m tests.long [--seconds N] [--seed N]} prints what it did, and ends with 1 on any surprise, telling
the seed that shows it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.long.copies import copies
from tests.long.flood import flood
from tests.long.fuzz import fuzz
from tests.long.guided import guided
from tests.long.hangups import hangups
from tests.long.interrupts import interrupts
from tests.long.kill import kill
from tests.long.malice import malice
from tests.long.mirrormodel import hangingmodel, mirrormodel
from tests.long.mirrors import mirrors
from tests.long.sanitizes import sanitizes
from tests.long.segments import segments
from tests.long.soak import soak
from tests.long.states import states
from tests.long.units import units

PARTS = {
    "fuzz": fuzz,
    "units": units,
    "guided": guided,
    "malice": malice,
    "segments": segments,
    "kill": kill,
    "states": states,
    "sanitizes": sanitizes,
    "mirrormodel": mirrormodel,
    "hangingmodel": hangingmodel,
    "mirrors": mirrors,
    "copies": copies,
    "interrupts": interrupts,
    "flood": flood,
    "hangups": hangups,
    "soak": soak,
}

DEEP = {"mirrormodel": 60.0}
"""
Parts that need so many seconds, and are left out of shorter runs: what they find in moments is chance, and
the tests run the same models, always alike.
"""


def main() -> int:
    """Run both; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.long", description=(__doc__ or "").strip())
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    share = options.seconds / len(PARTS)
    parts = {name: part for name, part in PARTS.items() if share >= DEEP.get(name, 0.0)}
    if options.only:
        parts = {options.only: PARTS[options.only]}
    failed = 0
    for name, part in parts.items():
        began = time.monotonic()
        print(f"{name}: seed {options.seed}, {options.seconds / len(parts):g} s", flush=True)
        lines, faults = part(options.seconds / len(parts), options.seed)
        for line in lines:
            print(f"  {line}")
        for fault in faults:
            print(f"  FAULT: {fault}")
        failed += len(faults)
        print(f"{name}: {len(faults)} faults in {time.monotonic() - began:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
