"""How often a run put each invariant to the test: a table at its end, and a failure where one was never met.

A rule that nothing came near was not tested, however green the run. Counted are the situations that a test left behind
(`situations.sql`), the changes that its calls made (`judged.sql`) and their answers (`answers.py`); each in every test
whose database has the log of changes. The table stands at the end of every run that counted anything. A zero fails the
run only if all tests of the functions were in it, with the log: a single file reaches what it reaches.

Under pytest-xdist each process counts for itself and tells the first one at its end.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

REACH: Final = "troth-reach"

NOT_BUILT: Final = {
    "I42": "no function writes schedules yet",
    "I43": "no function writes schedules yet",
    "I49": "there are no links yet",
    "I51": "a ledger of effects is kept where real workers are killed (tests/proof/chaos)",
}
"""What no function can reach, and why."""

EVERY: Final = tuple(f"I{n}" for n in range(1, 53))

Reached = Mapping[tuple[str, str], int]


class Reach:
    """The plugin, one in each process; `tests/conftest.py` registers it."""

    def __init__(self, whole: Path) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.is_whole = False
        self._folder = whole
        self._some_left_out = False

    def add(self, reached: Reached) -> None:
        """What one test has met; kinds that it has not met come with 0, so that they are known."""
        for key, times in reached.items():
            self.counts[key] += times

    def never(self) -> list[str]:
        """What was not met at all."""
        return never(self.counts)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._some_left_out = self._some_left_out or bool(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        there = {item.path for item in session.items}
        self.is_whole = (
            os.environ.get("TROTH_TEST_CHANGES") != "none"
            and not self._some_left_out
            and not any("::" in each for each in session.config.args)
            and there.issuperset(self._folder.glob("test_*.py"))
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[REACH] = [self.is_whole, [[*key, times] for key, times in self.counts.items()]]
        elif self.is_whole and exitstatus == pytest.ExitCode.OK and self.never():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A process has ended; one that died has said nothing, and the run has failed by that."""
        whole, counts = getattr(node, "workeroutput", {}).get(REACH, (False, []))
        self.is_whole = self.is_whole or whole
        self.add({(inv, kind): times for inv, kind, times in counts})

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not sum(self.counts.values()):
            return
        terminalreporter.section("how often each invariant was put to the test")
        for line in table(self.counts):
            terminalreporter.write_line(line)
        missing = self.never()
        if missing and self.is_whole:
            terminalreporter.write_line(f"NEVER MET, so not tested: {'; '.join(missing)}", red=True)


def never(counts: Reached) -> list[str]:
    """The kinds that were not met, and the invariants of which nothing was counted at all."""
    kinds = [f"{inv} ({kind})" for (inv, kind), times in counts.items() if not times]
    known = {inv for inv, _ in counts}
    missing = [*(each for each in EVERY if each not in known), *kinds]
    return [each for each in missing if each.split()[0] not in NOT_BUILT]


def table(counts: Reached) -> list[str]:
    """One line an invariant: how often in all, and of which kind how often."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    total: Counter[str] = Counter()
    for (inv, kind), times in counts.items():
        total[inv] += times
        kinds[inv].append(f"{kind} {times:,}")
    return [f"{inv:<4}{total[inv]:>10,}  {', '.join(_kinds(inv, kinds[inv], total[inv]))}" for inv in EVERY]


def _kinds(inv: str, kinds: Iterable[str], total: int) -> Iterable[str]:
    return [NOT_BUILT[inv]] if inv in NOT_BUILT and not total else sorted(kinds)
