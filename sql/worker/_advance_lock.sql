-- The first part of `advance`: locks and judgement. What it finds out about each turn is a row of type `turn`, which the
-- rest works on in sets.

-- Promises first: those that end here, and those that are there already under the ID of an operation. What another holds is
-- passed over, and its turn will be busy.
create function _lock_promises(p_ending text[], p_operations jsonb) returns text[]
  language plpgsql volatile
as $$
declare
  v_ids text[] := p_ending;
begin
  if p_operations <> '[]' then
    v_ids := v_ids || array(
      select coalesce(o.promise, o.task || '~' || o.operation)
        from jsonb_to_recordset(p_operations) o(task text, operation text, promise text));
  end if;
  if cardinality(v_ids) = 0 then
    return v_ids;
  end if;
  return array(select l.id from (
    select id from promise where id = any (v_ids) order by id for no key update skip locked) l);
end $$;

-- Then tasks: the callers' own, and those that wait for what ends here. Judged by the rows as they are under the lock. A turn that
-- goes on with nothing left unsaid is `asked`.
create function _lock_turns(p_turns jsonb, p_tasks text[], p_ending text[], p_promises text[]) returns turn[]
  language plpgsql volatile
as $$
declare
  v_awaiting text[];
  v_held task[];
  v_stuck text[] := '{}'::text[];
begin
  v_awaiting := array(select w.task from wait w where w.promise = any (p_ending));
  v_held := array(select l from (
    select * from task where id = any (p_tasks || v_awaiting) order by id for no key update skip locked) l);
  if cardinality(v_awaiting) > 0 then
    v_stuck := array(
      select w.promise from (select promise, task from wait where promise = any (p_tasks) offset 0) w
        left join unnest(v_held) h on h.id = w.task
       where h.id is null);
  end if;
  return array(
    select row(
        t.task, t.epoch, t.seen, coalesce(t."then", case when t.asked then 'asked' end),
        case when h.id is null then case when exists (select from task e where e.id = t.task offset 0) then 'busy' else 'fenced' end
             when h.state <> 'claimed' or h.epoch <> t.epoch then 'fenced'
             when t."then" = 'finish' and (p.id is null or t.task = any (v_stuck)) then 'busy'
             else 'ok' end,
        h.last_seq, h.last_at, t.seen, h.children, h.timeout_at, h.started_at, t.reason, false)::turn
      from jsonb_to_recordset(p_turns) t(task text, epoch integer, seen integer, "then" text, reason jsonb, asked boolean)
      left join unnest(v_held) h on h.id = t.task
      left join unnest(p_promises) p(id) on p.id = t.task);
end $$;

-- How many members the families of nested workflows have that ask for more in this call: counted once, up to the limit. A
-- root's own number is bounded already.
create function _count_members(p_operations jsonb) returns jsonb
  language sql stable
as $$
  select coalesce(jsonb_object_agg(f.family, (
      select count(*) from (
        select from promise p
         where p.id >= f.family || '~' collate "C" and p.id < f.family || chr(127) collate "C"
         limit _family_members_max()) m)), '{}')
    from (select distinct _family(o.task) as family
            from jsonb_to_recordset(p_operations) o(task text, kind text, promise text)
           where o.kind <> 'wait' and o.promise is null and strpos(o.task, '~') > 0) f
$$;

-- What the clock, the order of events and the limits say of the turns that hold their fence.
create function _judge(
  p_turns turn[], p_outcomes outcome[], p_operations jsonb, p_promises text[], p_now timestamptz
) returns turn[]
  language plpgsql volatile
as $$
declare
  v_astray text[] := '{}'::text[];
  v_early text[] := '{}'::text[];
  v_blocked text[] := '{}'::text[];
  v_over text[] := '{}'::text[];
  v_mixed jsonb;
begin
  if cardinality(p_outcomes) > 0 then
    -- what an operation waits for is its one event: another under its name would stand in the way of whoever settles that;
    -- an instant told ahead stands if it lies between the last event and this clock, in the order told; a timer counts from
    -- the event that it was issued after, which may be told ahead in this same call
    with told as materialized (
      select o.task, o.operation, o.kind, o.issued, o.at as proposed, coalesce(o.at, p_now) as at, o.micros,
             r.seen, r.last_seq, r.last_at, r.started_at,
             r.last_seq + row_number() over own as seq, max(coalesce(o.at, p_now)) over own as latest
        from unnest(p_outcomes) o
        join unnest(p_turns) r on r.task = o.task and r.verdict = 'ok'
      window own as (partition by o.task order by o.n)
    ), judged as (
      select t.task, t.operation, t.kind,
             (select w.kind from wait w where w.task = t.task and w.operation = t.operation
                 and w.kind <> case t.kind when 'step' then 'retry' else t.kind end) as waits,
             t.proposed is not null and t.at <> greatest(t.last_at, least(greatest(p_now, t.last_at), t.latest)) as astray,
             t.kind = 'timer' and (t.last_seq = t.seen or t.issued <= t.seen) and _span(t.micros) + case
               when t.issued = 0 then t.started_at
               when t.issued <= t.last_seq then (select b.at from checkpoint b where b.task = t.task and b.seq = t.issued)
               else coalesce((select b.at from told b where b.task = t.task and b.seq = t.issued), 'infinity')
             end > greatest(p_now, t.last_at) as early,
             t.seq > _journal_entries_max() as over
        from told t
    )
    select array_agg(distinct j.task) filter (where j.astray), array_agg(distinct j.task) filter (where j.early),
           coalesce(array_agg(distinct j.task) filter (where j.over), '{}'),
           jsonb_object_agg(j.task, format('%s is a %s by now, and waits as a %s', j.operation, j.kind, j.waits))
             filter (where j.waits is not null)
      into v_astray, v_early, v_over, v_mixed
      from judged j
     where j.astray or j.early or j.over or j.waits is not null;
  end if;
  if p_operations <> '[]' then
    v_blocked := array(
      select o.task
        from jsonb_to_recordset(p_operations) o(task text, operation text, promise text)
        left join unnest(p_promises) l(id) on l.id = coalesce(o.promise, o.task || '~' || o.operation)
       where l.id is null
         and exists (select from promise p where p.id = coalesce(o.promise, o.task || '~' || o.operation) offset 0)
         -- a child that is being run is no hindrance to saying again that it was asked for
         and (select c.seq from checkpoint c where c.task = o.task and c.operation = o.operation) is null
         and (select w.kind from wait w where w.task = o.task and w.operation = o.operation) is null);
  end if;
  return array(
    select row(
        r.task, r.epoch, r.seen, r.next,
        case when r.verdict <> 'ok' then r.verdict
             when r.timeout_at <= p_now then 'fenced'
             when r.task = any (v_blocked) or r.task = any (v_early) then 'busy'
             when r.task = any (v_over) or v_mixed ? r.task then 'halted'
             when r.last_seq <> r.seen or r.task = any (v_astray) then 'news'
             else 'ok' end,
        r.last_seq, r.last_at, r.told, r.children, r.timeout_at, r.started_at,
        case when r.verdict = 'ok' and v_mixed ? r.task then jsonb_build_object('code', 'nondeterminism', 'message', v_mixed ->> r.task)
             when r.verdict = 'ok' and r.task = any (v_over) then jsonb_build_object(
               'code', 'limit', 'message', format('a workflow has at most %s events', _journal_entries_max()))
             else r.reason end, r.changed)::turn
      from unnest(p_turns) r);
end $$;
