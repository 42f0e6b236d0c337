-- A worker in plain SQL: no Python, no library, only the functions of the namespace.
--
--   psql -v ON_ERROR_STOP=1 -f examples/worker.sql        (with PGOPTIONS="-c search_path=troth" and your connection in PG*)
--
-- It starts a workflow, claims it, records a step, waits for a person, is woken by the decision, and finishes. The five parts
-- stand in one file; in life another process does each, in any language, and months may pass between them.

\set QUIET on
\pset format unaligned
\pset tuples_only on

\echo -- somebody starts a workflow; a second start of the same ID finds the first
select start('sql-order-42', 'approve_order', '{"order": "x"}') ->> 'answer';
select start('sql-order-42', 'approve_order', '{"order": "x"}') ->> 'answer';

\echo -- a worker claims it: one task of the queue "default" whose function it knows
select task, epoch, args ->> 'order' as order, last_seq, journal
  from claim('psql-1', array['default'], array['approve_order', 'approve_order@1'], 1) \gset
\echo :task epoch :epoch order :order journal :journal

\echo -- it makes the promise, then runs its step and records the outcome
select answer from advance(
  jsonb_build_array(jsonb_build_object('task', :'task', 'epoch', :epoch, 'seen', :last_seq)),
  p_operations => jsonb_build_array(jsonb_build_object(
    'task', :'task', 'operation', 'approval', 'kind', 'promise', 'issued', 0, 'timeout', 7 * 86400 * 1000000::bigint)));
\echo to decide: :task~approval
select answer from advance(
  jsonb_build_array(jsonb_build_object('task', :'task', 'epoch', :epoch, 'seen', :last_seq)),
  p_outcomes => jsonb_build_array(jsonb_build_object(
    'task', :'task', 'operation', 'send_email', 'kind', 'step', 'issued', 0, 'state', 'resolved', 'value', null)));

\echo -- its code awaits the promise, so it lets go: from here on no process holds anything
select answer from advance(
  jsonb_build_array(jsonb_build_object('task', :'task', 'epoch', :epoch, 'seen', 1, 'then', 'suspend')));
select state, waits -> 0 ->> 'promise' from tasks where id = :'task';

\echo -- a person decides, twice
select resolve('sql-order-42~approval', 'true', p_actor => 'ann') ->> 'answer';
select resolve('sql-order-42~approval', 'true', p_actor => 'ann') ->> 'answer';

\echo -- some worker is woken, is told what has happened so far, and ends the workflow
select task, epoch, last_seq, journal -> 1 ->> 'value' as approved
  from claim('psql-1', array['default'], array['approve_order', 'approve_order@1'], 1) \gset
\echo :task epoch :epoch approved :approved
select answer from advance(
  jsonb_build_array(jsonb_build_object(
    'task', :'task', 'epoch', :epoch, 'seen', :last_seq, 'then', 'finish', 'state', 'resolved', 'value', 'x: approved')));
select d ->> 'state', d ->> 'value' from get(array['sql-order-42']) d;

\echo -- and leaves
select leave('psql-1');
