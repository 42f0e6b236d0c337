-- The version of what is spoken between clients, workers and these functions. One that speaks an older version than the
-- second number, or a newer one than the first, is refused by itself with a clear message.
-- grant: client, worker, admin
create function protocol(out current integer, out oldest integer)
  language sql stable security definer set search_path from current
as $$ select 1, 1 $$;
