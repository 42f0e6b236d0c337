-- What is wrong between two states of a namespace, as rows: which invariant, whose row, how, and whether it was done by hand.
-- No row means that every step which the log (`changes.sql`) has seen was a legal one.
--
-- I27 by its meaning: an overdue task is never claimed; that it may be called ready is nothing, since no claim takes it.
-- I11 knows no retention but that of the caller: what is deleted was settled before. I44 and I45 are about answers, and I46
-- too but for the dead: `answers.py`. I52 needs two namespaces: `changes.py`.
create view transitions_violated (inv, id, detail, by_hand) as
with
audited as materialized (
  select xid, (new).promise as id, (new).verb as verb, (new).before as before, (new).after as after, count(*) as times,
         bool_or(coalesce((new).actor, '') = '') as nobody, bool_or(by_hand) as by_hand
    from audit_change where op = 'insert' group by 1, 2, 3, 4, 5
),
operated as materialized (select distinct xid, id from audited where verb in ('fork', 'import_journal')),
held as materialized (
  select distinct xid, (old).id as id, (old).epoch as epoch from task_change where op <> 'insert' and (old).state = 'claimed'
),
let_go as materialized (
  select distinct xid, (old).id as id, (new).state as state from task_change
   where op = 'update' and (old).state = 'claimed' and (new).state <> 'claimed'
),
ended as materialized (select distinct xid, (old).id as id from task_change where op = 'delete'),
settled as materialized (
  select distinct xid, (new).id as id, (new).state as state from promise_change
   where op = 'update' and (old).state = 'pending' and (new).state <> 'pending'
),
purged as materialized (select n, xid, (old).id as id from promise_change where op = 'delete'),
told as materialized (
  select n, xid, by_hand, (new).task as task, (new).operation as operation, (new).kind as kind, (new).issued as issued,
         (new).digest as digest, (new).state as state
    from checkpoint_change where op = 'insert'
),
begun as materialized (select distinct xid, (new).task as task, (new).kind as kind from wait_change where op = 'insert'),
named as materialized (
  select i.*, (select count(*) from purged p where p.id = i.task and p.n < i.n) as life
    from (select n, by_hand, (new).task as task, (new).operation as operation,
                 case (new).kind when 'retry' then 'step' else (new).kind end as kind, (new).issued as issued,
                 case when (new).kind <> 'retry' then (new).digest end as digest from wait_change where op <> 'delete'
          union all
          select n, by_hand, task, operation, kind, issued, digest from told) i
),
edge as materialized (
  select c.*, (old).id as id, (old).state as before, (new).state as after, (old).attempts as tried, (new).attempts as tries
    from task_change c where op = 'update'
),
found (inv, id, detail, by_hand) as (
  -- promises
  select 'I7', (old).id, format('was %s, became %s', old, new), by_hand
    from promise_change
   where op = 'update'
     and ((old).id, (old).function, (old).args, (old).args_headers, (old).args_digest, (old).tags, (old).title, (old).timeout_at,
          (old).created_at, (old).parent, (old).has_default, (old).default_value, (old).default_headers)
         is distinct from
         ((new).id, (new).function, (new).args, (new).args_headers, (new).args_digest, (new).tags, (new).title, (new).timeout_at,
          (new).created_at, (new).parent, (new).has_default, (new).default_value, (new).default_headers)
  union all
  select 'I8', (new).id, format('born %s', (new).state), by_hand from promise_change where op = 'insert' and (new).state <> 'pending'
  union all
  select 'I8', (old).id, format('%s became %s', (old).state, (new).state), by_hand
    from promise_change where op = 'update' and (old).state <> 'pending' and (new).state <> (old).state
  union all
  select 'I9', (old).id, format('settled as %s, became %s', old, new), by_hand
    from promise_change where op = 'update' and (old).state <> 'pending' and old *<> new
  union all
  select 'I10', (old).id, format('%s at %s became %s at %s', (old).state, (old).settled_at, (new).state, (new).settled_at), by_hand
    from promise_change
   where op = 'update' and ((old).state <> (new).state) <> ((old).settled_at is distinct from (new).settled_at)
  union all
  select 'I11', (old).id, format('deleted at %s: %s since %s, waited for: %s, below: %s', at, (old).state, (old).settled_at, waited, ancestor), by_hand
    from promise_change
   where op = 'delete' and ((old).state = 'pending' or (old).settled_at >= at or waited or ancestor is not null)
  union all
  select 'I12', (new).id, format('settled %s times', count(*)), bool_or(by_hand)
    from promise_change where op = 'update' and (old).state = 'pending' and (new).state <> 'pending'
   group by (new).id, (new).created_at having count(*) > 1

  -- tasks
  union all
  select 'I23', id, format('%s with epoch %s became %s with %s', before, (old).epoch, after, (new).epoch), by_hand
    from edge
   where (new).epoch <> (old).epoch + case when before = 'ready' and after = 'claimed' then 1 else 0 end
  union all
  select 'I23', (new).id, format('born with epoch %s', (new).epoch), by_hand
    from task_change c
   where op = 'insert' and (new).epoch <> 0 and not exists (select from operated o where o.xid = c.xid and o.id = (c.new).id)
  union all
  select 'I24', id, format('%s became %s', before, after), by_hand
    from edge
   where before <> after
     and (before, after) not in (('ready', 'claimed'), ('ready', 'halted'), ('claimed', 'ready'), ('claimed', 'suspended'),
                                 ('claimed', 'halted'), ('suspended', 'ready'), ('suspended', 'halted'), ('halted', 'ready'))
  union all
  select 'I24', (new).id, format('born %s', (new).state), by_hand
    from task_change c
   where op = 'insert' and ((new).state = 'claimed' or (new).state = 'halted'
     and not exists (select from operated o where o.xid = c.xid and o.id = (c.new).id))
  union all
  select 'I24', (old).id, format('gone, and its promise is %s', coalesce(promise_state, 'gone')), by_hand
    from task_change where op = 'delete' and coalesce(promise_state, 'pending') = 'pending'
  union all
  select 'I25', id, format('claimed by %s as %s became claimed by %s as %s', (old).worker, (old).epoch, (new).worker, (new).epoch), by_hand
    from edge
   where before = 'claimed' and after = 'claimed' and ((old).worker, (old).epoch) is distinct from ((new).worker, (new).epoch)
  union all
  select 'I26', id, format('%s became %s', before, after), by_hand
    from edge
   where after = 'claimed' and before not in ('claimed', 'ready') or after = 'suspended' and before not in ('suspended', 'claimed')
  union all
  select 'I26', (new).id, format('born %s', (new).state), by_hand
    from task_change c
   where op = 'insert' and ((new).state = 'claimed' or (new).state = 'suspended'
     and not exists (select from begun b where b.xid = c.xid and b.task = (c.new).id and b.kind = 'delay'))
  union all
  select 'I27', id, format('%s became %s, and its promise is %s', before, after, coalesce(promise_state, 'gone')), by_hand
    from edge where before <> after and after in ('ready', 'claimed') and promise_state is distinct from 'pending'
  union all
  select 'I27', id, format('claimed at %s, its timeout was %s', (new).claimed_at, timeout_at), by_hand
    from edge where before <> after and after = 'claimed' and (new).claimed_at >= timeout_at
  union all
  select 'I28', id, format('halted became %s, and no operator said so', after), by_hand
    from edge c
   where before = 'halted' and after <> 'halted'
     and not exists (select from audited a where a.xid = c.xid and a.id = c.id and a.verb = 'resume')
  union all
  select 'I29', id, format('%s with %s attempts became %s with %s', before, tried, after, tries), by_hand
    from edge
   where case
     when before = 'ready' and after = 'claimed' then tries <> tried + 1
     when before = 'claimed' and after = 'ready' then tries not in (tried, greatest(tried - 1, 0))
     when before = 'claimed' and after = 'suspended' then tries <> 0
     when before = 'claimed' then tries not in (tried, 0)
     when before = 'halted' and after = 'ready' then tries <> 0
     else tries <> tried end
  union all
  select 'I29', id, format('forgot %s attempts without progress', tried), by_hand
    from edge c
   where before = 'claimed' and after = 'claimed' and tries < tried
     and not exists (select from told t where t.xid = c.xid and t.task = c.id)
     and not exists (select from begun b where b.xid = c.xid and b.task = c.id)
     and not exists (select from let_go l where l.xid = c.xid and l.id = c.id and l.state = 'halted')
  union all
  select 'I29', (new).id, format('born with %s attempts', (new).attempts), by_hand
    from task_change where op = 'insert' and (new).attempts <> 0

  -- waits
  union all
  select 'I33', (old).task, format('%s (%s, %s at %s) is gone without a reason', (old).operation, (old).kind, (old).promise, (old).fire_at), by_hand
    from wait_change c
   where op = 'delete' and coalesce(promise_state, 'pending') = 'pending' and ((old).fire_at is null or (old).fire_at > at)
     and not exists (select from ended e where e.xid = c.xid and e.id = (c.old).task)
     and not exists (select from settled s where s.xid = c.xid and s.id in ((c.old).task))
     and not exists (select from settled s where s.xid = c.xid and s.id in ((c.old).promise))
     and not exists (select from told t where t.xid = c.xid and t.task = (c.old).task and t.operation = (c.old).operation)
     and not ((old).kind in ('timer', 'retry') and exists (select from let_go l where l.xid = c.xid and l.id = (c.old).task))
     and not ((old).kind = 'delay' and exists (
       select from audited a where a.xid = c.xid and a.id = (c.old).task and a.verb = 'resume'))
  union all
  select 'I34', (old).task, format('%s was settled, and no event says so', (old).promise), by_hand
    from wait_change c
   where op = 'delete' and (old).promise is not null
     and exists (select from settled s where s.xid = c.xid and s.id = (c.old).promise)
     and not exists (select from ended e where e.xid = c.xid and e.id = (c.old).task)
     and not exists (select from told t where t.xid = c.xid and t.task = (c.old).task and t.operation = (c.old).operation)
  union all
  select 'I34', (old).task, format('was told of %s, and is suspended', (old).promise), by_hand
    from wait_change c
   where op = 'delete' and (old).promise is not null and task_state = 'suspended'
     and exists (select from settled s where s.xid = c.xid and s.id = (c.old).promise)
     and not exists (select from ended e where e.xid = c.xid and e.id = (c.old).task)
     and not exists (select from edge e where e.xid = c.xid and e.id = (c.old).task and e.before = 'suspended' and e.after = 'ready')

  -- journals
  union all
  select 'I35', (old).task, format('event %s became %s', old, new), by_hand from checkpoint_change where op = 'update'
  union all
  select 'I35', (old).task, format('event %s is gone', (old).seq), by_hand
    from checkpoint_change c
   where op = 'delete' and not exists (select from purged p where p.xid = c.xid and p.id = (c.old).task)
  union all
  select 'I39', (new).task, format('event %s of epoch %s, the task is %s with %s', (new).operation, (new).epoch, task_state, task_epoch), by_hand
    from checkpoint_change c
   where op = 'insert' and (new).epoch is distinct from task_epoch
     and not exists (select from operated o where o.xid = c.xid and o.id = (c.new).task)
  union all
  select 'I39', (new).task, format('%s (%s) was written while the task was %s', (new).operation, (new).kind, task_state), by_hand
    from checkpoint_change c
   where op = 'insert' and task_state is distinct from 'claimed'
     and coalesce(promise_state, 'pending') = 'pending' and (new).kind <> 'cancel'
     and not exists (select from held h where h.xid = c.xid and h.id = (c.new).task and h.epoch = (c.new).epoch)
     and not exists (select from operated o where o.xid = c.xid and o.id = (c.new).task)
     and not ((new).kind = 'step' and (new).issued is null and exists (
       select from audited a where a.xid = c.xid and a.id = (c.new).task and a.verb = 'settle_step'))
     and not ((new).kind = 'timer' and exists (
       select from wait_change w where w.xid = c.xid and w.op = 'delete' and (w.old).task = (c.new).task
          and (w.old).operation = (c.new).operation and (w.old).fire_at <= w.at))
  union all
  select 'I39', a.id, format('asked to cancel, and %s events say so', count(t.n)), bool_or(a.by_hand)
    from audited a left join told t on t.xid = a.xid and t.task = a.id and t.kind = 'cancel'
   where a.verb = 'cancel' and a.after = 'requested' group by a.xid, a.id having count(t.n) <> max(a.times)
  union all
  select 'I40', task, format('%s was %s', operation, string_agg(distinct concat_ws(' ', kind, 'after', issued, 'digest', digest), ', then ')), bool_or(by_hand)
    from named where issued is not null
   group by task, life, operation
  having count(distinct kind) > 1 or count(distinct issued) > 1 or count(distinct digest) > 1
  union all
  select 'I40', (new).task, format('wait %s became %s', old, new), by_hand
    from wait_change
   where op = 'update' and (((old).task, (old).operation, (old).kind, (old).promise) is distinct from
                            ((new).task, (new).operation, (new).kind, (new).promise)
                            or (old).fire_at is distinct from (new).fire_at and (old).kind <> 'retry')

  -- schedules, workers, audit
  union all
  select 'I43', (old).id, format('was next due at %s, became %s', (old).next_at, (new).next_at), by_hand
    from schedule_change
   where op = 'update' and (new).next_at < (old).next_at
     and ((old).cron, (old).zone, (old).enabled) is not distinct from ((new).cron, (new).zone, (new).enabled)
  union all
  select 'I46', id, format('claimed in the name of %s, who is dead or unknown', (new).worker), by_hand from edge where worker_died
  union all
  select 'I46', (old).id, format('died at %s, and became %s', (old).died_at, coalesce((new).died_at::text, 'alive')), by_hand
    from worker_change where op = 'update' and (old).died_at is distinct from (new).died_at and (old).died_at is not null
  union all
  select 'I48', coalesce((old).promise, (old).verb), format('the audit''s row was changed (%s)', op), by_hand
    from audit_change where op <> 'insert'
  union all
  select 'I48', (new).id, format('%s by %s, and %s rows say so', (new).state, (new).settler, coalesce(a.times, 0)), c.by_hand
    from promise_change c
    left join (select xid, id, after, sum(times) as times from audited group by 1, 2, 3) a
           on a.xid = c.xid and a.id = (c.new).id and a.after = (c.new).state
   where op = 'update' and (old).state = 'pending' and (new).state <> 'pending'
     and (new).settler not in ('timeout', 'worker', 'workflow') and a.times is distinct from 1
  union all
  select 'I48', c.id, format('%s became halted by an operator, and no row says so', before), c.by_hand
    from edge c
   where before <> after and after = 'halted' and (new).reason ->> 'code' = 'operator'
     and not exists (select from audited a where a.xid = c.xid and a.id = c.id and a.verb = 'halt' and a.before = c.before)
  union all
  select 'I48', t.task, format('%s was settled by hand, and no row says so', t.operation), t.by_hand
    from told t
   where t.kind = 'step' and t.issued is null
     and not exists (select from audited a where a.xid = t.xid and a.id = t.task and a.verb = 'settle_step')
     and not exists (select from operated o where o.xid = t.xid and o.id = t.task)
  union all
  select 'I48', a.id, format('a row says %s: %s to %s, which did not happen', a.verb, a.before, a.after), a.by_hand
    from audited a
   where a.verb in ('resolve', 'reject', 'cancel', 'cancel_force') and a.after <> 'requested'
     and not exists (select from settled s where s.xid = a.xid and s.id = a.id and s.state = a.after)
  union all
  select 'I48', a.id, format('a row says %s: %s to %s, which did not happen', a.verb, a.before, a.after), a.by_hand
    from audited a
   where a.verb in ('halt', 'resume')
     and not exists (select from edge e where e.xid = a.xid and e.id = a.id and e.before = a.before and e.after = a.after)
  union all
  select 'I48', a.id, format('a row says %s, but not by whom', a.verb), a.by_hand from audited a where a.nobody
)
select inv::text, id::text, left(detail, 500), by_hand from found;
