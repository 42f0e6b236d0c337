-- Sends a halted workflow on: ready, with its attempts forgotten. Its journal is replayed as ever.
-- grant: admin
create function resume(p_id text, p_actor text default null) returns jsonb
  language plpgsql volatile security definer set search_path from current
as $$
declare
  v_task task;
  v_now timestamptz;
begin
  perform _check_isolation();
  perform _check_actor(p_actor);
  select * into v_task from task where id = p_id for no key update;
  v_now := _clock();
  if not found then
    return _operated(p_id, 'settled', v_now);
  elsif v_task.state <> 'halted' then
    return _operated(p_id, 'not_halted', v_now);
  end if;
  delete from wait where task = p_id and kind = 'delay';
  update task set state = 'ready', ready_at = v_now, reason = null, attempts = 0, lane = rtrim(lane, '!') where id = p_id;
  perform _record_audit(v_now, coalesce(p_actor, session_user), 'resume', p_id, 'halted', 'ready', v_task.reason);
  perform _wake(array[p_id]);
  return _operated(p_id, 'resumed', v_now);
end $$;
