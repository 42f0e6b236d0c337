-- The same crowd for the floor.
insert into floor.task (id, kind, state, epoch, result) select 'f' || n, 'one', 'd', 1, '1' from generate_series(1, {finished}) n;
insert into floor.checkpoint select 'f' || n, 1, '1' from generate_series(1, {finished}) n;
insert into floor.task (id, kind, state, epoch, event)
select k || n, 'wait', 'w', 1, k || n || '~approval' from generate_series(1, {suspended}) n, unnest(array['s', 't']) k;
