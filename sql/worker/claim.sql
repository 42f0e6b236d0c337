-- Gives ready tasks to a worker: ready -> claimed, epoch + 1, attempts + 1. The heads of the lanes that this worker knows are
-- peeked at and merged by priority and age; then so many of each lane are locked, passing over what others hold. Lanes that
-- nobody here knows cost nothing. The first claim pins the version (p_pins, beside p_lanes; a lane pins to itself or to @1
-- without it), begins the workflow's time and draws its seed.
--
-- While somebody holds an old snapshot, the entries of all that was claimed since stay in front of what is ready. A look that had
-- to pass many of them (it took long) leaves floors behind, where the next ones begin: see `_look` and docs/decisions/0007.
--
-- p_alone: this worker holds nothing. A task whose last holder died (its lane ends in !) is then given first, and by itself,
-- so that one which kills its process takes no innocents with it.
-- p_sleeping: says whether the worker listens; set before its last look, so that whoever adds work later sends a hint.
-- The journal that is returned begins after `asked` if this very worker suspended the task and kept its code, else at 1; it is
-- bounded (p_entries), the rest comes by `journal`. `seen` is the last seq delivered. `asked` is the last event after which all
-- that the code asked for is recorded (-1: none yet); `waits`, of a task whose code is run anew, what is recorded and has no event
-- yet; `steps` the last attempt of each step that has no outcome yet.
-- A worker is registered by its first claim and listens on the channel of its name; once marked dead it is refused.
-- grant: worker, admin
create function claim(
  p_worker text, p_queues text[], p_lanes text[], p_limit integer, p_pins text[] default null, p_alone boolean default false,
  p_sleeping boolean default false, p_lease interval default '15 seconds', p_info jsonb default null,
  p_entries integer default 1000
) returns table (
  task text, epoch integer, function text, version integer, queue text, args jsonb, args_headers jsonb, tags jsonb,
  timeout_at bigint, started_at bigint, seed bigint, attempts integer, now bigint, last_seq integer, alone boolean, asked integer, waits jsonb,
  steps jsonb, journal jsonb
)
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_now timestamptz := _clock();
  v_pins constant text[] := coalesce(p_pins, array(
    select case when l.lane like '%@%' then l.lane else l.lane || '@1' end from unnest(p_lanes) with ordinality l(lane, n) order by l.n));
  v_worker worker;
  v_heads place[];
  v_ids text[];
  v_suffix text;
  v_limit integer;
begin
  perform _check_isolation();
  perform _check_claim(p_worker, p_queues, p_lanes, v_pins, p_limit, p_lease);
  v_worker := _present(p_worker, p_queues, p_lanes, coalesce(p_sleeping, false), p_lease, p_info, v_now);

  foreach v_suffix in array case when p_alone then array['!', ''] else array[''] end loop
    v_limit := case when v_suffix = '!' then 1 else p_limit end;
    v_heads := _look(v_worker, p_queues, array(select l.lane || v_suffix from unnest(p_lanes) l(lane)), v_limit, v_now);
    if cardinality(v_heads) > 0 then
      with share as materialized (
        select h.queue, h.lane, count(*) as heads, (array_agg(h order by h.priority, h.ready_at, h.id))[1] as first
          from unnest(v_heads) h group by h.queue, h.lane
      )
      select array_agg(h.id) into v_ids
        from share cross join lateral (
          select t.id from task t
           where t.state = 'ready' and t.queue = share.queue and t.lane = share.lane
             and (t.priority, t.ready_at, t.id) >= ((share.first).priority, (share.first).ready_at, (share.first).id)
             and (t.timeout_at is null or t.timeout_at > v_now)
           order by t.priority, t.ready_at, t.id limit share.heads for no key update skip locked) h;
    end if;
    exit when v_ids is not null;
  end loop;
  if v_ids is null then
    return;
  end if;

  update task t
     set state = 'claimed', worker = p_worker, epoch = t.epoch + 1, attempts = t.attempts + 1, claimed_at = v_now,
         ready_at = null, news = false, lane = v_pins[array_position(p_lanes, rtrim(t.lane, '!'))],
         started_at = coalesce(t.started_at, v_now), last_at = coalesce(t.last_at, v_now),
         seed = coalesce(t.seed, (random() * 9007199254740991)::bigint), kept_by = case when t.kept_by = p_worker then t.kept_by end
   where t.id = any (v_ids);

  -- read after the locks: an event that came between is in here, or its settler found the task claimed
  return query
    select t.id, t.epoch, p.function, split_part(t.lane, '@', 2)::integer, t.queue, p.args, p.args_headers, p.tags,
           _micros(t.timeout_at), _micros(t.started_at), t.seed, t.attempts::integer, _micros(_clock()), t.last_seq, v_suffix = '!',
           t.asked,
           case when t.epoch = 1 or t.kept_by is not null then '[]'
                else coalesce((
                  select jsonb_agg(jsonb_build_object(
                      'operation', w.operation, 'kind', w.kind, 'promise', w.promise, 'issued', w.issued, 'digest', w.digest,
                      'cohort', w.cohort) order by w.operation)
                    from wait w where w.task = t.id and w.kind <> 'delay'), '[]') end,
           case when t.epoch = 1 then '[]'
                else coalesce((
                  select jsonb_agg(jsonb_build_object(
                      'operation', a.operation, 'number', a.number, 'ended', a.ended_at is not null,
                      'retry_at', _micros(a.retry_at), 'details', a.details, 'error', a.error) order by a.operation)
                    from (select distinct on (operation) * from attempt where task = t.id order by operation, number desc) a
                   where (select c.seq from checkpoint c where c.task = t.id and c.operation = a.operation) is null), '[]') end,
           case when t.last_seq = 0 then '[]' else _entries(t.id, case when t.kept_by is null then 0 else t.asked end, p_entries) end
      from task t join promise p on p.id = t.id and p.id = any (v_ids)
     where t.id = any (v_ids)
     order by t.priority, t.claimed_at, t.id;
