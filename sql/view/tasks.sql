-- Unfinished workflows: what each waits for, since when, who holds it.
create view tasks as
  select t.id, t.state, t.queue, t.lane, t.priority, t.ready_at, t.worker, t.claimed_at, t.epoch, t.attempts, t.last_seq, t.last_at,
         t.news, t.reason, t.timeout_at,
         (select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'operation', w.operation, 'kind', w.kind, 'promise', w.promise, 'fire_at', w.fire_at)) order by w.operation)
            from wait w where w.task = t.id) as waits
    from task t;
