-- Runs a workflow again under a new ID, from a point of its journal on: the same function (or another version of it), arguments and
-- beginnings of time and randomness, and a copy of its events before that of the operation `p_before`; of all of them without one.
-- The original, pending or finished, is not touched. What the new code finds recorded it is told as ever; all else it asks for is
-- made anew under the new ID, promises and children that were still open included. Events of promises keep pointing to the
-- original's, with a copy of the outcome: they stay what they are when the original is purged.
--
-- The digests of arguments are not copied: they may have the old ID in them. Paths, kinds and what was issued together are compared
-- at the replay as ever. What comes after a request to cancel belongs to that one run: there a fork stops before it, or is refused.
--
-- The same fork once more attaches to what the first one made; anything else under the new ID is a conflict.
-- grant: admin
create function fork(
  p_id text, p_new_id text, p_before text default null, p_reason text default null, p_actor text default null,
  p_version integer default null
) returns jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_seqscan = off set jit = off
as $$
declare
  v_detail constant jsonb := jsonb_build_object('from', p_id, 'before', p_before, 'version', p_version, 'reason', p_reason);
  v_now timestamptz;
  v_old promise;
  v_upto integer;
  v_new promise;
  v_task task;
begin
  perform _check_isolation();
  perform _check_id_start(p_new_id);
  perform _check_text(p_reason, 'reason');
  perform _check_actor(p_actor);
  if p_version < 1 then
    raise exception using errcode = 'TR002', message = format('a version of %s', p_version), hint = 'Versions begin at 1.';
  end if;
  if exists (select from promise where id = p_new_id) then
    return _fork_again(p_new_id, v_detail);
  end if;
  select * into v_old from promise where id = p_id for no key update;  -- held, so that neither its end nor a purge comes between
  if not found then
    raise exception using errcode = 'TR011', message = format('no promise has the ID %L', p_id), hint = 'Look for it with `search`.';
  elsif v_old.function is null then
    raise exception using errcode = 'TR012', message = format('%s is a latent promise, which nobody runs', p_id),
      hint = 'Only a workflow can be forked.';
  end if;
  v_upto := _fork_point(p_id, p_before);

  v_now := _clock();
  insert into promise as p (id, function, queue, args, args_headers, args_digest, tags, title, created_at, timeout_at, expires_at)
  select p_new_id, v_old.function, v_old.queue, v_old.args, v_old.args_headers, v_old.args_digest, v_old.tags, v_old.title, v_now, e.ends, e.ends
    from (select v_now + _span(_micros(v_old.timeout_at) - _micros(v_old.created_at)) as ends) e
  on conflict (id) do nothing
  returning p.* into v_new;
  if not found then
    return _fork_again(p_new_id, v_detail);
  end if;
  v_task := _fork_task(v_old, v_new, v_upto, p_version);
  perform _record_audit(v_now, coalesce(p_actor, session_user), 'fork', p_new_id, null, 'pending', v_detail);
  perform _wake(array[p_new_id]);
  return _document(v_new, v_task, v_now) || '{"answer": "created"}';
end $$;

-- How many events a fork takes along.
create function _fork_point(p_id text, p_before text) returns integer
  language plpgsql stable
as $$
declare
  v_upto integer;
  v_canceled integer;
begin
  if p_before is null then
    v_upto := coalesce((select c.seq from checkpoint c where c.task = p_id order by c.seq desc limit 1), 0);
  else
    v_upto := (select c.seq - 1 from checkpoint c where c.task = p_id and c.operation = p_before);
  end if;
  if v_upto is null then
    raise exception using errcode = 'TR002',
      message = format('%s has no event of an operation %L: %s', p_id, left(p_before, 300), coalesce(
        'the last that are recorded are ' || (select string_agg(o.operation, ', ' order by o.seq) from (
          select c.operation, c.seq from checkpoint c where c.task = p_id order by c.seq desc limit 20) o), 'nothing is recorded')),
      hint = 'Name an operation of its journal, or none to take all of it along.';
  end if;
  v_canceled := (select c.seq from checkpoint c where c.task = p_id and c.operation = '~cancel');
  if v_canceled <= v_upto then
    raise exception using errcode = 'TR012',
      message = format('%s was asked to cancel at event %s, and a copy from behind it would be canceled too', p_id, v_canceled),
      hint = 'Fork before the request itself (~cancel), or before an operation that is recorded earlier.';
  end if;
  return v_upto;