end $$;

create function _check_claim(
  p_worker text, p_queues text[], p_lanes text[], p_pins text[], p_limit integer, p_lease interval
) returns void
  language plpgsql immutable
as $$
begin
  if p_worker is null or p_worker !~ '^[A-Za-z0-9_.-]{1,63}$' then
    raise exception using errcode = 'TR002', message = format('%L is not the ID of a worker', left(p_worker, 100)),
      hint = 'Give each process an ID of its own, of 1 to 63 letters, digits, _ . and -; it is also its channel.';
  elsif p_limit is null or p_limit not between 1 and _batch_items_max() then
    raise exception using errcode = 'TR002', message = format('a limit of %s', coalesce(p_limit::text, 'null')),
      hint = format('Claim 1 to %s tasks at a time.', _batch_items_max());
  elsif p_queues is null or p_lanes is null or cardinality(p_pins) <> cardinality(p_lanes) then
    raise exception using errcode = 'TR002', message = 'queues, lanes and pins do not fit together',
      hint = 'Give at least one queue and one lane, and as many pins as lanes (or none).';
  elsif array_ndims(p_lanes) > 1 or array_position(p_lanes, null) is not null
    or exists (select from unnest(p_pins) p(pin) where pin is null or pin !~ '@[1-9][0-9]{0,8}$') then
    raise exception using errcode = 'TR002', message = 'a lane is null, or a pin says no version',
      hint = 'A lane is the name of a function or name@version; a pin is name@version, the version a number from 1.';
  elsif p_lease is null or p_lease not between interval '1 second' and interval '1 day' then
    raise exception using errcode = 'TR002', message = format('a lease of %s', coalesce(p_lease::text, 'null')),
      hint = 'A lease lies between 1 second and 1 day.';
  end if;
end $$;

-- The worker's row: made by its first claim, refused once dead, written again only where something differs. A row that the
-- sweeper or a heartbeat holds right now is left for the next claim.
create function _present(
  p_worker text, p_queues text[], p_lanes text[], p_sleeping boolean, p_lease interval, p_info jsonb, p_now timestamptz
) returns worker
  language plpgsql volatile
as $$
declare
  v_worker worker;
begin
  select * into v_worker from worker where id = p_worker;
  if not found then
    insert into worker (id, queues, lanes, lease, info, sleeping, registered_at, seen_at)
    values (p_worker, p_queues, p_lanes, p_lease, p_info, p_sleeping, p_now, p_now)
    on conflict (id) do nothing;
    v_worker.id := p_worker;
  elsif v_worker.died_at is not null then
    raise exception using errcode = 'TR020',
      message = format('worker %s was taken for dead at %s', p_worker, v_worker.died_at),
      hint = 'Its tasks are with others. Go on under a new ID.';
  elsif v_worker.sleeping <> p_sleeping or v_worker.queues <> p_queues or v_worker.lanes <> p_lanes then
    update worker w set sleeping = p_sleeping, queues = p_queues, lanes = p_lanes
      from (select id from worker where id = p_worker and died_at is null for no key update skip locked) l
     where w.id = l.id;
  end if;
  return v_worker;
