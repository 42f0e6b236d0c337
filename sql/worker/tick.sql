-- Does what is due, in batches of p_limit: workers silent beyond their lease, timeouts, timers, children owed a cancel. Any
-- number of tickers side by side: each takes what the others do not hold. One bad row never stops the rest: a batch that fails
-- is gone through row by row; nothing waits for long for what another holds. Answers what was done and in how many microseconds
-- the next thing is due.
-- grant: worker, admin
create function tick(p_limit integer default 1000) returns jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan set lock_timeout = '200ms'
as $$
declare
  v_now constant timestamptz := _clock();
  v_due text[];
  v_workers integer;
  v_promises integer := 0;
  v_timers integer := 0;
  v_closed integer;
  v_more boolean;
begin
  perform _check_isolation();
  if p_limit is null or p_limit not between 1 and _batch_items_max() then
    raise exception using errcode = 'TR002', message = format('a limit of %s', coalesce(p_limit::text, 'null')),
      hint = format('Do 1 to %s things at a time.', _batch_items_max());
  end if;
  v_workers := _bury_workers(p_limit, v_now);
  v_due := array(select id from promise where expires_at <= v_now order by expires_at, id limit p_limit);
  if cardinality(v_due) > 0 then
    v_promises := _each_or_all('_tick_promises', v_due);
  end if;
  v_due := array(select task from wait where promise is null and fire_at <= v_now order by fire_at, task limit p_limit);
  if cardinality(v_due) > 0 then
    v_timers := _each_or_all('_tick_timers', v_due);
  end if;
  select c.closed, c.more into v_closed, v_more from _close(p_limit) c;
  return jsonb_build_object(
    'now', _micros(_clock()), 'workers', v_workers, 'promises', v_promises, 'timers', v_timers, 'closed', v_closed,
    'next', (select case when v_more then 0 when d.at is not null then greatest(_micros(d.at) - _micros(_clock()), 0) end
               from (select least((select min(expires_at) from promise where expires_at is not null),
                                  (select min(fire_at) from wait where promise is null)) as at) d));
end $$;

-- Runs one of ours on a batch; if that fails, on each row by itself, passing over the ones that fail alone.
create function _each_or_all(p_function text, p_ids text[]) returns integer
  language plpgsql volatile
as $$
declare
  v_count integer;
  v_total integer := 0;
  v_id text;
begin
  begin
    execute format('select %I($1)', p_function) into v_count using p_ids;
    return v_count;
  exception when others then
    raise warning '% of % rows failed together: %', p_function, cardinality(p_ids), sqlerrm;
  end;
  foreach v_id in array p_ids loop
    begin
      execute format('select %I($1)', p_function) into v_count using array[v_id];
      v_total := v_total + v_count;
    exception when others then
      raise warning '% passed over %: %', p_function, v_id, sqlerrm;
    end;
  end loop;
  return v_total;
end $$;

create function _tick_promises(p_ids text[]) returns integer
  language sql volatile
as $$
  select _time_out(array(select l.id from (
    select id from promise where id = any (p_ids) and state = 'pending' order by id for no key update skip locked) l))
$$;

-- Fires the timers of tasks that nobody holds a lock on. A timer becomes an event; a delayed start, or a task whose step is to
-- be tried again, becomes ready and is told nothing.
create function _tick_timers(p_tasks text[]) returns integer
  language plpgsql volatile
as $$
declare
  v_ids text[];
  v_now timestamptz;
  v_fired integer;
begin
  v_ids := array(select l.id from (
    select id from task where id = any (p_tasks) order by id for no key update skip locked) l);
  v_now := _clock();
  with gone as (
    delete from wait where task = any (v_ids) and fire_at <= v_now
    returning task, operation, kind, fire_at, issued, cohort, digest
  ), events as (
    insert into checkpoint (task, seq, operation, kind, issued, cohort, digest, state, at, epoch)
    select g.task, t.last_seq + row_number() over (partition by g.task order by g.fire_at, g.operation), g.operation, g.kind,
           g.issued, g.cohort, g.digest, 'resolved', greatest(v_now, t.last_at), t.epoch
      from gone g join task t on t.id = g.task and t.id = any (v_ids)
     where g.kind = 'timer'
  ), told as (
    update task t
       set last_seq = t.last_seq + n.events,
           last_at = case when n.events > 0 then greatest(v_now, t.last_at) else t.last_at end,
           news = t.news or t.state = 'claimed' and n.events > 0,
           ready_at = case when t.state = 'suspended' then v_now else t.ready_at end,
           state = case when t.state = 'suspended' then 'ready' else t.state end
      from (select task, count(*) filter (where kind = 'timer')::integer as events from gone group by task) n
     where t.id = n.task and t.id = any (v_ids)
  )
  select count(*)::integer into v_fired from gone;
  if v_fired > 0 then
    perform _wake(v_ids);
  end if;
  return v_fired;
end $$;

-- Marks silent workers dead, for ever, and gives their tasks to others: alone from now on (lane!) if they made no progress
-- since their claim, or parked when the attempts are used up. A claim may have been under way when its worker was marked: dead
-- workers are looked through again, each time after twice as long, since an old snapshot keeps all that they ever held in the index.
create function _bury_workers(p_limit integer, p_now timestamptz) returns integer
  language plpgsql volatile
as $$
declare
  v_dead text[];
  v_left text[];
  v_ids text[];
begin
  update worker w set died_at = p_now, sleeping = false, search_at = null
    from (select id from worker where died_at is null and seen_at + lease < p_now order by id for no key update skip locked) l
   where w.id = l.id;
  delete from worker w
   where w.id = any (array(
     select id from worker where died_at < p_now - interval '1 day'
        and not exists (select from task t where t.worker = worker.id collate "default" offset 0)
        for update skip locked));
  v_dead := array(select id from worker where died_at is not null and (search_at is null or search_at <= p_now));
  if cardinality(v_dead) = 0 then
    return 0;
  end if;
  v_left := array(select id from task where worker = any (v_dead) limit p_limit);
  if cardinality(v_left) = 0 then
    update worker w set search_at = p_now + (p_now - w.died_at)
      from (select id from worker where id = any (v_dead) order by id for no key update skip locked) l
     where w.id = l.id;
    return 0;
  end if;
  v_ids := array(select l.id from (
    select t.id from task t where t.id = any (v_left) order by t.id for no key update skip locked) l);
  update task t
     set state = case when t.attempts >= _attempts_max() then 'halted' else 'ready' end,
         ready_at = case when t.attempts < _attempts_max() then p_now end,
         reason = case when t.attempts >= _attempts_max() then jsonb_build_object(
           'code', 'attempts', 'message', format('%s workers died while they held it; the last was %s', t.attempts, t.worker)) end,
         lane = rtrim(t.lane, '!') || case when t.attempts > 0 then '!' else '' end, worker = null, claimed_at = null
   where t.id = any (v_ids) and (select w.died_at from worker w where w.id = t.worker) is not null;
  perform _wake(v_ids);
  return cardinality(v_ids);
end $$;
