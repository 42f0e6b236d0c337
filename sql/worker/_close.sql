-- Works off what is owed a cancel: the children of workflows that ended, or whose code did (rows of `closing`), and promises
-- that their maker gave up one by one (`itself`). What never ran settles as canceled; what has begun is asked, once, by an event
-- in its order; by force it settles whatever it is.
--
-- Linear, however many children: each is passed once, in the order of their index, up to p_limit in one tick; `after` is how
-- far. One that somebody holds is passed as well and gets a row of its own. A row that could not be worked on goes to the end
-- of the line, so that it stands in nobody's way. `after` of a row that is both (itself, and then its children) is not null.
create function _close(p_limit integer, out closed integer, out more boolean)
  language plpgsql volatile
as $$
declare
  v_rows closing[];
  v_itself text[];
  v_parents text[];
  v_owed text[];
  v_forced text[];
  v_left text[];
  v_now timestamptz;
begin
  closed := 0;
  more := false;
  v_rows := array(select l from (select * from closing order by since, id limit p_limit for no key update skip locked) l);
  if cardinality(v_rows) = 0 then
    return;
  end if;
  v_itself := array(select r.id from unnest(v_rows) r where r.itself);
  v_parents := _free_parents(v_rows);
  select w.owed || array(select r.id from unnest(v_rows) r where r.itself and not r.force),
         w.forced || array(select r.id from unnest(v_rows) r where r.itself and r.force)
    into v_owed, v_forced
    from _walk_children(v_rows, v_parents, p_limit - cardinality(v_itself)) w;

  if cardinality(v_owed) > 0 then
    closed := _each_or_all('_cancel_owed', v_owed);
  end if;
  if cardinality(v_forced) > 0 then
    closed := closed + _each_or_all('_cancel_owed_by_force', v_forced);
  end if;

  v_now := _clock();
  v_left := _still_owed(v_owed, false, v_now) || _still_owed(v_forced, true, v_now);
  if cardinality(v_left) > 0 then
    perform _owe_again(v_left, v_forced, v_rows, v_now);
  end if;
  perform _settle_accounts(v_itself, v_parents, v_left);
  update closing c set since = v_now
    from unnest(v_rows) r left join unnest(v_parents) p(id) on p.id = r.id
   where c.id = r.id and not r.itself and p.id is null;
  more := exists (select from closing where since < v_now limit 1 for no key update skip locked);
end $$;

-- Those of the rows for children whose own task nobody holds: a parent that goes on is told of each child that settles.
create function _free_parents(p_rows closing[]) returns text[]
  language plpgsql volatile
as $$
declare
  v_ids constant text[] := array(select r.id from unnest(p_rows) r where not r.itself);
  v_held text[];
begin
  if cardinality(v_ids) = 0 then
    return v_ids;
  end if;
  v_held := array(select l.id from (
    select id from task where id = any (v_ids) order by id for no key update skip locked) l);
  return array(
    select i.id from unnest(v_ids) i(id) left join unnest(v_held) h(id) on h.id = i.id
     where h.id is not null or (select t.state from task t where t.id = i.id) is null);
end $$;

-- The next children, settled ones too, so that a walk past many of those is no longer than another; their parents' cursors
-- move on. Answers the pending ones: those to be asked, and those to be ended by force.
create function _walk_children(
  p_rows closing[], p_parents text[], p_limit integer, out owed text[], out forced text[]
)
  language plpgsql volatile
as $$
#variable_conflict use_column
begin
  owed := '{}'::text[];
  forced := '{}'::text[];
  if p_limit <= 0 or cardinality(p_parents) = 0 then
    return;
  end if;
  with parent as materialized (
    select r.id, r.force, coalesce(r.after, '') collate "C" as after
      from unnest(p_rows) r join unnest(p_parents) p(id) on p.id = r.id
  ), walked as materialized (
    select c.id as parent, c.force, k.id, k.state
      from parent c cross join lateral (
        select p.id, p.state from promise p
         where p.parent = c.id and p.id > c.after
         order by p.parent, p.id limit p_limit) k
     limit p_limit
  ), moved as (
    update closing c set after = m.upto
      from (select w.parent, max(w.id) as upto from walked w group by w.parent) m
     where c.id = m.parent and c.id = any (p_parents)
  )
  select array(select w.id from walked w where w.state = 'pending' and not w.force),
         array(select w.id from walked w where w.state = 'pending' and w.force)
    into owed, forced;
end $$;

create function _cancel_owed(p_ids text[]) returns integer
  language sql volatile
as $$ select _cancel_children(p_ids, false) $$;

create function _cancel_owed_by_force(p_ids text[]) returns integer
  language sql volatile
as $$ select _cancel_children(p_ids, true) $$;

