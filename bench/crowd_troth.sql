-- The crowd of Troth: `{finished}` finished one-step workflows, `{suspended}` that wait for a person, as many that sleep.
insert into troth.promise (id, state, function, queue, args, created_at, settled_at, settler, started_at, seed, version, value)
  select 'f' || n, 'resolved', 'one', 'default', '["x"]', now() - interval '1 hour', now() - interval '1 hour', 'worker', now() - interval '1 hour', n, 1, '1'
    from generate_series(1, {finished}) n;
insert into troth.checkpoint (task, seq, operation, kind, issued, cohort, digest, state, value, at, epoch)
  select 'f' || n, 1, 'noop', 'step', 0, 1, 1, 'resolved', '1', now() - interval '1 hour', 1 from generate_series(1, {finished}) n;
insert into troth.promise (id, function, queue, args, created_at)
  select k || n, 'wait', 'default', '["x"]', now() - interval '1 hour' from generate_series(1, {suspended}) n, unnest(array['s', 't']) k;
insert into troth.promise (id, parent, created_at, open_at)
  select 's' || n || '~approval', 's' || n, now() - interval '1 hour', now() - interval '1 hour' from generate_series(1, {suspended}) n;
insert into troth.task (id, state, queue, lane, epoch, started_at, seed, last_at, children)
  select k || n, 'suspended', 'default', 'wait@1', 1, now() - interval '1 hour', n, now() - interval '1 hour', case k when 's' then 1 else 0 end
    from generate_series(1, {suspended}) n, unnest(array['s', 't']) k;
insert into troth.wait (task, operation, kind, promise, issued)
  select 's' || n, 'approval', 'promise', 's' || n || '~approval', 0 from generate_series(1, {suspended}) n;
insert into troth.wait (task, operation, kind, fire_at, micros, issued)
  select 't' || n, 'sleep', 'timer', now() + interval '1 day', 86400000000, 0 from generate_series(1, {suspended}) n;
