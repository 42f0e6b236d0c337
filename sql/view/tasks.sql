-- Unfinished workflows: what each waits for and since when, who holds it, and who keeps its code in memory. What it waits for
-- is, by kind: a promise of its own (promise), a child (call, start), somebody else's promise (wait), an instant (timer), the next
-- attempt of a step (retry, with the number of the last one), or its delayed start (delay). `since` is the instant of the event after
-- which its code asked for that.
create view tasks as
  select t.id, t.state, t.queue, t.lane, t.priority, t.ready_at, t.worker, t.claimed_at, t.epoch, t.attempts, t.last_seq, t.last_at,
         t.news, t.reason, t.timeout_at,
         (select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'operation', w.operation, 'kind', w.kind, 'promise', w.promise, 'fire_at', w.fire_at,
            'since', case when w.kind <> 'delay' then
                       case when w.issued = 0 then t.started_at
                            else (select c.at from checkpoint c where c.task = w.task and c.seq = w.issued) end end,
            'attempt', case when w.kind = 'retry' then
                         (select max(a.number) from attempt a where a.task = w.task and a.operation = w.operation) end))
            order by w.operation)
            from wait w where w.task = t.id) as waits,
         t.started_at, t.kept_by
    from task t;
