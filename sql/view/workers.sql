-- Worker processes: what they serve, when they were last heard of, how much they hold, and since when there is news for something that
-- they hold and have not taken in: a worker whose loop is blocked, or that is cut off, does not.
create view workers as
  select w.id, w.queues, w.lanes, w.lease, w.info, w.sleeping, w.registered_at, w.seen_at, w.died_at,
         (select count(*) from task t where t.worker = w.id collate "default") as claimed,
         (select min(t.last_at) from task t where t.worker = w.id collate "default" and t.news) as news_since
    from worker w;
