"""Which invariant is judged where, and by how many violators it is known to be caught: the table of docs/reliability.md.

It is read off the rules themselves: `python -m tests.proof.invariants.held` prints it, and a test compares the page.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import troth.testing.violations as states
from tests.proof.invariants.answers import KINDS
from tests.proof.invariants.reach import EVERY, NOT_BUILT
from tests.proof.invariants.violators import CHANGES
from tests.sql.test_violations import VIOLATORS

HEAD = (
    "| invariant | judged in each state | between two states | in answers | violators |",
    "|---|---|---|---|---|",
)


def lines() -> list[str]:
    """The table, as Markdown."""
    here = Path(__file__).parent
    of_states = _branches(Path(states.__file__).with_name("violations.sql"))
    of_pairs = _branches(here / "transitions.sql")
    of_answers = Counter(inv for inv, kind in KINDS if not kind.startswith("asked"))
    caught = Counter(each.split()[0] for each in (*VIOLATORS, *CHANGES))
    rows = []
    for inv in EVERY:
        cells = [_rules(found[inv]) for found in (of_states, of_pairs, of_answers)]
        if inv == "I52":
            cells[1] = "a join of two logs"
        if not any(cells):
            cells[0] = NOT_BUILT[inv]
        rows.append(f"| {inv} | {' | '.join(cells)} | {caught[inv] or ''} |")
    return [*HEAD, *rows]


def _branches(file: Path) -> Counter[str]:
    return Counter(re.findall(r"select '(I\d+)'", file.read_text("utf-8")))


def _rules(times: int) -> str:
    return "" if not times else "1 rule" if times == 1 else f"{times} rules"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
