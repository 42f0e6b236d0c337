-- Every promise with how its task stands, for people with psql.
create view promises as
  select p.id, p.state, p.function, coalesce(t.queue, p.queue) as queue, t.state as task_state, p.value, p.error, p.parent,
         p.title, p.tags, p.created_at, p.timeout_at, p.settled_at, p.settler
    from promise p left join task t on t.id = p.id;
