-- A decision is about one latent promise, and somebody waits for what comes of it. Such a promise has no task, waits for nothing
-- and made nothing: what is left of settle.sql, row by row instead of in sets, takes Postgres two thirds of the time.

-- The locks, in the order of all. Who waits is looked up after the promise is held. Answers it as it is under its lock; nothing if
-- there is none.
create function _lock_deciding(p_id text) returns promise
  language plpgsql volatile
as $$
declare
  v_promise promise;
  v_tasks text[];
begin
  select * into v_promise from promise where id = p_id for no key update;
  v_tasks := p_id || array(select task from wait where promise = p_id);
  perform 1 from task where id = any (v_tasks) order by id for no key update;
  return v_promise;
end $$;

-- Settles it. The caller holds all locks, and gives it as it is under them.
create function _settle_latent(
  p_promise promise, p_state text, p_value jsonb, p_error jsonb, p_headers jsonb, p_digest bytea, p_settler text, p_now timestamptz
) returns promise
  language plpgsql volatile
as $$
declare
  v_promise promise;
  v_wait wait;
  v_task task;
  v_own boolean;
  v_tasks text[] := '{}'::text[];
begin
  update promise p
     set state = p_state, value = p_value, error = p_error, headers = p_headers, value_digest = p_digest,
         settler = p_settler, settled_at = greatest(p_now, p.created_at), expires_at = null, open_at = null
   where p.id = (p_promise).id and p.state = 'pending'
  returning p.* into strict v_promise;

  for v_wait in
    with gone as (delete from wait where promise = v_promise.id returning *)
    select * from gone order by task, operation
  loop
    update task t
       set last_seq = t.last_seq + 1,
           last_at = greatest(p_now, t.last_at),
           news = t.news or t.state = 'claimed',
           ready_at = case when t.state = 'suspended' then p_now else t.ready_at end,
           state = case when t.state = 'suspended' then 'ready' else t.state end
     where t.id = v_wait.task
    returning t.* into strict v_task;
    v_own := _family(v_wait.task) = _family(v_promise.id);
    insert into checkpoint (task, seq, operation, kind, issued, cohort, digest, state, value, error, headers, promise, at, epoch)
    values (v_task.id, v_task.last_seq, v_wait.operation, v_wait.kind, v_wait.issued, v_wait.cohort, v_wait.digest, p_state,
            case when not v_own then p_value end, case when not v_own then p_error end, case when not v_own then p_headers end,
            case when v_promise.id <> v_task.id || '~' || v_wait.operation then v_promise.id end, v_task.last_at, v_task.epoch);
    v_tasks := v_tasks || v_task.id;
  end loop;
  if cardinality(v_tasks) > 0 then
    perform _wake(v_tasks);
  end if;
  return v_promise;
end $$;
