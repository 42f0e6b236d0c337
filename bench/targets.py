"""What Troth is held to, as ratios in one run on one machine, or as bounds that no machine changes."""

from __future__ import annotations

from typing import Final, NamedTuple


class Key(NamedTuple):
    """A figure of a work; where a name ends in an amount, what it begins with."""

    work: str
    figure: str


class Over(NamedTuple):
    """What Troth's figure is divided by."""

    system: str
    key: Key


class Target(NamedTuple):
    """One of them. `aim` is what it would be good to reach, and no one is blamed for missing."""

    what: str
    key: Key
    over: Over | None = None
    least: float | None = None
    most: float | None = None
    aim: bool = False

    @property
    def wanted(self) -> str:
        bound = f"≥ {self.least:,g}" if self.least is not None else f"≤ {self.most:,g}"
        return f"{bound}, an aim" if self.aim else bound

    def met(self, reached: float) -> bool:
        return (self.least is None or reached >= self.least) and (self.most is None or reached <= self.most)


DRAIN: Final = Key("drain", "workflows/s")
STEPS: Final = Key("steps", "steps/s")
P50: Final = Key("decide", "decide p50 ms")
P99: Final = Key("decide", "decide p99 ms")
CONTINUED: Final = Key("continue", "continued/s")
SINGLE: Final = Key("starts", "starts/s, single")
BATCHED: Final = Key("starts", "starts/s, batched")
HTTP: Final = Key("http", "HTTP start + wait/s")
TRANSACTIONS: Final = Key("transactions", "workflows with one")

TARGETS: Final[tuple[Target, ...]] = (
    Target("one-step workflows/s, × DBOS", DRAIN, Over("dbos", DRAIN), least=30),
    Target("one-step workflows/s, × Absurd", DRAIN, Over("absurd", DRAIN), least=8),
    Target("one-step workflows/s, × floor", DRAIN, Over("floor", DRAIN), least=0.5, aim=True),
    Target("steps/s, × DBOS", STEPS, Over("dbos", STEPS), least=50),
    Target("steps/s, × Absurd", STEPS, Over("absurd", STEPS), least=12),
    Target("steps/s, × floor", STEPS, Over("floor", STEPS), least=0.5, aim=True),
    Target("a decision until code goes on, p50, × floor", P50, Over("floor", P50), most=1.5),
    Target("a decision until code goes on, p99, × floor", P99, Over("floor", P99), most=2),
    Target("continued/s at 16 deciders, × floor", CONTINUED, Over("floor", CONTINUED), least=0.8),
    Target("starts/s at 16 callers, × floor", SINGLE, Over("floor", SINGLE), least=0.8),
    Target("starts/s in batches, × floor", BATCHED, Over("floor", BATCHED), least=0.4),
    Target(
        "workflows/s in a crowd, × without", Key("crowd", "workflows/s"), Over("troth", DRAIN), least=0.85
    ),
    Target(
        "workflows/s in a crowd under a held snapshot, × without",
        Key("held", "workflows/s under"),
        Over("troth", DRAIN),
        least=0.5,
    ),
    Target("statements/s of an idle worker", Key("idle", "transactions/s"), most=2),
    Target("CPU of an idle worker, %", Key("idle", "CPU of an idle"), most=0.5),
    Target("two worker processes, × one", Key("2 workers", "workflows/s"), Over("troth", DRAIN), least=1.2),
    Target("commits for each one-step workflow", Key("drain", "commits/workflow"), most=0.1),
    Target("Postgres' CPU, s for 1,000 one-step workflows", Key("drain", "Postgres CPU"), most=0.3),
    Target("bytes of a finished one-step workflow", Key("growth", "bytes/finished"), most=900),
    Target("`task` after 1,000,000 workflows, × after 10,000", Key("growth", "the one / the other"), most=3),
    Target("memory of a worker, 100,000 in flight, MB", Key("memory", "worker's memory at most"), most=500),
    Target("children/s, fan-out of 10,000", Key("children", "children/s"), least=3000),
    Target("`ctx.transaction`/s", TRANSACTIONS, least=1500),
    Target("HTTP start + wait/s, one API process", HTTP, least=1500),
)
