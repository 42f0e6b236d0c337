-- Deletes whole families that settled longer ago than p_before, at most p_limit of them, with their journals. A family stays
-- while anything in it is pending, owed a cancel, waited for, or made below what is pending. Once purged, an ID is free again:
-- retention is the window in which a repeated start finds what it started. Answers how many promises went.
--
-- The oldest go first, by the index of what has settled: a call costs what it takes away, however much there is that is younger.
-- Families that are to stay are passed each time, so few of them should be old.
-- grant: admin
create function purge(p_before interval, p_limit integer default 1000) returns integer
  language plpgsql volatile security definer set search_path from current
  set enable_mergejoin = off set enable_seqscan = off set enable_indexscan = on set enable_bitmapscan = off set jit = off
  set plan_cache_mode = force_generic_plan
as $$
declare
  v_before constant timestamptz := _clock() - p_before;
  v_families text[];
  v_held text[];
  v_kept text[];
  v_ids text[];
begin
  perform _check_isolation();
  perform _check_span(p_before, 'retention');
  if p_before is null or p_limit is null or p_limit not between 1 and _batch_items_max() then
    raise exception using errcode = 'TR002', message = 'a retention and a limit are needed',
      hint = format('For example purge(interval ''30 days'', 1000); at most %s families at a time.', _batch_items_max());
  end if;
  select o.families, o.members into v_families, v_ids from _old_families(v_before, p_limit) o;
  v_held := array(select l.id from (
    select id from promise where id = any (v_ids) order by id for no key update skip locked) l);
  -- looked at again under the locks; a member that is not held, since it is new or with another, keeps its family
  select l.kept into v_kept from _look_over(v_families, v_before, v_held) l;
  v_families := array(select f.id from unnest(v_families) f(id) where f.id not in (select unnest(v_kept)));
  -- of what is held and was looked at, never what a further look would show; and the guard once more
  v_ids := array(select h.id from unnest(v_held) h(id) where _family(h.id) in (select unnest(v_families)));
  delete from promise where id = any (v_ids) and state <> 'pending' and settled_at < v_before;
  delete from checkpoint where task = any (v_ids);
  delete from attempt where task = any (v_ids);
  return cardinality(v_ids);
end $$;

-- The first families, by when something of them settled that has no parent there, of which nothing is to stay, with their
-- members. Looked through in pieces of p_limit, each where the last one ended.
create function _old_families(p_before timestamptz, p_limit integer, out families text[], out members text[])
  language plpgsql stable
as $$
declare
  v_seen integer;
  v_at timestamptz := timestamptz '-infinity';
  v_id text := '';
  v_piece text[];
  v_look record;
begin
  families := '{}'::text[];
  members := '{}'::text[];
  loop
    select array_agg(distinct _family(c.id)), count(*)::integer, max(c.settled_at), (array_agg(c.id order by c.n desc))[1]
      into v_piece, v_seen, v_at, v_id
      from (select p.id, p.settled_at, row_number() over (order by p.settled_at, p.id) as n
              from promise p
             where (p.settled_at, p.id) > (v_at, v_id collate "C") and p.settled_at < p_before
               and (p.parent is null or p.id not like '%~%')  -- a child may have been given an ID of its own
             order by p.settled_at, p.id limit p_limit) c;
    v_look := _look_over(v_piece, p_before, null);
    v_piece := array(
      select f.id from unnest(v_piece) f(id)
       where f.id not in (select unnest(v_look.kept)) and f.id not in (select unnest(families))
       limit p_limit - cardinality(families));
    families := families || v_piece;
    members := members || array(select m.id from unnest(v_look.members) m(id) where _family(m.id) in (select unnest(v_piece)));
    exit when v_seen < p_limit or cardinality(families) >= p_limit;
  end loop;
end $$;

-- All members of these families, and those of the families of which something is to stay: pending, settled lately, owed a cancel,
-- waited for, or (where it is said what is held) not held.
create function _look_over(p_families text[], p_before timestamptz, p_held text[], out kept text[], out members text[])
  language sql stable
as $$
  select coalesce(array_agg(distinct m.family) filter (where m.stays), '{}'), coalesce(array_agg(m.id), '{}')
    from (select f.id as family, p.id,
                 p.state = 'pending' or p.settled_at >= p_before
                 or (select w.task from wait w where w.promise = p.id limit 1) is not null
                 or (select c.since from closing c where c.id = p.id) is not null
                 or p.parent is not null and _has_pending_above(p.parent)
                 or (select c.id from promise c where c.parent = p.id and c.state = 'pending' limit 1) is not null
                 or p_held is not null and p.id not in (select unnest(p_held)) as stays
            from unnest(p_families) f(id) cross join lateral _members(f.id) p) m
$$;

-- Whether a promise or something that it was made by, however far up, is pending: a child with an ID of its own is a family
-- of its own, and who made it may have ended long before who made that.
create function _has_pending_above(p_id text) returns boolean
  language sql stable
as $$
  with recursive above (id, parent, state) as (
    select p.id, p.parent, p.state from promise p where p.id = p_id
    union
    select p.id, p.parent, p.state
      from above a cross join lateral (select * from promise where id = a.parent offset 0) p
     where a.state <> 'pending'
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
