-- Promises by what is known of them, in the order of their IDs; the cursor is the last ID of the page before. What is
-- pending is found by the tasks and the index of open promises, whatever has finished meanwhile.
-- grant: client, worker, admin
create function search(
  p_state text default null, p_queue text default null, p_function text default null, p_prefix text default null,
  p_tags jsonb default null, p_latent boolean default null, p_limit integer default 50, p_after text default null
) returns setof jsonb
  language plpgsql volatile security definer set search_path from current
as $$
declare
  v_from constant text := greatest(coalesce(p_prefix, ''), coalesce(p_after, '')) collate "C";
  v_upto constant text := p_prefix || chr(127);
begin
  p_tags := nullif(p_tags, 'null');
  if p_state is not null and p_state not in ('pending', 'resolved', 'rejected', 'canceled', 'timedout') then
    raise exception using errcode = 'TR002', message = format('%L is not a state', p_state),
      hint = 'Say pending, resolved, rejected, canceled or timedout.';
  elsif p_limit is null or p_limit not between 1 and _search_limit_max() then
    raise exception using errcode = 'TR002', message = format('a limit of %s', coalesce(p_limit::text, 'null')),
      hint = format('A page has 1 to %s promises.', _search_limit_max());
  end if;
  perform _check_tags(p_tags);
  if p_state = 'pending' then
    return query
      select _document(p, t, _clock())
        from (select id from task where p_latent is distinct from true and id >= v_from and (p_queue is null or queue = p_queue)
              union all
              select id from promise where open_at is not null and p_latent is distinct from false and id >= v_from) o
        join promise p on p.id = o.id
        left join task t on t.id = p.id
       where (p_after is null or p.id > p_after collate "C") and (v_upto is null or p.id < v_upto collate "C")
         and (p_queue is null or p.queue = p_queue) and (p_function is null or p.function = p_function)
         and (p_tags is null or p.tags @> p_tags)
       order by p.id limit p_limit;
  else
    return query
      select _document(p, t, _clock())
        from promise p left join task t on t.id = p.id
       where p.id >= v_from and (p_after is null or p.id > p_after collate "C") and (v_upto is null or p.id < v_upto collate "C")
         and (p_state is null or p.state = p_state) and (p_queue is null or p.queue = p_queue)
         and (p_function is null or p.function = p_function) and (p_tags is null or p.tags @> p_tags)
         and (p_latent is null or (p.function is null) = p_latent)
       order by p.id limit p_limit;
  end if;
end $$;
