-- One step of the comparison: the clock stands at p_now, the call is made, and what it wrote is answered with what it said.
create or replace function _clock() returns timestamptz
  language sql volatile
as $$ select timestamptz '1970-01-01 00:00:00+00' + current_setting('model.now')::bigint * interval '1 microsecond' $$;

select set_config('model.now', '0', false);

create function list(p jsonb) returns text[]
  language sql immutable
as $$ select case when jsonb_typeof(p) = 'array' then array(select jsonb_array_elements_text(p)) end $$;

-- Rows as arrays of the columns that the oracle's rows have, each behind a checksum of its key, written by transactions from
-- p_since on; and how many keys there are, with the checksum of all.
create function written(p_since bigint) returns jsonb
  language plpgsql volatile
as $$
begin
  return jsonb_build_object(
    'promise', (select jsonb_build_array(count(*), coalesce(bit_xor(hashtextextended(id, 0)), 0), coalesce(jsonb_agg(
        jsonb_build_array(
          hashtextextended(id, 0), id, _micros(created_at), state, function, version, queue, args, args_headers,
          encode(args_digest, 'hex'), tags, title, parent, _micros(timeout_at), has_default, default_value, default_headers,
          value, error, headers, encode(value_digest, 'hex'), _micros(settled_at), settler, _micros(started_at), seed,
          expires_at is not distinct from case when state = 'pending' then timeout_at end
            and open_at is not distinct from case when state = 'pending' and function is null then created_at end)
      ) filter (where xmin::text::bigint >= p_since), '[]')) from promise),
    'task', (select jsonb_build_array(count(*), coalesce(bit_xor(hashtextextended(id, 0)), 0), coalesce(jsonb_agg(
        jsonb_build_array(
          hashtextextended(id, 0), id, state, queue, lane, priority, _micros(ready_at), epoch, worker, _micros(claimed_at), last_seq,
          _micros(last_at), news, attempts, reason, _micros(timeout_at), _micros(started_at), seed, children, asked, kept_by)
      ) filter (where xmin::text::bigint >= p_since), '[]')) from task),
    'checkpoint', (select jsonb_build_array(
        count(*), coalesce(bit_xor(hashtextextended(task || ' ' || operation, 0)), 0), coalesce(jsonb_agg(
        jsonb_build_array(
          hashtextextended(task || ' ' || operation, 0), task, seq, operation, kind, state, _micros(at), epoch, issued, cohort, digest,
          value, error, headers, promise, coalesce(value, error, headers) is not null)
      ) filter (where xmin::text::bigint >= p_since), '[]')) from checkpoint),
    'wait', (select jsonb_build_array(
        count(*), coalesce(bit_xor(hashtextextended(task || ' ' || operation, 0)), 0), coalesce(jsonb_agg(
        jsonb_build_array(
          hashtextextended(task || ' ' || operation, 0), task, operation, kind, issued, promise, _micros(fire_at), micros, cohort, digest)
      ) filter (where xmin::text::bigint >= p_since), '[]')) from wait),
    'attempt', (select jsonb_build_array(
        count(*), coalesce(bit_xor(hashtextextended(task || ' ' || operation || ' ' || number, 0)), 0), coalesce(jsonb_agg(
        jsonb_build_array(
          hashtextextended(task || ' ' || operation || ' ' || number, 0), task, operation, number, epoch, _micros(started_at),
          _micros(ended_at), _micros(retry_at), error, details)
      ) filter (where xmin::text::bigint >= p_since), '[]')) from attempt),
    'worker', (select jsonb_build_array(count(*), coalesce(bit_xor(hashtextextended(id, 0)), 0), coalesce(jsonb_agg(
        jsonb_build_array(
          hashtextextended(id, 0), id, queues, lanes, (extract(epoch from lease) * 1000000)::bigint, _micros(registered_at),
          _micros(seen_at), info, sleeping, _micros(died_at))
      ) filter (where xmin::text::bigint >= p_since), '[]')) from worker),
    'function', (select jsonb_build_array(
        count(*), coalesce(bit_xor(hashtextextended(name || ' ' || version, 0)), 0), coalesce(jsonb_agg(
        jsonb_build_array(hashtextextended(name || ' ' || version, 0), name, version, queue, _micros(registered_at))
      ) filter (where xmin::text::bigint >= p_since), '[]')) from function),
    'closing', (select jsonb_build_array(count(*), coalesce(bit_xor(hashtextextended(id, 0)), 0), coalesce(jsonb_agg(
        jsonb_build_array(hashtextextended(id, 0), id, _micros(since), itself, force, after)
      ) filter (where xmin::text::bigint >= p_since), '[]')) from closing),
    'audit', (select jsonb_build_array(count(*), 0, coalesce(jsonb_agg(
        jsonb_build_array(0, _micros(at), actor, verb, promise, before, after, detail)
      ) filter (where xmin::text::bigint >= p_since), '[]')) from audit));
end $$;

create function step(p_verb text, p jsonb, p_now bigint) returns text
  language plpgsql volatile
as $$
declare
  v_since constant bigint := pg_current_xact_id()::text::bigint;
  v_answer jsonb;
  v_message text;
