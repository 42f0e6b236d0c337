-- Brings a workflow that was exported (its `record`, and the entries of its `journal`) into this namespace: pending, with that
-- journal, and its task halted, so that nothing runs until somebody says `resume`. It keeps its time and its seed and gets no
-- timeout. Outcomes come with it as copies; the promises that they were of do not. Under another ID than it had, the digests of
-- its operations' arguments are left out: they may have the old ID in them.
-- grant: admin
create function import_journal(p_record jsonb, p_entries jsonb, p_id text default null, p_actor text default null) returns jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_seqscan = off set jit = off
as $$
declare
  v_actor constant text := coalesce(p_actor, session_user);
  v_id constant text := coalesce(p_id, p_record ->> 'id');
  v_now timestamptz;
  v_promise promise;
  v_task task;
begin
  perform _check_isolation();
  perform _check_actor(p_actor);
  perform _check_record(p_record);
  perform _check_entries(p_entries, (p_record ->> 'started_at')::bigint);
  perform _check_id_start(v_id);
  v_now := _clock();
  insert into promise as p (id, function, queue, args, args_headers, args_digest, tags, title, created_at)
  select v_id, r.function, coalesce(r.queue, 'default'), coalesce(r.args, '{}'), r.args_headers, decode(r.args_digest, 'hex'), r.tags, r.title, v_now
    from jsonb_to_record(p_record) r(function text, queue text, args jsonb, args_headers jsonb, args_digest text, tags jsonb, title text)
  on conflict (id) do nothing
  returning p.* into v_promise;
  if not found or exists (select from _members(v_id) m where m.id <> v_id) then
    raise exception using errcode = 'TR010', message = format('%s, or something below it, is already there', v_id),
      hint = 'Import it under another ID.';
  end if;

  insert into task as t (id, state, queue, lane, reason, epoch, last_seq, last_at, started_at, seed)
  select v_id, 'halted', v_promise.queue, v_promise.function || '@' || r.version,
         jsonb_build_object('code', 'imported', 'message', format('imported by %s: resume it to let it run here', v_actor)),
         greatest(e.epoch, 1), e.events, _instant(greatest(e.at, r.started_at)), _instant(r.started_at), r.seed
    from jsonb_to_record(p_record) r(version integer, started_at bigint, seed bigint),
         (select max(e.epoch) as epoch, count(*)::integer as events, max(e.at) as at
            from jsonb_to_recordset(p_entries) e(epoch integer, at bigint)) e
  returning t.* into v_task;
  insert into checkpoint (task, seq, operation, kind, issued, cohort, digest, state, value, error, headers, at, epoch)
  select v_id, e.seq, e.operation, e.kind, e.issued, e.cohort,
         case when v_id = p_record ->> 'id' or e.kind in ('promise', 'timer', 'patch') then e.digest end,
         -- JSON null says that there is nothing, where SQL null would say: look at the promise
         e.state, coalesce(e.value, n.nothing), coalesce(e.error, n.nothing), coalesce(e.headers, n.nothing),
         _instant(e.at), max(coalesce(e.epoch, 1)) over (order by e.seq)
    from jsonb_to_recordset(p_entries) e(seq integer, operation text, kind text, issued integer, cohort integer, digest bigint, state text,
                                         value jsonb, error jsonb, headers jsonb, at bigint, epoch integer)
   cross join lateral (select case when e.kind in ('promise', 'call', 'start', 'wait') then 'null'::jsonb end as nothing) n;
  perform _record_audit(v_now, v_actor, 'import_journal', v_id, null, 'halted',
                        jsonb_build_object('from', p_record -> 'id', 'events', v_task.last_seq));
  return _document(v_promise, v_task, v_now) || '{"answer": "created"}';
end $$;

-- The record must be one as `record` gives it.
create function _check_record(p_record jsonb) returns void
  language plpgsql immutable
as $$
declare
  v_odd text;
