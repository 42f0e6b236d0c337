-- What is wrong in a namespace, as rows: which invariant, whose row, how. No row means that every invariant below holds.
--
-- Only invariants that one state can show are here, and of some about pairs of states the shadow that falls on a single one
-- (I34, I40, I46, I48). Pairs themselves are judged in the tests, by a log of row changes (tests/proof/invariants).
-- I49 (links) and I51 (effects of steps, a ledger that tests keep) have no tables yet. I31, I36 (uniqueness) and I6 are
-- also held by keys and CHECKs: they stand here too, since a later migration may loosen one.
-- I32 is a report: two workflows that wait for each other are legal, and will wait until one times out.
-- I47 needs somebody who ticks; where nobody does it says what would be due.
create view violations (inv, id, detail) as
with
moment as materialized (select _clock() as now),
pending as (select * from promise where state = 'pending'),
settled as (select * from promise where state <> 'pending'),
found (inv, id, detail) as (
  -- promises
  select 'I1', id, format('%s with settled_at %s', state, settled_at)
    from promise where (state = 'pending') <> (settled_at is null)
  union all
  select 'I2', id, 'pending with an outcome'
    from pending where value is not null or error is not null or headers is not null or settler is not null
      or value_digest is not null
  union all
  select 'I3', id, format('%s by %s at %s, its timeout is %s', state, settler, settled_at, timeout_at)
    from settled
   where (settler is not distinct from 'timeout') <> (settled_at is not distinct from timeout_at)
      or (settler = 'timeout') <> (state = 'timedout' or has_default and state = 'resolved' and settled_at = timeout_at)
      or settler is null
  union all
  select 'I4', id, format('settled by %s at %s, from %s on only a timeout may', settler, settled_at, timeout_at)
    from settled where settler is distinct from 'timeout' and settled_at >= timeout_at
  union all
  select 'I5', id, format('created %s, settled %s, now %s', created_at, settled_at, now)
    from promise, moment where created_at > now or settled_at < created_at or settled_at > now
  union all
  select 'I6', id, 'not an ID'
    from promise where id !~ '^[-A-Za-z0-9._~:@!$&''()*+,;=]{1,255}$' or id in ('.', '..')
  union all
  select 'I6', id, 'twice' from promise group by id having count(*) > 1
  union all
  select 'I13', id, 'a default, and timed out' from promise where has_default and state = 'timedout'

  -- tasks
  union all
  select 'I14', t.id, format('a task without a pending workflow promise (%s)', coalesce(p.state, 'none'))
    from task t left join promise p on p.id = t.id where p.state is distinct from 'pending' or p.function is null
  union all
  select 'I14', p.id, 'a pending workflow without a task'
    from pending p where function is not null and not exists (select from task t where t.id = p.id)
  union all
  select 'I15', p.id, 'settled, and still has a task' from settled p join task t on t.id = p.id
  union all
  select 'I15', p.id, format('settled, and still waits (%s)', w.operation) from settled p join wait w on w.task = p.id
  union all
  select 'I16', id, format('%s by %s with epoch %s', state, worker, epoch)
    from task where state = 'claimed' and (worker is null or epoch <= 0)
  union all
  select 'I17', id, format('%s, and names worker %s', state, worker) from task where state <> 'claimed' and worker is not null
  union all
  select 'I18', id, format('%s with ready_at %s', state, ready_at) from task where (state = 'ready') <> (ready_at is not null)
  union all
  select 'I19', id, 'suspended, and waits for nothing'
    from task t where state = 'suspended' and not exists (select from wait w where w.task = t.id)
  union all
  select 'I20', t.id, format('suspended, but %s is %s', w.promise, coalesce(p.state, 'gone'))
    from task t join wait w on w.task = t.id left join promise p on p.id = w.promise
   where t.state = 'suspended' and w.promise is not null and p.state is distinct from 'pending'
  union all
  select 'I21', id, format('%s attempts and %s', attempts, state)
    from task where state <> 'halted' and attempts > _attempts_max() or attempts < 0
  union all
  select 'I22', id, 'halted without a reason' from task where (state = 'halted') <> (reason is not null)

  -- waits
  union all
  select 'I30', task, format('waits for itself (%s)', operation) from wait where promise = task
  union all
  select 'I30', task, format('waits (%s), and has no task', operation)
    from wait w where not exists (select from task t where t.id = w.task)
  union all
  select 'I31', task, format('%s waits as %s', count(*), operation) from wait group by task, operation having count(*) > 1
  union all
  select 'I32', c.id, format('waits for itself by way of %s', array_to_string(c.path, ' -> '))
    from (with recursive chain (id, upto, path) as (
            select task, promise, array[promise] from wait where promise in (select id from task)
            union all
            select c.id, w.promise, c.path || w.promise from chain c join wait w on w.task = c.upto
             where w.promise in (select id from task) and c.upto <> c.id and cardinality(c.path) < 100
               and not w.promise = any (c.path)
          ) select id, path from chain where upto = id) c
  union all
  select 'I34', w.task, format('not told that %s is %s', w.promise, coalesce(p.state, 'gone'))
    from wait w join task t on t.id = w.task left join promise p on p.id = w.promise
   where t.state <> 'suspended' and w.promise is not null and p.state is distinct from 'pending'

  -- journals
  union all
  select 'I36', task, format('%s events, numbered %s to %s', count(*), min(seq), max(seq))
    from checkpoint group by task having min(seq) <> 1 or max(seq) <> count(*) or count(distinct seq) <> count(*)
  union all
  select 'I36', t.id, format('last_seq %s, but the journal ends at %s', t.last_seq, max(c.seq))
    from task t left join checkpoint c on c.task = t.id group by t.id, t.last_seq
   having t.last_seq is distinct from coalesce(max(c.seq), 0)
  union all
  select 'I36', id, format('asked up to %s, and the journal ends at %s', asked, last_seq) from task where asked > last_seq
  union all
  select 'I37', task, format('%s has %s outcomes', operation, count(*))
    from checkpoint group by task, operation having count(*) > 1
  union all
  select 'I37', w.task, format('%s has an outcome, and still waits', w.operation)
    from wait w join checkpoint c using (task, operation)
  union all
  select 'I38', task, format('at %s epoch %s at %s, before it epoch %s at %s', seq, epoch, at, epoch_before, at_before)
    from (select *, lag(epoch) over journal as epoch_before, lag(at) over journal as at_before
            from checkpoint window journal as (partition by task order by seq)) c
   where epoch < epoch_before or at < at_before
  union all
  select 'I38', t.id, format('the journal goes beyond the task: epoch %s of %s, instant %s of %s', max(c.epoch), t.epoch, max(c.at), t.last_at)
    from task t join checkpoint c on c.task = t.id group by t.id, t.epoch, t.last_at
   having max(c.epoch) > t.epoch or max(c.at) > t.last_at
  union all
  select 'I40', c.task, format('%s tells of %s as %s, which is %s', c.operation, p.id, c.state, p.state)
    from checkpoint c join promise p on p.id = coalesce(c.promise, c.task || '~' || c.operation)
   where c.kind in ('promise', 'wait', 'call', 'start') and c.state <> p.state and p.created_at <= c.at and not (
     c.kind in ('promise', 'call', 'start') and c.error ->> 'type' in ('troth.errors.IdConflict', 'troth.errors.LimitExceeded'))
  union all
  select 'I40', w.task, format('%s waits as a %s, and %s', w.operation, w.kind, case
           when p.function is null then 'nobody runs ' || w.promise else w.promise || ' is somebody''s promise' end)
    from wait w join promise p on p.id = w.promise
   where (w.kind in ('call', 'start') and p.function is null) or (w.kind = 'promise' and p.function is not null)

  -- time
  union all
  select 'I41', id, 'its timeout is in no index'
    from promise where expires_at is distinct from case when state = 'pending' then timeout_at end
  union all
  select 'I41', p.id, format('times out at %s, its task is fenced from %s', p.timeout_at, t.timeout_at)
    from pending p join task t on t.id = p.id where p.timeout_at is distinct from t.timeout_at
  union all
  select 'I41', c.id, format('times out at %s, and the workflow that calls it at %s', c.timeout_at, p.timeout_at)
    from promise c join promise p on p.id = c.parent
   where c.state = 'pending' and c.function is not null and p.timeout_at is not null and c.timeout_at is distinct from least(c.timeout_at, p.timeout_at)
  union all
  select 'I41', task, format('the timer %s has no instant', operation)
    from wait where promise is null and fire_at is null
  union all
  select 'I41', task, format('a %s called %s that no tick would fire', kind, operation)
    from wait where (kind in ('timer', 'retry', 'delay')) <> (fire_at is not null)
      or kind not in ('promise', 'wait', 'call', 'start', 'timer', 'retry', 'delay')
  union all
  select 'I41', task, format('attempt %s at %s: ended %s, to be tried again %s', number, operation, ended_at, retry_at)
    from attempt where retry_at is not null and ended_at is null or number < 1
  union all
  select 'I41', p.id, format('%s has ended, and nobody will cancel what it left open', a.id)
    from promise p join promise a on a.id = p.parent, moment
   where p.state = 'pending' and a.state <> 'pending' and (p.expires_at is null or p.expires_at > now)
     and not exists (select from closing c where c.id = p.id and c.itself)
     and not exists (select from closing c where c.id = a.id and not c.itself and p.id > coalesce(c.after, ''))
     and not exists (select from checkpoint c where c.task = p.id and c.operation = '~cancel')
  union all
  select 'I41', c.id, 'owed a cancel, and there is no such promise'
    from closing c where not exists (select from promise p where p.id = c.id)
  union all
  select 'I41', id, 'enabled, and never due' from schedule where enabled and next_at is null
  union all
  select 'I42', id, format('last %s, next %s', last_at, next_at) from schedule where last_at >= next_at
  union all
  select 'I46', id, format('claimed in the name of %s, whom nobody knows', worker)
    from task t where worker is not null and not exists (select from worker w where w.id = t.worker)

  -- liveness
  union all
  select 'I47', id, format('times out at %s, and is pending', expires_at)
    from promise, moment where expires_at < now - interval '5 seconds'
  union all
  select 'I47', task, format('the timer %s is due since %s', operation, fire_at)
    from wait, moment where fire_at < now - interval '5 seconds'
  union all
  select 'I47', id, format('worker silent since %s, and not dead', seen_at)
    from worker, moment where died_at is null and seen_at + lease < now - interval '5 seconds'
  union all
  select 'I47', t.id, format('claimed by %s, dead since %s', w.id, w.died_at)
    from task t join worker w on w.id = t.worker, moment where w.died_at < now - interval '5 seconds'
  union all
  select 'I47', t.id, format('ready since %s, and %s sleeps', t.ready_at, w.id)
    from task t join worker w on w.died_at is null and w.sleeping and t.queue = any (w.queues)
                             and rtrim(t.lane, '!') = any (w.lanes), moment
   where t.state = 'ready' and t.ready_at < now - interval '5 seconds'
  union all
  select 'I47', id, format('%s owed a cancel since %s', case when itself then 'it is' else 'its children are' end, since)
    from closing, moment where since < now - interval '5 seconds'
  union all
  select 'I47', id, format('due since %s', next_at) from schedule, moment where enabled and next_at < now - interval '5 seconds'

  -- audit, sizes
  union all
  select 'I48', p.id, format('%s by %s, and no row says so', p.state, p.settler)
    from settled p
   where settler not in ('timeout', 'worker', 'workflow')
     and not exists (select from audit a where a.promise = p.id and a.after = p.state)
  union all
  select 'I50', id, format('args %s, value %s, error %s bytes', pg_column_size(args), pg_column_size(value), pg_column_size(error))
    from promise
   where greatest(pg_column_size(args), pg_column_size(value), pg_column_size(error), pg_column_size(headers),
                  pg_column_size(default_value), pg_column_size(args_headers)) > _payload_bytes_max()
  union all
  select 'I50', id, 'nested too deep'
    from promise
   where exists (select from unnest(array[args, value, error, headers, default_value, args_headers]) payload
                  where pg_column_size(payload) > 8 * _payload_depth_max()
                    and jsonb_path_exists(payload, 'strict $.**{101 to last}'))
  union all
  select 'I50', task, format('%s of %s bytes', operation, greatest(pg_column_size(value), pg_column_size(error)))
    from checkpoint where greatest(pg_column_size(value), pg_column_size(error), pg_column_size(headers)) > _payload_bytes_max()
  union all
  select 'I50', task, format('%s events', count(*)) from checkpoint group by task having count(*) > _journal_entries_max()
  union all
  select 'I50', parent, format('%s promises made', count(*)) from promise where parent is not null
   group by parent having count(*) > _children_max()
  union all
  select 'I50', t.id, format('made %s promises, started at most %s workflows, and counts %s', made, started, children)
    from (select id, children, (select count(*) from promise p join promise own on own.id = t.id
                   where p.parent = t.id and p.created_at >= own.created_at) as made,
                 (select count(*) from wait w where w.task = t.id and w.kind = 'start')
                 + (select count(*) from checkpoint c where c.task = t.id and c.kind = 'start') as started from task t) t
   where children not between made and made + started
)
select inv::text, id::text, detail from found;
