-- Rejects a latent promise with an error, which the code that awaits it raises. Answers as `resolve` does.
-- grant: client, worker, admin
create function reject(
  p_id text, p_error jsonb default null, p_headers jsonb default null, p_digest bytea default null, p_actor text default null
) returns jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_promise promise;
begin
  perform _check_isolation();
  perform _check_decision(p_error, 'error', p_headers, p_actor);
  v_promise := _lock_deciding(p_id);
  return _decide(v_promise, 'rejected', p_error, nullif(p_headers, 'null'), p_digest, p_actor);
end $$;
