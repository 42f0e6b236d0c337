-- What a replay of a workflow needs beside its journal: the function, its arguments, where its time and its randomness begin, and
-- what its code waits for at the journal's end (`last_seq`). Instants are microseconds, as in the journal. Null for what never ran:
-- an unknown ID, a latent promise, a workflow that no worker has claimed. Read in one statement, so it is of one moment; the
-- journal up to `last_seq` is what it was at that moment, whenever it is read.
-- grant: client, worker, admin
create function record(p_id text) returns jsonb
  language sql stable security definer set search_path from current
  set enable_seqscan = off set jit = off
as $$
  select jsonb_build_object(
      'id', p.id, 'function', p.function, 'queue', p.queue, 'args', p.args, 'args_headers', p.args_headers,
      'args_digest', encode(p.args_digest, 'hex'), 'tags', p.tags, 'title', p.title,
      'version', case when t.lane like '%@%' then rtrim(split_part(t.lane, '@', 2), '!')::integer else p.version end,
      'started_at', _micros(coalesce(t.started_at, p.started_at)), 'seed', coalesce(t.seed, p.seed), 'timeout_at', _micros(p.timeout_at),
      'state', p.state, 'task', t.state, 'asked', t.asked,
      'last_seq', coalesce(t.last_seq, (select c.seq from checkpoint c where c.task = p.id order by c.seq desc limit 1), 0),
      'waits', coalesce((
        select jsonb_agg(jsonb_build_object(
            'operation', w.operation, 'kind', w.kind, 'promise', w.promise, 'issued', w.issued, 'digest', w.digest,
            'cohort', w.cohort, 'fire_at', _micros(w.fire_at)) order by w.operation)
          from wait w where w.task = p.id), '[]'))
    from promise p left join task t on t.id = p.id
   where p.id = p_id and coalesce(t.started_at, p.started_at) is not null
$$;
