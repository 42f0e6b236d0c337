-- The second part of `advance`: what happened.

-- Appends outcomes whose operation has no event yet; of a turn with news too, since a step that ran has run. What was then
-- issued after an event told ahead is left out: that event stands elsewhere now, and no replay would issue it there again (it
-- can only be a timer or a patch). Every event's instant lies between the one before and this clock: told-ahead ones are kept verbatim
-- (else the turn was judged `news`).
create function _append_outcomes(p_turns turn[], p_outcomes outcome[], p_now timestamptz) returns turn[]
  language plpgsql volatile
as $$
declare
  v_turns turn[];
begin
  with fresh as (
    select o.*, r.last_seq, r.last_at, r.epoch
      from unnest(p_outcomes) o
      join unnest(p_turns) r on r.task = o.task and r.verdict in ('ok', 'news')
     where (r.last_seq = r.seen or o.issued <= r.seen)
       and (r.last_seq = 0 or (select c.seq from checkpoint c where c.task = o.task and c.operation = o.operation) is null)
  ), appended as (
    insert into checkpoint (task, seq, operation, kind, issued, cohort, digest, state, value, error, headers, at, epoch)
    select f.task, f.last_seq + row_number() over own, f.operation, f.kind, f.issued, f.cohort, f.digest, f.state, f.value,
           f.error, f.headers,
           greatest(f.last_at, least(greatest(p_now, f.last_at), max(coalesce(f.at, p_now)) over own)), f.epoch
      from fresh f
    window own as (partition by f.task order by f.n)
    returning task, at
  )
  select array_agg(row(
      r.task, r.epoch, r.seen, r.next, r.verdict, r.last_seq + coalesce(a.events, 0), coalesce(a.at, r.last_at),
      case when r.verdict = 'ok' then r.told + coalesce(a.events, 0) else r.told end,
      r.children, r.timeout_at, r.started_at, r.reason, a.events is not null)::turn)
    into v_turns
    from unnest(p_turns) r
    left join (select task, count(*)::integer as events, max(at) as at from appended group by task) a on a.task = r.task;

  -- a timer that its holder fired, or a step that came off at last, may be a wait since an earlier suspension
  if exists (select from unnest(p_outcomes) o where o.kind = 'timer' or o.retried) then
    delete from wait where ctid = any (array(
      select (select w.ctid from wait w
               where w.task = o.task and w.operation = o.operation and w.kind = case o.kind when 'timer' then 'timer' else 'retry' end)
        from unnest(p_outcomes) o
        join unnest(p_turns) r on r.task = o.task and r.verdict in ('ok', 'news')
       where o.kind = 'timer' or o.retried));
  end if;
  return v_turns;
end $$;

-- Notes about attempts at steps: outside the order of events, so kept of a turn with news as well, and no progress by
-- themselves. What comes later about the same attempt adds to it; a holder who begins it anew begins its row anew, but for
-- the details, which are there for the next to read.
create function _keep_attempts(p_turns turn[], p_attempts jsonb, p_now timestamptz) returns void
  language sql volatile
as $$
  insert into attempt as a (task, operation, number, epoch, started_at, ended_at, retry_at, error, details)
  select o.task, o.operation, o.number, r.epoch, p_now - _span(coalesce(max(o.elapsed), 0)),
         case when bool_or(o.ended) then p_now end, p_now + _span(max(o.retry_in)),
         (array_agg(o.error order by o.n desc) filter (where o.error is not null))[1],
         (array_agg(o.details order by o.n desc) filter (where o.details is not null))[1]
    from rows from (jsonb_to_recordset(p_attempts) as (
           task text, operation text, number smallint, error jsonb, details jsonb, ended boolean, retry_in bigint, elapsed bigint))
         with ordinality o(task, operation, number, error, details, ended, retry_in, elapsed, n)
    join unnest(p_turns) r on r.task = o.task and r.verdict in ('ok', 'news')
   group by o.task, o.operation, o.number, r.epoch
   order by o.task collate "C", o.operation collate "C", o.number
  on conflict (task, operation, number) do update
     set epoch = excluded.epoch,
         started_at = case when a.epoch = excluded.epoch then a.started_at else excluded.started_at end,
         ended_at = coalesce(case when a.epoch = excluded.epoch then a.ended_at end, excluded.ended_at),
         retry_at = coalesce(excluded.retry_at, case when a.epoch = excluded.epoch then a.retry_at end),
         error = coalesce(excluded.error, case when a.epoch = excluded.epoch then a.error end),
         details = coalesce(excluded.details, a.details)
$$;
