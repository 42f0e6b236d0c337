-- Starts one function under many IDs, each as `start` would: what `start_many` is for many functions, in little more time than the
-- rows take. `p_args` is a JSON array with the arguments of each ID in turn. What is not new is answered as `start_many` answers it
-- (attached, conflict, refused), in the order given; of what was created nothing is said. With a codec, `p_headers` are those of
-- all arguments, `p_digests` one for each.
-- Usually all are well and new: they are inserted as if they were, and whatever stands against that brings all to `start_many`.
-- grant: client, worker, admin
create function start_each(
  p_function text, p_ids text[], p_args jsonb, p_queue text default null, p_delay interval default null,
  p_timeout interval default null, p_priority integer default 0, p_tags jsonb default null, p_headers jsonb default null,
  p_digests bytea[] default null
) returns setof jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_common constant jsonb := jsonb_build_object(
    'function', p_function, 'queue', p_queue, 'delay', extract(epoch from p_delay), 'timeout', extract(epoch from p_timeout),
    'priority', p_priority, 'tags', p_tags, 'headers', p_headers);
  v_as record;
  v_now timestamptz;
  v_is_delayed boolean;
begin
  if p_ids is null or jsonb_typeof(p_args) is distinct from 'array' or jsonb_array_length(p_args) <> cardinality(p_ids)
    or cardinality(p_digests) <> cardinality(p_ids) then
    raise exception using errcode = 'TR002', message = 'the arguments are not as many as the IDs',
      hint = 'Give a JSON array with the arguments of each ID in turn, and a digest of each or none.';
  end if;
  perform _check_items(cardinality(p_ids));
  -- what all have in common is judged with the first of them
  select r.*, coalesce(r.queue, (select f.queue from function f where f.name = r.function order by f.version desc limit 1), 'default')
      as home into v_as
    from _start_item(v_common || jsonb_build_object('id', p_ids[1], 'args', p_args -> 0)) r;
  if v_as.refusal is null and not exists (
      select from rows from (unnest(p_ids), jsonb_array_elements(p_args)) i(id, args)
       where not coalesce(length(i.id) <= _id_start_length_max() and strpos(i.id, '~') = 0
                          and case when v_as.headers is null then _are_plain_args(i.args) else _fits(i.args) end, false)) then
    v_now := _clock();
    v_is_delayed := coalesce(v_as.delay > interval '0', false);
    begin
      insert into promise (id, function, queue, args, args_headers, args_digest, tags, created_at, timeout_at, expires_at)
      select i.id, p_function, v_as.home, _normal_args(nullif(i.args, 'null')), v_as.headers, i.digest, v_as.tags, v_now,
             v_now + v_as.timeout, v_now + v_as.timeout
        from rows from (unnest(p_ids), jsonb_array_elements(p_args), unnest(p_digests)) i(id, args, digest)
       order by i.id collate "C";
      insert into task (id, state, queue, lane, priority, ready_at, timeout_at)
      select i.id, case when v_is_delayed then 'suspended' else 'ready' end, v_as.home, p_function, v_as.priority,
             case when not v_is_delayed then v_now end, v_now + v_as.timeout
        from unnest(p_ids) i(id) order by i.id collate "C";
      if v_is_delayed then
        insert into wait (task, operation, kind, fire_at, issued)
        select i.id, '~delay', 'delay', v_now + v_as.delay, 0 from unnest(p_ids) i(id) order by i.id collate "C";
      else
        perform _wake(p_ids);
      end if;
      return;
    exception when integrity_constraint_violation then
      null;  -- one is there already, or named twice, or no ID: the table's CHECK has the last word on that anyway
    end;
  end if;
  return query
    select r from start_many(coalesce((
      select jsonb_agg(v_common || jsonb_build_object('id', i.id, 'args', i.args, 'digest', encode(i.digest, 'hex')) order by i.n)
        from rows from (unnest(p_ids), jsonb_array_elements(p_args), unnest(p_digests)) with ordinality i(id, args, digest, n)),
      '[]')) r
     where r ->> 'answer' in ('attached', 'conflict', 'refused');
end $$;
