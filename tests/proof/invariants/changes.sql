-- The log of row changes: what every row was and became, in which transaction, in what order, and by whom. From it the
-- invariants about pairs of states are judged (`transitions.sql`) and counted (`judged.sql`).
--
-- It is made of triggers, so it is for test namespaces alone (`changes.py` installs it); a production namespace has none.
-- It stands in a schema of its own beside the namespace. The changes of one row stand in the order in which they became
-- true, since a later writer of a row waits for the earlier one's commit; what was rolled back is not in it.
--
-- Logged is what the namespace's own functions do, which run as its owner. What a session does by itself, as tests do that set
-- a scene, is logged only where it says so (`set troth.by_hand = on`), and marked.
--
-- The triggers name everything in full: to set a path for each row would cost more than the rest. What a rule must know of
-- other rows at that moment is looked up by the trigger: later it may be gone.
create sequence change_order;

create table change (
  n bigint not null default nextval('change_order'),
  xid xid8 not null default pg_current_xact_id(),
  at timestamptz not null,
  by_hand boolean not null,
  op text not null
);
create table promise_change (old promise, new promise, waited boolean, ancestor text) inherits (change);
create table task_change (old task, new task, promise_state text, timeout_at timestamptz, worker_died boolean) inherits (change);
create table checkpoint_change (
  old checkpoint, new checkpoint, task_state text, task_epoch integer, promise_state text) inherits (change);
create table wait_change (old wait, new wait, promise_state text, task_state text) inherits (change);
create table worker_change (old worker, new worker) inherits (change);
create table schedule_change (old schedule, new schedule) inherits (change);
create table audit_change (old audit, new audit) inherits (change);

-- an ancestor that is pending keeps what was made below it
create function promise_changed() returns trigger
  language plpgsql
as $$
begin
  if tg_op = 'INSERT' then
    insert into :log.promise_change (at, by_hand, op, new) values (:home._clock(), current_user <> :owner, 'insert', new);
  elsif tg_op = 'UPDATE' then
    insert into :log.promise_change (at, by_hand, op, old, new) values (:home._clock(), current_user <> :owner, 'update', old, new);
  else
    insert into :log.promise_change (at, by_hand, op, old, waited, ancestor)
    select :home._clock(), current_user <> :owner, 'delete', old, exists (select from :home.wait w where w.promise = old.id),
           (with recursive above as (
              select p.id, p.parent, p.state from :home.promise p where p.id = old.parent
              union
              select p.id, p.parent, p.state from above a join :home.promise p on p.id = a.parent
            ) select a.id from above a where a.state = 'pending' limit 1);
  end if;
  return null;
end $$;

create function task_changed() returns trigger
  language plpgsql
as $$
declare
  v_promise :home.promise;
  v_died boolean;
begin
  if tg_op = 'INSERT' then
    insert into :log.task_change (at, by_hand, op, new) values (:home._clock(), current_user <> :owner, 'insert', new);
    return null;
  end if;
  if tg_op = 'DELETE' or old.state <> new.state then
    select * into v_promise from :home.promise p where p.id = old.id;
  end if;
  if tg_op = 'UPDATE' then
    if new.state = 'claimed' and old.state <> 'claimed' then
      v_died := coalesce((select w.died_at is not null from :home.worker w where w.id = new.worker), true);
    end if;
    insert into :log.task_change (at, by_hand, op, old, new, promise_state, timeout_at, worker_died)
    values (:home._clock(), current_user <> :owner, 'update', old, new, v_promise.state, v_promise.timeout_at, v_died);
  else
    insert into :log.task_change (at, by_hand, op, old, promise_state, timeout_at)
    values (:home._clock(), current_user <> :owner, 'delete', old, v_promise.state, v_promise.timeout_at);
  end if;
  return null;
end $$;

create function checkpoint_changed() returns trigger
  language plpgsql
as $$
declare
  v_task :home.task;
  v_promise_state text;
begin
  if tg_op = 'INSERT' then
    select * into v_task from :home.task t where t.id = new.task;
    if new.kind in ('promise', 'wait', 'call', 'start') then
      select p.state into v_promise_state from :home.promise p where p.id = coalesce(new.promise, new.task || '~' || new.operation);
    end if;
    insert into :log.checkpoint_change (at, by_hand, op, new, task_state, task_epoch, promise_state)
    values (:home._clock(), current_user <> :owner, 'insert', new, v_task.state, v_task.epoch, v_promise_state);
  elsif tg_op = 'UPDATE' then
    insert into :log.checkpoint_change (at, by_hand, op, old, new) values (:home._clock(), current_user <> :owner, 'update', old, new);
  else
    insert into :log.checkpoint_change (at, by_hand, op, old) values (:home._clock(), current_user <> :owner, 'delete', old);
  end if;
  return null;
end $$;

create function wait_changed() returns trigger
  language plpgsql
as $$
begin
  if tg_op = 'INSERT' then
    insert into :log.wait_change (at, by_hand, op, new) values (:home._clock(), current_user <> :owner, 'insert', new);
  elsif tg_op = 'UPDATE' then
    insert into :log.wait_change (at, by_hand, op, old, new) values (:home._clock(), current_user <> :owner, 'update', old, new);
  else
    insert into :log.wait_change (at, by_hand, op, old, promise_state, task_state)
    values (:home._clock(), current_user <> :owner, 'delete', old,
            (select p.state from :home.promise p where p.id = old.promise), (select t.state from :home.task t where t.id = old.task));
  end if;
  return null;
end $$;

create function worker_changed() returns trigger
  language plpgsql
as $$
begin
  insert into :log.worker_change (at, by_hand, op, old, new) values (:home._clock(), current_user <> :owner, 'update', old, new);
  return null;
end $$;

create function schedule_changed() returns trigger
  language plpgsql
as $$
begin
  insert into :log.schedule_change (at, by_hand, op, old, new) values (:home._clock(), current_user <> :owner, 'update', old, new);
  return null;
end $$;

create function audit_changed() returns trigger
  language plpgsql
as $$
begin
  if tg_op = 'INSERT' then
    insert into :log.audit_change (at, by_hand, op, new) values (:home._clock(), current_user <> :owner, 'insert', new);
  elsif tg_op = 'UPDATE' then
    insert into :log.audit_change (at, by_hand, op, old, new) values (:home._clock(), current_user <> :owner, 'update', old, new);
  else
    insert into :log.audit_change (at, by_hand, op, old) values (:home._clock(), current_user <> :owner, 'delete', old);
  end if;
  return null;
end $$;

create trigger changed after insert or update or delete on promise for each row
  when (current_user = :owner or current_setting('troth.by_hand', true) = 'on') execute function promise_changed();
create trigger changed after insert or update or delete on task for each row
  when (current_user = :owner or current_setting('troth.by_hand', true) = 'on') execute function task_changed();
create trigger changed after insert or update or delete on checkpoint for each row
  when (current_user = :owner or current_setting('troth.by_hand', true) = 'on') execute function checkpoint_changed();
create trigger changed after insert or update or delete on wait for each row
  when (current_user = :owner or current_setting('troth.by_hand', true) = 'on') execute function wait_changed();
create trigger changed after update on worker for each row
  when (current_user = :owner or current_setting('troth.by_hand', true) = 'on') execute function worker_changed();
create trigger changed after update on schedule for each row
  when (current_user = :owner or current_setting('troth.by_hand', true) = 'on') execute function schedule_changed();
create trigger changed after insert or update or delete on audit for each row
  when (current_user = :owner or current_setting('troth.by_hand', true) = 'on') execute function audit_changed();
