"""The tables: promises, the tasks that drive them, their journals and waits.

Rows are written by the functions of `sql/` alone. A table's CHECKs are sentences about the shape of one row; what
relates two rows is the business of those functions. No triggers, no sequences, no foreign keys: a task that is deleted
at each workflow's end and a journal that outlives it want none, and a namespace must be able to live on any node.

Physical choices, all for the path that every workflow takes:
 - a column that changes while no index mentions it keeps an update in its page (HOT). `expires_at` and `open_at` exist
   for that: they are the pending part of `timeout_at` and `created_at`, null once settled, so that no index has to
   mention `state`.
 - `task` holds unfinished work only and stays small; what is finished costs a claim nothing.
 - JSON null is stored as SQL null: one meaning, no bytes.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
create table promise (
  id text collate "C" primary key,
  state text not null default 'pending',
  function text,
  version integer,
  queue text,
  args jsonb,
  args_headers jsonb,
  args_digest bytea,
  tags jsonb,
  title text,
  parent text collate "C",
  created_at timestamptz not null,
  timeout_at timestamptz,
  expires_at timestamptz,
  open_at timestamptz,
  has_default boolean not null default false,
  default_value jsonb,
  default_headers jsonb,
  value jsonb,
  error jsonb,
  headers jsonb,
  value_digest bytea,
  settled_at timestamptz,
  settler text,
  started_at timestamptz,
  seed bigint,
  constraint "a promise has one of five states"
    check (state in ('pending', 'resolved', 'rejected', 'canceled', 'timedout')),
  constraint "an ID is 1 to 255 characters that need no escape in a URL"
    check (id ~ '^[-A-Za-z0-9._~:@!$&''()*+,;=]{1,255}$' and id not in ('.', '..')),
  constraint "a promise is settled exactly when it left pending"
    check ((state = 'pending') = (settled_at is null)),
  constraint "a pending promise has no outcome"
    check (state <> 'pending' or (value is null and error is null and headers is null and settler is null)),
  constraint "only a resolved promise has a value, only others an error"
    check ((value is null or state = 'resolved') and (error is null or state in ('rejected', 'canceled'))),
  constraint "a pending promise with a timeout is in the ticker's index"
    check ((expires_at is not null) = (state = 'pending' and timeout_at is not null)),
  constraint "a pending latent promise is in the index of open ones"
    check ((open_at is not null) = (state = 'pending' and function is null)),
  constraint "a workflow has a queue, a latent promise no arguments"
    check ((function is null) = (queue is null) and (function is not null or args is null)),
  constraint "a promise with a default never ends timed out"
    check (not (has_default and state = 'timedout')),
  constraint "a timeout is after the creation"
    check (timeout_at >= created_at),
  constraint "a settlement is not before the creation"
    check (settled_at >= created_at)
);
create index promise_expires on promise (expires_at, id) where expires_at is not null;
create index promise_open on promise (id) where open_at is not null;
create index promise_parent on promise (parent, id) where parent is not null;
create index promise_tags on promise using gin (tags jsonb_path_ops) where tags is not null;
create index promise_created on promise using brin (created_at);

create table task (
  id text collate "C" primary key,
  state text not null,
  queue text not null,
  lane text not null,
  priority smallint not null default 0,
  ready_at timestamptz,
  epoch integer not null default 0,
  worker text,
  claimed_at timestamptz,
  last_seq integer not null default 0,
  last_at timestamptz,
  news boolean not null default false,
  attempts smallint not null default 0,
  reason jsonb,
  timeout_at timestamptz,
  started_at timestamptz,
  seed bigint,
  children integer not null default 0,
  constraint "a task has one of four states" check (state in ('ready', 'claimed', 'suspended', 'halted')),
  constraint "a task is ready exactly when it has an instant since when" check ((state = 'ready') = (ready_at is not null)),
  constraint "a task is claimed exactly when it names its worker"
    check ((state = 'claimed') = (worker is not null) and (state <> 'claimed' or epoch > 0)),
  constraint "a halted task says why, no other does" check ((state = 'halted') = (reason is not null)),
  constraint "a task that was claimed once has begun" check ((epoch > 0) = (started_at is not null))
) with (fillfactor = 70);
create index task_ready on task (queue, lane, priority, ready_at, id) where state = 'ready';
create index task_worker on task (worker, id) where worker is not null;

create table checkpoint (
  task text collate "C" not null,
  seq integer not null,
  operation text collate "C" not null,
  kind text not null,
  issued integer not null,
  digest bigint,
  state text not null,
  value jsonb,
  error jsonb,
  headers jsonb,
  promise text collate "C",
  at timestamptz not null,
  epoch integer not null,
  primary key (task, seq),
  constraint checkpoint_operation unique (task, operation),
  constraint "a journal begins at 1" check (seq > 0),
  constraint "an operation is issued before its event" check (issued >= 0 and issued < seq),
  constraint "an event has one of four outcomes" check (state in ('resolved', 'rejected', 'canceled', 'timedout'))
);

create table wait (
  task text collate "C" not null,
  operation text collate "C" not null,
  kind text not null,
  promise text collate "C",
  fire_at timestamptz,
  micros bigint,
  issued integer not null,
  digest bigint,
  primary key (task, operation),
  constraint "a wait is for a promise or for an instant" check ((promise is null) <> (fire_at is null))
);
create index wait_promise on wait (promise, task) where promise is not null;
create index wait_fire on wait (fire_at, task) where fire_at is not null;

create table attempt (
  task text collate "C" not null,
  operation text collate "C" not null,
  number smallint not null,
  epoch integer not null,
  started_at timestamptz not null,
  ended_at timestamptz,
  retry_at timestamptz,
  error jsonb,
  details jsonb,
  primary key (task, operation, number)
);

create table worker (
  id text collate "C" primary key,
  queues text[] not null default '{}',
  lanes text[] not null default '{}',
  lease interval not null default interval '15 seconds',
  info jsonb,
  sleeping boolean not null default false,
  registered_at timestamptz not null,
  seen_at timestamptz not null,
  died_at timestamptz,
  constraint "a dead worker does not sleep" check (died_at is null or not sleeping)
) with (fillfactor = 50);

create table function (
  name text collate "C" not null,
  version integer not null,
  queue text not null,
  registered_at timestamptz not null,
  primary key (name, version)
);

create table closing (
  id text collate "C" primary key,
  since timestamptz not null
);

create table schedule (
  id text collate "C" primary key,
  cron text not null,
  zone text not null default 'UTC',
  function text not null,
  queue text,
  args jsonb,
  enabled boolean not null default true,
  last_at timestamptz,
  next_at timestamptz,
  constraint "an enabled schedule is in the ticker's index" check (not enabled or next_at is not null),
  constraint "a schedule goes forward" check (last_at < next_at)
);
create index schedule_next on schedule (next_at, id) where enabled;

create table audit (
  id uuid primary key,
  at timestamptz not null,
  actor text not null,
  verb text not null,
  promise text collate "C",
  before text,
  after text,
  detail jsonb
);
create index audit_promise on audit (promise, at);

-- one turn of a workflow while `advance` works on it: never stored
create type turn as (
  task text, epoch integer, seen integer, next text, verdict text, last_seq integer, last_at timestamptz, told integer,
  children integer, timeout_at timestamptz, started_at timestamptz, reason jsonb, changed boolean
);
"""


def upgrade() -> None:
    op.execute(TABLES)
