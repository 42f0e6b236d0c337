-- Renews the one lease of a worker and says which of the tasks that it holds have news (an event that their code has not been
-- told) or are lost (with another, or gone). Tasks claimed in its name that it does not hold, since the answer to that claim
-- was lost, are freed once they are older than any claim could be under way. That search passes all that the worker ever held while
-- somebody holds an old snapshot: one that took long is not repeated before twenty times as long. A worker marked dead gets TR020.
-- One row without a task, `alone`, says that a task whose last holder died is ready here: who holds others lets them end before
-- it claims on.
-- grant: worker, admin
create function heartbeat(
  p_worker text, p_tasks text[], p_epochs integer[], p_under_way interval default '5 seconds'
) returns table (task text, epoch integer, answer text)
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_now timestamptz;
  v_worker worker;
  v_free text[];
  v_took interval;
begin
  perform _check_isolation();
  if cardinality(p_tasks) <> cardinality(p_epochs) or p_tasks is null or p_epochs is null then
    raise exception using errcode = 'TR002', message = 'tasks and epochs differ in number', hint = 'Give one epoch per task.';
  end if;
  select * into v_worker from worker where id = p_worker for no key update skip locked;
  v_now := _clock();
  if found and v_worker.died_at is null then
    update worker set seen_at = greatest(v_now, seen_at) where id = p_worker;
  elsif exists (select from worker where id = p_worker and died_at is not null) then
    raise exception using errcode = 'TR020', message = format('worker %s was taken for dead', p_worker),
      hint = 'Its tasks are with others. Go on under a new ID.';
  end if;

  if v_worker.search_at is null or v_worker.search_at <= v_now then
    v_free := array(select l.id from (
      select t.id from task t
       where t.worker = p_worker and t.claimed_at < v_now - p_under_way
         and not exists (select from unnest(p_tasks, p_epochs) h(task, epoch) where h.task = t.id and h.epoch = t.epoch)
       order by t.id for no key update skip locked) l);
    v_took := _clock() - v_now;
    if v_took > interval '20 milliseconds' then
      update worker set search_at = v_now + 20 * v_took where id = v_worker.id and died_at is null;
    end if;
  end if;
  if cardinality(v_free) > 0 then
    update task t
       set state = 'ready', ready_at = v_now, worker = null, claimed_at = null, attempts = greatest(t.attempts - 1, 0)
     where t.id = any (v_free) and t.worker = p_worker;
    perform _wake(v_free);
  end if;

  return query
    select h.task, h.epoch, case when t.id is null then 'lost' else 'news' end
      from unnest(p_tasks, p_epochs) h(task, epoch)
      left join task t on t.id = h.task and t.id = any (p_tasks) and t.epoch = h.epoch and t.worker = p_worker
     where t.id is null or t.news
    union all
    select null, null, 'alone'
     where exists (
       select from worker w cross join unnest(w.queues) q(queue) cross join unnest(w.lanes) l(lane)
        where w.id = p_worker
          and (select t.id from task t where t.state = 'ready' and t.queue = q.queue and t.lane = l.lane || '!' limit 1) is not null);
end $$;
