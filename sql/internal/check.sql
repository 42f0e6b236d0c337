-- What is refused at the door, before anything is written. Each sentence says what was wrong, what was expected, and in
-- the hint what to do. The codes are listed in sql/README.md.

-- The lock patterns hold at READ COMMITTED only: a snapshot kept from before a lock shows a world that is gone, and a
-- settlement judged by it is lost without a word.
create function _check_isolation() returns void
  language plpgsql stable
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = '25001',
      message = format('this function needs isolation level READ COMMITTED, not %s', upper(current_setting('transaction_isolation'))),
      hint = 'Call it in a transaction of its own, or begin yours with: set transaction isolation level read committed.';
  end if;
end $$;

create function _check_id(p_id text, p_length_max integer) returns void
  language plpgsql immutable
as $$
begin
  if p_id is null or p_id in ('', '.', '..') or p_id !~ '^[-A-Za-z0-9._~:@!$&''()*+,;=]+$' then
    raise exception using errcode = 'TR001',
      message = format('%L is not an ID', left(coalesce(p_id, ''), 100)),
      hint = 'An ID is made of ASCII letters, digits and -._~:@!$&''()*+,;= (nothing that a URL path would have to escape).';
  elsif length(p_id) > p_length_max then
    raise exception using errcode = 'TR001',
      message = format('an ID of %s characters is too long: %s...', length(p_id), left(p_id, 40)),
      hint = format('Here an ID has at most %s characters.', p_length_max);
  end if;
end $$;

-- What a workflow makes is named below it with ~; an ID given to start leaves that room.
create function _check_id_start(p_id text) returns void
  language plpgsql immutable
as $$
begin
  perform _check_id(p_id, _id_start_length_max());
  if strpos(p_id, '~') > 0 then
    raise exception using errcode = 'TR001',
      message = format('%L has a ~, which an ID given to start must not have', p_id),
      hint = 'What stands before the first ~ is the workflow that an operation belongs to; use - or : instead.';
  end if;
end $$;

create function _check_name(p_name text, p_what text) returns void
  language plpgsql immutable
as $$
begin
  if p_name is null or p_name !~ '^[A-Za-z0-9_.-]+$' or p_name ~ '^[0-9]+$' or length(p_name) > _name_length_max() then
    raise exception using errcode = 'TR002',
      message = format('%L is not the name of a %s', left(coalesce(p_name, ''), 120), p_what),
      hint = format('A name has 1 to %s of letters, digits, _ . and -, and is not a number.', _name_length_max());
  end if;
end $$;

-- Measured is the text that a reader will get, not what is stored: a number of a few bytes may have 131,072 digits. Postgres
-- puts a space behind each comma and colon where clients put none: near the limit those are taken out before it is judged, so
-- that what a client accepted is never refused here.
create function _compact_bytes(p_value jsonb) returns integer
  language sql immutable
as $$
  select case when octet_length(p_value::text) * 2 between 2 * _payload_bytes_max() + 1 and 3 * _payload_bytes_max()
              then octet_length(regexp_replace(p_value::text, '("(?:[^"\\]|\\.)*")|([,:]) ', '\1\2', 'g'))
              else octet_length(p_value::text) end
$$;

-- Whether a payload is so small that no limit needs a look (or is none). Up to 64 bytes hold at most five numbers, and no number
-- has more than some 147,000 digits: less than the limit, whatever they are.
create function _is_small(p_value jsonb) returns boolean
  language sql stable
as $$
  select p_value is null or pg_column_size(p_value) <= 64
      or pg_column_size(p_value) <= 8 * _payload_depth_max() and octet_length(p_value::text) <= _payload_bytes_max()
$$;

-- A level of nesting takes 8 bytes at least: most values are too small to be too deep. What lies a hundred levels down may be a
-- leaf, or else the list or object that it is in would be one too many.
create function _is_too_deep(p_value jsonb) returns boolean
  language sql stable
as $$
  select pg_column_size(p_value) > 8 * _payload_depth_max()
     and jsonb_path_exists(p_value, 'strict $.**{100 to last} ? (@.type() == "array" || @.type() == "object")')
$$;

create function _check_payload(p_value jsonb, p_what text) returns void
  language plpgsql immutable
as $$
begin
  if octet_length(p_value::text) > _payload_bytes_max() and _compact_bytes(p_value) > _payload_bytes_max() then
    raise exception using errcode = 'TR003',
      message = format('the %s takes %s bytes, more than the limit of %s', p_what, _compact_bytes(p_value), _payload_bytes_max()),
      hint = 'Store the data elsewhere and pass a reference to it.';
  end if;
  if _is_too_deep(p_value) then
    raise exception using errcode = 'TR004',
      message = format('the %s is nested deeper than %s levels', p_what, _payload_depth_max()),
      hint = 'Flatten it, or store it elsewhere and pass a reference to it.';
  end if;
end $$;

-- What most starts say is told to be well at one look, which costs a fifth of the checks that can say what is wrong. What is not
-- plain may be well all the same: those checks decide.
create function _is_plain_id(p_id text) returns boolean
  language sql immutable
