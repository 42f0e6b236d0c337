-- The floor: the least that still has IDs, fences, durable checkpoints and decisions from outside. It is a yardstick, nothing to
-- use: no retries, timers, leases, cancellation, limits, branches or error handling, and a workflow's end is a row that stays.
create schema floor;

create table floor.task (
  id text collate "C" primary key,
  kind text not null,
  state "char" not null default 'r',  -- ready, claimed, waiting, done
  epoch integer not null default 0,
  event text collate "C",
  result jsonb
) with (fillfactor = 60);
create index task_ready on floor.task (id) where state = 'r';
create index task_open on floor.task (id) where state <> 'd';
create index task_event on floor.task (event) where event is not null;

create table floor.checkpoint (
  task text collate "C" not null,
  step integer not null,
  value jsonb,
  primary key (task, step)
);

create table floor.event (id text collate "C" primary key, value jsonb not null);

create function floor.claim(p_limit integer)
returns table (id text, kind text, epoch integer, steps integer[], results jsonb[])
  language plpgsql set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
  return query
  with c as materialized (
    select t.id from floor.task t where t.state = 'r' order by t.id limit p_limit for no key update skip locked
  ), u as (
    update floor.task t set state = 'c', epoch = t.epoch + 1 from c where t.id = c.id returning t.id, t.kind, t.epoch
  )
  select u.id, u.kind, u.epoch, j.steps, j.results
    from u left join lateral (
      select array_agg(k.step order by k.step) as steps, array_agg(k.value order by k.step) as results
        from floor.checkpoint k where k.task = u.id and u.epoch > 1) j on true;
end $$;

-- Everything that a worker has to say, in one call: checkpoints, ends, suspensions. Answers whose events are there already.
create function floor.turn(
  p_ids text[], p_epochs integer[], p_check_ids text[], p_check_steps integer[], p_check_values jsonb[],
  p_end_ids text[], p_end_results jsonb[], p_wait_ids text[], p_wait_events text[]
) returns text[]
  language plpgsql set enable_seqscan = off set enable_nestloop = off set plan_cache_mode = force_generic_plan
as $$
declare
  v_held text[];
begin
  v_held := array(select l.id from (
    select t.id from floor.task t join unnest(p_ids, p_epochs) g(id, epoch) on g.id = t.id and g.epoch = t.epoch
     where t.id = any (p_ids) and t.state = 'c' order by t.id for no key update of t) l);
  if cardinality(v_held) < cardinality(p_ids) then
    raise exception 'fenced';
  end if;
  insert into floor.checkpoint (task, step, value) select * from unnest(p_check_ids, p_check_steps, p_check_values);
  update floor.task t set state = 'd', result = e.result
    from unnest(p_end_ids, p_end_results) e(id, result) where t.id = e.id and t.id = any (p_end_ids);
  if cardinality(p_wait_ids) = 0 then
    return '{}';
  end if;
  update floor.task t set state = 'w', event = w.event
    from unnest(p_wait_ids, p_wait_events) w(id, event) where t.id = w.id and t.id = any (p_wait_ids);
  -- a decision that came before: its row is looked for under our lock, and whoever decides later finds our event
  update floor.task t set state = 'r' where t.id = any (p_wait_ids)
     and exists (select from floor.event e where e.id = t.event);
  return '{}';
end $$;

create function floor.resolve(p_event text, p_value jsonb) returns void
  language plpgsql
as $$
begin
  insert into floor.event (id, value) values (p_event, p_value);
  update floor.task set state = 'r' where event = p_event and state = 'w';
  perform pg_notify('floor', '');
end $$;
