-- The journal of a task after a sequence number, oldest first: what a worker tells the code. An event of a promise of the
-- same family refers to it (the promise is frozen and lives as long as the journal); one from elsewhere holds a copy, which may be
-- of nothing (that promise may be purged, and its ID be another's by now), and one of a child that could not be made the reason.
-- An event that an operator wrote says nothing of where it was issued.
create function _entries(p_task text, p_after integer, p_limit integer) returns jsonb
  language plpgsql stable  -- one in SQL would be planned anew at each call
as $$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object(
        'seq', c.seq, 'operation', c.operation, 'kind', c.kind, 'issued', c.issued, 'cohort', c.cohort, 'digest', c.digest,
        'state', c.state,
        'value', case when r.refers then p.value else c.value end, 'error', case when r.refers then p.error else c.error end,
        'headers', case when r.refers then p.headers else c.headers end,
        'at', _micros(c.at), 'epoch', c.epoch, 'promise', p.id) order by c.seq), '[]')
      from (select * from checkpoint where task = p_task and seq > p_after order by seq limit p_limit) c
      left join lateral (
        -- looked up one by one, also where the caller's settings would have it hash all promises there are
        select * from promise where id = coalesce(c.promise, c.task || '~' || c.operation) offset 0) p
        on c.kind in ('promise', 'call', 'start', 'wait')
      cross join lateral (select _refers(c.kind, c.task, c.promise, c.value, c.error, c.headers) as refers) r);
end $$;

-- Whether an event's outcome is that of its promise, and not its own.
create function _refers(p_kind text, p_task text, p_promise text, p_value jsonb, p_error jsonb, p_headers jsonb) returns boolean
  language sql immutable
as $$
  select p_kind in ('promise', 'call', 'start', 'wait') and coalesce(p_value, p_error, p_headers) is null
     and (p_promise is null or _family(p_promise) = _family(p_task))
$$;

-- Which family an ID belongs to: what stands before its first ~.
create function _family(p_id text) returns text
  language sql immutable parallel safe
as $$ select split_part(p_id, '~', 1) $$;
