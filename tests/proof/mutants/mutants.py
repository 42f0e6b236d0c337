"""The mutants of `sql/`: small wrongs that somebody could write, each with the tests that notice it.

A mutant is one text in one file, replaced once. Which tests: the narrow ones, so that all mutants together take a minute; each
was seen to fail. `<file>::<test>` stands for one of `tests/sql/`, `order: <pair>` for every order of a pair of calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


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
class _File:
    """Where the next mutants are."""

    path: str

    def __call__(self, name: str, old: str, new: str, why: str, *killers: str) -> Mutant:
        return Mutant(name, self.path, old, new, why, killers)


_settle = _File("internal/settle.sql")
_check = _File("internal/check.sql")
_wake = _File("internal/wake.sql")
_entries = _File("internal/entries.sql")
_decide = _File("promise/_decide.sql")
_start = _File("promise/_start.sql")
_start_many = _File("promise/start_many.sql")
_halt = _File("operator/halt.sql")
_resume = _File("operator/resume.sql")
_purge = _File("operator/purge.sql")
_fork = _File("operator/fork.sql")
_force = _File("operator/cancel_force.sql")
_by_hand = _File("operator/settle_step.sql")
_import = _File("operator/import_journal.sql")
_commit = _File("worker/commit_step.sql")
_heartbeat = _File("worker/heartbeat.sql")
_leave = _File("worker/leave.sql")
_tick = _File("worker/tick.sql")
_claim = _File("worker/claim.sql")
_lock = _File("worker/_advance_lock.sql")
_record = _File("worker/_advance_record.sql")
_create = _File("worker/_advance_create.sql")
_end = _File("worker/_advance_end.sql")
_close = _File("worker/_close.sql")

LOCKS: Final = (
    _settle(
        "a settle locks no promise",
        "(select id from promise where id = any (p_ids) order by id for no key update) l",
        "(select id from promise where id = any (p_ids) order by id) l",
        "a wait that comes meanwhile is told by the way, without its task's lock",
        "races::test_who_waits_is_looked_for_under_the_lock",
    ),
    _settle(
        "a settle locks no task",
        "perform 1 from task where id = any (v_tasks) order by id for no key update;",
        "",
        "its event may not be the next one",
        "races::test_who_waits_is_looked_for_under_the_lock",
    ),
    _lock(
        "a turn locks no task",
        "select * from task where id = any (v_tasks || v_awaiting) order by id for no key update skip locked",
        "select * from task where id = any (v_tasks || v_awaiting) order by id",
        "two write one journal",
        "order: child x cancel by force",
    ),
    _lock(
        "a turn locks no promise",
        "select id from promise where id = any (v_ids) order by id for no key update skip locked",
        "select id from promise where id = any (v_ids) order by id",
        "a promise settles between the look and the wait",
        "order: settle x subscribe and suspend",
    ),
    _lock(
        "an end passes over awaiters that others hold",
        "(p.id is null or t.task = any (v_stuck)) then 'busy'",
        "p.id is null then 'busy'",
        "an awaiter's row is written without its lock",
        "advance::test_an_end_whose_awaiter_is_held_is_busy",
    ),
    _commit(
        "a late step judges an unlocked row",
        "where id = p_task for no key update skip locked",
        "where id = p_task",
        "a stale outcome lands",
        "order: late step x another holder",
    ),
    _halt(
        "halt judges an unlocked row",
        "where id = p_id for no key update;",
        "where id = p_id;",
        "what ended or was let go of meanwhile is parked",
        "order: suspend x halt",
    ),
    _fork(
        "fork does not hold the original",
        "where id = p_id for no key update;",
        "where id = p_id;",
        "a purge takes the journal while it is copied",
        "order: purge x fork",
    ),
    _create(
        "waits on a promise that it does not hold",
        "if not p_is_held then",
        "if false then",
        "a promise that appeared between lock and look may have settled since",
        "order: promise that appears x subscribe and suspend",
    ),
    _check(
        "any isolation level will do",
        "<> 'read committed'",
        "= 'nothing'",
        "an old snapshot sees no waits",
        "roles::test_what_changes_is_refused_with_an_old_snapshot",
    ),
    _start_many(
        "a batch inserts out of order after a purge",
        "raise no_data_found;",
        "v_answers[v_item.n] := _start(v_item.id, v_item.function, v_item.args, v_item.queue, null, null, 0, null, null, null);",
        "two batches with a purge between them deadlock",
        "order: starts x purge and the same starts",
    ),
)

FENCES: Final = (
    _lock(
        "an older epoch is as good",
        "or h.epoch <> t.epoch then 'fenced'",
        "or h.epoch < t.epoch then 'fenced'",
        "a worker that lost its task goes on writing",
        "advance::test_whoever_does_not_hold_it_changes_nothing",
    ),
    _lock(
        "past its timeout a workflow goes on",
        "when r.timeout_at <= p_now then 'fenced'",
        "when false then 'fenced'",
        "an end after the timeout",
        "advance::test_past_its_own_timeout_a_workflow_is_fenced",
    ),
    _commit(
        "a step of any epoch is recorded",
        "or v_task.epoch is distinct from p_epoch",
        "",
        "two holders of one step",
        "commit_step::test_whoever_does_not_hold_it_is_fenced",
    ),
    _commit(
        "a step after the timeout is recorded",
        "or v_task.timeout_at <= v_now then",
        "then",
        "a workflow past its timeout goes on",
        "commit_step::test_past_its_timeout_a_workflow_is_fenced",
    ),
    _claim(
        "a claim keeps the epoch",
        "epoch = t.epoch + 1",
        "epoch = greatest(t.epoch, 1)",
        "the holder before is not fenced",
        "scenarios_start::test_s17_every_late_write_is_fenced",
    ),
    _claim(
        "what is past its timeout is claimed",
        "and (t.timeout_at is null or t.timeout_at > v_now)",
        "",
        "work on what can only time out",
        "claim::test_a_task_past_its_timeout_is_not_claimed",
    ),
    _claim(
        "the dead may claim",
        "elsif v_worker.died_at is not null then",
        "elsif false then",
        "what it claims is swept at once, again and again",
        "claim::test_a_dead_worker_is_refused_for_ever",
    ),
    _tick(
        "a lease is over at once",
        "seen_at + lease < p_now",
        "seen_at < p_now",
        "live workers are taken for dead",
        "liveness::test_a_heartbeat_keeps_the_lease",
    ),
    _leave(
        "who left may come back",
        "set died_at = v_now, sleeping = false",
        "set sleeping = false",
        "a claim under way gives tasks to a process that has gone",
        "liveness::test_leaving_gives_everything_back",
    ),
    _heartbeat(
        "a heartbeat frees a claim under way",
        "and t.claimed_at < v_now - p_under_way",
        "",
        "the answer to that claim is on its way",
        "liveness::test_what_a_lost_claim_took_is_freed",
    ),
)

WAKES: Final = (
    _settle(
        "a settle gives the holder no news",
        "news = t.news or t.state = 'claimed',",
        "news = t.news,",
        "the holder suspends without having been told",
        "told::test_a_holder_has_news_until_the_next_claim_tells_it",
    ),
    _decide(
        "a cancel gives the holder no news",
        "news = t.news or t.state = 'claimed',",
        "news = t.news,",
        "the code is never told that it was canceled",
        "settle::test_the_holder_of_a_canceled_workflow_gets_news",
    ),
    _by_hand(
        "an outcome by hand gives the holder no news",
        "news = t.news or t.state = 'claimed',",
        "news = t.news,",
        "the holder goes on without it",
        "settle_step::test_s62_a_stuck_step_gets_its_outcome_and_the_workflow_goes_on",
    ),
    _claim(
        "a claim keeps the mark of news",
        "ready_at = null, news = false",
        "ready_at = null",
        "the next holder hears for ever of what it knows",
        "told::test_a_holder_has_news_until_the_next_claim_tells_it",
    ),
    _wake(
        "nobody is woken",
        "if not exists (select from worker where sleeping) then",
        "if true then",
        "a sleeper looks only when its time comes",
        "liveness::test_only_sleepers_that_know_the_lane_are_woken",
    ),
    _wake(
        "nobody is woken for what goes alone",
        "rtrim(t.lane, '!') = any (w.lanes)",
        "t.lane = any (w.lanes)",
        "a task whose holder died is heard of by nobody",
        "told::test_a_sleeper_hears_of_a_task_that_goes_alone",
    ),
    _lock(
        "a turn that was not told everything does as it says",
        "when r.last_seq <> r.seen or r.task = any (v_astray) then 'news'",
        "when r.task = any (v_astray) then 'news'",
        "it goes to sleep with news",
        "advance::test_with_news_outcomes_are_kept_and_nothing_else_is_done",
    ),
    _end(
        "an end does not look for what came",
        "where r.verdict = 'ok' and r.next = 'finish' and r.last_seq = r.told;",
        "where r.verdict = 'ok' and r.next = 'finish';",
        "a workflow ends without what its operations brought",
        "advance::test_events_beyond_the_callers_keep_it_going",
    ),
    _end(
        "a suspension does not look for what came",
        "r.next = 'suspend' and (select t.last_seq from task t where t.id = r.task) = r.told",
        "r.next = 'suspend'",
        "it sleeps with an event that it was not told",
        "advance::test_events_beyond_the_callers_keep_it_going",
    ),
    _settle(
        "what ended goes on waiting",
        "delete from wait where task = any (p_ids);",
        "",
        "a settle looks for a task that has gone",
        "operators::test_s57_a_forced_cancel_ends_it_whatever_it_does",
        "operators::test_what_it_left_open_is_owed_the_same",
    ),
    _settle(
        "one child is owed nothing",
        "where g.children > 0",
        "where g.children > 1",
        "it runs on for nobody",
        "told::test_one_promise_left_open_is_owed_a_cancel",
    ),
    _force(
        "force is forgotten where a cancel is owed already",
        "on conflict (id) do update set force = true;",
        "on conflict (id) do nothing;",
        "children are asked, and need not end",
        "operators::test_what_it_left_open_is_owed_the_same",
    ),
)

ORDERS: Final = (
    _claim(
        "the urgent wait with the others",
        "order by t.priority, t.ready_at, t.id limit share.heads",
        "order by t.ready_at, t.id limit share.heads",
        "priorities mean nothing",
        "claim::test_urgent_before_old_before_new",
    ),
    _claim(
        "a claim takes one more",
        "limit share.heads",
        "limit share.heads + 1",
        "more than there is room for",
        "races::test_claim_and_claim",
    ),
    _tick(
        "timers fire by their names",
        "order by g.fire_at, g.operation",
        "order by g.operation desc",
        "the later one is told first",
        "liveness::test_timers_fire_in_their_order",
    ),
    _tick(
        "a batch has one more",
        "order by expires_at, id limit p_limit",
        "order by expires_at, id limit p_limit + 1",
        "limits are limits",
        "liveness::test_a_batch_is_bounded_and_the_rest_comes_next",
    ),
    _entries(
        "a journal is told from one before",
        "seq > p_after",
        "seq >= p_after",
        "an event is told twice",
        "claim::test_who_keeps_the_code_gets_what_came_since",
    ),
    _entries(
        "another family's outcome is looked up",
        "_family(p_promise) = _family(p_task)",
        "p_task is not null",
        "it changes when that is purged",
        "regressions_children::test_an_event_of_a_promise_elsewhere_stays_what_it_was_when_its_id_is_used_again",
    ),
    _settle(
        "a timeout settles when it is noticed",
        "when p_settler = 'timeout' then p.timeout_at",
        "when p_settler = 'timeout' then p_now",
        "two clocks tell two stories",
        "liveness::test_timeouts_settle_wake_and_fence",
    ),
    _settle(
        "an event may stand before the last",
        "greatest(p_now, t.last_at), t.epoch",
        "p_now, t.epoch",
        "code sees time go back",
        "told::test_an_event_never_stands_before_the_last",
    ),
    _close(
        "a walk begins at the last child once more",
        "and p.id > c.after",
        "and p.id >= c.after",
        "a cursor that does not move never ends",
        "closing::test_ten_thousand_children_are_closed_in_batches",
    ),
    _record(
        "what was issued after an event told ahead is kept",
        "(r.last_seq = r.seen or o.issued <= r.seen)",
        "(r.last_seq = r.seen or o.issued >= 0)",
        "a replay would not issue it there",
        "regressions::test_what_was_issued_after_an_event_told_ahead_falls_with_it",
    ),
    _lock(
        "a timer fires before its time",
        "or r.task = any (v_early) then 'busy'",
        "then 'busy'",
        "a sleep that is shorter than asked",
        "advance::test_a_timer_before_its_instant_is_busy",
    ),
)

ATTEMPTS: Final = (
    _claim(
        "a claim is no attempt",
        "attempts = t.attempts + 1",
        "attempts = t.attempts",
        "what kills its process is given out for ever",
        "liveness::test_a_task_that_kills_its_workers_is_parked",
    ),
    _end(
        "progress is not forgotten the attempts for",
        "case when r.changed then 0 else t.attempts end",
        "t.attempts",
        "a long workflow is parked for deploys",
        "advance::test_release_costs_no_attempt_and_progress_forgets_them",
    ),
    _end(
        "a release costs an attempt",
        "case when c.charged then t.attempts else greatest(t.attempts - 1, 0) end",
        "t.attempts",
        "a deploy parks innocents",
        "advance::test_release_costs_no_attempt_and_progress_forgets_them",
    ),
    _leave(
        "leaving costs an attempt",
        "attempts = greatest(attempts - 1, 0)",
        "attempts = attempts",
        "a deploy parks innocents",
        "liveness::test_leaving_gives_everything_back",
    ),
    _heartbeat(
        "a lost claim costs an attempt",
        "attempts = greatest(t.attempts - 1, 0)",
        "attempts = t.attempts",
        "a bad network parks innocents",
        "liveness::test_what_a_lost_claim_took_is_freed",
    ),
    _commit(
        "a transaction is no progress",
        "last_at = greatest(v_now, t.last_at), attempts = 0",
        "last_at = greatest(v_now, t.last_at)",
        "a workflow of transactions is parked for deploys",
        "commit_step::test_effect_and_event_become_true_together",
    ),
    _resume(
        "a resumed one keeps its attempts",
        "reason = null, attempts = 0",
        "reason = null",
        "it is parked again by the next death",
        "operators::test_a_workflow_is_parked_and_sent_on",
    ),
    _tick(
        "the suspect is not claimed alone",
        "case when t.attempts > 0 then '!' else '' end",
        "''",
        "it takes its neighbours with it",
        "claim::test_a_task_whose_holder_died_goes_alone",
    ),
)

GUARDS: Final = (
    _decide(
        "another outcome is the same",
        "elsif v_promise.state = p_state and _same(v_promise, v_payload, p_headers, p_digest) then",
        "elsif v_promise.state = p_state then",
        "the second decider believes that it won",
        "settle::test_the_same_outcome_again_is_a_success_and_another_a_conflict_that_shows_the_winner",
    ),
    _decide(
        "what the timeout decided is anybody's",
        "(p).settler <> 'timeout' and case",
        "case",
        "a late decision seems to have been in time",
        "told::test_what_the_timeout_decided_is_nobodys",
    ),
    _decide(
        "a late settle is accepted",
        "if v_promise.expires_at <= p_now then",
        "if v_promise.expires_at is null and p_now is null then",
        "settled after the timeout",
        "settle::test_from_its_timeout_on_nobody_settles_a_promise",
    ),
    _decide(
        "what never ran is asked to cancel",
        "elsif v_task.epoch > 0 then",
        "elsif v_task.epoch >= 0 then",
        "an event before the code has begun",
        "settle::test_s58_a_workflow_that_never_ran_is_canceled_at_once",
    ),
    _decide(
        "a second cancel is a click that came twice",
        "interval '1 second'",
        "interval '1 minute'",
        "clean-up that hangs cannot be interrupted",
        "told::test_a_second_cancel_is_told_once_the_first_was",
    ),
    _start(
        "any start attaches",
        "(p).function = p_function and case",
        "case",
        "another function's result",
        "start::test_another_function_or_other_arguments_are_a_conflict",
    ),
    _purge(
        "what is owed a cancel is purged",
        "or (select c.since from closing c where c.id = p.id) is not null",
        "",
        "children that nobody cancels",
        "operators::test_what_is_owed_a_cancel_stays_until_it_had_it",
    ),
    _purge(
        "a purge leaves the journal",
        "delete from checkpoint where task = any (v_ids);",
        "",
        "the next workflow of that ID begins with it",
        "operators::test_once_purged_an_id_is_free",
    ),
    _fork(
        "a fork takes a cancel along",
        "if v_canceled <= v_upto then",
        "if v_canceled < v_upto then",
        "it is canceled before it begins",
        "fork::test_behind_a_request_to_cancel_there_is_no_fork",
    ),
    _by_hand(
        "the wait for a retry stays",
        "delete from wait where task = p_task.id and operation = p_operation;",
        "",
        "a step with an outcome is run again",
        "settle_step::test_a_retry_that_it_waited_for_is_not_due_any_more",
    ),
    _import(
        "an entry may be issued after itself",
        "when e.issued not between 0 and e.n - 1 then",
        "when e.issued not between 0 and e.n then",
        "a journal that could not have been",
        "import::test_a_journal_that_could_not_have_been",
    ),
    _create(
        "a child outlasts its parent",
        "case when f.kind = 'call' then least(p_now + _span(f.timeout), f.until)",
        "case when f.kind = 'call' then p_now + _span(f.timeout)",
        "nobody waits for it any more",
        "children::test_a_call_never_outlasts_its_parent_and_a_start_does",
    ),
    _create(
        "a workflow may wait for itself",
        "when w.kind = 'wait' and w.id = w.task then",
        "when w.kind = 'wait' and w.id is null then",
        "it never ends",
        "advance::test_a_wrong_thing_halts_with_its_reason",
    ),
    _end(
        "anybody's child is given up",
        "and parent = c.task offset 0) p",
        "offset 0) p",
        "a workflow cancels what is not its own",
        "closing::test_children_given_up_are_canceled_one_by_one",
    ),
    _close(
        "what has begun is ended without being asked",
        "and (p.function is null or h.id is not null and (p_force or h.epoch = 0))",
        "and (p.function is null or h.id is not null)",
        "no clean-up runs",
        "closing::test_by_what_it_is_each_child_has_its_end",
    ),
    _check(
        "an ID is one longer",
        "elsif length(p_id) > p_length_max then",
        "elsif length(p_id) > p_length_max + 1 then",
        "no room for what it makes",
        "start::test_refused_at_the_door",
    ),
    _check(
        "an ID is one shorter",
        "elsif length(p_id) > p_length_max then",
        "elsif length(p_id) >= p_length_max then",
        "limits are limits",
        "start::test_accepted_at_the_brim",
    ),
    _check(
        "a value is one level deeper",
        "strict $.**{100 to last}",
        "strict $.**{101 to last}",
        "limits are limits",
        "start::test_a_payload_has_a_hundred_levels_and_no_more",
    ),
    _check(
        "anybody acts as the workflow",
        "if p_actor in ('timeout', 'worker', 'workflow') then",
        "if p_actor in ('timeout', 'worker') then",
        "a person's decision looks like the engine's",
        "settle::test_nobody_settles_in_the_name_of_the_engine",
    ),
)

MUTANTS: Final = (*LOCKS, *FENCES, *WAKES, *ORDERS, *ATTEMPTS, *GUARDS)
