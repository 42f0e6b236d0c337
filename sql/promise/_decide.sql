-- How a decision from outside is judged and carried out. The caller holds all locks (`_lock_settling`).

create function _check_decision(p_payload jsonb, p_what text, p_headers jsonb, p_actor text) returns void
  language plpgsql immutable
as $$
begin
  if not (_is_small(p_payload) and _is_small(p_headers)) then
    perform _check_payload(p_payload, p_what), _check_payload(p_headers, 'headers');
  end if;
  if p_actor is not null then
    perform _check_actor(p_actor);
  end if;
end $$;

-- What is true of a locked promise right now, before a decision: one past its timeout times out, one whose workflow has ended
-- is canceled with it (the ticker would do the same a moment later), unless it is a child whose code has begun: that is asked.
-- Answers it as it is then.
create function _catch_up(p_promise promise, p_now timestamptz) returns promise
  language plpgsql volatile
as $$
declare
  v_id constant text := (p_promise).id;
begin
  if (p_promise).expires_at <= p_now then
    perform _time_out(array[v_id]);
  elsif (p_promise).state = 'pending' and (p_promise).parent is not null
    and exists (select from promise where id = (p_promise).parent and state <> 'pending')
    and ((p_promise).function is null or exists (select from task where id = v_id and epoch = 0)) then
    perform _settle(array[v_id], array['canceled'], array[null::jsonb], array['{"type": "canceled", "message": "its workflow has ended"}'::jsonb],
                    array[null::jsonb], array[null::bytea], 'workflow', p_now);
  else
    return p_promise;
  end if;
  select * into p_promise from promise where id = v_id;
  return p_promise;
end $$;

create function _decide(p_promise promise, p_state text, p_payload jsonb, p_headers jsonb, p_digest bytea, p_actor text) returns jsonb
  language plpgsql volatile
as $$
declare
  v_now constant timestamptz := _clock();
  v_actor constant text := coalesce(p_actor, session_user);
  v_payload constant jsonb := nullif(p_payload, 'null');
  v_promise promise;
  v_task task;
  v_answer text;
begin
  v_promise := _catch_up(p_promise, v_now);
  if v_promise.id is null then
    return '{"answer": "unknown", "promise": null}'::jsonb;
  elsif v_promise.function is not null then
    select * into v_task from task where id = v_promise.id;
    v_answer := 'not_latent';
  elsif v_promise.state = 'pending' then
    v_promise := _settle_latent(v_promise, p_state, case when p_state = 'resolved' then v_payload end,
                                case when p_state = 'rejected' then v_payload end, p_headers, p_digest, v_actor, v_now);
    perform _record_audit(v_now, v_actor, case p_state when 'resolved' then 'resolve' else 'reject' end, v_promise.id, 'pending', p_state, null);
    v_answer := 'settled';
  elsif v_promise.state = p_state and _same(v_promise, v_payload, p_headers, p_digest) then
    v_answer := 'already';
  else
    v_answer := 'conflict';
  end if;
  return jsonb_build_object('answer', v_answer, 'promise', _document(v_promise, v_task, v_now));
end $$;

-- Whether a repeated decision is the one that stands. Sealed payloads are compared by the digest of the plain ones; what a
-- timeout decided is nobody's.
create function _same(p promise, p_payload jsonb, p_headers jsonb, p_digest bytea) returns boolean
  language sql immutable
as $$
  select (p).settler <> 'timeout' and case
    when (p).value_digest is not null and p_digest is not null then (p).value_digest = p_digest
    else coalesce((p).value, (p).error) is not distinct from p_payload and (p).headers is not distinct from p_headers end
$$;

create function _cancel(p_id text, p_reason text, p_actor text) returns jsonb
  language plpgsql volatile
as $$
declare
  v_now constant timestamptz := _clock();
  v_actor constant text := coalesce(p_actor, session_user);
  v_error constant jsonb := jsonb_build_object('type', 'canceled', 'message', coalesce(p_reason, 'canceled by ' || v_actor));
  v_promise promise;
  v_task task;
  v_operation text;
  v_answer text;
begin
  select * into v_promise from promise where id = p_id;
  v_promise := _catch_up(v_promise, v_now);
  if v_promise.id is null then
    return '{"answer": "unknown", "promise": null}'::jsonb;
  end if;
  select * into v_task from task where id = p_id;
  if v_promise.state = 'canceled' then
    v_answer := 'already';
  elsif v_promise.state <> 'pending' then
    v_answer := 'conflict';
  elsif v_task.epoch > 0 then
    v_operation := _next_cancel(v_task, v_now);
    if v_operation is not null then
      perform _append_cancels(array[p_id], v_error, v_now, v_operation);
      perform _record_audit(v_now, v_actor, 'cancel', p_id, v_task.state, 'requested', v_error);
    end if;
    select * into v_task from task where id = p_id;
    v_answer := 'requested';
  else
    perform _settle(array[p_id], array['canceled'], array[null::jsonb], array[v_error], array[null::jsonb], array[null::bytea], v_actor, v_now);
    perform _record_audit(v_now, v_actor, 'cancel', p_id, 'pending', 'canceled', v_error);
    select * into v_promise from promise where id = p_id;
    v_task := null;
    v_answer := 'settled';
  end if;
  return jsonb_build_object('answer', v_answer, 'promise', _document(v_promise, v_task, v_now));
end $$;

-- What the next request to cancel a workflow that has begun is called in its journal. Null where there is nothing to be added: its
-- code has not been told of the last one yet, or that came within this second and was the same click.
create function _next_cancel(p_task task, p_now timestamptz) returns text
  language plpgsql stable
as $$
declare
  v_last checkpoint;
begin
  select * into v_last from checkpoint c
   where c.task = (p_task).id and c.operation like '~cancel%'
   order by c.seq desc limit 1;
  if not found then
    return '~cancel';
  elsif v_last.at > p_now - interval '1 second'
    or not ((p_task).asked >= v_last.seq or ((p_task).state = 'claimed' and not (p_task).news)) then
    return null;
  end if;
  return '~cancel:' || coalesce(nullif(split_part(v_last.operation, ':', 2), '')::integer, 1) + 1;
end $$;

-- A request to cancel takes its place in the workflow's order like any other event. The rows are locked, and none of the tasks has
-- an event of that name.
create function _append_cancels(p_tasks text[], p_error jsonb, p_now timestamptz, p_operation text default '~cancel') returns void
  language plpgsql volatile
as $$
begin
  insert into checkpoint (task, seq, operation, kind, issued, state, error, at, epoch)
  select t.id, t.last_seq + 1, p_operation, 'cancel', 0, 'canceled', p_error, greatest(p_now, t.last_at), t.epoch
    from task t where t.id = any (p_tasks);
  update task t
     set last_seq = t.last_seq + 1,
         last_at = greatest(p_now, t.last_at),
         news = t.news or t.state = 'claimed',
         ready_at = case when t.state = 'suspended' then p_now else t.ready_at end,
         state = case when t.state = 'suspended' then 'ready' else t.state end
   where t.id = any (p_tasks);
  perform _wake(p_tasks);
end $$;

-- Every decision of a person or an operator leaves one row, in the same transaction.
create function _record_audit(
  p_at timestamptz, p_actor text, p_verb text, p_promise text, p_before text, p_after text, p_detail jsonb
) returns void
  language plpgsql volatile
as $$
begin
  insert into audit (id, at, actor, verb, promise, before, after, detail)
  values (gen_random_uuid(), p_at, p_actor, p_verb, p_promise, p_before, p_after, p_detail);
end $$;