begin
  perform set_config('model.now', p_now::text, false);
  begin
    case p_verb
      when 'start' then
        v_answer := start(
          p ->> 'id', p ->> 'function', p -> 'args', p ->> 'queue', _span((p ->> 'delay')::bigint), _span((p ->> 'timeout')::bigint),
          coalesce((p ->> 'priority')::integer, 0), p -> 'tags', coalesce(p ->> 'on_conflict', 'error'), p -> 'headers',
          decode(p ->> 'digest', 'hex'));
      when 'start_many' then
        v_answer := (select coalesce(jsonb_agg(a), '[]') from start_many(p -> 'items') a);
      when 'start_together' then
        v_answer := (select coalesce(jsonb_agg(a), '[]') from start_together(p -> 'items', list(p -> 'shown')) a);
      when 'start_each' then
        v_answer := (select coalesce(jsonb_agg(a), '[]') from start_each(
          p ->> 'function', array(select jsonb_array_elements_text(p -> 'ids')), p -> 'args', p ->> 'queue',
          _span((p ->> 'delay')::bigint), _span((p ->> 'timeout')::bigint), coalesce((p ->> 'priority')::integer, 0), p -> 'tags',
          p -> 'headers', array(select decode(d, 'hex') from jsonb_array_elements_text(p -> 'digests') d)) a);
      when 'create_promise' then
        v_answer := create_promise(
          p ->> 'id', _span((p ->> 'timeout')::bigint), p -> 'default', coalesce((p ->> 'has_default')::boolean, false), p -> 'tags',
          p ->> 'title', p -> 'headers');
      when 'resolve' then
        v_answer := resolve(p ->> 'id', p -> 'value', p -> 'headers', decode(p ->> 'digest', 'hex'), p ->> 'actor');
      when 'reject' then
        v_answer := reject(p ->> 'id', p -> 'error', p -> 'headers', decode(p ->> 'digest', 'hex'), p ->> 'actor');
      when 'cancel' then v_answer := cancel(p ->> 'id', p ->> 'reason', p ->> 'actor');
      when 'settle_many' then
        v_answer := (select coalesce(jsonb_agg(a), '[]') from settle_many(p -> 'items', p ->> 'actor') a);
      when 'get' then v_answer := (select coalesce(jsonb_agg(a order by a ->> 'id'), '[]') from get(list(p -> 'ids')) a);
      when 'search' then
        v_answer := (select coalesce(jsonb_agg(a), '[]') from search(
          p ->> 'state', p ->> 'queue', p ->> 'function', p ->> 'prefix', p -> 'tags', (p ->> 'latent')::boolean,
          case when p ? 'limit' then (p ->> 'limit')::integer else 50 end, p ->> 'after') a);
      when 'tree' then v_answer := (select coalesce(jsonb_agg(a), '[]') from tree(p ->> 'id', (p ->> 'limit')::integer) a);
      when 'journal' then
        v_answer := (select coalesce(jsonb_agg(a), '[]') from journal(
          p ->> 'id', coalesce((p ->> 'from_seq')::integer, 1), case when p ? 'limit' then (p ->> 'limit')::integer else 1000 end) a);
      when 'register' then perform register(p -> 'functions');
      when 'claim' then
        v_answer := (select coalesce(jsonb_agg(to_jsonb(a)), '[]') from claim(
          p ->> 'worker', list(p -> 'queues'), list(p -> 'lanes'), (p ->> 'limit')::integer, list(p -> 'pins'),
          coalesce((p ->> 'alone')::boolean, false), coalesce((p ->> 'sleeping')::boolean, false),
          coalesce(_span((p ->> 'lease')::bigint), '15 seconds'), p -> 'info', coalesce((p ->> 'entries')::integer, 1000)) a);
      when 'advance' then
        v_answer := (select coalesce(jsonb_agg(to_jsonb(a)), '[]') from advance(
          p -> 'turns', coalesce(p -> 'outcomes', '[]'), coalesce(p -> 'operations', '[]'), coalesce(p -> 'timers', '[]'),
          coalesce(p -> 'attempts', '[]'), coalesce(p -> 'cancels', '[]')) a);
      when 'commit_step' then
        v_answer := (select jsonb_agg(to_jsonb(a)) from commit_step(
          p ->> 'task', (p ->> 'epoch')::integer, p ->> 'operation', (p ->> 'issued')::integer, (p ->> 'cohort')::integer,
          (p ->> 'digest')::bigint, p -> 'value', p -> 'headers') a);
      when 'heartbeat' then
        v_answer := (select coalesce(jsonb_agg(to_jsonb(a)), '[]') from heartbeat(
          p ->> 'worker', list(p -> 'tasks'), list(p -> 'epochs')::integer[],
          coalesce(_span((p ->> 'under_way')::bigint), '5 seconds')) a);
      when 'tick' then v_answer := tick((p ->> 'limit')::integer);
      when 'leave' then v_answer := to_jsonb(leave(p ->> 'worker'));
      when 'halt' then v_answer := halt(p ->> 'id', p ->> 'reason', p ->> 'actor');
      when 'resume' then v_answer := resume(p ->> 'id', p ->> 'actor');
      when 'cancel_force' then v_answer := cancel_force(p ->> 'id', p ->> 'reason', p ->> 'actor');
      when 'fork' then
        v_answer := fork(p ->> 'id', p ->> 'new_id', p ->> 'before', p ->> 'reason', p ->> 'actor', (p ->> 'version')::integer);
      when 'settle_step' then
        v_answer := settle_step(
          p ->> 'id', p ->> 'operation', p -> 'value', p -> 'error', p -> 'headers', p ->> 'reason', p ->> 'actor');
      when 'purge' then v_answer := to_jsonb(purge(_span((p ->> 'before')::bigint), (p ->> 'limit')::integer));
    end case;
  exception when others then
    get stacked diagnostics v_message = message_text;
    return jsonb_build_object('answer', jsonb_build_object('sqlstate', sqlstate, 'message', v_message))::text;
  end;
  return jsonb_build_object('answer', v_answer, 'rows', written(v_since))::text;
end $$;
