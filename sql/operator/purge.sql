-- Deletes whole families that settled longer ago than p_before, at most p_limit of them, with their journals. A family stays
-- while anything in it is pending, owed a cancel, waited for, or made below what is pending. Once purged, an ID is free again:
-- retention is the window in which a repeated start finds what it started. Answers how many promises went.
-- grant: admin
create function purge(p_before interval, p_limit integer default 1000) returns integer
  language plpgsql volatile security definer set search_path from current
  set enable_seqscan = off set jit = off
as $$
declare
  v_before constant timestamptz := _clock() - p_before;
  v_families text[];
  v_held text[];
  v_ids text[];
begin
  perform _check_isolation();
  perform _check_span(p_before, 'retention');
  if p_before is null or p_limit is null or p_limit not between 1 and _batch_items_max() then
    raise exception using errcode = 'TR002', message = 'a retention and a limit are needed',
      hint = format('For example purge(interval ''30 days'', 1000); at most %s families at a time.', _batch_items_max());
  end if;
  v_families := array(
    select distinct c.id
      from (select _family(p.id) as id from promise p
             where p.created_at < v_before and p.settled_at < v_before
               and (p.parent is null or p.id not like '%~%')  -- a child may have been given an ID of its own
               and not _is_kept(_family(p.id), v_before)
             limit p_limit) c);
  v_held := array(select m.id from unnest(v_families) f(id) cross join lateral _members(f.id) m);
  v_held := array(select l.id from (
    select id from promise where id = any (v_held) order by id for no key update skip locked) l);
  -- looked at again under the locks; a member that is not held, since it is new or with another, keeps its family
  v_families := array(
    select f.id from unnest(v_families) f(id)
     where not _is_kept(f.id, v_before)
       and not exists (select from _members(f.id) p where p.id not in (select unnest(v_held)) offset 0));
  with gone as (
    delete from promise p
     where p.id = any (v_held) and _family(p.id) in (select unnest(v_families))
       and p.state <> 'pending' and p.settled_at < v_before
    returning p.id
  )
  select array_agg(id) into v_ids from gone;
  delete from checkpoint where task = any (v_ids);
  delete from attempt where task = any (v_ids);
  return coalesce(cardinality(v_ids), 0);
end $$;

-- Whether something of a family is to stay: pending, settled lately, owed a cancel, or waited for.
create function _is_kept(p_family text, p_before timestamptz) returns boolean
  language sql stable
as $$
  select exists (
    select from _members(p_family) p
     where (p.state = 'pending' or p.settled_at >= p_before
            or exists (select from wait w where w.promise = p.id offset 0)
            or exists (select from closing c where c.id = p.id offset 0)
            or p.parent is not null and _has_pending_above(p.parent)
            or exists (select from promise c where c.parent = p.id and c.state = 'pending' offset 0)))
$$;

-- Whether a promise or something that it was made by, however far up, is pending: a child with an ID of its own is a family
-- of its own, and who made it may have ended long before who made that.
create function _has_pending_above(p_id text) returns boolean
  language sql stable
as $$
  with recursive above (id, parent, state) as (
    select p.id, p.parent, p.state from promise p where p.id = p_id
    union
    select p.id, p.parent, p.state from above a join promise p on p.id = a.parent where a.state <> 'pending'
  )
  select exists (select from above where state = 'pending')
$$;

-- A family's promises, by two ranges of the key: an `or` of them would be looked for in the whole table.
create function _members(p_family text) returns setof promise
  language sql stable
as $$
  select * from promise where id = p_family
  union all
  select * from promise where id >= p_family || '~' collate "C" and id < p_family || chr(127) collate "C"
$$;
