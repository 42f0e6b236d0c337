-- What a call of `advance` must fulfil, before anything is locked or written. A malformed one is an error of the whole call:
-- the worker's fault, not a race.
create function _check_advance(p_turns jsonb, p_operations jsonb, p_timers jsonb) returns void
  language plpgsql immutable
as $$
declare
  v_odd text;
begin
  perform _check_batch(p_turns);
  if p_operations is distinct from '[]' then
    perform _check_batch(p_operations), _check_named_once(p_operations);
  end if;
  if p_timers is distinct from '[]' then
    perform _check_batch(p_timers), _check_named_once(p_timers);
  end if;
  select case
      when t.task is null or t.epoch is null or t.seen is null then 'a turn lacks task, epoch or seen'
      when count(*) over (partition by t.task) > 1 then format('%s has two turns', t.task)
      when t."then" not in ('suspend', 'finish', 'release', 'halt') then format('%s goes on by %L', t.task, t."then")
      when t."then" = 'finish' and coalesce(t.state, '') not in ('resolved', 'rejected', 'canceled') then format('%s ends %L', t.task, t.state)
      when t."then" = 'finish' and (t.state = 'resolved') <> (nullif(t.error, 'null') is null) then format('%s ends with an error that does not fit its state', t.task)
      when t.close and t."then" <> 'suspend' then format('%s closes and goes on by %L', t.task, t."then")
    end into v_odd
    from jsonb_to_recordset(p_turns) t(task text, epoch integer, seen integer, "then" text, state text, value jsonb, error jsonb, close boolean)
   order by 1 nulls last limit 1;
  if v_odd is null and p_operations <> '[]' then
    v_odd := _odd_operation(p_operations);
  end if;
  if v_odd is null and p_timers <> '[]' then
    select case
        when coalesce(o.kind, 'timer') not in ('timer', 'retry') then format('a timer of kind %L', o.kind)
        when coalesce(o.operation, '~') like '~%' or o.operation = '' or o.issued is null or o.micros is null then 'a timer lacks operation, issued or micros'
      end into v_odd
      from jsonb_to_recordset(p_timers) o(operation text, kind text, issued integer, micros bigint)
     order by 1 nulls last limit 1;
  end if;
  if v_odd is not null then
    raise exception using errcode = 'TR002', message = v_odd, hint = 'See sql/worker/advance.sql for the shape of a call.';
  end if;
  -- only what is not small is looked at closely: a call for each payload would cost more than to store it
  perform _check_payload(t.value, 'result'), _check_payload(t.error, 'error'), _check_payload(t.headers, 'headers')
    from jsonb_to_recordset(p_turns) t(value jsonb, error jsonb, headers jsonb)
   where not (_is_small(t.value) and _is_small(t.error) and _is_small(t.headers));
end $$;

-- The outcomes of a call, read and judged: each is looked at several times, and JSON would be taken apart each time.
create function _read_outcomes(p_outcomes jsonb) returns outcome[]
  language plpgsql stable
as $$
declare
  v_outcomes outcome[];
  v_odd text;
begin
  perform _check_batch(p_outcomes);
  v_outcomes := array(
    select row(o.task, o.operation, o.kind, o.issued, o.cohort, o.digest, o.state, o.value, o.error, o.headers, _instant(o.at), o.micros,
               o.retried, o.n)::outcome
      from rows from (jsonb_to_recordset(p_outcomes) as (
             task text, operation text, kind text, issued integer, cohort integer, digest bigint, state text,
             value jsonb, error jsonb, headers jsonb, at bigint, micros bigint, retried boolean)) with ordinality
           o(task, operation, kind, issued, cohort, digest, state, value, error, headers, at, micros, retried, n));
  select min(case
      when coalesce(o.kind, '') not in ('step', 'timer', 'patch') then format('an outcome of kind %L', o.kind)
      when coalesce(o.operation, '~') like '~%' or o.operation = '' or o.issued is null then 'an outcome lacks operation or issued'
      when coalesce(o.state, '') not in ('resolved', 'rejected') then format('an outcome with state %L', o.state)
    end) into v_odd
    from unnest(v_outcomes) o;
  if v_odd is not null then
    raise exception using errcode = 'TR002', message = v_odd, hint = 'See sql/worker/advance.sql for the shape of a call.';
  end if;
  perform _check_named_once(p_outcomes);
  perform _check_payload(o.value, 'outcome'), _check_payload(o.error, 'error'), _check_payload(o.headers, 'headers')
    from unnest(v_outcomes) o
   where not (_is_small(o.value) and _is_small(o.error) and _is_small(o.headers));
  return v_outcomes;
end $$;

