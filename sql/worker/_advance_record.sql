-- The second third of `advance`: what happened, and what was asked for.

-- Appends outcomes whose operation has no event yet; of a turn with news too, since a step that ran has run. What was then
-- issued after an event told ahead is left out: that event stands elsewhere now, and no replay would issue it there again (it
-- can only be a timer). Every event's instant lies between the one before and this clock: told-ahead ones are kept verbatim
-- (else the turn was judged `news`).
create function _append_outcomes(p_turns turn[], p_outcomes jsonb, p_now timestamptz) returns turn[]
  language plpgsql volatile
as $$
declare
  v_turns turn[];
begin
  with fresh as (
    select o.*, r.last_seq, r.last_at, r.epoch
      from rows from (jsonb_to_recordset(p_outcomes) as (
             task text, operation text, kind text, issued integer, digest bigint, state text, value jsonb, error jsonb,
             headers jsonb, at bigint)) with ordinality
           o(task, operation, kind, issued, digest, state, value, error, headers, at, n)
      join unnest(p_turns) r on r.task = o.task and r.verdict in ('ok', 'news')
     where (r.last_seq = r.seen or o.issued <= r.seen)
       and (select c.seq from checkpoint c where c.task = o.task and c.operation = o.operation) is null
  ), appended as (
    insert into checkpoint (task, seq, operation, kind, issued, digest, state, value, error, headers, at, epoch)
    select f.task, f.last_seq + row_number() over own, f.operation, f.kind, f.issued, f.digest, f.state, f.value, f.error, f.headers,
           greatest(f.last_at, least(greatest(p_now, f.last_at), max(coalesce(_instant(f.at), p_now)) over own)), f.epoch
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

  -- a timer that its holder fired may be a wait since an earlier suspension
  if exists (select from jsonb_to_recordset(p_outcomes) o(kind text) where o.kind = 'timer') then
    delete from wait where ctid = any (array(
      select (select w.ctid from wait w where w.task = o.task and w.operation = o.operation)
        from jsonb_to_recordset(p_outcomes) o(task text, operation text, kind text)
        join unnest(p_turns) r on r.task = o.task and r.verdict in ('ok', 'news')
       where o.kind = 'timer'));
  end if;
  return v_turns;
end $$;

-- Creates operations by their IDs and subscribes to them in the same commit. One that is recorded already is passed over; one
-- that is settled already becomes an event at once; anything but a latent promise of this workflow, or of nobody, under the
-- ID of a ctx.promise parks the task.
create function _create_operations(p_turns turn[], p_operations jsonb, p_promises text[], p_now timestamptz) returns turn[]
  language plpgsql volatile
as $$
declare
  v_made text[];
  v_named text[];
  v_turns turn[];
begin
  with made as (
    insert into promise (id, tags, title, parent, created_at, timeout_at, expires_at, open_at, has_default, default_value, default_headers)
    select o.task || '~' || o.operation, o.tags, o.title, o.task, p_now, p_now + _span(o.timeout), p_now + _span(o.timeout), p_now,
           coalesce(o.has_default, false), o."default", o.default_headers
      from jsonb_to_recordset(p_operations) o(task text, operation text, kind text, timeout bigint, "default" jsonb,
                                              has_default boolean, default_headers jsonb, title text, tags jsonb)
      join unnest(p_turns) r on r.task = o.task and r.verdict = 'ok'
     where o.kind = 'promise'
       and not _is_recorded(o.task, o.operation)
     order by 1
    on conflict (id) do nothing
    returning id
  )
  select coalesce(array_agg(id), '{}') into v_made from made;
  v_named := array(select coalesce(o.promise, o.task || '~' || o.operation)
                     from jsonb_to_recordset(p_operations) o(task text, operation text, promise text));

  with asked as (
    select o.task, o.operation, o.kind, o.issued, o.digest, o.id, r.last_seq, r.last_at, r.epoch, o.n,
           p.state, p.value, p.error, p.headers, o.promise, p.id = any (v_made) as made, case
             when p.id is null then jsonb_build_object('code', 'unknown_promise', 'message', format(
               '%s waits for %s, which does not exist', o.operation, o.id))
             when o.kind = 'promise' and (p.function is not null or coalesce(p.parent, o.task) <> o.task) then
               jsonb_build_object('code', 'id_conflict', 'message', format(
                 '%s is there already and is not a latent promise of this workflow', o.id))
             when o.kind = 'wait' and o.id = o.task then jsonb_build_object('code', 'waits_for_itself', 'message', format(
               '%s waits for itself', o.task))
             when o.kind = 'wait' and (select count(*) from (
               select from wait w where w.promise = o.id limit _waits_per_promise_max()) c) >= _waits_per_promise_max() then
               jsonb_build_object('code', 'limit', 'message', format('%s has %s waiters already', o.id, _waits_per_promise_max()))
           end as refusal
      from rows from (jsonb_to_recordset(p_operations) as (task text, operation text, kind text, issued integer, digest bigint,
             promise text)) with ordinality q(task, operation, kind, issued, digest, promise, n)
      cross join lateral (select q.*, coalesce(q.promise, q.task || '~' || q.operation) as id) o
      join unnest(p_turns) r on r.task = o.task and r.verdict = 'ok'
      left join promise p on p.id = o.id and p.id = any (v_named)
     where not _is_recorded(o.task, o.operation)
  ), waiting as (
    insert into wait (task, operation, kind, promise, issued, digest)
    select task, operation, kind, _held(id, made or id = any (p_promises)), issued, digest
      from asked where refusal is null and state = 'pending'
  ), appended as (
    insert into checkpoint (task, seq, operation, kind, issued, digest, state, value, error, headers, promise, at, epoch)
    select a.task, a.last_seq + row_number() over (partition by a.task order by a.n), a.operation, a.kind, a.issued, a.digest,
           a.state, case when not f.own then a.value end, case when not f.own then a.error end,
           case when not f.own then a.headers end, a.promise, greatest(p_now, a.last_at), a.epoch
      from asked a cross join lateral (select _family(a.task) = _family(a.id) as own) f
     where a.refusal is null and a.state <> 'pending'
    returning task, at
  )
  select array_agg(row(
      r.task, r.epoch, r.seen, r.next, case when a.refusals is not null then 'halted' else r.verdict end,
      r.last_seq + coalesce(e.events, 0), coalesce(e.at, r.last_at), r.told, r.children + coalesce(a.made, 0),
      r.timeout_at, r.started_at, coalesce(a.refusals -> 0, r.reason), r.changed or a.task is not null)::turn)
    into v_turns
    from unnest(p_turns) r
    left join (select task, count(*) filter (where made)::integer as made,
                      jsonb_agg(refusal) filter (where refusal is not null) as refusals from asked group by task) a on a.task = r.task
    left join (select task, count(*)::integer as events, max(at) as at from appended group by task) e on e.task = r.task;
  return v_turns;
end $$;

-- Whether an operation has its event, or its wait.
create function _is_recorded(p_task text, p_operation text) returns boolean
  language sql stable
as $$
  select (select seq from checkpoint where task = p_task and operation = p_operation) is not null
      or (select kind from wait where task = p_task and operation = p_operation) is not null
$$;

-- A promise that appeared between our lock and our look is not held: the batch is sent again, and the next lock finds it.
create function _held(p_id text, p_is_held boolean) returns text
  language plpgsql volatile
as $$
begin
  if not p_is_held then
    raise exception using errcode = '55P03', message = format('%s has just been created by another', p_id), hint = 'Send the turn again.';
  end if;
  return p_id;
end $$;
