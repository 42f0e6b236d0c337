-- What a worker can run, by name and version, with the queue that a start without one goes to. Written only where it
-- differs, so that any number of workers may say the same at once. Items: {"name", "version", "queue"}.
-- grant: worker, admin
create function register(p_functions jsonb) returns void
  language plpgsql volatile security definer set search_path from current
as $$
declare
  v_now constant timestamptz := _clock();
  v_item record;
begin
  perform _check_isolation();
  perform _check_batch(p_functions);
  for v_item in
    select distinct f.name, f.version, coalesce(f.queue, 'default') as queue
      from jsonb_to_recordset(p_functions) f(name text, version integer, queue text)
     order by f.name, f.version
  loop
    perform _check_name(v_item.name, 'function');
    perform _check_name(v_item.queue, 'queue');
    if v_item.version is null or v_item.version < 1 then
      raise exception using errcode = 'TR002', message = format('%s has version %s', v_item.name, v_item.version),
        hint = 'A version is a whole number from 1.';
    end if;
    insert into function as f (name, version, queue, registered_at)
    values (v_item.name, v_item.version, v_item.queue, v_now)
    on conflict (name, version) do update set queue = excluded.queue, registered_at = excluded.registered_at
      where f.queue <> excluded.queue;
  end loop;
end $$;
