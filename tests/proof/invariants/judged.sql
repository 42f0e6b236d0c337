-- How often each invariant about pairs of states was put to the test by what the log (`changes.sql`) has seen: for each kind
-- of change that its rule speaks of, how many there were. Every kind has a row, so that a zero is seen.
-- Changes made by hand are not counted: they show nothing about the functions.
create view transitions_judged (inv, kind, times) as
with
promises as materialized (
  select op, coalesce((old).state, '') as before, coalesce((new).state, '') as after, (new).settler as settler
    from promise_change where not by_hand
),
tasks as materialized (
  select op, coalesce((old).state, '') as before, coalesce((new).state, '') as after, coalesce((old).attempts, 0) as tried,
         coalesce((new).attempts, 0) as tries, coalesce((old).epoch, 0) as epoch
    from task_change where not by_hand
),
events as materialized (
  select c.op, (c.new).kind as kind, (c.new).issued is null as by_an_operator, task_state
    from checkpoint_change c where not by_hand
),
waits as materialized (
  select xid, op, (old).task as task, (old).operation as operation, (old).kind as kind, (old).promise as promise, promise_state,
         task_state, (old).fire_at <= at as passed
    from wait_change where not by_hand and op = 'delete'
),
told as materialized (
  select xid, (new).task as task, (new).operation as operation, (new).kind as kind, (new).state as state
    from checkpoint_change where op = 'insert' and not by_hand
),
audited as materialized (select (new).verb as verb from audit_change where op = 'insert' and not by_hand)
select 'I7', 'promises changed', count(*) from promises where op = 'update'
union all
select i.inv, format('pending → %s', k.state), count(p.after)
  from (values ('I8'), ('I10'), ('I12')) i(inv)
 cross join (values ('resolved'), ('rejected'), ('canceled'), ('timedout')) k(state)
  left join promises p on p.op = 'update' and p.before = 'pending' and p.after = k.state
 group by i.inv, k.state
union all
select 'I11', 'promises purged', count(*) from promises where op = 'delete'
union all
select i.inv, format('%s → %s', coalesce(nullif(k.before, ''), 'born'), coalesce(nullif(k.after, ''), 'gone')), count(t.op)
  from (values ('I23'), ('I24')) i(inv)
 cross join (values ('', 'ready'), ('', 'suspended'), ('', 'halted'), ('ready', 'claimed'), ('ready', 'halted'), ('claimed', 'claimed'),
                    ('claimed', 'ready'), ('claimed', 'suspended'), ('claimed', 'halted'), ('suspended', 'ready'),
                    ('suspended', 'halted'), ('halted', 'ready'), ('ready', ''), ('claimed', ''), ('suspended', ''),
                    ('halted', '')) k(before, after)
  left join tasks t on t.before = k.before and t.after = k.after
 where i.inv = 'I24' or k.before <> '' and k.after <> ''
 group by i.inv, k.before, k.after
union all
select 'I25', 'claimed → claimed', count(*) from tasks where before = 'claimed' and after = 'claimed'
union all
select 'I26', k.kind, count(t.op)
  from (values ('ready', 'claimed', 'became claimed'), ('claimed', 'suspended', 'became suspended'),
               ('', 'suspended', 'born suspended')) k(before, after, kind)
  left join tasks t on t.before = k.before and t.after = k.after group by k.kind
union all
select 'I27', format('became %s', k.state), count(t.op)
  from (values ('ready'), ('claimed')) k(state) left join tasks t on t.op = 'update' and t.before <> t.after and t.after = k.state
 group by k.state
union all
select 'I28', 'halted → ready', count(*) from tasks where before = 'halted' and after = 'ready'
union all
select 'I29', k.kind, count(t.op)
  from (values ('claim'), ('release'), ('death'), ('progress'), ('suspension'), ('resume')) k(kind)
  left join (select op, case
      when before = 'ready' and after = 'claimed' then 'claim'
      when before = 'claimed' and after = 'ready' then case when tries < tried then 'release' else 'death' end
      when before = 'claimed' and after = 'claimed' and tries < tried then 'progress'
      when before = 'claimed' and after = 'suspended' then 'suspension'
      when before = 'halted' and after = 'ready' and tried > 0 then 'resume' end as kind from tasks) t on t.kind = k.kind
 group by k.kind
union all
select 'I33', k.kind, count(w.task)
  from (values ('settled'), ('instant passed'), ('task ended'), ('had its outcome'), ('given up')) k(kind)
  left join (select w.*, case
      when e.id is not null then 'task ended'
      when w.promise_state <> 'pending' then 'settled'
      when t.task is not null and w.kind = 'retry' then 'had its outcome'
      when w.passed then 'instant passed'
      when t.task is null then 'given up' end as reason
      from waits w
      left join told t on t.xid = w.xid and t.task = w.task and t.operation = w.operation
      left join (select distinct xid, (old).id as id from task_change where op = 'delete') e on e.xid = w.xid and e.id = w.task) w on w.reason = k.kind
 group by k.kind
union all
select 'I34', format('the awaiter was %s', k.kind), count(w.task)
  from (values ('suspended'), ('claimed'), ('halted'), ('ready')) k(kind)
  left join (select w.task, coalesce(
      (select (c.old).state from task_change c where c.xid = w.xid and (c.old).id = w.task order by c.n limit 1), w.task_state) as state
      from waits w where w.promise_state <> 'pending' and w.task_state is not null) w on w.state = k.kind
 group by k.kind
union all
select 'I35', k.kind, count(e.op)
  from (values ('insert', 'events written'), ('delete', 'events purged')) k(op, kind) left join events e on e.op = k.op group by k.kind
union all
select 'I39', k.kind, count(e.op)
  from (values ('step'), ('step by hand'), ('patch'), ('timer'), ('promise'), ('wait'), ('call'), ('start'), ('cancel')) k(kind)
  left join events e on e.op = 'insert' and k.kind = case when e.kind = 'step' and e.by_an_operator then 'step by hand' else e.kind end
 group by k.kind
union all
select 'I40', format('a wait became a %s', k.kind), count(t.task)
  from (values ('step'), ('timer'), ('promise'), ('wait'), ('call'), ('start')) k(kind)
  left join (waits w join told t on t.xid = w.xid and t.task = w.task and t.operation = w.operation) on t.kind = k.kind
 group by k.kind
union all
select 'I43', 'schedules moved', count(*) from schedule_change where not by_hand and (old).next_at is distinct from (new).next_at
union all
select 'I48', k.verb, count(a.verb)
  from (values ('resolve'), ('reject'), ('cancel'), ('halt'), ('resume'), ('cancel_force'), ('fork'), ('settle_step'),
               ('import_journal')) k(verb)
  left join audited a on a.verb = k.verb group by k.verb;
