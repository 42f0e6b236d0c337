-- Records what a step brought as the last statement of the transaction in which its own SQL ran: effect and checkpoint become
-- true by one commit, or neither does. It stands in the caller's transaction, at any isolation level, so it waits for nobody and
-- touches nothing but the task's row and its journal. That row stays locked until the commit: whoever looks after an answer to
-- COMMIT was lost is told `busy` until it is known, and what happened from then on. Above READ COMMITTED a row that changed
-- since the snapshot is a 40001, for which the caller runs the whole transaction again, as for any other.
-- Nothing but COMMIT is to come: a session that is idle for 10 s then (unless it has a limit of its own) is ended by Postgres,
-- since a caller whose connection died without a word would hold the row for hours.
--
--   ok        the outcome is in the journal at `seq`, `at` (microseconds), if the transaction commits
--   recorded  this operation has its event already: roll back, its effect is there or was decided by hand
--   busy      somebody holds the task's row: ask again in this transaction, nothing was written
--   fenced    not claimed with that epoch, gone, or past its timeout: roll back and let go
--
-- Rows come by their keys, whatever the statistics say: a sequential scan would make serializable transactions that have nothing
-- to do with each other collide.
-- grant: worker, admin
create function commit_step(
  p_task text, p_epoch integer, p_operation text, p_issued integer, p_cohort integer default null, p_digest bigint default null,
  p_value jsonb default null, p_headers jsonb default null
) returns table (answer text, seq integer, at bigint)
  language plpgsql volatile security definer set search_path from current
  set enable_seqscan = off set jit = off
as $$
#variable_conflict use_column
declare
  v_task task;
  v_now timestamptz;
  v_waits text;
begin
  if coalesce(p_operation, '~') like '~%' or p_operation = '' or p_issued is null then
    raise exception using errcode = 'TR002', message = 'an outcome lacks operation or issued',
      hint = 'Give the path of the step and the seq after which the code issued it.';
  end if;
  if not (_fits(p_value) and _fits(p_headers)) then
    perform _check_payload(p_value, 'outcome'), _check_payload(p_headers, 'headers');
  end if;

  select * into v_task from task where id = p_task for no key update skip locked;
  if not found then
    return query select case when exists (select from task where id = p_task) then 'busy' else 'fenced' end, null::integer, null::bigint;
    return;
  end if;
  v_now := _clock();
  if v_task.state <> 'claimed' or v_task.epoch is distinct from p_epoch or v_task.timeout_at <= v_now then
    return query select 'fenced', null::integer, null::bigint;
    return;
  end if;
  return query select 'recorded', c.seq, _micros(c.at) from checkpoint c where c.task = p_task and c.operation = p_operation;
  if found then
    return;
  end if;
  select kind into v_waits from wait where task = p_task and operation = p_operation;
  if p_issued not between 0 and v_task.last_seq or v_task.last_seq >= _journal_entries_max() or v_waits <> 'retry' then
    perform _refuse_committed(v_task, p_operation, p_issued);
  end if;

  insert into checkpoint (task, seq, operation, kind, issued, cohort, digest, state, value, headers, at, epoch)
  values (p_task, v_task.last_seq + 1, p_operation, 'step', p_issued, p_cohort, p_digest, 'resolved', nullif(p_value, 'null'),
          nullif(p_headers, 'null'), greatest(v_now, v_task.last_at), v_task.epoch);
  update task t set last_seq = t.last_seq + 1, last_at = greatest(v_now, t.last_at), attempts = 0 where t.id = p_task;
  if v_waits is not null then
    delete from wait where task = p_task and operation = p_operation;
  end if;
  if current_setting('idle_in_transaction_session_timeout') = '0' then
    perform set_config('idle_in_transaction_session_timeout', '10s', true);
  end if;
  return query select 'ok', v_task.last_seq + 1, _micros(greatest(v_now, v_task.last_at));
end $$;

-- Why an outcome is refused: it was issued after an event that is not there, there is no room for it, or what waits under its name
-- is more than its own retry.
create function _refuse_committed(p_task task, p_operation text, p_issued integer) returns void
  language plpgsql immutable
as $$
begin
  if p_issued not between 0 and p_task.last_seq then
    raise exception using errcode = 'TR002',
      message = format('%s cannot have been issued after event %s: the journal ends at %s', p_operation, p_issued, p_task.last_seq),
      hint = 'A step starts only when all that came before it is recorded.';
  elsif p_task.last_seq >= _journal_entries_max() then
    raise exception using errcode = 'TR030',
      message = format('%s has %s events already, the most that a workflow may have', p_task.id, p_task.last_seq),
      hint = 'Let several workflows share the work.';
  end if;
  raise exception using errcode = 'TR012',
    message = format('%s of %s is no step: the workflow waits under that name', p_operation, p_task.id),
    hint = 'Give the step another name than what the workflow waits for.';
end $$;
