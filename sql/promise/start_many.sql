-- Starts many workflows in one call, each as `start` would. Every item is judged by itself and answered in the order
-- given: created, attached, conflict (its document shows what is there) or refused (with the SQLSTATE and the sentence). Of
-- what was created there is nothing to show that the caller does not know: {"id", "answer": "created"}.
-- A repeated ID is judged after the item before it. Items: {"id", "function", "args", "queue", "delay", "timeout" (seconds),
-- "priority", "tags", "headers", "digest" (hex)}.
-- grant: client, worker, admin
create function start_many(p_items jsonb) returns setof jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_answers jsonb[];
  v_item record;
begin
  perform _check_batch(p_items);
  loop
    begin
      v_answers := _start_new(p_items, _clock());
      -- what was not new; ties (a repeated ID) in the caller's order
      if array_position(v_answers, null) is not null then
        for v_item in
          select i.n::integer as n, r.*
            from rows from (jsonb_array_elements(p_items), unnest(v_answers)) with ordinality i(item, answer, n)
            cross join lateral _start_item(i.item) r
           where i.answer is null
           order by r.id collate "C", i.n
        loop
          v_answers[v_item.n] := _attach(v_item.id, v_item.function, v_item.args, v_item.digest);
          if v_answers[v_item.n] is null then
            raise no_data_found;
          end if;
        end loop;
      end if;
      exit;
    exception when no_data_found then
      -- one was purged meanwhile: all of them anew, since inserting it now, behind others, would leave the order of all
      null;
    end;
  end loop;
  return query select unnest(v_answers);
end $$;

-- Starts those items whose IDs are free, in one statement, and answers for them and for the refused ones; the place of each
-- other stays null.
create function _start_new(p_items jsonb, p_now timestamptz) returns jsonb[]
  language plpgsql volatile
as $$
declare
  v_answers jsonb[];
  v_ready text[];
begin
  with given as materialized (
    select i.item, i.n, _is_plain_start(i.item) as is_plain from jsonb_array_elements(p_items) with ordinality i(item, n)
  ), item as materialized (
    select n, item ->> 'id' as id, item ->> 'function' as function, nullif(item -> 'args', 'null') as args, item ->> 'queue' as queue,
           null::interval as delay, null::interval as timeout, 0 as priority, null::jsonb as tags, null::jsonb as headers,
           null::bytea as digest, null::jsonb as refusal
      from given where is_plain
    union all
    select g.n, r.id, r.function, r.args, r.queue, r.delay, r.timeout, r.priority, r.tags, r.headers, r.digest, r.refusal
      from given g cross join lateral _start_item(g.item) r where not g.is_plain
  ), fresh as materialized (
    select distinct on (i.id collate "C") i.*, coalesce(i.delay > interval '0', false) as is_delayed,
           coalesce(i.queue, (select f.queue from function f where f.name = i.function order by f.version desc limit 1), 'default') as home
      from item i where i.refusal is null
     order by i.id collate "C", i.n
  ), made as (
    insert into promise as p (id, function, queue, args, args_headers, args_digest, tags, created_at, timeout_at, expires_at)
    select f.id, f.function, f.home, _normal_args(f.args), f.headers, f.digest, f.tags, p_now, p_now + f.timeout, p_now + f.timeout
      from fresh f order by f.id collate "C"
    on conflict (id) do nothing
    returning p.id
  ), started as materialized (
    select f.* from fresh f join made m on m.id = f.id
  ), tasks as (
    insert into task (id, state, queue, lane, priority, ready_at, timeout_at)
    select s.id, case when s.is_delayed then 'suspended' else 'ready' end, s.home, s.function, s.priority,
           case when not s.is_delayed then p_now end, p_now + s.timeout
      from started s order by s.id collate "C"
  ), delays as (
    insert into wait (task, operation, kind, fire_at, issued)
    select s.id, '~delay', 'delay', p_now + s.delay, 0 from started s where s.is_delayed
  )
  select array_agg(case when i.refusal is not null then jsonb_build_object('id', i.id, 'answer', 'refused') || i.refusal
                        when s.n is not null then jsonb_build_object('id', i.id, 'answer', 'created') end order by i.n),
         array_agg(i.id) filter (where not s.is_delayed)
    into v_answers, v_ready
    from item i left join started s on s.n = i.n;
  if v_ready is not null then
    perform _wake(v_ready);
  end if;
  return coalesce(v_answers, '{}');
end $$;

-- Whether an item says no more than most do, and that well: an ID, a function, arguments, perhaps a queue. Any other is
-- read and judged by `_start_item`, with all that can be wrong with it.
create function _is_plain_start(p_item jsonb) returns boolean
  language sql stable
as $$
  select coalesce(
      p_item - '{id,function,args,queue}'::text[] = '{}'
      and jsonb_typeof(p_item -> 'id') = 'string' and _is_plain_id(p_item ->> 'id')
      and jsonb_typeof(p_item -> 'function') = 'string' and _is_plain_name(p_item ->> 'function')
      and _are_plain_args(p_item -> 'args')
      and (p_item -> 'queue' is null or jsonb_typeof(p_item -> 'queue') = 'string' and _is_plain_name(p_item ->> 'queue')), false)
$$;

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
