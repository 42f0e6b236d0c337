"""`make protocol`: goes through every program, with as many faults as anybody wants to wait for, and says how much that was.

python -m tests.proof.protocol [faults]
"""

from __future__ import annotations

import sys
import time

from tests.proof.protocol.exploring import explore
from tests.proof.protocol.programs import PROGRAMS


def main(arguments: list[str]) -> int:
    """Raises `Broken`, with the way there, if anything is wrong."""
    for name, program in PROGRAMS.items():
        faults = int(arguments[0]) if arguments else program.faults
        began = time.process_time()
        explored = explore(program._replace(faults=faults))
        sys.stdout.write(
            f"{name}: {faults} faults, {explored.states:,} states, {explored.moves:,} moves,"
            f" {len(explored.ends)} ends, {time.process_time() - began:.1f} s of CPU\n"
        )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
