-- Starts what several callers asked for at the same time, each as `start` would, and answers as `start_many` does; of what was
-- created, for the IDs in `p_shown`, with the document, as it is when all have been answered (one that had no time at all is timed out if
-- it was attached to). Callers are strangers to each other, so none waits long for what holds another one's ID: a start in somebody's
-- open transaction ends the call with 55P03 after 100 ms. Nothing of it is done then; let each call `start`.
-- grant: client, worker, admin
create function start_together(p_items jsonb, p_shown text[] default '{}') returns setof jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan set lock_timeout = '100ms'
as $$
declare
  v_answers jsonb[];
  v_shown text[];
begin
  select array_agg(r), array_agg(r ->> 'id') filter (where r ->> 'answer' = 'created' and r ->> 'id' = any (p_shown))
    into v_answers, v_shown
    from start_many(p_items) r;
  if v_shown is null then
    return query select unnest(v_answers);
    return;
  end if;
  return query
    with shown as materialized (
      select p.id, _document(p, t, p.created_at) as document
        from promise p left join task t on t.id = p.id and t.id = any (v_shown)
       where p.id = any (v_shown)
    )
    select case when a.answer ->> 'answer' = 'created' then coalesce(s.document, '{}') || a.answer else a.answer end
      from unnest(v_answers) with ordinality a(answer, n) left join shown s on s.id = a.answer ->> 'id'
     order by a.n;
end $$;
