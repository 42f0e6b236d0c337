-- Ends a workflow as canceled here and now, whatever state it is in: its code is not asked, none of its clean-up runs, and whoever
-- holds it is fenced at his next word. What it made and left open ends the same way, in batches that tick works off. A latent
-- promise settles as it would by `cancel`.
-- grant: admin
create function cancel_force(p_id text, p_reason text default null, p_actor text default null) returns jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_actor constant text := coalesce(p_actor, session_user);
  v_error constant jsonb := jsonb_build_object('type', 'canceled', 'message', coalesce(p_reason, 'canceled by ' || v_actor));
  v_now timestamptz;
  v_promise promise;
  v_answer text;
begin
  perform _check_isolation();
  perform _check_text(p_reason, 'reason');
  perform _check_actor(p_actor);
  if cardinality(_lock_settling(array[p_id])) = 0 then
    return '{"answer": "unknown", "promise": null}'::jsonb;
  end if;
  v_now := _clock();
  select * into v_promise from promise where id = p_id;
  v_promise := _catch_up(v_promise, v_now);
  if v_promise.id is null then
    return '{"answer": "unknown", "promise": null}'::jsonb;
  elsif v_promise.state = 'canceled' then
    v_answer := 'already';
  elsif v_promise.state <> 'pending' then
    v_answer := 'conflict';
  else
    perform _record_audit(v_now, v_actor, 'cancel_force', p_id, coalesce((select state from task where id = p_id), 'pending'), 'canceled', v_error);
    perform _settle(array[p_id], array['canceled'], array[null::jsonb], array[v_error], array[null::jsonb], array[null::bytea], v_actor, v_now);
    insert into closing (id, since, force)
    select p_id, v_now, true
     where exists (select from promise where parent = p_id and state = 'pending' offset 0)
    on conflict (id) do update set force = true;
    select * into v_promise from promise where id = p_id;
    v_answer := 'settled';
  end if;
  return jsonb_build_object('answer', v_answer, 'promise', _document(v_promise, null, v_now));
end $$;
