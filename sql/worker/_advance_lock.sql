-- The first third of `advance`: shape, locks, judgement. What it finds out about each turn is a row of type `turn`, which the
-- rest works on in sets.

-- Malformed calls are errors: the worker's fault, not a race.
create function _check_advance(p_turns jsonb, p_outcomes jsonb, p_operations jsonb, p_timers jsonb) returns void
  language plpgsql immutable
as $$
declare
  v_odd text;
begin
  perform _check_batch(p_turns), _check_batch(p_outcomes), _check_batch(p_operations), _check_batch(p_timers);
  select case
      when t.task is null or t.epoch is null or t.seen is null then 'a turn lacks task, epoch or seen'
      when count(*) over (partition by t.task) > 1 then format('%s has two turns', t.task)
      when t."then" not in ('suspend', 'finish', 'release', 'halt') then format('%s goes on by %L', t.task, t."then")
      when t."then" = 'finish' and coalesce(t.state, '') not in ('resolved', 'rejected', 'canceled') then format('%s ends %L', t.task, t.state)
      when t."then" = 'finish' and (t.state = 'resolved') <> (nullif(t.error, 'null') is null) then format('%s ends with an error that does not fit its state', t.task)
    end into v_odd
    from jsonb_to_recordset(p_turns) t(task text, epoch integer, seen integer, "then" text, state text, value jsonb, error jsonb)
   order by 1 nulls last limit 1;
  if v_odd is null then
    select case
        when coalesce(o.kind, '') not in ('step', 'timer') then format('an outcome of kind %L', o.kind)
        when coalesce(o.operation, '') in ('', '~cancel', '~delay') or o.issued is null then 'an outcome lacks operation or issued'
        when coalesce(o.state, '') not in ('resolved', 'rejected') then format('an outcome with state %L', o.state)
      end into v_odd
      from jsonb_to_recordset(p_outcomes) o(task text, operation text, kind text, issued integer, state text)
     order by 1 nulls last limit 1;
  end if;
  if v_odd is null then
    select case
        when coalesce(o.kind, '') not in ('promise', 'wait') then format('an operation of kind %L', o.kind)
        when coalesce(o.operation, '') in ('', '~cancel', '~delay') or o.issued is null then 'an operation lacks its name or issued'
        when (o.kind = 'wait') <> (o.promise is not null) then 'a wait names its promise, no other operation does'
        when o.timeout < 0 then 'an operation has a negative timeout'
      end into v_odd
      from jsonb_to_recordset(p_operations) o(task text, operation text, kind text, issued integer, promise text, timeout bigint)
     order by 1 nulls last limit 1;
  end if;
  if v_odd is not null then
    raise exception using errcode = 'TR002', message = v_odd, hint = 'See sql/worker/advance.sql for the shape of a call.';
  end if;
  perform _check_payload(t.value, 'result'), _check_payload(t.error, 'error'), _check_payload(t.headers, 'headers')
    from jsonb_to_recordset(p_turns) t(value jsonb, error jsonb, headers jsonb) where t.value is not null or t.error is not null;
  perform _check_payload(o.value, 'outcome'), _check_payload(o.error, 'error'), _check_payload(o.headers, 'headers')
    from jsonb_to_recordset(p_outcomes) o(value jsonb, error jsonb, headers jsonb) where o.value is not null or o.error is not null;
end $$;

-- Promises first: those that end here, and those that are there already under the ID of an operation. What another holds is
-- passed over, and its turn will be busy.
create function _lock_promises(p_turns jsonb, p_operations jsonb) returns text[]
  language plpgsql volatile
as $$
declare
  v_ids text[];
begin
  v_ids := array(
    select t.task from jsonb_to_recordset(p_turns) t(task text, "then" text) where t."then" = 'finish'
    union all
    select coalesce(o.promise, o.task || '~' || o.operation)
      from jsonb_to_recordset(p_operations) o(task text, operation text, promise text));
  if cardinality(v_ids) = 0 then
    return v_ids;
  end if;
  return array(select l.id from (
    select id from promise where id = any (v_ids) order by id for no key update skip locked) l);
end $$;

-- Then tasks: the callers' own, and those that wait for what ends here. Judged by the rows as they are under the lock.
create function _lock_turns(p_turns jsonb, p_promises text[]) returns turn[]
  language plpgsql volatile
as $$
declare
  v_awaiting text[];
  v_tasks text[];
  v_held task[];
  v_stuck text[] := '{}'::text[];
