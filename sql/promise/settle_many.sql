-- Settles several promises in one call, in locks taken in the order of all, so that two such calls never deadlock; each item
-- is answered as its verb would, in the order given. Items: {"id", "verb": "resolve"|"reject"|"cancel", "value" | "error" |
-- "reason", "headers", "digest" (hex)}. A malformed item refuses the whole call before anything is written.
-- grant: client, worker, admin
create function settle_many(p_items jsonb, p_actor text default null) returns setof jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_item record;
  v_held text[];
begin
  perform _check_isolation();
  perform _check_batch(p_items);
  for v_item in select i.value as item from jsonb_array_elements(p_items) i loop
    if coalesce(v_item.item ->> 'verb', '') not in ('resolve', 'reject', 'cancel') then
      raise exception using errcode = 'TR002',
        message = format('an item has the verb %L', v_item.item ->> 'verb'), hint = 'Say resolve, reject or cancel.';
    end if;
    perform _check_decision(coalesce(v_item.item -> 'value', v_item.item -> 'error'), 'value', v_item.item -> 'headers', p_actor);
    perform _check_text(v_item.item ->> 'reason', 'reason');
  end loop;

  v_held := _lock_settling(array(select distinct i.value ->> 'id' from jsonb_array_elements(p_items) i));
  for v_item in
    select i.value ->> 'id' as id, i.value ->> 'verb' as verb, i.value as item from jsonb_array_elements(p_items) i
  loop
    return next case
      when v_item.id is null or v_item.id <> all (v_held) then '{"answer": "unknown", "promise": null}'::jsonb
      when v_item.verb = 'resolve' then _decide((select p from promise p where p.id = v_item.id), 'resolved', v_item.item -> 'value', nullif(v_item.item -> 'headers', 'null'),
                                  decode(v_item.item ->> 'digest', 'hex'), p_actor)
      when v_item.verb = 'reject' then _decide((select p from promise p where p.id = v_item.id), 'rejected', v_item.item -> 'error', nullif(v_item.item -> 'headers', 'null'),
                                 decode(v_item.item ->> 'digest', 'hex'), p_actor)
      else _cancel(v_item.id, v_item.item ->> 'reason', p_actor) end;
  end loop;
end $$;
