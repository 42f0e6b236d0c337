-- A promise and all that was made below it, in the order of their IDs: by parents, and by their IDs for what was created
-- beforehand under the name that an operation would have.
-- grant: client, worker, admin
create function tree(p_id text, p_limit integer default 1000) returns setof jsonb
  language plpgsql volatile security definer set search_path from current
  set enable_seqscan = off set jit = off
as $$
begin
  if p_limit is null or p_limit not between 1 and _children_max() then
    raise exception using errcode = 'TR002', message = format('a limit of %s', coalesce(p_limit::text, 'null')),
      hint = format('A tree shows 1 to %s promises.', _children_max());
  end if;
  return query
    with recursive family(id) as (
      (select id from promise where id = p_id
       union all
       select id from promise where id >= p_id || '~' collate "C" and id < p_id || chr(127) collate "C")
      union
      select p.id from family f cross join lateral (select id from promise where parent = f.id offset 0) p
    )
    select _document((select p from promise p where p.id = f.id), (select t from task t where t.id = f.id), _clock())
      from (select id from family order by id limit p_limit) f
     order by f.id;
end $$;
