-- Instants cross the wire between workers and SQL as whole microseconds since 1970: exact in every language, where ISO
-- text costs a parser and a float loses digits. Declared stable, as the arithmetic of instants is: an immutable function around it
-- would not be inlined, and be a query of its own each time.
create function _micros(p_at timestamptz) returns bigint
  language sql stable parallel safe
as $$ select (extract(epoch from p_at) * 1000000)::bigint $$;

create function _instant(p_micros bigint) returns timestamptz
  language sql stable parallel safe
as $$ select timestamptz '1970-01-01 00:00:00+00' + p_micros * interval '1 microsecond' $$;

create function _span(p_micros bigint) returns interval
  language sql immutable parallel safe
as $$ select p_micros * interval '1 microsecond' $$;