-- An operation has one outcome, is created once and has one timer: named twice in a call, it would break on a key in its middle.
create function _check_named_once(p_items jsonb) returns void
  language plpgsql immutable
as $$
declare
  v_odd text;
begin
  select format('%s of %s is named twice', o.operation, o.task) into v_odd
    from jsonb_to_recordset(p_items) o(task text, operation text)
   group by o.task, o.operation having count(*) > 1 limit 1;
  if v_odd is not null then
    raise exception using errcode = 'TR002', message = left(v_odd, 600), hint = 'See sql/worker/advance.sql for the shape of a call.';
  end if;
end $$;

-- What is wrong with one of the operations, if anything is; an ID or a payload that cannot be raises its own error.
create function _odd_operation(p_operations jsonb) returns text
  language plpgsql immutable
as $$
declare
  v_odd text;
  v_child record;
begin
  select case
      when coalesce(o.kind, '') not in ('promise', 'wait', 'call', 'start') then format('an operation of kind %L', o.kind)
      when coalesce(o.operation, '~') like '~%' or o.operation = '' or o.issued is null then 'an operation lacks its name or issued'
      when o.kind = 'wait' and o.promise is null or o.kind = 'promise' and o.promise is not null
        then 'a wait names its promise, a promise has the name of its operation'
      when o.timeout < 0 then 'an operation has a negative timeout'
      when o.has_default and o.timeout is null then 'a default without a timeout would never come'
    end into v_odd
    from jsonb_to_recordset(p_operations) o(
      task text, operation text, kind text, issued integer, promise text, timeout bigint, has_default boolean)
   order by 1 nulls last limit 1;
  if v_odd is not null then
    return v_odd;
  end if;
  perform _check_id(o.task || '~' || o.operation, _id_length_max())
    from jsonb_to_recordset(p_operations) o(task text, operation text, promise text)
   where o.promise is null and length(o.task) + length(o.operation) >= _id_length_max();
  perform _check_payload(o."default", 'default'), _check_payload(o.default_headers, 'headers'), _check_tags(o.tags),
          _check_text(o.title, 'title'), _check_span(_span(o.timeout), 'timeout')
    from jsonb_to_recordset(p_operations) o(
      kind text, "default" jsonb, default_headers jsonb, title text, tags jsonb, timeout bigint)
   where o.kind = 'promise'
     and (o."default" is not null or o.default_headers is not null or o.title is not null or o.tags is not null or o.timeout is not null);
  for v_child in
    select * from jsonb_to_recordset(p_operations) o(
      kind text, promise text, function text, args jsonb, args_headers jsonb, queue text, priority integer, delay bigint,
      timeout bigint, title text, tags jsonb)
     where o.kind in ('call', 'start')
  loop
    if v_child.promise is not null then
      perform _check_id_start(v_child.promise);
    end if;
    perform _check_start(v_child.function, v_child.args, v_child.queue, _span(v_child.delay), _span(v_child.timeout),
                         coalesce(v_child.priority, 0), v_child.tags, v_child.args_headers);
    perform _check_text(v_child.title, 'title');
  end loop;
  return null;
end $$;

-- What comes beside the turns: notes about attempts, and children given up.
create function _check_asides(p_attempts jsonb, p_cancels jsonb) returns void
  language plpgsql immutable
as $$
declare
  v_odd text;
begin
  perform _check_batch(coalesce(p_attempts, '[]')), _check_batch(coalesce(p_cancels, '[]'));
  select case
      when o.task is null or coalesce(o.operation, '') = '' then 'an attempt lacks task or operation'
      when o.number is null or o.number not between 1 and 32767 then format('an attempt with the number %s', coalesce(o.number::text, 'null'))
      when o.retry_in < 0 or o.elapsed < 0 then 'an attempt has a negative duration'
    end into v_odd
    from jsonb_to_recordset(p_attempts) o(task text, operation text, number integer, retry_in bigint, elapsed bigint)
   order by 1 nulls last limit 1;
  if v_odd is null and exists (
    select from jsonb_to_recordset(p_cancels) c(task text, promise text) where c.task is null or c.promise is null) then
    v_odd := 'a cancel lacks task or promise';
  end if;
  if v_odd is not null then
    raise exception using errcode = 'TR002', message = v_odd, hint = 'See sql/worker/advance.sql for the shape of a call.';
  end if;
  perform _check_payload(o.error, 'error'), _check_payload(o.details, 'details'),
          _check_span(_span(o.retry_in), 'retry_in'), _check_span(_span(o.elapsed), 'elapsed')
    from jsonb_to_recordset(p_attempts) o(error jsonb, details jsonb, retry_in bigint, elapsed bigint);
end $$;
