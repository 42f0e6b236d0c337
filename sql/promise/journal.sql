-- A workflow's events from a sequence number on, in order: what its code has been told, and is told again at a replay.
-- grant: client, worker, admin
create function journal(p_id text, p_from_seq integer default 1, p_limit integer default 1000) returns setof jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
begin
  if p_limit is null or p_limit not between 1 and _search_limit_max() then
    raise exception using errcode = 'TR002', message = format('a limit of %s', coalesce(p_limit::text, 'null')),
      hint = format('A page has 1 to %s events.', _search_limit_max());
  end if;
  return query select jsonb_array_elements(_entries(p_id, p_from_seq - 1, p_limit));
end $$;
