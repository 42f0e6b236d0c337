-- Of these promises those that are settled, with their documents: what is asked again and again by whoever waits for results. What
-- is pending costs a look and no answer. One past its timeout is settled by whoever looks, as in `get`.
-- grant: client, worker, admin
create function settled(p_ids text[]) returns setof jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
begin
  perform _expire(p_ids);
  return query
    select _document(p, null, _clock()) from promise p where p.id = any (p_ids) and p.state <> 'pending';
end $$;
