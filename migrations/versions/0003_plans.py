"""What keeps a statement to the index that is meant for it, whatever the planner believes of a table.

`wait_fire` finds what is due. With the condition `fire_at is not null` it could also be read whole for the timers of a few
tasks, and was, where the statistics knew of no rows; nothing but the question for what is due says `promise is null`.

The CHECK on IDs says the same as before in a tenth of the time: a pattern that counts to 255 cost more than all the rest of
an insert.

`promise_settled` is the order in which `purge` takes families away. `task` keeps room for a second version of each row of a page:
a turn of all tasks on a page is one update of each, and stays in the page only then (HOT).
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CHANGES = """
-- a namespace waits for few things at once, and the migration's lock has a limit
-- squawk-ignore require-concurrent-index-deletion
drop index wait_fire;
-- squawk-ignore require-concurrent-index-creation
create index wait_fire on wait (fire_at, task) where promise is null;
-- squawk-ignore require-concurrent-index-creation
create index promise_settled on promise (settled_at, id) where settled_at is not null and (parent is null or id not like '%~%');

alter table task set (fillfactor = 45);

-- squawk-ignore ban-drop-constraint
alter table promise drop constraint "an ID is 1 to 255 characters that need no escape in a URL";
-- not valid: every row that is there was held to the one that goes, which says the same
alter table promise add constraint "an ID is 1 to 255 characters that need no escape in a URL"
  check (length(id) between 1 and 255 and id !~ '[^-A-Za-z0-9._~:@!$&''()*+,;=]' and id not in ('.', '..')) not valid;
"""


def upgrade() -> None:
    op.execute(CHANGES)
