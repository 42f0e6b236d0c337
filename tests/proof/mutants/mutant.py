"""What a mutant of `sql/` is: a small wrong that somebody could write, with the tests that notice it.

A mutant is one text in one file, replaced once. Which tests: the narrow ones, so that all mutants together take a minute; each
was seen to fail. `<file>::<test>` stands for one of `tests/sql/`, `order: <pair>` for every order of a pair of calls.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One wrong: the file of `sql/`, what stands in it once, what stands there instead, and which tests kill it."""

    name: str
    file: str
    old: str
    new: str
    why: str
    killers: tuple[str, ...]

    @property
    def tests(self) -> list[str]:
        """The killers as pytest names them."""
        return [_node(each) for each in self.killers]


def _node(killer: str) -> str:
    if killer.startswith("order: "):
        return f"tests/proof/races/test_schedules.py::test_every_order[{killer.removeprefix('order: ')}]"
    file, test = killer.split("::")
    return f"tests/sql/test_{file}.py::{test}"


@dataclass(frozen=True)
class File:
    """Where the next mutants are."""

    path: str

    def __call__(self, name: str, old: str, new: str, why: str, *killers: str) -> Mutant:
        return Mutant(name, self.path, old, new, why, killers)


settle_sql = File("internal/settle.sql")
latent_sql = File("internal/settle_latent.sql")
check_sql = File("internal/check.sql")
wake_sql = File("internal/wake.sql")
entries_sql = File("internal/entries.sql")
decide_sql = File("promise/_decide.sql")
start_sql = File("promise/_start.sql")
start_each_sql = File("promise/start_each.sql")
start_many_sql = File("promise/start_many.sql")
start_together_sql = File("promise/start_together.sql")
halt_sql = File("operator/halt.sql")
resume_sql = File("operator/resume.sql")
purge_sql = File("operator/purge.sql")
fork_sql = File("operator/fork.sql")
force_sql = File("operator/cancel_force.sql")
by_hand_sql = File("operator/settle_step.sql")
import_sql = File("operator/import_journal.sql")
commit_sql = File("worker/commit_step.sql")
heartbeat_sql = File("worker/heartbeat.sql")
leave_sql = File("worker/leave.sql")
tick_sql = File("worker/tick.sql")
claim_sql = File("worker/claim.sql")
lock_sql = File("worker/_advance_lock.sql")
record_sql = File("worker/_advance_record.sql")
create_sql = File("worker/_advance_create.sql")
end_sql = File("worker/_advance_end.sql")
close_sql = File("worker/_close.sql")
