-- How much each invariant of one state had to be true of, as the namespace stands now: for each situation that its rule
-- speaks of, how many rows are in it. Every situation has a row, so that a zero is seen.
create view situations_judged (inv, kind, times) as
with
p as materialized (
  select count(*) as promises,
         count(*) filter (where state = 'pending') as pending,
         count(*) filter (where state = 'pending' and function is not null) as workflows,
         count(*) filter (where state = 'pending' and timeout_at is not null) as timely,
         count(*) filter (where state = 'pending' and parent is not null and function is not null and timeout_at is not null) as children,
         count(*) filter (where state <> 'pending') as settled,
         count(*) filter (where state <> 'pending' and function is not null) as finished,
         count(*) filter (where state = 'timedout') as timedout,
         count(*) filter (where state = 'resolved' and settler = 'timeout') as defaulted,
         count(*) filter (where settler <> 'timeout' and timeout_at is not null) as before_timeout,
         count(*) filter (where settler not in ('timeout', 'worker', 'workflow')) as decided,
         count(*) filter (where coalesce(value, error, args, default_value) is not null) as payloads
    from promise
),
t as materialized (
  select count(*) as tasks,
         count(*) filter (where state = 'ready') as ready,
         count(*) filter (where state = 'claimed') as claimed,
         count(*) filter (where state = 'suspended') as suspended,
         count(*) filter (where state = 'halted') as halted,
         count(*) filter (where attempts > 0 and state <> 'halted') as tried,
         count(*) filter (where children > 0) as parents,
         count(*) filter (where last_seq > 0) as told
    from task
),
w as materialized (
  select count(*) as waits,
         count(*) filter (where w.promise is not null) as promises,
         count(*) filter (where w.kind in ('call', 'start')) as children,
         count(*) filter (where w.kind = 'timer') as timers,
         count(*) filter (where w.kind = 'retry') as retries,
         count(*) filter (where w.kind = 'delay') as delays,
         count(*) filter (where w.promise is not null and t.state = 'suspended') as asleep,
         count(*) filter (where w.promise is not null and t.state <> 'suspended') as awake,
         count(o.id) as of_workflows
    from wait w left join task t on t.id = w.task left join task o on o.id = w.promise
),
c as materialized (
  select count(*) as events,
         count(distinct task) as journals,
         count(*) filter (where seq > 1) as later,
         count(*) filter (where kind in ('promise', 'wait', 'call', 'start')) as promises
    from checkpoint
),
o as materialized (
  select (select count(*) from closing) as closings, (select count(*) from attempt where retry_at is not null) as retries
)
select v.inv, v.kind, v.times
  from p, t, w, c, o, lateral (values
    ('I1', 'pending', p.pending), ('I1', 'settled', p.settled),
    ('I2', 'pending', p.pending),
    ('I3', 'timed out', p.timedout), ('I3', 'resolved by default', p.defaulted),
    ('I4', 'settled before a timeout', p.before_timeout),
    ('I5', 'created', p.promises), ('I5', 'settled', p.settled),
    ('I6', 'IDs', p.promises),
    ('I13', 'with a default, past the timeout', p.defaulted),
    ('I14', 'tasks', t.tasks), ('I14', 'pending workflows', p.workflows),
    ('I15', 'finished workflows', p.finished),
    ('I16', 'claimed', t.claimed),
    ('I17', 'not claimed', t.tasks - t.claimed),
    ('I18', 'ready', t.ready), ('I18', 'not ready', t.tasks - t.ready),
    ('I19', 'suspended', t.suspended),
    ('I20', 'waits of those suspended', w.asleep),
    ('I21', 'with attempts', t.tried),
    ('I22', 'halted', t.halted),
    ('I30', 'waits for promises', w.promises), ('I30', 'waits', w.waits),
    ('I31', 'waits', w.waits),
    ('I32', 'waits for workflows', w.of_workflows),
    ('I34', 'waits of those awake', w.awake),
    ('I36', 'journals', c.journals), ('I36', 'tasks with events', t.told),
    ('I37', 'events', c.events),
    ('I38', 'events after another', c.later),
    ('I40', 'events of promises', c.promises), ('I40', 'waits for children', w.children),
    ('I41', 'timeouts', p.timely), ('I41', 'timers', w.timers), ('I41', 'retries', w.retries), ('I41', 'delays', w.delays),
    ('I41', 'children with a timeout', p.children), ('I41', 'owed a cancel', o.closings), ('I41', 'attempts to come', o.retries),
    ('I46', 'claimed by somebody', t.claimed),
    ('I48', 'decided by a person', p.decided),
    ('I50', 'payloads', p.payloads), ('I50', 'events', c.events), ('I50', 'parents', t.parents)
  ) v(inv, kind, times);
