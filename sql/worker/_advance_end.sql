-- The last part of `advance`: task rows, ends and their deliveries, suspensions, releases.

-- Keeps what was appended. A turn that ends is not written before it is deleted, unless something may come between, or it made
-- children that it does not know of yet (p_with_operations). Whoever
-- suspends, or says so (`asked`), has recorded all that the code asked for up to what it was told (ahead, too). Code that was kept
-- at an earlier suspension is no longer where it stood then. The mark that there are news goes with the turn after the one that was
-- told of them: that one may be a call of long ago, cut off and sent again since, with nobody left to hear its answer.
create function _store_turns(p_turns turn[], p_with_operations boolean) returns void
  language plpgsql volatile
as $$
declare
  v_ids constant text[] := array(
    select r.task from unnest(p_turns) r
     where r.verdict in ('news', 'halted')
        or r.verdict = 'ok' and (p_with_operations or r.next is distinct from 'finish' or r.last_seq <> r.told));
begin
  if cardinality(v_ids) = 0 then
    return;
  end if;
  update task t
     set last_seq = r.last_seq, last_at = r.last_at, children = r.children, news = t.news and r.verdict = 'news',
         attempts = case when r.changed then 0 else t.attempts end,
         kept_by = case when not r.changed then t.kept_by end,
         asked = case when r.verdict = 'ok' and r.changed and r.next in ('asked', 'suspend') then greatest(t.asked, r.told) else t.asked end
    from unnest(p_turns) r
   where t.id = r.task and t.id = any (v_ids)
     and (r.changed or t.news)
     and (r.next is distinct from 'finish' or r.last_seq <> r.told or r.children <> t.children or r.verdict <> 'ok');
end $$;

-- Settles the workflows that ended, unless events came that their code has not been told.
create function _finish_turns(p_turns turn[], p_finishes jsonb, p_now timestamptz) returns void
  language plpgsql volatile
as $$
declare
  v_ids text[];
  v_states text[];
  v_values jsonb[];
  v_errors jsonb[];
  v_headers jsonb[];
  v_digests bytea[];
begin
  select array_agg(r.task), array_agg(f.state), array_agg(case when f.state = 'resolved' then f.value end),
         array_agg(f.error), array_agg(f.headers), array_agg(decode(f.digest, 'hex'))
    into v_ids, v_states, v_values, v_errors, v_headers, v_digests
    from unnest(p_turns) r
    join jsonb_to_recordset(p_finishes) f(task text, state text, value jsonb, error jsonb, headers jsonb, digest text) on f.task = r.task
   where r.verdict = 'ok' and r.next = 'finish' and r.last_seq = r.told;
  if v_ids is not null then
    perform _settle(v_ids, v_states, v_values, v_errors, v_headers, v_digests, 'worker', p_now);
  end if;
end $$;

-- Children that the code gave up are owed a cancel, each by itself; tick judges what that means for them.
create function _owe_cancels(p_turns turn[], p_cancels jsonb, p_now timestamptz) returns void
  language sql volatile
as $$
  insert into closing (id, since, itself)
  select distinct p.id, p_now, true
    from jsonb_to_recordset(p_cancels) c(task text, promise text)
    join unnest(p_turns) r on r.task = c.task and r.verdict = 'ok'
    cross join lateral (
      select id from promise where id = c.promise and state = 'pending' and parent = c.task offset 0) p
   order by p.id
  on conflict (id) do update
     set itself = true, after = case when closing.itself then closing.after else coalesce(closing.after, '') end
$$;

-- Code that has ended while calls of its own are open: they are owed a cancel, and it goes on waiting for them. Said again
-- (the call was repeated, or another holder came to the same end), it goes on where it was.
create function _owe_children(p_turns turn[], p_closing jsonb, p_operations jsonb, p_now timestamptz) returns void
  language sql volatile
as $$
  insert into closing (id, since)
  select r.task, p_now
    from jsonb_to_recordset(p_closing) c(task text, close boolean)
    join unnest(p_turns) r on r.task = c.task and r.verdict = 'ok'
   where c.close
     and (select p.id from promise p where p.parent = r.task and p.state = 'pending' order by p.parent, p.id limit 1) is not null
   order by r.task collate "C"
  on conflict (id) do update
     set after = case
       when exists (select from jsonb_to_recordset(p_operations) o(task text) where o.task = closing.id)
            or closing.itself and closing.after is null then case when closing.itself then '' end
       else closing.after end