end $$;

-- The new task with the journal that it takes along. What ran before has begun: it keeps its time, its seed and its version.
create function _fork_task(p_old promise, p_new promise, p_upto integer, p_version integer) returns task
  language plpgsql volatile
as $$
declare
  v_old task;
  v_new task;
begin
  select * into v_old from task where id = p_old.id;
  v_old.started_at := coalesce(v_old.started_at, p_old.started_at);
  insert into task as t (id, state, queue, lane, priority, ready_at, epoch, last_seq, last_at, timeout_at, started_at, seed)
  select p_new.id, 'ready', p_new.queue,
         case when p_version is not null then p_new.function || '@' || p_version
              when v_old.lane is not null then rtrim(v_old.lane, '!')
              else p_new.function || coalesce('@' || p_old.version, '') end,
         coalesce(v_old.priority, 0), p_new.created_at,
         case when v_old.started_at is null then 0 else greatest(l.epoch, 1) end,
         p_upto, coalesce(l.at, v_old.started_at), p_new.timeout_at, v_old.started_at, coalesce(v_old.seed, p_old.seed)
    from (select max(c.epoch) as epoch, max(c.at) as at from checkpoint c where c.task = p_old.id and c.seq <= p_upto) l
  returning t.* into v_new;

  insert into checkpoint (task, seq, operation, kind, issued, cohort, digest, state, value, error, headers, promise, at, epoch)
  select p_new.id, c.seq, c.operation, c.kind, c.issued, c.cohort, case when c.kind in ('promise', 'timer', 'patch') then c.digest end,
         c.state, w.value, w.error, w.headers, coalesce(p.id, c.promise), c.at, c.epoch
    from checkpoint c
    left join lateral (
      select * from promise where id = coalesce(c.promise, c.task || '~' || c.operation) offset 0) p
      on c.kind in ('promise', 'call', 'start', 'wait')
   cross join lateral (
     -- JSON null says that there is nothing, where SQL null would say: look at the promise
     select coalesce(case when o.refers then p.value else c.value end, o.nothing) as value,
            coalesce(case when o.refers then p.error else c.error end, o.nothing) as error,
            coalesce(case when o.refers then p.headers else c.headers end, o.nothing) as headers
       from (select _refers(c.kind, c.task, c.promise, c.value, c.error, c.headers) as refers,
                    case when c.kind in ('promise', 'call', 'start', 'wait') then 'null'::jsonb end as nothing) o) w
   where c.task = p_old.id and c.seq <= p_upto;
  return v_new;
end $$;

-- What stands under a fork's ID already: that very fork (its answer was lost), whatever the original is by now, or something else.
create function _fork_again(p_new_id text, p_detail jsonb) returns jsonb
  language plpgsql volatile
as $$
declare
  v_promise promise;
  v_document jsonb;
begin
  perform _expire(array[p_new_id]);
  select * into v_promise from promise where id = p_new_id;
  v_document := _document(v_promise, (select t from task t where t.id = p_new_id), _clock());
  if exists (
    select from audit a
     where a.promise = p_new_id and a.at = v_promise.created_at and a.verb = 'fork' and a.detail - 'reason' = p_detail - 'reason') then
    return v_document || '{"answer": "attached"}';
  end if;
  raise exception using errcode = 'TR010', message = format('%s is already there, and is not this fork', p_new_id),
    detail = v_document::text, hint = 'Fork under another ID.';
end $$;
