-- What an answer shows of a promise: one JSON document, the same from every verb. Nulls are left out, but never inside a
-- payload (a value may hold nulls of its own): payloads are put in whole. In plpgsql, though it is one expression: given a
-- sub-select it cannot be inlined, and in sql it would be parsed and planned anew at every call.
create function _document(p promise, t task, p_now timestamptz) returns jsonb
  language plpgsql stable
as $$
begin
  return jsonb_strip_nulls(jsonb_build_object(
      'id', (p).id,
      'state', (p).state,
      'latent', (p).function is null,
      'function', (p).function,
      'version', case when (t).lane like '%@%' then rtrim(split_part((t).lane, '@', 2), '!')::integer else (p).version end,
      'queue', (p).queue,
      'title', (p).title,
      'parent', (p).parent,
      'created_at', (p).created_at,
      'timeout_at', (p).timeout_at,
      'settled_at', (p).settled_at,
      'settler', (p).settler,
      'overdue', case when (p).state = 'pending' and (p).timeout_at <= p_now then true end,
      'task', case when (t).id is not null then jsonb_build_object(
        'state', (t).state, 'queue', (t).queue, 'lane', (t).lane, 'priority', (t).priority, 'ready_at', (t).ready_at,
        'attempts', (t).attempts, 'epoch', (t).epoch, 'worker', (t).worker, 'last_seq', (t).last_seq,
        'claimed_at', (t).claimed_at, 'started_at', (t).started_at, 'reason', (t).reason) end))
    || case when (p).args is null then '{}' else jsonb_build_object('args', (p).args) end
    || case when (p).args_headers is null then '{}' else jsonb_build_object('args_headers', (p).args_headers) end
    || case when (p).tags is null then '{}' else jsonb_build_object('tags', (p).tags) end
    || case when (p).value is null then '{}' else jsonb_build_object('value', (p).value) end
    || case when (p).error is null then '{}' else jsonb_build_object('error', (p).error) end
    || case when (p).headers is null then '{}' else jsonb_build_object('headers', (p).headers) end;
end $$;
