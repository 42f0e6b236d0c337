"""Mutants of what is told, in which order, and of how attempts are counted."""

from __future__ import annotations

from typing import Final

from tests.proof.mutants.mutant import (
    by_hand_sql,
    claim_sql,
    close_sql,
    commit_sql,
    decide_sql,
    end_sql,
    entries_sql,
    force_sql,
    heartbeat_sql,
    leave_sql,
    lock_sql,
    record_sql,
    resume_sql,
    settle_sql,
    tick_sql,
    wake_sql,
)

WAKES: Final = (
    settle_sql(
        "a settle gives the holder no news",
        "news = t.news or t.state = 'claimed',",
        "news = t.news,",
        "the holder suspends without having been told",
        "told::test_a_holder_has_news_until_the_next_claim_tells_it",
    ),
    decide_sql(
        "a cancel gives the holder no news",
        "news = t.news or t.state = 'claimed',",
        "news = t.news,",
        "the code is never told that it was canceled",
        "settle::test_the_holder_of_a_canceled_workflow_gets_news",
    ),
    by_hand_sql(
        "an outcome by hand gives the holder no news",
        "news = t.news or t.state = 'claimed',",
        "news = t.news,",
        "the holder goes on without it",
        "settle_step::test_s62_a_stuck_step_gets_its_outcome_and_the_workflow_goes_on",
    ),
    claim_sql(
        "a claim keeps the mark of news",
        "ready_at = null, news = false",
        "ready_at = null",
        "the next holder hears for ever of what it knows",
        "told::test_a_holder_has_news_until_the_next_claim_tells_it",
    ),
    wake_sql(
        "nobody is woken",
        "if not exists (select from worker where sleeping) then",
        "if true then",
        "a sleeper looks only when its time comes",
        "liveness::test_only_sleepers_that_know_the_lane_are_woken",
    ),
    wake_sql(
        "nobody is woken for what goes alone",
        "rtrim(t.lane, '!') = any (w.lanes)",
        "t.lane = any (w.lanes)",
        "a task whose holder died is heard of by nobody",
        "told::test_a_sleeper_hears_of_a_task_that_goes_alone",
    ),
    lock_sql(
        "a turn that was not told everything does as it says",
        "when r.last_seq <> r.seen or r.task = any (v_astray) then 'news'",
        "when r.task = any (v_astray) then 'news'",
        "it goes to sleep with news",
        "advance::test_with_news_outcomes_are_kept_and_nothing_else_is_done",
    ),
    end_sql(
        "an end does not look for what came",
        "where r.verdict = 'ok' and r.next = 'finish' and r.last_seq = r.told;",
        "where r.verdict = 'ok' and r.next = 'finish';",
        "a workflow ends without what its operations brought",
        "advance::test_events_beyond_the_callers_keep_it_going",
    ),
    end_sql(
        "a suspension does not look for what came",
        "r.next = 'suspend' and (select t.last_seq from task t where t.id = r.task) = r.told",
        "r.next = 'suspend'",
        "it sleeps with an event that it was not told",
        "advance::test_events_beyond_the_callers_keep_it_going",
    ),
    settle_sql(
        "what ended goes on waiting",
        "delete from wait where task = any (p_ids);",
        "",
        "a settle looks for a task that has gone",
        "operators::test_s57_a_forced_cancel_ends_it_whatever_it_does",
        "operators::test_what_it_left_open_is_owed_the_same",
    ),
    settle_sql(
        "one child is owed nothing",
        "where g.children > 0",
        "where g.children > 1",
        "it runs on for nobody",
        "told::test_one_promise_left_open_is_owed_a_cancel",
    ),
    force_sql(
        "force is forgotten where a cancel is owed already",
        "on conflict (id) do update set force = true;",
        "on conflict (id) do nothing;",
        "children are asked, and need not end",
        "operators::test_what_it_left_open_is_owed_the_same",
    ),
)


