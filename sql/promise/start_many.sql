-- Starts many workflows in one call, each as `start` would. Every item is judged by itself and answered in the order
-- given: created, attached, conflict (its document shows what is there) or refused (with the SQLSTATE and the sentence).
-- A repeated ID is judged after the item before it. Items: {"id", "function", "args", "queue", "delay", "timeout" (seconds),
-- "priority", "tags", "headers", "digest" (hex)}.
-- grant: client, worker, admin
create function start_many(p_items jsonb) returns setof jsonb
  language plpgsql volatile security definer set search_path from current
as $$
declare
  v_item record;
  v_answers jsonb[];
begin
  perform _check_batch(p_items);
  v_answers := array_fill(null::jsonb, array[jsonb_array_length(p_items)]);
  -- the order of all for inserts; ties (a repeated ID) in the caller's order
  for v_item in
    select i.n::integer as n, r.*
      from jsonb_array_elements(p_items) with ordinality i(item, n)
      cross join lateral _start_item(i.item) r
     order by r.id collate "C", i.n
  loop
    if v_item.refusal is not null then
      v_answers[v_item.n] := jsonb_build_object('id', v_item.id, 'answer', 'refused') || v_item.refusal;
    else
      v_answers[v_item.n] := _start(
        v_item.id, v_item.function, v_item.args, v_item.queue, v_item.delay, v_item.timeout, v_item.priority,
        v_item.tags, v_item.headers, v_item.digest);
    end if;
  end loop;
  return query select unnest(v_answers);
end $$;

-- One item of start_many, read and judged. A bad one is answered, not raised: its neighbours start. The exception block
-- costs a subtransaction, which an item that never writes does not leave behind.
create function _start_item(
  p_item jsonb, out id text, out function text, out args jsonb, out queue text, out delay interval, out timeout interval,
  out priority integer, out tags jsonb, out headers jsonb, out digest bytea, out refusal jsonb
)
  language plpgsql immutable
as $$
declare
  v_message text;
  v_hint text;
begin
  id := p_item ->> 'id';
  function := p_item ->> 'function';
  args := nullif(p_item -> 'args', 'null');
  queue := p_item ->> 'queue';
  tags := nullif(p_item -> 'tags', 'null');
  headers := nullif(p_item -> 'headers', 'null');
  delay := make_interval(secs => (p_item ->> 'delay')::double precision);
  timeout := make_interval(secs => (p_item ->> 'timeout')::double precision);
  priority := coalesce((p_item ->> 'priority')::integer, 0);
  digest := decode(p_item ->> 'digest', 'hex');
  perform _check_id_start(id);
  perform _check_start(function, args, queue, delay, timeout, priority, tags, headers);
exception
  when sqlstate 'TR001' or sqlstate 'TR002' or sqlstate 'TR003' or sqlstate 'TR004' or data_exception then
    get stacked diagnostics v_message = message_text, v_hint = pg_exception_hint;
    refusal := jsonb_build_object('sqlstate', case when sqlstate like 'TR%' then sqlstate else 'TR002' end,
                                  'message', v_message, 'hint', v_hint);
end $$;
