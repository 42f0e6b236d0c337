"""Where a look for work begins while somebody holds an old snapshot, and when it is due again; outcomes that are read once.

Until that snapshot has gone, the index entries of all that was claimed since stay in front of what is ready, and those of
all that a worker held in front of what it holds. `worker.floors`: where `claim` begins until `look_at`, after the full look of
`looked_at`. `worker.search_at`: not before it are tasks searched for that are in the worker's name and not held.

`task` and `wait` are emptied as fast as they are filled: they are vacuumed by how many rows have gone, however many suspended
ones stay, and at full speed. Pages that are free at the end stay for the next ones: giving them back takes a lock that stops
everybody.

`outcome` is to `advance` what `turn` is: what a call says, read from its JSON once and not by each part that looks at it.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CHANGES = """
-- where a task stands among those that are ready; without an ID, where one could stand
create type place as (queue text, lane text, priority smallint, ready_at timestamptz, id text collate "C");

-- what a step or a timer brought, while `advance` works on it: never stored; `n` is its place in the call
create type outcome as (
  task text, operation text, kind text, issued integer, cohort integer, digest bigint, state text, value jsonb, error jsonb,
  headers jsonb, at timestamptz, micros bigint, retried boolean, n bigint
);

alter table worker
  add column floors place[],
  add column looked_at timestamptz,
  add column look_at timestamptz,
  add column search_at timestamptz;

alter table task set (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off
);
alter table wait set (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off
);
"""


def upgrade() -> None:
    op.execute(CHANGES)
