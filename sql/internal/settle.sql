-- Where promises leave `pending`, in sets; one latent promise that is decided does so in settle_latent.sql. The caller holds the
-- rows of the promises, of their own tasks and of all tasks that wait for them, and has judged: what stands here changes, and carries
-- the consequences out.
--
-- Consequences: every wait becomes an event in its awaiter's journal and the awaiter goes on; the settled workflow's own
-- task and waits go; what it made and left open is owed a cancel (a row in `closing` that tick works off, however many).
create function _settle(
  p_ids text[], p_states text[], p_values jsonb[], p_errors jsonb[], p_headers jsonb[], p_digests bytea[], p_settler text,
  p_now timestamptz
) returns void
  language plpgsql volatile
as $$
begin
  update promise p
     set state = s.state, value = s.value, error = s.error, headers = s.headers, value_digest = s.digest,
         settler = p_settler,
         settled_at = case when p_settler = 'timeout' then p.timeout_at else greatest(p_now, p.created_at) end,
         expires_at = null, open_at = null,
         started_at = t.started_at, seed = t.seed,
         version = nullif(rtrim(split_part(t.lane, '@', 2), '!'), '')::integer
    from unnest(p_ids, p_states, p_values, p_errors, p_headers, p_digests) s(id, state, value, error, headers, digest)
    left join task t on t.id = s.id and t.id = any (p_ids)
   where p.id = s.id and p.id = any (p_ids) and p.state = 'pending';

  -- what ends no longer waits: two that end in one call owe each other nothing
  delete from wait where task = any (p_ids);
  perform _deliver(p_ids, p_now);
  with gone as (
    delete from task where id = any (p_ids) returning id, children
  )
  insert into closing (id, since)
  select g.id, p_now from gone g
   where g.children > 0
     and (select c.id from promise c where c.parent = g.id and c.state = 'pending' order by c.parent, c.id limit 1) is not null
  on conflict (id) do update set itself = false, after = null;
end $$;

-- Turns the waits for settled promises into events of their awaiters, whose rows are locked. Waits are taken by themselves, and
-- what comes of them is looked up by its keys: see docs/decisions/0001.
create function _deliver(p_ids text[], p_now timestamptz) returns void
  language plpgsql volatile
as $$
declare
  v_tasks text[];
begin
  if not exists (select from wait where promise = any (p_ids)) then
    return;
  end if;
  with gone as (
    delete from wait where promise = any (p_ids) returning task, operation, kind, promise, issued, cohort, digest
  ), events as (
    insert into checkpoint (task, seq, operation, kind, issued, cohort, digest, state, value, error, headers, promise, at, epoch)
    select g.task, t.last_seq + row_number() over (partition by g.task order by g.promise, g.operation),
           g.operation, g.kind, g.issued, g.cohort, g.digest, p.state,
           case when not f.own then p.value end, case when not f.own then p.error end, case when not f.own then p.headers end,
           case when g.promise <> g.task || '~' || g.operation then g.promise end,
           greatest(p_now, t.last_at), t.epoch
      from gone g
      join promise p on p.id = g.promise and p.id = any (p_ids)
      join task t on t.id = g.task and t.id = any (array(select task from gone))
      cross join lateral (select _family(g.task) = _family(g.promise) as own) f
  ), told as (
    update task t
       set last_seq = t.last_seq + n.events,
           last_at = greatest(p_now, t.last_at),
           news = t.news or t.state = 'claimed',
           ready_at = case when t.state = 'suspended' then p_now else t.ready_at end,
           state = case when t.state = 'suspended' then 'ready' else t.state end
      from (select task, count(*)::integer as events from gone group by task) n
     where t.id = n.task and t.id = any (array(select task from gone))
    returning t.id
  )
  select array_agg(id) into v_tasks from told;
  if v_tasks is not null then
    perform _wake(v_tasks);
  end if;
end $$;

-- The locks that a settlement needs, in the order of all: promises, then tasks (their own and their awaiters'). Who waits
-- is looked up after the promises are held: a new wait on one of them needs that same lock. Answers which of the promises are there
-- and held: one that appears from now on is unknown to this call, which came before it.
create function _lock_settling(p_ids text[]) returns text[]
  language plpgsql volatile
as $$
declare
  v_held text[];
  v_tasks text[];
begin
  v_held := array(select l.id from (select id from promise where id = any (p_ids) order by id for no key update) l);
  v_tasks := p_ids || array(select task from wait where promise = any (p_ids));
  perform 1 from task where id = any (v_tasks) order by id for no key update;
  return v_held;
end $$;

-- Settles as timed out those of the given promises, already locked, whose awaiters' rows can be had without waiting.
-- Answers how many.
create function _time_out(p_ids text[]) returns integer
  language plpgsql volatile
as $$
declare
  v_tasks text[];
  v_held text[];
  v_stuck text[];
  v_ids text[];
  v_now timestamptz;
begin
  v_tasks := p_ids || array(select task from wait where promise = any (p_ids));
  v_held := array(select l.id from (
    select id from task where id = any (v_tasks) order by id for no key update skip locked) l);
  v_now := _clock();
  v_stuck := array(
    select w.promise from (select promise, task from wait where promise = any (p_ids) offset 0) w
      left join unnest(v_held) h(id) on h.id = w.task
     where h.id is null);
  v_ids := array(
    select p.id
      from promise p
      left join unnest(v_held) h(id) on h.id = p.id
     where p.id = any (p_ids) and p.state = 'pending' and p.timeout_at <= v_now
       and p.id <> all (v_stuck)
       and (p.function is null or h.id is not null or not exists (select from task t where t.id = p.id offset 0)));
  if cardinality(v_ids) = 0 then
    return 0;
  end if;
  perform _settle(
      array_agg(p.id), array_agg(case when p.has_default then 'resolved' else 'timedout' end),
      array_agg(case when p.has_default then p.default_value end), array_agg(null::jsonb),
      array_agg(case when p.has_default then p.default_headers end), array_agg(null::bytea), 'timeout', v_now)
    from promise p where p.id = any (v_ids);
  return cardinality(v_ids);
end $$;

-- Whoever touches an overdue promise settles it. A row that another holds stays `pending, overdue` for now, as it does
-- for a reader whose transaction may not write, or sees the past.
create function _expire(p_ids text[]) returns void
  language plpgsql volatile
as $$
declare
  v_now constant timestamptz := _clock();
  v_ids text[];
begin
  if not exists (select from promise where id = any (p_ids) and state = 'pending' and timeout_at <= v_now)
    or current_setting('transaction_read_only')::boolean
    or current_setting('transaction_isolation') <> 'read committed' then
    return;
  end if;
  v_ids := array(select l.id from (
    select id from promise where id = any (p_ids) and state = 'pending' and timeout_at <= v_now order by id for no key update skip locked) l);
  perform _time_out(v_ids);
end $$;
