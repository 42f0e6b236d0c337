-- Decides by hand what a step brought: one that will not end, or brings what is wrong. The outcome takes its place in the workflow's
-- order like any other event, before or after the code reaches that step; what the step itself brings later counts no more. The
-- workflow goes on with it: a suspended one becomes ready, whoever holds it has news, a halted one stays so until `resume`. With
-- p_error it is the step's failure, else its value. A promise that the workflow waits for is settled by its own ID.
--
--   recorded     it is in the journal
--   already      this very outcome, given by hand, is there
--   conflict     the operation has an event: what the code was told stays
--   not_a_step   the workflow waits for a promise, a child or an instant under that name
-- grant: admin
create function settle_step(
  p_id text, p_operation text, p_value jsonb default null, p_error jsonb default null, p_headers jsonb default null,
  p_reason text default null, p_actor text default null
) returns jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_nestloop = off set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set jit = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_value constant jsonb := nullif(p_value, 'null');
  v_error constant jsonb := nullif(p_error, 'null');
  v_now timestamptz;
  v_task task;
  v_answer text;
begin
  perform _check_isolation();
  perform _check_step_by_hand(p_operation, v_value, v_error, p_headers);
  perform _check_text(p_reason, 'reason');
  perform _check_actor(p_actor);
  if cardinality(_lock_settling(array[p_id])) = 0 then
    return '{"answer": "unknown", "promise": null}'::jsonb;
  end if;
  v_now := _clock();
  perform _catch_up(p, v_now) from promise p where p.id = p_id;
  select * into v_task from task where id = p_id;
  if not found then
    return _operated(p_id, 'settled', v_now);
  end if;
  v_answer := (
    select case when c.issued is null and c.kind = 'step' and c.value is not distinct from v_value and c.error is not distinct from v_error
                 and c.headers is not distinct from nullif(p_headers, 'null') then 'already' else 'conflict' end
      from checkpoint c where c.task = p_id and c.operation = p_operation);
  v_answer := coalesce(v_answer, (
    select 'not_a_step' from wait w where w.task = p_id and w.operation = p_operation and w.kind <> 'retry'), 'recorded');
  if v_answer = 'recorded' then
    perform _append_by_hand(v_task, p_operation, v_value, v_error, nullif(p_headers, 'null'), v_now);
    perform _record_audit(
      v_now, coalesce(p_actor, session_user), 'settle_step', p_id, 'pending', case when v_error is null then 'resolved' else 'rejected' end,
      jsonb_build_object('operation', p_operation, 'seq', v_task.last_seq + 1, 'reason', p_reason));
    perform _wake(array[p_id]);
  end if;
  return _operated(p_id, v_answer, v_now);
end $$;

create function _check_step_by_hand(p_operation text, p_value jsonb, p_error jsonb, p_headers jsonb) returns void
  language plpgsql immutable
as $$
begin
  if p_operation is null or length(p_operation) > _id_length_max()
    or p_operation !~ '^[-A-Za-z0-9._:@!$&''()*+,;=][-A-Za-z0-9._~:@!$&''()*+,;=]*$' then
    raise exception using errcode = 'TR002', message = format('%L is not the path of a step', left(coalesce(p_operation, ''), 300)),
      hint = 'Give it as the journal shows it, without the workflow''s ID: charge, or 2~charge:3 within a branch.';
  elsif p_value is not null and p_error is not null then
    raise exception using errcode = 'TR002', message = 'a value and an error are given', hint = 'A step has one or the other.';
  end if;
  perform _check_payload(p_value, 'value'), _check_payload(p_error, 'error'), _check_payload(p_headers, 'headers');
end $$;

-- An event that no code has issued yet, as far as is known here: it says nothing of where that was.
create function _append_by_hand(p_task task, p_operation text, p_value jsonb, p_error jsonb, p_headers jsonb, p_now timestamptz) returns void
  language plpgsql volatile
as $$
begin
  if p_task.epoch = 0 then
    raise exception using errcode = 'TR012', message = format('%s has not begun, and its time neither', p_task.id),
      hint = 'Settle the step once a worker has claimed the workflow.';
  elsif p_task.last_seq >= _journal_entries_max() then
    raise exception using errcode = 'TR030',
      message = format('%s has %s events already, the most that a workflow may have', p_task.id, p_task.last_seq),
      hint = 'It can only be canceled, or forked before an earlier operation.';
  end if;
  insert into checkpoint (task, seq, operation, kind, issued, state, value, error, headers, at, epoch)
  values (p_task.id, p_task.last_seq + 1, p_operation, 'step', null, case when p_error is null then 'resolved' else 'rejected' end,
          p_value, p_error, p_headers, greatest(p_now, p_task.last_at), p_task.epoch);
  delete from wait where task = p_task.id and operation = p_operation;
  update task t
     set last_seq = t.last_seq + 1,
         last_at = greatest(p_now, t.last_at),
         news = t.news or t.state = 'claimed',
         ready_at = case when t.state = 'suspended' then p_now else t.ready_at end,
         state = case when t.state = 'suspended' then 'ready' else t.state end
   where t.id = p_task.id;
end $$;
