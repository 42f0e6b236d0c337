-- The namespace's clock. Read once per call, after the locks are held. A namespace made for tests may replace it by one
-- that can be moved; no function of a production namespace can.
create function _clock() returns timestamptz
  language sql volatile
as $$ select clock_timestamp() $$;
