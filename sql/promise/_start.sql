-- What a start must fulfil besides its ID.
create function _check_start(
  p_function text, p_args jsonb, p_queue text, p_delay interval, p_timeout interval, p_priority integer, p_tags jsonb,
  p_headers jsonb
) returns void
  language plpgsql immutable
as $$
begin
  perform _check_name(p_function, 'function');
  if p_queue is not null then
    perform _check_name(p_queue, 'queue');
  end if;
  if p_args is not null and p_headers is null and jsonb_typeof(p_args) not in ('object', 'array') then
    raise exception using errcode = 'TR002',
      message = format('arguments must be a JSON object (by name) or array (by position), not a JSON %s', jsonb_typeof(p_args)),
      hint = 'For example {"order": "order-42"} or ["order-42"].';
  elsif p_priority is null or p_priority not between -32768 and 32767 then
    raise exception using errcode = 'TR002',
      message = format('a priority of %s', coalesce(p_priority::text, 'null')),
      hint = 'A priority lies between -32768 and 32767; lower goes first, 0 is the default.';
  end if;
  perform _check_payload(p_args, 'arguments');
  perform _check_payload(p_headers, 'headers');
  perform _check_span(p_delay, 'delay');
  perform _check_span(p_timeout, 'timeout');
  perform _check_tags(p_tags);
end $$;

-- The start itself: insert, or compare with what is there. Two starts of one ID meet at the primary key; the later one
-- waits for the earlier one's end and then attaches to what it left.
create function _start(
  p_id text, p_function text, p_args jsonb, p_queue text, p_delay interval, p_timeout interval, p_priority integer,
  p_tags jsonb, p_headers jsonb, p_digest bytea
) returns jsonb
  language plpgsql volatile
as $$
declare
  v_now constant timestamptz := _clock();
  v_args constant jsonb := _normal_args(p_args);
  v_delayed constant boolean := coalesce(p_delay > interval '0', false);
  v_promise promise;
  v_task task;
begin
  insert into promise as p (id, function, queue, args, args_headers, args_digest, tags, created_at, timeout_at, expires_at)
  values (p_id, p_function,
          coalesce(p_queue, (select f.queue from function f where f.name = p_function order by f.version desc limit 1), 'default'),
          v_args, p_headers, p_digest, p_tags, v_now, v_now + p_timeout, v_now + p_timeout)
  on conflict (id) do nothing
  returning p.* into v_promise;
  if not found then
    return coalesce(
      _attach(p_id, p_function, v_args, p_digest),
      -- purged between our insert and our look: the place is free again
      _start(p_id, p_function, p_args, p_queue, p_delay, p_timeout, p_priority, p_tags, p_headers, p_digest));
  end if;

  insert into task as t (id, state, queue, lane, priority, ready_at, timeout_at)
  values (p_id, case when v_delayed then 'suspended' else 'ready' end, v_promise.queue, p_function, p_priority,
          case when not v_delayed then v_now end, v_now + p_timeout)
  returning t.* into v_task;
  if v_delayed then
    insert into wait (task, operation, kind, fire_at, issued) values (p_id, '~delay', 'delay', v_now + p_delay, 0);
  else
    perform _wake(array[p_id]);
  end if;
  return _document(v_promise, v_task, v_now) || '{"answer": "created"}';
end $$;

-- No arguments are no arguments, by name or by position.
create function _normal_args(p_args jsonb) returns jsonb
  language sql immutable
as $$ select coalesce(nullif(p_args, '[]'), '{}') $$;

-- Whether a start asks for what is there. Sealed arguments are compared by the digest that the codec made of the plain ones,
-- plain ones by themselves.
create function _is_same_start(p promise, p_function text, p_args jsonb, p_digest bytea) returns boolean
  language sql immutable
as $$
  select coalesce((p).function = p_function and case
    when (p).args_digest is null and p_digest is null then (p).args = _normal_args(p_args)
    else (p).args_digest = p_digest end, false)
$$;

create function _attach(p_id text, p_function text, p_args jsonb, p_digest bytea) returns jsonb
  language plpgsql volatile
as $$
declare
  v_promise promise;
begin
  perform _expire(array[p_id]);
  select * into v_promise from promise where id = p_id;
  if not found then
    return null;
  end if;
  return _document(v_promise, (select t from task t where t.id = p_id), _clock()) || jsonb_build_object('answer', case
    when _is_same_start(v_promise, p_function, p_args, p_digest) then 'attached' else 'conflict' end);
end $$;
