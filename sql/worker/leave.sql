-- A worker that ends on purpose gives back what it holds (attempts - 1) and is dead from then on. Answers how many tasks.
-- grant: worker, admin
create function leave(p_worker text) returns integer
  language plpgsql volatile security definer set search_path from current
as $$
declare
  v_now timestamptz;
  v_ids text[];
begin
  perform _check_isolation();
  perform 1 from worker where id = p_worker for no key update skip locked;
  v_ids := array(select l.id from (
    select id from task where worker = p_worker order by id for no key update skip locked) l);
  v_now := _clock();
  update worker w set died_at = v_now, sleeping = false, search_at = null
    from (select id from worker where id = p_worker and died_at is null for no key update skip locked) l
   where w.id = l.id;
  update task
     set state = 'ready', ready_at = v_now, worker = null, claimed_at = null, attempts = greatest(attempts - 1, 0)
   where id = any (v_ids) and worker = p_worker;
  perform _wake(v_ids);
  return cardinality(v_ids);
end $$;
