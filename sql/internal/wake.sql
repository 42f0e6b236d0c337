-- A hint to those who could go on now: workers asleep that know a task's queue and lane, and the holder of a task that
-- got news. Nothing depends on it: a worker that hears nothing looks by itself. Postgres folds equal hints of one commit.
create function _wake(p_tasks text[]) returns void
  language plpgsql volatile
as $$
begin
  if not exists (select from worker where sleeping) then
    return;
  end if;
  perform pg_notify(w.id, '')
    from worker w
   where w.sleeping
     and exists (select from task t
                  where t.id = any (p_tasks)
                    and (t.worker = w.id
                         or (t.state = 'ready' and t.queue = any (w.queues) and rtrim(t.lane, '!') = any (w.lanes))));
end $$;
