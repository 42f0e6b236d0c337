-- Starts a workflow, or attaches to the one that this ID already names: the same function with the same arguments is the
-- same workflow, whether it is pending or long finished (for as long as retention keeps it). Anything else under the ID is
-- a conflict and nothing runs; on_conflict => 'attach' attaches all the same. Queue, priority, tags and delay are not
-- compared. It only inserts, so it may stand in the caller's transaction at any isolation level.
-- grant: client, worker, admin
create function start(
  p_id text, p_function text, p_args jsonb default '{}', p_queue text default null, p_delay interval default null,
  p_timeout interval default null, p_priority integer default 0, p_tags jsonb default null,
  p_on_conflict text default 'error', p_headers jsonb default null, p_digest bytea default null
) returns jsonb
  language plpgsql volatile security definer set search_path from current
as $$
declare
  v_answer jsonb;
begin
  p_args := nullif(p_args, 'null');
  p_tags := nullif(p_tags, 'null');
  p_headers := nullif(p_headers, 'null');
  if p_on_conflict is null or p_on_conflict not in ('error', 'attach') then
    raise exception using errcode = 'TR002',
      message = format('on_conflict is %L', p_on_conflict), hint = 'Say error or attach.';
  end if;
  if not coalesce(_is_plain_id(p_id) and _is_plain_name(p_function) and _are_plain_args(p_args)
                  and (p_queue is null or _is_plain_name(p_queue))
                  and p_priority = 0 and num_nonnulls(p_delay, p_timeout, p_tags, p_headers) = 0, false) then
    perform _check_id_start(p_id);
    perform _check_start(p_function, p_args, p_queue, p_delay, p_timeout, p_priority, p_tags, p_headers);
  end if;
  v_answer := _start(p_id, p_function, p_args, p_queue, p_delay, p_timeout, p_priority, p_tags, p_headers, p_digest);
  if v_answer ->> 'answer' = 'conflict' then
    if p_on_conflict = 'attach' and not (v_answer ->> 'latent')::boolean then
      return v_answer || '{"answer": "attached"}';
    end if;
    raise exception using errcode = 'TR010',
      message = format('%s is already there with %s', p_id, case
        when (v_answer ->> 'latent')::boolean then 'no function: it is a latent promise'
        when v_answer ->> 'function' <> p_function then format('another function: %s, not %s', v_answer ->> 'function', p_function)
        else 'other arguments' end),
      detail = v_answer::text,
      hint = 'Start under another ID, or attach to what is there with on_conflict => ''attach''.';
  end if;
  return v_answer;
end $$;
