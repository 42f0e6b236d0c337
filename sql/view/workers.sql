-- Worker processes: what they serve, when they were last heard of, how much they hold.
create view workers as
  select w.id, w.queues, w.lanes, w.lease, w.info, w.sleeping, w.registered_at, w.seen_at, w.died_at,
         (select count(*) from task t where t.worker = w.id) as claimed
    from worker w;
