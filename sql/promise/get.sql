-- The documents of promises, as they are now; an unknown ID has none. One past its timeout is settled by whoever looks, or
-- shown as overdue where this transaction cannot (read only, another isolation level, a row that somebody holds).
-- grant: client, worker, admin
create function get(p_ids text[]) returns setof jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
begin
  perform _expire(p_ids);
  return query
    select _document(p, t, _clock())
      from promise p left join task t on t.id = p.id and t.id = any (p_ids)
     where p.id = any (p_ids);
end $$;