$$;

-- Lets go of the tasks that wait. Their open timers become waits, and so do the instants at which their steps are to be tried
-- again; those that the code gave up are dropped. A task that waits for nothing would sleep for ever: it is parked, with that
-- reason. All that the code asked for up to here is recorded: whoever keeps it in memory needs only what comes after.
create function _suspend_turns(p_turns turn[], p_suspensions jsonb, p_timers jsonb, p_now timestamptz) returns void
  language plpgsql volatile
as $$
declare
  v_ids text[];
begin
  v_ids := array(
    select r.task from unnest(p_turns) r
     where r.verdict = 'ok' and r.next = 'suspend' and (select t.last_seq from task t where t.id = r.task) = r.told);
  if cardinality(v_ids) = 0 then
    return;
  end if;
  delete from wait w
   where w.task = any (v_ids) and w.fire_at is not null and w.kind in ('timer', 'retry')
     and not exists (select from jsonb_to_recordset(p_timers) o(task text, operation text)
                      where o.task = w.task and o.operation = w.operation);
  if p_timers <> '[]' then
    insert into wait (task, operation, kind, fire_at, micros, issued, cohort, digest)
    select o.task, o.operation, coalesce(o.kind, 'timer'),
           case when o.kind = 'retry' then p_now
                else coalesce((select b.at from checkpoint b where b.task = o.task and b.seq = o.issued), r.started_at) end + _span(o.micros),
           o.micros, o.issued, o.cohort, o.digest
      from jsonb_to_recordset(p_timers) o(task text, operation text, kind text, issued integer, cohort integer, digest bigint, micros bigint)
      join unnest(p_turns) r on r.task = o.task
     where o.task = any (v_ids)
       and not exists (select from checkpoint c where c.task = o.task and c.operation = o.operation offset 0)
    on conflict (task, operation) do update set fire_at = excluded.fire_at where wait.kind = 'retry' and excluded.kind = 'retry';
  end if;
  update task t
     set state = case when w.waits then 'suspended' else 'halted' end,
         reason = case when not w.waits then '{"code": "deadlock", "message": "the workflow waits for nothing that could ever come"}'::jsonb end,
         kept_by = case when w.keep then t.worker end, asked = t.last_seq,
         worker = null, claimed_at = null, attempts = 0
    from (select s.task, s.keep, (select count(*) from (select from wait where task = s.task limit 1) one) > 0 as waits
            from jsonb_to_recordset(p_suspensions) s(task text, "then" text, keep boolean) where s."then" = 'suspend') w
   where t.id = w.task and t.id = any (v_ids);
end $$;

-- Gives tasks back (attempts - 1: it was nobody's fault) or parks them. One that is given back because its own step asked for
-- the end of the process (`charged`) keeps the attempt, and is parked once all are used up.
create function _release_turns(p_turns turn[], p_tasks text[], p_releases jsonb, p_now timestamptz) returns void
  language plpgsql volatile
as $$
declare
  v_ids text[];
begin
  v_ids := array(
    select r.task from unnest(p_turns) r
     where r.verdict = 'ok' and r.next = 'release' and (select t.last_seq from task t where t.id = r.task) = r.told);
  if cardinality(v_ids) > 0 then
    update task t
       set state = case when c.spent then 'halted' else 'ready' end,
           ready_at = case when not c.spent then p_now end,
           reason = case when c.spent then '{"code": "attempts", "message": "its step asked for the end of the process each time"}'::jsonb end,
           worker = null, claimed_at = null,
           attempts = case when c.charged then t.attempts else greatest(t.attempts - 1, 0) end
      from jsonb_to_recordset(p_releases) r(task text, charged boolean)
      cross join lateral (
        select coalesce(r.charged, false) as charged,
               coalesce(r.charged, false) and (select a.attempts from task a where a.id = r.task) >= _attempts_max() as spent offset 0) c
     where t.id = r.task and t.id = any (v_ids);
    perform _wake(v_ids);
  end if;
  update task t
     set state = 'halted', reason = coalesce(r.reason, '{"code": "halted", "message": "halted by its worker"}'),
         worker = null, claimed_at = null
    from unnest(p_turns) r
   where t.id = r.task and t.id = any (p_tasks) and (r.verdict = 'halted' or (r.next = 'halt' and r.verdict in ('ok', 'news')));
end $$;
