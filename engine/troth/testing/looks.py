"""How a namespace stands, seen from outside: what is due, what is going on, and what waits for what.

One statement reads it all, so that what it tells was true at one moment. It reads tables, which is a right of the namespace's
owner and of superusers; that is who tests run as.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast

from psycopg import Connection

_STANDING: Final = """
with moment as materialized (select _clock() as now),
task_waits as (
  select w.task, jsonb_agg(jsonb_build_array(w.operation, w.kind, w.promise, w.fire_at) order by w.operation) as waits
    from wait w group by w.task)
select (select now from moment) as now,
  (select count(*) from promise, moment where expires_at <= now)
    + (select count(*) from wait w join task t on t.id = w.task, moment
        where w.fire_at <= now and t.state in ('suspended', 'claimed')) as due,
  (select count(*) from closing) as closing,
  (select count(*) from task t where t.state = 'claimed' and t.worker <> all (%(dead)s)) as claimed,
  (select count(*) from task t join worker w on w.id = t.worker, moment
    where t.worker = any (%(dead)s) or w.died_at is not null) as orphaned,
  (select count(*) from task t where t.state = 'ready' and (
     t.queue || ' ' || rtrim(t.lane, '!') = any (%(lanes)s)
     or exists (select from worker w where w.died_at is null and w.id <> all (%(dead)s)
                 and t.queue = any (w.queues) and rtrim(t.lane, '!') = any (w.lanes)))) as claimable,
  least((select min(expires_at) from promise),
        (select min(w.fire_at) from wait w join task t on t.id = w.task where t.state = 'suspended')) as next_due,
  (select coalesce(jsonb_agg(jsonb_build_array(t.id, p.function, t.state, t.queue, t.reason, x.waits) order by t.id), '[]')
     from task t join promise p on p.id = t.id left join task_waits x on x.task = t.id) as tasks
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing that a workflow waits for: a promise, or an instant."""

    operation: str
    kind: str
    promise: str | None
    due_at: datetime | None

    def __str__(self) -> str:
        if self.promise is not None:
            return f"promise {self.promise}"
        return f"{self.kind} {self.operation}, due at {self.due_at:%Y-%m-%d %H:%M:%S}"


@dataclass(frozen=True, slots=True)
class Resting:
    """A workflow that goes on only when something happens: `state` is suspended, halted, or ready for nobody."""

    id: str
    function: str
    state: str
    queue: str
    reason: Mapping[str, Any] | None
    waits: tuple[Waiting, ...]

    @property
    def promises(self) -> list[str]:
        """The IDs of the promises that it waits for."""
        return [each.promise for each in self.waits if each.promise is not None]

    def __str__(self) -> str:
        match self.state:
            case "halted":
                reason = self.reason or {}
                why = f"halted ({reason.get('code')}): {reason.get('message')}"
            case "ready":
                why = (
                    f"ready in queue {self.queue!r}, and no worker of this test runs {self.function!r} there"
                )
            case _:
                why = "waits for " + (" and ".join(str(each) for each in self.waits) or "nothing")
        return f"{self.id} ({self.function}) {why}"


@dataclass(frozen=True, eq=False)
class Idle(Mapping[str, Resting]):
    """The workflows that are not done, by ID, once nothing moves any more: which wait, and for what.

    idle = await troth_env.run_until_idle()
    assert idle["order-42"].promises == ["order-42~approval"]
    """

    workflows: Mapping[str, Resting] = field(default_factory=dict[str, Resting])
    now: datetime | None = None

    def __getitem__(self, id: str) -> Resting:
        return self.workflows[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.workflows)

    def __len__(self) -> int:
        return len(self.workflows)

    @property
    def suspended(self) -> list[Resting]:
        """Those that wait for promises or instants."""
        return [each for each in self.workflows.values() if each.state == "suspended"]

    @property
    def halted(self) -> list[Resting]:
        """Those that are parked with a reason, until somebody resumes them."""
        return [each for each in self.workflows.values() if each.state == "halted"]

    def __str__(self) -> str:
        return "\n".join(str(each) for each in self.workflows.values()) or "no workflow is under way"


@dataclass(frozen=True, slots=True)
class Standing:
    """What one look saw. Counts, and the instant that is due next, which may be past."""

    now: datetime
    due: int
    closing: int
    claimed: int
    orphaned: int
    claimable: int
    next_due: datetime | None
    workflows: Mapping[str, Resting]

    @property
    def busy(self) -> bool:
        """Something goes on, or can."""
        return bool(self.due or self.claimed or self.orphaned or self.claimable)

    @property
    def idle(self) -> Idle:
        return Idle(self.workflows, self.now)

    def __str__(self) -> str:
        counts = {
            "due": self.due,
            "claimed": self.claimed,
            "held by the dead": self.orphaned,
            "ready": self.claimable,
            "owed a cancel": self.closing,
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing"


def standing(connection: Connection[Any], lanes: Collection[str], dead: Collection[str]) -> Standing:
    """Look. `lanes`: what this test's workers take, as `queue lane`; `dead`: the IDs of workers that were killed."""
    row = connection.execute(_STANDING, {"lanes": list(lanes), "dead": list(dead)}).fetchone()
    assert row is not None
    *counts, next_due, tasks = row
    found = [_resting(each) for each in cast("list[list[Any]]", tasks)]
    now, due, closing, claimed, orphaned, claimable = counts
    workflows = {each.id: each for each in found}
    return Standing(now, due, closing, claimed, orphaned, claimable, next_due, workflows)


def _resting(told: list[Any]) -> Resting:
    id, function, state, queue, reason, waits = told
    return Resting(id, function, state, queue, reason, tuple([_waiting(each) for each in waits or ()]))


def _waiting(told: list[Any]) -> Waiting:
    operation, kind, promise, due = told
    return Waiting(operation, kind, promise, None if due is None else datetime.fromisoformat(due))
