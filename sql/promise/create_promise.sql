-- Creates a latent promise: one that no function backs and that somebody settles by its ID. If a latent promise is there
-- already, attaches to it as it stands (its timeout and default too). A workflow whose ctx.promise has this very ID
-- attaches to it later. With a default, running out of time resolves it with that.
-- grant: client, worker, admin
create function create_promise(
  p_id text, p_timeout interval default null, p_default jsonb default null, p_has_default boolean default false,
  p_tags jsonb default null, p_title text default null, p_headers jsonb default null
) returns jsonb
  language plpgsql volatile security definer set search_path from current
as $$
declare
  v_now constant timestamptz := _clock();
  v_promise promise;
begin
  p_tags := nullif(p_tags, 'null');
  p_headers := nullif(p_headers, 'null');
  perform _check_id(p_id, _id_length_max());
  perform _check_span(p_timeout, 'timeout');
  perform _check_payload(p_default, 'default');
  perform _check_payload(p_headers, 'headers');
  perform _check_tags(p_tags);
  perform _check_text(p_title, 'title');
  if p_has_default and p_timeout is null then
    raise exception using errcode = 'TR002',
      message = 'a default without a timeout would never come', hint = 'Give a timeout, or leave the default out.';
  end if;

  insert into promise as p (id, tags, title, created_at, timeout_at, expires_at, open_at, has_default, default_value, default_headers)
  values (p_id, p_tags, p_title, v_now, v_now + p_timeout, v_now + p_timeout, v_now, coalesce(p_has_default, false),
          case when p_has_default then nullif(p_default, 'null') end, case when p_has_default then p_headers end)
  on conflict (id) do nothing
  returning p.* into v_promise;
  if found then
    return _document(v_promise, null, v_now) || '{"answer": "created"}';
  end if;

  perform _expire(array[p_id]);
  select * into v_promise from promise where id = p_id;
  if not found then  -- purged between our insert and our look
    return create_promise(p_id, p_timeout, p_default, p_has_default, p_tags, p_title, p_headers);
  elsif v_promise.function is not null then
    raise exception using errcode = 'TR010',
      message = format('%s is already there: a workflow of function %s', p_id, v_promise.function),
      detail = _document(v_promise, (select t from task t where t.id = p_id), _clock())::text,
      hint = 'Choose another ID for the promise.';
  end if;
  return _document(v_promise, null, _clock()) || '{"answer": "attached"}';
end $$;
