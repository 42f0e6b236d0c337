-- The journal of a task after a sequence number, oldest first: what a worker tells the code. An event of a promise of the
-- same family refers to it (the promise is frozen and lives as long as the journal); one from elsewhere holds a copy.
create function _entries(p_task text, p_after integer, p_limit integer) returns jsonb
  language sql stable
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
      'seq', c.seq, 'operation', c.operation, 'kind', c.kind, 'issued', c.issued, 'digest', c.digest, 'state', c.state,
      'value', coalesce(c.value, p.value), 'error', coalesce(c.error, p.error), 'headers', coalesce(c.headers, p.headers),
      'at', _micros(c.at), 'epoch', c.epoch, 'promise', p.id) order by c.seq), '[]')
    from (select * from checkpoint where task = p_task and seq > p_after order by seq limit p_limit) c
    left join lateral (
      -- looked up one by one, also where the caller's settings would have it hash all promises there are
      select * from promise where id = coalesce(c.promise, c.task || '~' || c.operation) offset 0) p
      on c.kind in ('promise', 'call', 'wait')
$$;

-- Which family an ID belongs to: what stands before its first ~.
create function _family(p_id text) returns text
  language sql immutable parallel safe
as $$ select split_part(p_id, '~', 1) $$;