-- Cancels those whose rows, and those of all that wait for them, can be had without waiting. Promises first, then tasks; who
-- waits is looked up under the promises' locks, who has begun is judged under the tasks'.
create function _cancel_children(p_ids text[], p_force boolean) returns integer
  language plpgsql volatile
as $$
declare
  v_error constant jsonb := '{"type": "canceled", "message": "its workflow has ended, or gave it up"}'::jsonb;
  v_now timestamptz;
  v_ids text[];
  v_tasks text[];
  v_held task[];
  v_stuck text[];
  v_asked text[] := '{}'::text[];
begin
  v_ids := array(select l.id from (
    select id from promise where id = any (p_ids) and state = 'pending' order by id for no key update skip locked) l);
  v_tasks := v_ids || array(select task from wait where promise = any (v_ids));
  v_held := array(select l from (
    select * from task where id = any (v_tasks) order by id for no key update skip locked) l);
  v_now := _clock();
  if not p_force then
    v_asked := array(
      select h.id from unnest(v_held) h join unnest(v_ids) i(id) on i.id = h.id
       where h.epoch > 0 and (h.timeout_at is null or h.timeout_at > v_now)
         and (select c.seq from checkpoint c where c.task = h.id and c.operation = '~cancel') is null);
  end if;
  v_stuck := array(
    select w.promise from (select promise, task from wait where promise = any (v_ids) offset 0) w
      left join unnest(v_held) k on k.id = w.task
     where k.id is null);
  v_ids := array(
    select p.id
      from promise p
      left join unnest(v_held) h on h.id = p.id
     where p.id = any (v_ids) and p.id <> all (v_stuck)
       and (p.expires_at is null or p.expires_at > v_now)  -- those time out
       and (p.function is null or h.id is not null and (p_force or h.epoch = 0)));
  if cardinality(v_ids) > 0 then
    perform _settle(v_ids, array_agg('canceled'::text), array_agg(null::jsonb), array_agg(v_error), array_agg(null::jsonb),
                    array_agg(null::bytea), 'workflow', v_now) from unnest(v_ids);
    if p_force then
      update closing set force = true where id = any (v_ids);
    end if;
  end if;
  if cardinality(v_asked) > 0 then
    perform _append_cancels(v_asked, v_error, v_now);
  end if;
  return cardinality(v_ids) + cardinality(v_asked);
end $$;

-- Which of them are pending all the same, and neither asked nor past their timeout: somebody holds them.
create function _still_owed(p_ids text[], p_force boolean, p_now timestamptz) returns text[]
  language sql volatile
as $$
  select array(
    select p.id from promise p
     where p.id = any (p_ids) and p.state = 'pending' and (p.expires_at is null or p.expires_at > p_now)
       and (p_force or (select c.seq from checkpoint c where c.task = p.id and c.operation = '~cancel') is null))
$$;

-- Gives what is left a row of its own. Whoever holds one of them may be writing that very row (an operator who ended it by force
-- and has not committed): its parent's cursor goes back then, and its children are passed again, so that nothing waits for him.
create function _owe_again(p_left text[], p_forced text[], p_rows closing[], p_now timestamptz) returns void
  language plpgsql volatile
as $$
begin
  insert into closing (id, since, itself, force)
  select distinct l.id, p_now, true, f.id is not null
    from unnest(p_left) l(id) left join unnest(p_forced) f(id) on f.id = l.id
   order by 1
  on conflict (id) do update
     set since = excluded.since, itself = true, force = closing.force or excluded.force,
         after = case when closing.itself then closing.after else coalesce(closing.after, '') end;
exception when lock_not_available then
  update closing c set since = p_now, after = case when r.itself then c.after else r.after end
    from unnest(p_rows) r
   where c.id = r.id and (c.id = any (p_left) or c.id = any (array(select p.parent from promise p where p.id = any (p_left))));
end $$;

-- Takes away the rows that are worked off: of those owed a cancel themselves all but what is left, of parents those without
-- another child. What was owed anew meanwhile is another row, or says so.
create function _settle_accounts(p_itself text[], p_parents text[], p_left text[]) returns void
  language plpgsql volatile
as $$
declare
  v_done constant text[] := array(
    select i.id from unnest(p_itself) i(id) left join unnest(p_left) l(id) on l.id = i.id where l.id is null);
begin
  delete from closing c where c.id = any (v_done) and c.itself and c.after is null;
  update closing c set itself = false where c.id = any (v_done) and c.itself;
  delete from closing c
   where c.id = any (p_parents) and not c.itself
     and (select p.id from promise p where p.parent = c.id and p.id > coalesce(c.after, '') order by p.parent, p.id limit 1) is null;
end $$;
