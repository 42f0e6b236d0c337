-- The third part of `advance`: what the code asked for. Operations are created by their IDs and subscribed to in the same
-- commit. One that is recorded already is passed over; one that is settled already becomes an event at once.
--
-- A promise or a wait that names something else parks the task. What cannot be made (a limit; a child whose ID is taken by
-- something else) is told to the code as an event: rejected, with the error that a client would have got. A child exists by the same commit as the
-- wait for it, so a call whose answer was lost makes nothing twice; and its parent's row is locked, so that the parent cannot
-- end before a look for its children sees it.
create function _create_operations(
  p_turns turn[], p_operations jsonb, p_promises text[], p_members jsonb, p_now timestamptz
) returns turn[]
  language plpgsql volatile
as $$
declare
  v_made text[];
  v_over bigint[];
  v_named text[];
  v_turns turn[];
begin
  select m.made, m.over into v_made, v_over from _make_promises(p_turns, p_operations, p_members, p_now) m;
  v_named := array(select coalesce(o.promise, o.task || '~' || o.operation)
                     from jsonb_to_recordset(p_operations) o(task text, operation text, promise text));

  with wanted as materialized (
    select o.*, r.last_seq, r.last_at, r.epoch, o.kind in ('call', 'start') as is_child,
           o.kind <> 'wait' and o.n <> all (v_over)
             and row_number() over (partition by o.id, o.kind <> 'wait' and o.n <> all (v_over) order by o.n) = 1 as first
      from rows from (jsonb_to_recordset(p_operations) as (task text, operation text, kind text, issued integer, cohort integer,
             digest bigint, promise text, function text, args jsonb, args_digest text)) with ordinality
             q(task, operation, kind, issued, cohort, digest, promise, function, args, args_digest, n)
      cross join lateral (select q.*, coalesce(q.promise, q.task || '~' || q.operation) collate "C" as id) o
      join unnest(p_turns) r on r.task = o.task and r.verdict = 'ok'
     where (select c.seq from checkpoint c where c.task = o.task and c.operation = o.operation) is null
       and (select w.kind from wait w where w.task = o.task and w.operation = o.operation) is null
  ), asked as (
    select w.task, w.operation, w.kind, w.issued, w.cohort, w.digest, w.promise, w.id, w.n, w.last_seq, w.last_at, w.epoch,
           f.made, m.id is not null or l.id is not null as held, p.value, p.error, p.headers, p.state, a.answer, case
             when p.id is null and not w.is_child and v.n is null then jsonb_build_object('code', 'unknown_promise', 'message', format(
               '%s waits for %s, which does not exist', w.operation, w.id))
             when w.kind = 'promise' and (p.function is not null or coalesce(p.parent, w.task) <> w.task) then
               jsonb_build_object('code', 'id_conflict', 'message', format(
                 '%s is there already and is not a latent promise of this workflow', w.id))
             when w.kind = 'wait' and w.id = w.task then jsonb_build_object('code', 'waits_for_itself', 'message', format(
               '%s waits for itself', w.task))
             when w.kind = 'wait' and f.crowded then
               jsonb_build_object('code', 'limit', 'message', format('%s has %s waiters already', w.id, _waits_per_promise_max()))
           end as refusal
      from wanted w
      left join promise p on p.id = w.id and p.id = any (v_named)
      left join unnest(v_made) m(id) on m.id = w.id
      left join unnest(p_promises) l(id) on l.id = w.id
      left join unnest(v_over) v(n) on v.n = w.n
      cross join lateral (
        select w.first and m.id is not null as made,
               not (w.first and m.id is not null) and w.kind <> 'promise' and p.state = 'pending' and (
                 select count(*) from (select from wait o where o.promise = w.id limit _waits_per_promise_max()) c
               ) >= _waits_per_promise_max() as crowded offset 0) f
      cross join lateral (
        select case
          when v.n is not null then _refused('LimitExceeded', format(
            'a workflow makes at most %s promises and children, a family has at most %s', _children_max(), _family_members_max()))
          when not w.is_child then null
          when w.id = _family(w.task) then _refused('IdConflict', format('%s is the workflow that this one belongs to', w.id))
          when p.id is not null and not f.made and not _is_same_start(p, w.function, w.args, decode(w.args_digest, 'hex')) then
            _refused('IdConflict', format('%s is there already: %s', w.id, case
              when p.function is null then 'a latent promise'
              when p.function <> w.function then 'a workflow of function ' || p.function
              else 'the same function with other arguments' end))
          when f.crowded then _refused('LimitExceeded', format('%s has %s waiters already', w.id, _waits_per_promise_max()))
        end as answer offset 0) a
  ), waiting as (
    insert into wait (task, operation, kind, promise, issued, cohort, digest)
    select task, operation, kind, _held(id, held), issued, cohort, digest
      from asked where refusal is null and answer is null and coalesce(state, 'pending') = 'pending'
  ), appended as (
    insert into checkpoint (task, seq, operation, kind, issued, cohort, digest, state, value, error, headers, promise, at, epoch)
    select a.task, a.last_seq + row_number() over (partition by a.task order by a.n), a.operation, a.kind, a.issued, a.cohort,
           a.digest, case when a.answer is null then a.state else 'rejected' end,
           case when f.copied then a.value end, coalesce(a.answer, case when f.copied then a.error end),
           case when f.copied then a.headers end, a.promise, greatest(p_now, a.last_at), a.epoch
      from asked a
      cross join lateral (select a.answer is null and _family(a.task) <> _family(a.id) as copied) f
     where a.refusal is null and (a.answer is not null or a.state <> 'pending')
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

-- Makes the promises that are not there yet, sorted by their IDs: latent ones, and children with their tasks, ready or
-- delayed. A call never outlasts its parent; what is started does, and is nobody's child. Answers the IDs made, and which
-- children (by their place in the call) would have been too many.
create function _make_promises(
  p_turns turn[], p_operations jsonb, p_members jsonb, p_now timestamptz, out made text[], out over bigint[]
)
  language plpgsql volatile
as $$
#variable_conflict use_column
declare
  v_ready text[];
begin
  with missing as materialized (
    select o.*, r.timeout_at as until, r.children + row_number() over wanted > _children_max()
             or coalesce(
               o.promise is null and strpos(o.task, '~') > 0  -- a root is bounded by itself, whoever asks beside it
               and (p_members ->> _family(o.task))::integer + row_number() over members > _family_members_max(), false) as over
      from rows from (jsonb_to_recordset(p_operations) as (task text, operation text, kind text, timeout bigint, "default" jsonb,
             has_default boolean, default_headers jsonb, title text, tags jsonb, promise text, function text, args jsonb,
             args_headers jsonb, args_digest text, queue text, priority smallint, delay bigint)) with ordinality
             q(task, operation, kind, timeout, "default", has_default, default_headers, title, tags, promise, function, args,
               args_headers, args_digest, queue, priority, delay, n)
      cross join lateral (select q.*, coalesce(q.promise, q.task || '~' || q.operation) collate "C" as id) o
      join unnest(p_turns) r on r.task = o.task and r.verdict = 'ok'
     where o.kind <> 'wait'
       and (select c.seq from checkpoint c where c.task = o.task and c.operation = o.operation) is null
       and (select w.kind from wait w where w.task = o.task and w.operation = o.operation) is null
       and (select p.state from promise p where p.id = o.id) is null
    window wanted as (partition by o.task order by o.kind <> 'promise', o.n),
           members as (partition by _family(o.task), o.promise is null order by o.kind <> 'promise', o.n)
  ), fresh as materialized (
    -- asked for twice, it is made by the first that may
    select distinct on (id) * from missing where not over order by id, n
  ), made as (
    insert into promise as p (id, function, queue, args, args_headers, args_digest, tags, title, parent, created_at, timeout_at,
                              expires_at, open_at, has_default, default_value, default_headers)
    select f.id, c.function, case when c.is_child then coalesce(f.queue, (
             select k.queue from function k where k.name = f.function order by k.version desc limit 1), 'default') end,
           case when c.is_child then _normal_args(f.args) end, f.args_headers, decode(f.args_digest, 'hex'), f.tags, f.title,
           case when f.kind <> 'start' then f.task end, p_now, c.until, c.until, case when not c.is_child then p_now end,
           not c.is_child and coalesce(f.has_default, false), case when not c.is_child then f."default" end,
           case when not c.is_child then f.default_headers end
      from fresh f cross join lateral (
        select f.kind in ('call', 'start') as is_child, case when f.kind in ('call', 'start') then f.function end as function,
               case when f.kind = 'call' then least(p_now + _span(f.timeout), f.until) else p_now + _span(f.timeout) end as until) c
     order by f.id
    on conflict (id) do nothing
    returning p.id, p.function, p.queue, p.timeout_at
  ), tasks as (
    insert into task as t (id, state, queue, lane, priority, ready_at, timeout_at)
    select m.id, case when d.delayed then 'suspended' else 'ready' end, m.queue, m.function, coalesce(f.priority, 0),
           case when not d.delayed then p_now end, m.timeout_at
      from made m join fresh f on f.id = m.id
      cross join lateral (select coalesce(f.delay, 0) > 0 as delayed) d
     where m.function is not null
     order by m.id
    returning t.id, t.state
  ), delays as (
    insert into wait (task, operation, kind, fire_at, issued)
    select t.id, '~delay', 'delay', p_now + _span(f.delay), 0
      from tasks t join fresh f on f.id = t.id where t.state = 'suspended'
  )
  select array(select id from made), array(select n from missing where over), array(select id from tasks where state = 'ready')
    into made, over, v_ready;
  if cardinality(v_ready) > 0 then
    perform _wake(v_ready);
  end if;
end $$;

-- What a child that cannot be tells its parent's code.
create function _refused(p_type text, p_message text) returns jsonb
  language sql immutable
as $$ select jsonb_build_object('type', 'troth.errors.' || p_type, 'message', p_message) $$;

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
