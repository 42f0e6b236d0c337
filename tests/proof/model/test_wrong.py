"""Wrong engines and wrong oracles are noticed: each of these breaks one rule, and a run goes red."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.proof.model import clients, settling, ticking, workers
from tests.proof.model.rows import Limits
from tests.proof.model.running import Failure, Reached, read, replay, run
from tests.proof.model.state import State
from tests.proof.model.subject import Subject

RUNS_MAX = 150
STEPS = 60

pytestmark = pytest.mark.broken_on_purpose("wrong engines")

ENGINES = [
    ("_deliver", "news = t.news or t.state = 'claimed'", "news = t.news"),
    ("_deliver", "when t.state = 'suspended' then 'ready'", "when t.state = 'nowhere' then 'ready'"),
    ("_deliver", "order by g.promise, g.operation", "order by g.promise desc, g.operation"),
    ("_settle", "g.children > 0", "g.children > 1"),
    ("_time_out", "p.timeout_at <= v_now", "p.timeout_at < v_now"),
    ("_decide", "v_promise.state = p_state and _same", "v_promise.state = p_state or _same"),
    ("_next_cancel", "interval '1 second'", "interval '1 minute'"),
    ("_cancel_children", "h.epoch > 0 and", "h.epoch > 1 and"),
    ("_start", "order by f.version desc", "order by f.version"),
    ("_append_outcomes", "or o.issued <= r.seen", "or true"),
    ("_lock_turns", "or h.epoch <> t.epoch then 'fenced'", "then 'fenced'"),
    ("_suspend_turns", "kept_by = case when w.keep then t.worker end", "kept_by = t.worker"),
    ("_tick_timers", "where task = any (v_ids) and fire_at <= v_now", "where task = any (v_ids) and fire_at < v_now"),
    ("_bury_workers", "when t.attempts > 0 then '!'", "when t.attempts > 1 then '!'"),
    ("claim", "order by t.priority, t.ready_at, t.id limit share.heads", "order by t.id desc limit share.heads"),
    ("heartbeat", "attempts = greatest(t.attempts - 1, 0)", "attempts = t.attempts"),
    ("resume", "attempts = 0", "attempts = attempts"),
    ("purge", "delete from checkpoint where task = any (v_ids)", "delete from checkpoint where task = any (null)"),
    ("commit_step", "attempts = 0", "attempts = attempts"),
    ("_fork_point", "c.seq - 1", "c.seq"),
]  # fmt: skip


def _runs(subject: Subject, *, shorten: bool = False) -> None:
    for seed in range(RUNS_MAX):
        run(subject, seed, STEPS, Limits(), Reached(), shorten=shorten)


@pytest.mark.parametrize(("function", "right", "wrong"), ENGINES)
def test_a_wrong_engine_is_noticed(dsn: str, function: str, right: str, wrong: str) -> None:
    subject = Subject(dsn, Limits())
    try:
        subject.change(function, right, wrong)
        with pytest.raises(Failure):
            _runs(subject)
    finally:
        subject.close()


def _no_news(state: State, task: Any, events: int = 1) -> None:
    state.put_task(task, last_seq=task.last_seq + events, last_at=max(state.now, task.last_at or 0))


ORACLES: list[tuple[Any, str, Callable[..., Any]]] = [
    (settling, "told", _no_news),
    (clients, "normal", lambda args: args),
    (workers, "_attempts", lambda *_: []),
    (ticking, "_bury", lambda *_: 0),
]


@pytest.mark.parametrize(("module", "name", "wrong"), ORACLES, ids=[name for _, name, _ in ORACLES])
def test_a_wrong_oracle_is_noticed(
    dsn: str, module: Any, name: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, wrong)
    subject = Subject(dsn, Limits())
    try:
        with pytest.raises(Failure):
            _runs(subject)
    finally:
        subject.close()


def test_a_failure_can_be_replayed_from_what_it_shows(dsn: str) -> None:
    subject = Subject(dsn, Limits())
    try:
        subject.change("resume", "attempts = 0", "attempts = attempts + 1")
        with pytest.raises(Failure) as caught:
            _runs(subject, shorten=True)
        shown = [line for line in str(caught.value).splitlines() if line.startswith("{")]
        assert len(shown) < STEPS
        assert replay(subject, Limits(), read(shown)) is not None
        subject.change("resume", "attempts = attempts + 1", "attempts = 0")
        assert replay(subject, Limits(), read(shown)) is None
    finally:
        subject.close()
