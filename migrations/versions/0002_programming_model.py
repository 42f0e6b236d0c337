"""What the programming model adds: children that are owed a cancel one by one, kept code, cohorts, outcomes by hand.

`task.asked` is the last event after which everything that the code asked for is recorded (-1: none yet); `kept_by` the
worker that suspended it and may still have its code in memory up to there.
`cohort` tells which operations were issued together after one event, so that replay finds one that was added.
`wait_timers` is for suspensions: a parent of ten thousand children must not read all its waits to find its timers.
An event that an operator wrote says nothing of where its operation was issued.
`closing.itself`: not the children of this promise are owed a cancel but it; `force`: without asking its code; `after`:
how far its children have been gone through.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CHANGES = """
alter table task
  add column asked integer not null default '-1',
  add column kept_by text collate "C";

alter table checkpoint
  add column cohort integer;

-- Only what an operator writes by hand is null, and what writes it comes with this revision.
alter table checkpoint
  -- squawk-ignore ban-drop-not-null
  alter column issued drop not null;

alter table wait
  add column cohort integer;
-- a namespace waits for few things at once, and the migration's lock has a limit
-- squawk-ignore require-concurrent-index-creation
create index wait_timers on wait (task) where fire_at is not null;

alter table closing
  add column itself boolean not null default false,
  add column force boolean not null default false,
  add column after text collate "C";
"""


def upgrade() -> None:
    op.execute(CHANGES)