ORDERS: Final = (
    claim_sql(
        "the urgent wait with the others",
        "order by t.priority, t.ready_at, t.id limit share.heads",
        "order by t.ready_at, t.id limit share.heads",
        "priorities mean nothing",
        "claim::test_urgent_before_old_before_new",
    ),
    claim_sql(
        "a claim takes one more",
        "limit share.heads",
        "limit share.heads + 1",
        "more than there is room for",
        "races::test_claim_and_claim",
    ),
    tick_sql(
        "timers fire by their names",
        "order by g.fire_at, g.operation",
        "order by g.operation desc",
        "the later one is told first",
        "liveness::test_timers_fire_in_their_order",
    ),
    tick_sql(
        "a batch has one more",
        "order by expires_at, id limit p_limit",
        "order by expires_at, id limit p_limit + 1",
        "limits are limits",
        "liveness::test_a_batch_is_bounded_and_the_rest_comes_next",
    ),
    entries_sql(
        "a journal is told from one before",
        "seq > p_after",
        "seq >= p_after",
        "an event is told twice",
        "claim::test_who_keeps_the_code_gets_what_came_since",
    ),
    entries_sql(
        "another family's outcome is looked up",
        "_family(p_promise) = _family(p_task)",
        "p_task is not null",
        "it changes when that is purged",
        "regressions_children::test_an_event_of_a_promise_elsewhere_stays_what_it_was_when_its_id_is_used_again",
    ),
    settle_sql(
        "a timeout settles when it is noticed",
        "when p_settler = 'timeout' then p.timeout_at",
        "when p_settler = 'timeout' then p_now",
        "two clocks tell two stories",
        "liveness::test_timeouts_settle_wake_and_fence",
    ),
    settle_sql(
        "an event may stand before the last",
        "greatest(p_now, t.last_at), t.epoch",
        "p_now, t.epoch",
        "code sees time go back",
        "told::test_an_event_never_stands_before_the_last",
    ),
    close_sql(
        "a walk begins at the last child once more",
        "and p.id > c.after",
        "and p.id >= c.after",
        "a cursor that does not move never ends",
        "closing::test_ten_thousand_children_are_closed_in_batches",
    ),
    record_sql(
        "what was issued after an event told ahead is kept",
        "(r.last_seq = r.seen or o.issued <= r.seen)",
        "(r.last_seq = r.seen or o.issued >= 0)",
        "a replay would not issue it there",
        "regressions::test_what_was_issued_after_an_event_told_ahead_falls_with_it",
    ),
    lock_sql(
        "a timer fires before its time",
        "or r.task = any (v_early) then 'busy'",
        "then 'busy'",
        "a sleep that is shorter than asked",
        "advance::test_a_timer_before_its_instant_is_busy",
    ),
)


ATTEMPTS: Final = (
    claim_sql(
        "a claim is no attempt",
        "attempts = t.attempts + 1",
        "attempts = t.attempts",
        "what kills its process is given out for ever",
        "liveness::test_a_task_that_kills_its_workers_is_parked",
    ),
    end_sql(
        "progress is not forgotten the attempts for",
        "case when r.changed then 0 else t.attempts end",
        "t.attempts",
        "a long workflow is parked for deploys",
        "advance::test_release_costs_no_attempt_and_progress_forgets_them",
    ),
    end_sql(
        "a release costs an attempt",
        "case when c.charged then t.attempts else greatest(t.attempts - 1, 0) end",
        "t.attempts",
        "a deploy parks innocents",
        "advance::test_release_costs_no_attempt_and_progress_forgets_them",
    ),
    leave_sql(
        "leaving costs an attempt",
        "attempts = greatest(attempts - 1, 0)",
        "attempts = attempts",
        "a deploy parks innocents",
        "liveness::test_leaving_gives_everything_back",
    ),
    heartbeat_sql(
        "a lost claim costs an attempt",
        "attempts = greatest(t.attempts - 1, 0)",
        "attempts = t.attempts",
        "a bad network parks innocents",
        "liveness::test_what_a_lost_claim_took_is_freed",
    ),
    commit_sql(
        "a transaction is no progress",
        "last_at = greatest(v_now, t.last_at), attempts = 0",
        "last_at = greatest(v_now, t.last_at)",
        "a workflow of transactions is parked for deploys",
        "commit_step::test_effect_and_event_become_true_together",
    ),
    resume_sql(
        "a resumed one keeps its attempts",
        "reason = null, attempts = 0",
        "reason = null",
        "it is parked again by the next death",
        "operators::test_a_workflow_is_parked_and_sent_on",
    ),
    tick_sql(
        "the suspect is not claimed alone",
        "case when t.attempts > 0 then '!' else '' end",
        "''",
        "it takes its neighbours with it",
        "claim::test_a_task_whose_holder_died_goes_alone",
    ),
)