as $$
  select length(p_id) <= _id_start_length_max() and p_id ~ '^[-A-Za-z0-9._:@!$&''()*+,;=]+$' and p_id not in ('.', '..')
$$;

create function _is_plain_name(p_name text) returns boolean
  language sql immutable
as $$ select length(p_name) <= _name_length_max() and p_name ~ '^[A-Za-z_][A-Za-z0-9_.-]*$' $$;

create function _fits(p_value jsonb) returns boolean
  language sql stable
as $$ select _is_small(p_value) or octet_length(p_value::text) <= _payload_bytes_max() and not _is_too_deep(p_value) $$;

create function _are_plain_args(p_args jsonb) returns boolean
  language sql stable
as $$ select p_args is null or jsonb_typeof(p_args) in ('null', 'object', 'array') and _fits(p_args) $$;

create function _check_span(p_span interval, p_what text) returns void
  language plpgsql immutable
as $$
begin
  if p_span is null then
    return;
  elsif _may_go_back(p_span) then
    raise exception using errcode = 'TR002',
      message = format('a %s of %s is negative', p_what, p_span), hint = 'Give a duration of zero or more.';
  elsif p_span > make_interval(days => _timeout_days_max()) then
    raise exception using errcode = 'TR002',
      message = format('a %s of %s is longer than the limit of %s days', p_what, p_span, _timeout_days_max()),
      hint = 'Leave it out where nothing should expire.';
  end if;
end $$;

-- Whether an instant plus this duration may lie before that instant. Parts of either sign make up for each other in a comparison,
-- where a month has 30 days and a day 24 hours; in a calendar they have 28 to 31, and 21 to 27.
create function _may_go_back(p_span interval) returns boolean
  language plpgsql immutable
as $$
declare
  v_months constant numeric := extract(year from p_span) * 12 + extract(month from p_span);
  v_days numeric := extract(day from p_span);
  v_hours constant numeric := extract(hour from p_span) + extract(minute from p_span) / 60 + extract(second from p_span) / 3600;
begin
  if p_span < interval '0' or least(v_months, v_days, v_hours) >= 0 then
    return p_span < interval '0';
  end if;
  v_days := v_days + v_months * case when v_months > 0 then 28 else 31 end;
  return v_days * case when v_days > 0 then 21 else 27 end + v_hours < 0;
end $$;

create function _check_tags(p_tags jsonb) returns void
  language plpgsql immutable
as $$
begin
  if p_tags is null then
    return;
  elsif jsonb_typeof(p_tags) <> 'object' then
    raise exception using errcode = 'TR002',
      message = format('tags must be a JSON object of strings, not a JSON %s', jsonb_typeof(p_tags)),
      hint = 'For example {"customer": "42"}.';
  elsif (select count(*) from jsonb_each(p_tags)) > _tags_max()
    or exists (select from jsonb_each(p_tags) e where jsonb_typeof(e.value) <> 'string'
                 or length(e.key) > _tag_length_max() or length(e.value #>> '{}') > _tag_length_max()) then
    raise exception using errcode = 'TR002',
      message = 'the tags do not fit',
      hint = format('At most %s tags, each a string; keys and values of at most %s characters.', _tags_max(), _tag_length_max());
  end if;
end $$;

create function _check_text(p_text text, p_what text) returns void
  language plpgsql immutable
as $$
declare
  v_length_max constant integer := case p_what when 'title' then _title_length_max() else _reason_length_max() end;
begin
  if length(p_text) > v_length_max then
    raise exception using errcode = 'TR003',
      message = format('the %s has %s characters, more than the limit of %s', p_what, length(p_text), v_length_max),
      hint = 'Shorten it.';
  end if;
end $$;

-- A decision is somebody's: the names under which the engine itself settles cannot be taken.
create function _check_actor(p_actor text) returns void
  language plpgsql immutable
as $$
begin
  perform _check_text(p_actor, 'actor');
  if p_actor in ('timeout', 'worker', 'workflow') then
    raise exception using errcode = 'TR002', message = format('%L cannot be an actor', p_actor),
      hint = 'timeout, worker and workflow stand for what settles by itself: name a person, a role or a program.';
  end if;
end $$;

create function _check_items(p_count integer) returns void
  language plpgsql immutable
as $$
begin
  if p_count > _batch_items_max() then
    raise exception using errcode = 'TR030',
      message = format('%s items in one call, more than the limit of %s', p_count, _batch_items_max()),
      hint = 'Send them in several calls.';
  end if;
end $$;

create function _check_batch(p_items jsonb) returns void
  language plpgsql immutable
as $$
begin
  if p_items is null or jsonb_typeof(p_items) <> 'array' then
    raise exception using errcode = 'TR002',
      message = format('expected a JSON array of items, not %s', coalesce('a JSON ' || jsonb_typeof(p_items), 'null')),
      hint = 'For example [{"id": "order-42", "verb": "resolve", "value": true}].';
  end if;
  perform _check_items(jsonb_array_length(p_items));
  if exists (select from jsonb_array_elements(p_items) i where jsonb_typeof(i.value) <> 'object') then
    raise exception using errcode = 'TR002', message = 'every item must be a JSON object', hint = 'See sql/README.md.';
  end if;
end $$;