begin
  v_tasks := array(select t.task from jsonb_to_recordset(p_turns) t(task text));
  v_awaiting := array(
    select distinct w.task from wait w where w.promise = any (array(
      select t.task from jsonb_to_recordset(p_turns) t(task text, "then" text) where t."then" = 'finish')));
  v_held := array(select l from (
    select * from task where id = any (v_tasks || v_awaiting) order by id for no key update skip locked) l);
  if cardinality(v_awaiting) > 0 then
    v_stuck := array(
      select w.promise from wait w left join unnest(v_held) h on h.id = w.task
       where w.promise = any (v_tasks) and h.id is null);
  end if;
  return array(
    select row(
        t.task, t.epoch, t.seen, t."then",
        case when h.id is null then case when exists (select from task e where e.id = t.task offset 0) then 'busy' else 'fenced' end
             when h.state <> 'claimed' or h.epoch <> t.epoch then 'fenced'
             when t."then" = 'finish' and (p.id is null or t.task = any (v_stuck)) then 'busy'
             else 'ok' end,
        h.last_seq, h.last_at, t.seen, h.children, h.timeout_at, h.started_at, t.reason, false)::turn
      from jsonb_to_recordset(p_turns) t(task text, epoch integer, seen integer, "then" text, reason jsonb)
      left join unnest(v_held) h on h.id = t.task
      left join unnest(p_promises) p(id) on p.id = t.task);
end $$;

-- What the clock, the order of events and the limits say of the turns that hold their fence.
create function _judge(
  p_turns turn[], p_outcomes jsonb, p_operations jsonb, p_promises text[], p_now timestamptz
) returns turn[]
  language plpgsql volatile
as $$
declare
  v_astray text[] := '{}'::text[];
  v_early text[] := '{}'::text[];
  v_blocked text[] := '{}'::text[];
  v_over text[] := '{}'::text[];
begin
  if p_outcomes <> '[]' then
    -- an instant told ahead stands if it lies between the last event and this clock, in the order told; a timer counts from
    -- the event that it was issued after, which may be told ahead in this same call
    with told as materialized (
      select o.task, o.kind, o.issued, o.at as proposed, coalesce(_instant(o.at), p_now) as at, o.micros, r.seen, r.last_seq, r.last_at, r.started_at,
             r.last_seq + row_number() over own as seq, max(coalesce(_instant(o.at), p_now)) over own as latest
        from rows from (jsonb_to_recordset(p_outcomes) as (task text, kind text, issued integer, at bigint, micros bigint))
             with ordinality o(task, kind, issued, at, micros, n)
        join unnest(p_turns) r on r.task = o.task and r.verdict = 'ok'
      window own as (partition by o.task order by o.n)
    ), judged as (
      select t.task,
             t.proposed is not null and t.at <> greatest(t.last_at, least(greatest(p_now, t.last_at), t.latest)) as astray,
             t.kind = 'timer' and (t.last_seq = t.seen or t.issued <= t.seen) and _span(t.micros) + case
               when t.issued = 0 then t.started_at
               when t.issued <= t.last_seq then (select b.at from checkpoint b where b.task = t.task and b.seq = t.issued)
               else coalesce((select b.at from told b where b.task = t.task and b.seq = t.issued), 'infinity')
             end > greatest(p_now, t.last_at) as early
        from told t
    )
    select array_agg(distinct j.task) filter (where j.astray), array_agg(distinct j.task) filter (where j.early)
      into v_astray, v_early
      from judged j
     where j.astray or j.early;
    v_over := array(
      select r.task from unnest(p_turns) r join jsonb_to_recordset(p_outcomes) o(task text) on o.task = r.task
       group by r.task, r.last_seq having r.last_seq + count(*) > _journal_entries_max());
  end if;
  if p_operations <> '[]' then
    v_blocked := array(
      select o.task
        from jsonb_to_recordset(p_operations) o(task text, operation text, promise text)
        left join unnest(p_promises) l(id) on l.id = coalesce(o.promise, o.task || '~' || o.operation)
       where l.id is null
         and exists (select from promise p where p.id = coalesce(o.promise, o.task || '~' || o.operation) offset 0));
    v_over := v_over || array(
      select r.task
        from unnest(p_turns) r
        join jsonb_to_recordset(p_operations) o(task text, operation text, kind text) on o.task = r.task and o.kind = 'promise'
       where not exists (select from promise p where p.id = o.task || '~' || o.operation offset 0)
       group by r.task, r.children having r.children + count(*) > _children_max());
  end if;
  return array(
    select row(
        r.task, r.epoch, r.seen, r.next,
        case when r.verdict <> 'ok' then r.verdict
             when r.timeout_at <= p_now then 'fenced'
             when r.task = any (v_blocked) or r.task = any (v_early) then 'busy'
             when r.task = any (v_over) then 'halted'
             when r.last_seq <> r.seen or r.task = any (v_astray) then 'news'
             else 'ok' end,
        r.last_seq, r.last_at, r.told, r.children, r.timeout_at, r.started_at,
        case when r.verdict = 'ok' and r.task = any (v_over) then jsonb_build_object(
               'code', 'limit', 'message', format('a workflow has at most %s events and makes at most %s promises',
                                                  _journal_entries_max(), _children_max()))
             else r.reason end, r.changed)::turn
      from unnest(p_turns) r);
end $$;
