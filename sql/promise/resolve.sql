-- Resolves a latent promise with a value. The first settlement wins, for ever: the same outcome again is a success, another
-- one a conflict that shows the winner. Late, double, racing and unknown are answers, never errors: nobody's transaction is
-- lost because a person clicked twice.
-- grant: client, worker, admin
create function resolve(
  p_id text, p_value jsonb default null, p_headers jsonb default null, p_digest bytea default null, p_actor text default null
) returns jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_promise promise;
begin
  perform _check_isolation();
  perform _check_decision(p_value, 'value', p_headers, p_actor);
  v_promise := _lock_deciding(p_id);
  return _decide(v_promise, 'resolved', p_value, nullif(p_headers, 'null'), p_digest, p_actor);
end $$;
