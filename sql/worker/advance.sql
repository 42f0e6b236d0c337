-- One call for the turns of many workflows: what their steps brought, what their code asked for, and how each goes on. Every
-- turn is judged by itself; a bad one changes nothing of its neighbours. Never waits for a row: `busy` means send it again.
--
-- p_turns      {"task", "epoch", "seen", "then": null | "suspend" | "finish" | "release" | "halt",
--               finish: "state", "value", "error", "headers", "digest"; halt: "reason"; release: "charged";
--               suspend: "keep" (this worker keeps the code in memory);
--               suspend or nothing: "close" (the code has ended: its children are owed a cancel);
--               nothing: "asked" (with this turn all that the code asked for up to what it was told is recorded)}  one per task
-- p_outcomes   {"task", "operation", "kind": "step" | "timer" | "patch", "issued", "cohort", "digest", "state", "value",
--               "error", "headers", "at", "micros", "retried" (its retry wait goes)}
-- p_operations {"task", "operation", "kind": "promise" | "wait" | "call" | "start", "issued", "cohort", "digest", "title",
--               "tags", "timeout" (microseconds), "promise" (whose ID; of a call or start: given, or null);
--               promise: "default", "has_default", "default_headers";
--               call, start: "function", "args", "args_headers", "args_digest" (hex), "queue", "priority", "delay"}
-- p_timers     {"task", "operation", "kind": "timer" | "retry", "issued", "cohort", "digest", "micros"}: all that are open,
--               of the tasks that suspend; a timer counts from the event it was issued after, a retry from now
-- p_attempts   {"task", "operation", "number", "error", "details", "ended", "retry_in", "elapsed"} (microseconds)
-- p_cancels    {"task", "promise"}: children that the code gave up
--
-- Answers, one per turn:
--   fenced  not claimed with that epoch, gone, or past its timeout: nothing was written, let go of it
--   busy    a row that it needs is held by another: nothing was written, send it again
--   news    `seen` is not the last event: outcomes without an event yet were appended (but for what was issued after an event
--           told ahead, which stands elsewhere now) and attempts kept, nothing else; `entries` has every event after `seen`
--   ok      outcomes and operations are recorded; with `entries` (events beyond the caller's) suspend, finish
--           and release were not done, without them they were
--   halted  the task is parked, whatever it had not been told
--
-- The plan of every statement below is pinned, whatever the statistics say of tables that are empty one minute and full the
-- next: rows come by their keys (`= any`), sets of a call are hashed, single look-ups are scalar subqueries.
-- grant: worker, admin
create function advance(
  p_turns jsonb, p_outcomes jsonb default '[]', p_operations jsonb default '[]', p_timers jsonb default '[]',
  p_attempts jsonb default '[]', p_cancels jsonb default '[]'
) returns table (task text, answer text, last_seq integer, entries jsonb)
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan set lock_timeout = '200ms'
as $$
#variable_conflict use_column
declare
  v_now timestamptz;
  v_turns turn[];
  v_outcomes outcome[] := '{}'::outcome[];
  v_tasks text[];
  v_ending text[];
  v_promises text[];
  v_members jsonb := '{}'::jsonb;
begin
  perform _check_isolation();
  perform _check_advance(p_turns, p_operations, p_timers);
  if p_outcomes is distinct from '[]' then
    v_outcomes := _read_outcomes(p_outcomes);
  end if;
  if p_attempts <> '[]' or p_cancels <> '[]' then
    perform _check_asides(p_attempts, p_cancels);
  end if;
  select coalesce(array_agg(t.task), '{}'), coalesce(array_agg(t.task) filter (where t."then" = 'finish'), '{}')
    into v_tasks, v_ending
    from jsonb_to_recordset(p_turns) t(task text, "then" text);
  v_promises := _lock_promises(v_ending, p_operations);
  v_turns := _lock_turns(p_turns, v_tasks, v_ending, v_promises);
  v_now := _clock();
  if p_operations <> '[]' then
    v_members := _count_members(p_operations);
  end if;
  v_turns := _judge(v_turns, v_outcomes, p_operations, v_promises, v_now);

  -- outcomes and creations, then ends and their deliveries, then suspensions
  if cardinality(v_outcomes) > 0 then
    v_turns := _append_outcomes(v_turns, v_outcomes, v_now);
  end if;
  if p_operations <> '[]' then
    v_turns := _create_operations(v_turns, p_operations, v_promises, v_members, v_now);
  end if;
  if p_attempts <> '[]' then
    perform _keep_attempts(v_turns, p_attempts, v_now);
  end if;
  perform _store_turns(v_turns, p_operations <> '[]');
  if cardinality(v_ending) > 0 then
    perform _finish_turns(v_turns, p_turns, v_now);
  end if;
  if p_cancels <> '[]' then
    perform _owe_cancels(v_turns, p_cancels, v_now);
  end if;
  if p_turns @? '$[*].close ? (@ == true)' then
    perform _owe_children(v_turns, p_turns, p_operations, v_now);
  end if;
  perform _suspend_turns(v_turns, p_turns, p_timers, v_now);
  perform _release_turns(v_turns, v_tasks, p_turns, v_now);

  return query
    select r.task,
           case when t.state = 'halted' and r.verdict in ('ok', 'news') then 'halted' else r.verdict end,
           case when r.verdict in ('ok', 'news') then coalesce(t.last_seq, r.last_seq) end,
           case when r.verdict = 'news' or (r.verdict = 'ok' and t.last_seq > r.told)
                then _entries(r.task, case r.verdict when 'news' then r.seen else r.told end, 1000) end
      from unnest(v_turns) r
      left join task t on t.id = r.task and t.id = any (v_tasks);
end $$;