begin
  begin
    select case
        when r.version is null or r.version < 1 then 'a version of at least 1 is missing'
        when r.started_at is null or r.started_at not between 0 and 9000000000000000 then 'started_at is no instant in microseconds'
        when r.seed is null then 'the seed is missing'
        when coalesce(jsonb_typeof(r.args_headers), 'object') <> 'object' then 'args_headers are no JSON object'
        when decode(r.args_digest, 'hex') = '' then 'args_digest is empty'
      end into v_odd
      from jsonb_to_record(p_record) r(version integer, started_at bigint, seed bigint, args_headers jsonb, args_digest text);
    if not found then
      v_odd := 'there is none';
    end if;
  exception when data_exception then
    v_odd := sqlerrm;
  end;
  if v_odd is not null then
    raise exception using errcode = 'TR002', message = format('the record cannot be read: %s', v_odd), hint = 'Give it as `record` answered it.';
  end if;
  perform _check_start(r.function, coalesce(r.args, '{}'), coalesce(r.queue, 'default'), null, null, 0, r.tags, r.args_headers),
          _check_text(r.title, 'title')
    from jsonb_to_record(p_record) r(function text, args jsonb, queue text, tags jsonb, args_headers jsonb, title text);
end $$;

-- The journal must be one that could have happened: numbered from 1 without a gap, time and epoch never going back, one event an
-- operation.
create function _check_entries(p_entries jsonb, p_started_at bigint) returns void
  language plpgsql immutable
as $$
declare
  v_odd text;
begin
  begin
    select format('entry %s %s', j.n, j.odd) into v_odd
      from (select e.n, case
                when e.seq is distinct from e.n then format('is numbered %s', e.seq)
                when coalesce(e.operation, '') !~ '^[-A-Za-z0-9._~:@!$&''()*+,;=]{1,255}$' then
                  format('names no operation: %L', left(e.operation, 100))
                when count(*) over (partition by e.operation) > 1 then format('is not the only one of %s', e.operation)
                when coalesce(e.kind, '') !~ '^[a-z_]{1,20}$' then format('is of no kind: %L', left(e.kind, 100))
                when coalesce(e.state, '') not in ('resolved', 'rejected', 'canceled', 'timedout') then
                  format('has no outcome: %L', left(e.state, 100))
                when e.issued not between 0 and e.n - 1 then format('was issued after entry %s', e.issued)
                when e.at is null or e.at > 9000000000000000 or e.at < lag(e.at, 1, p_started_at) over (order by e.n) then
                  'goes back in time'
                when e.epoch > 1000000000 then format('is of epoch %s, behind which there is no room', e.epoch)
                when e.epoch < 0 or e.epoch < lag(e.epoch) over (order by e.n) then format('goes back to epoch %s', e.epoch)
              end as odd
              from rows from (jsonb_to_recordset(p_entries) as (
                     seq integer, operation text, kind text, issued integer, cohort integer, digest bigint, state text, at bigint, epoch integer))
                   with ordinality e(seq, operation, kind, issued, cohort, digest, state, at, epoch, n)) j
     where j.odd is not null
     order by j.n limit 1;
    if p_entries is null then
      v_odd := 'there are none';
    end if;
  exception when data_exception then
    v_odd := sqlerrm;
  end;
  if v_odd is not null then
    raise exception using errcode = 'TR002', message = format('the journal cannot be read: %s', v_odd),
      hint = 'Give all of it, as `journal` answered it.';
  elsif jsonb_array_length(p_entries) > _journal_entries_max() then
    raise exception using errcode = 'TR030',
      message = format('a journal of %s events, more than the limit of %s', jsonb_array_length(p_entries), _journal_entries_max()),
      hint = 'Import a journal as it was exported.';
  end if;
  perform _check_payload(e.value, 'value of an entry'), _check_payload(e.error, 'error of an entry'), _check_payload(e.headers, 'headers of an entry')
    from jsonb_to_recordset(p_entries) e(value jsonb, error jsonb, headers jsonb)
   where e.value is not null or e.error is not null or e.headers is not null;
end $$;
