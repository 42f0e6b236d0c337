-- Queues by lane, that is by function and version: how much is ready and since when, how much is under way, and whether a live
-- worker knows the lane. What is ready in a lane that none knows is claimed by nobody.
create view queues as
  select t.queue, t.lane, count(*) filter (where t.state = 'ready') as ready, min(t.ready_at) as oldest_ready_at,
         count(*) filter (where t.state = 'claimed') as claimed, count(*) filter (where t.state = 'suspended') as suspended,
         count(*) filter (where t.state = 'halted') as halted,
         exists (select from worker w where w.died_at is null and t.queue = any (w.queues) and rtrim(t.lane, '!') = any (w.lanes)) as known
    from task t
   group by t.queue, t.lane;
