-- Parks a workflow: no worker runs it until `resume`. Whoever holds it is fenced at his next word.
-- grant: admin
create function halt(p_id text, p_reason text default null, p_actor text default null) returns jsonb
  language plpgsql volatile security definer set search_path from current
as $$
declare
  v_task task;
  v_now timestamptz;
begin
  perform _check_isolation();
  perform _check_text(p_reason, 'reason');
  perform _check_actor(p_actor);
  select * into v_task from task where id = p_id for no key update;
  v_now := _clock();
  if not found then
    return _operated(p_id, 'settled', v_now);
  elsif v_task.state = 'halted' then
    return _operated(p_id, 'already', v_now);
  end if;
  update task
     set state = 'halted', ready_at = null, worker = null, claimed_at = null,
         reason = jsonb_build_object('code', 'operator', 'message', coalesce(p_reason, 'halted by ' || coalesce(p_actor, session_user)))
   where id = p_id;
  perform _record_audit(v_now, coalesce(p_actor, session_user), 'halt', p_id, v_task.state, 'halted', to_jsonb(p_reason));
  return _operated(p_id, 'halted', v_now);
end $$;

-- What an operator's verb answers about a promise: what was done, or why there was nothing to do.
create function _operated(p_id text, p_answer text, p_now timestamptz) returns jsonb
  language plpgsql volatile
as $$
declare
  v_promise promise;
begin
  select * into v_promise from promise where id = p_id;
  if not found then
    return '{"answer": "unknown", "promise": null}'::jsonb;
  end if;
  return jsonb_build_object(
    'answer', case when v_promise.function is null then 'latent' else p_answer end,
    'promise', _document(v_promise, (select t from task t where t.id = p_id), p_now));
end $$;