end $$;

-- The first ready tasks of these lanes, merged, whoever holds them: in full, or from the floors of the last full look on. A floor
-- is a place of a lane and a priority before which there was nothing. What becomes ready takes its place by the clock, so a floor is
-- never younger than a second; what comes before it all the same (a start in a transaction that was open for longer, a clock that
-- was set back) is seen by the next full look. That is each one, as long as they are short; one that was long is followed by
-- another after a second, or twenty times what it took.
create function _look(p_worker worker, p_queues text[], p_lanes text[], p_limit integer, p_now timestamptz) returns place[]
  language plpgsql volatile
as $$
declare
  v_in_full constant boolean := coalesce(p_now not between p_worker.looked_at and p_worker.look_at, true);
  v_floors constant place[] := case when not v_in_full then p_worker.floors else '{}'::place[] end;
  v_began constant timestamptz := _clock();
  v_heads place[];
  v_took interval;
begin
  v_heads := array(
    with stretch as materialized (
      select q.queue, l.lane, f.priority, f.ready_at,
             coalesce(lead(f.priority) over (partition by q.queue, l.lane order by f.priority) - 1, 32767) as upto
        from unnest(p_queues) q(queue) cross join unnest(p_lanes) l(lane)
        cross join lateral (
          select (-32768)::smallint as priority, timestamptz '-infinity' as ready_at
          union all
          select f.priority, f.ready_at from unnest(v_floors) f where f.queue = q.queue and f.lane = l.lane) f
    )
    select row(s.queue, s.lane, h.priority, h.ready_at, h.id)::place
      from stretch s cross join lateral (
        select t.priority, t.ready_at, t.id from task t
         where t.state = 'ready' and t.queue = s.queue and t.lane = s.lane
           and (t.priority, t.ready_at) >= (s.priority, s.ready_at) and t.priority <= s.upto
         order by t.priority, t.ready_at, t.id limit p_limit) h
     order by h.priority, h.ready_at, h.id limit p_limit);
  v_took := _clock() - v_began;
  if v_in_full and v_took > _long_look() then
    update worker w
       set floors = _floors(p_queues, p_lanes, v_heads, cardinality(v_heads) = p_limit, p_worker.floors, v_began - interval '1 second'),
           looked_at = v_began, look_at = v_began + greatest(interval '1 second', 20 * v_took)
      from (select id from worker where id = p_worker.id and died_at is null for no key update skip locked) l
     where w.id = l.id;
  end if;
  return v_heads;
end $$;

create function _long_look() returns interval language sql immutable as $$ select interval '2 milliseconds' $$;

-- What a full look has shown of these lanes, for each priority that was seen or had a floor: nothing before the first that is
-- there, and nothing at all before p_until where there is none. If there may be more than it went through (`p_is_cut`), it says
-- nothing of what comes after its last.
create function _floors(
  p_queues text[], p_lanes text[], p_heads place[], p_is_cut boolean, p_before place[], p_until timestamptz
) returns place[]
  language sql stable
as $$
  with last as (
    select h.priority, h.ready_at from unnest(p_heads) h where p_is_cut order by h.priority desc, h.ready_at desc limit 1
  ), known as (
    select h.priority from unnest(p_heads) h
    union
    select f.priority from unnest(p_before) f
    union
    select 0::smallint
    order by 1 limit 10
  ), seen as (
    select h.queue, h.lane, h.priority, min(h.ready_at) as ready_at from unnest(p_heads) h group by h.queue, h.lane, h.priority
  )
  select array_agg(row(q.queue, l.lane, k.priority, least(p_until, coalesce(s.ready_at, e.ready_at)), null)::place)
    from unnest(p_queues) q(queue) cross join unnest(p_lanes) l(lane) cross join known k
    left join last on true
    left join last e on e.priority = k.priority
    left join seen s on s.queue = q.queue and s.lane = l.lane and s.priority = k.priority
   where k.priority <= coalesce(last.priority, 32767)
$$;
