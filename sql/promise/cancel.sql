-- Cancels. A latent promise, or a workflow that never ran, settles at once. A workflow that has begun is told: the answer is
-- `requested`, its code sees the cancellation as an event in its order and ends as it decides. Asked again, once the code has been
-- told and at least a second later, it is told again, so that clean-up which takes too long can be interrupted; a click that came
-- twice changes nothing.
-- grant: client, worker, admin
create function cancel(p_id text, p_reason text default null, p_actor text default null) returns jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
begin
  perform _check_isolation();
  perform _check_text(p_reason, 'reason');
  perform _check_actor(p_actor);
  if cardinality(_lock_settling(array[p_id])) = 0 then
    return '{"answer": "unknown", "promise": null}'::jsonb;
  end if;
  return _cancel(p_id, p_reason, p_actor);
end $$;
