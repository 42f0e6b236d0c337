-- Every limit that SQL enforces, by name. The clients know the same numbers (a test compares) and refuse earlier, with
-- more to say; what stands here holds for whoever calls the functions directly.
create function _payload_bytes_max() returns integer language sql immutable as $$ select 1048576 $$;
create function _payload_depth_max() returns integer language sql immutable as $$ select 100 $$;
create function _id_start_length_max() returns integer language sql immutable as $$ select 128 $$;
create function _id_length_max() returns integer language sql immutable as $$ select 255 $$;
create function _name_length_max() returns integer language sql immutable as $$ select 100 $$;
create function _timeout_days_max() returns integer language sql immutable as $$ select 36500 $$;
create function _batch_items_max() returns integer language sql immutable as $$ select 10000 $$;
create function _search_limit_max() returns integer language sql immutable as $$ select 1000 $$;
create function _attempts_max() returns integer language sql immutable as $$ select 5 $$;
create function _journal_entries_max() returns integer language sql immutable as $$ select 100000 $$;
create function _children_max() returns integer language sql immutable as $$ select 10000 $$;
create function _family_members_max() returns integer language sql immutable as $$ select 100000 $$;
create function _waits_per_promise_max() returns integer language sql immutable as $$ select 10000 $$;
create function _tags_max() returns integer language sql immutable as $$ select 32 $$;
create function _tag_length_max() returns integer language sql immutable as $$ select 200 $$;
create function _reason_length_max() returns integer language sql immutable as $$ select 1000 $$;
create function _title_length_max() returns integer language sql immutable as $$ select 200 $$;
