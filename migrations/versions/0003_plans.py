"""What keeps a statement to the index that is meant for it, whatever the planner believes of a table.

`wait_fire` finds what is due. With the condition `fire_at is not null` it could also be read whole for the timers of a few
tasks, and was, where the statistics knew of no rows; nothing but the question for what is due says `promise is null`.
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
"""


def upgrade() -> None:
    op.execute(CHANGES)
