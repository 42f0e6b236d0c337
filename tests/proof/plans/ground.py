"""A namespace that is full: a million promises of the past, 200,000 workflows that wait, thousands that are ready or held.

It is made once, by plain inserts, on a server of its own without autovacuum: nothing but `know` decides what the planner
knows of it. Times are spread, so that no row of the crowd is due.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from troth.dev.postgres import Postgres
from troth.schema import migrate
from troth.testing.server import connected

Connection = psycopg.Connection[Any]

SETTINGS: Final[dict[str, str | int]] = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "maintenance_work_mem": "256MB",
}

STATISTICS: Final = ("fresh", "analysed", "emptied")
"""What the planner knows: nothing yet; the truth; that there were no rows when somebody last looked."""


@dataclass(frozen=True)
class Crowd:
    """How many rows there are that no call asks for."""

    finished: int = 900_000
    children: int = 100_000
    suspended: int = 200_000
    ready: int = 20_000
    claimed: int = 5_000

    def statements(self) -> tuple[str, ...]:
        """The inserts. Indexes are there already, as they are for whoever uses the namespace."""
        later = "now() + interval '1 day' + n * interval '1 minute'"
        past = "now() - interval '40 days' + n * interval '3 seconds'"
        return (
            f"""insert into promise (id, state, function, version, queue, args, created_at, settled_at, settler, started_at)
                select 'f' || n, 'resolved', 'f', 1, 'default', '{{}}', {past}, {past} + interval '1 second', 'worker', {past}
                  from generate_series(1, {self.finished}) n""",
            f"""insert into promise (id, state, function, queue, parent, created_at, settled_at, settler)
                select 'f' || n || '~c', 'resolved', 'f', 'default', 'f' || n, {past}, {past} + interval '1 second', 'worker'
                  from generate_series(1, {self.children}) n""",
            f"""insert into checkpoint (task, seq, operation, kind, issued, digest, state, at, epoch)
                select 'f' || n, 1, 'step', 'step', 0, n, 'resolved', {past}, 1 from generate_series(1, {self.finished}) n""",
            f"""insert into promise (id, function, queue, args, created_at, timeout_at, expires_at)
                select 's' || n, 'f', 'default', '{{}}', now(), t.at, t.at from generate_series(1, {self.suspended}) n,
                       lateral (select case when n % 2 = 0 then {later} end as at) t""",
            f"""insert into promise (id, parent, created_at, open_at, timeout_at, expires_at)
                select 's' || n || '~p', 's' || n, now(), now(), t.at, t.at from generate_series(1, {self.suspended}) n,
                       lateral (select case when n % 2 = 0 then {later} end as at) t""",
            f"""insert into task (id, state, queue, lane, epoch, started_at, last_at, timeout_at)
                select 's' || n, 'suspended', 'default', 'f@1', 1, now(), now(),
                       case when n % 2 = 0 then {later} end
                  from generate_series(1, {self.suspended}) n""",
            f"""insert into wait (task, operation, kind, promise, issued)
                select 's' || n, 'p', 'promise', 's' || n || '~p', 0 from generate_series(1, {self.suspended}) n""",
            f"""insert into wait (task, operation, kind, fire_at, micros, issued)
                select 's' || n, 'sleep', 'timer', now() + interval '1 day' + n * interval '1 second', 1, 0
                  from generate_series(1, {self.suspended}, 4) n""",
            f"""insert into attempt (task, operation, number, epoch, started_at)
                select 's' || n, 'x', 1, 1, now() from generate_series(1, {self.suspended}, 4) n""",
            f"""insert into promise (id, function, queue, args, created_at)
                select 'r' || n, 'g', 'default', '{{}}', now() from generate_series(1, {self.ready + self.claimed}) n""",
            f"""insert into task (id, state, queue, lane, ready_at)
                select 'r' || n, 'ready', 'default', 'g', now() from generate_series(1, {self.ready}) n""",
            f"""insert into task (id, state, queue, lane, epoch, worker, claimed_at, started_at, last_at)
                select 'r' || n, 'claimed', 'default', 'g@1', 1, 'busy' || n % 50, now(), now(), now()
                  from generate_series({self.ready + 1}, {self.ready + self.claimed}) n""",
            """insert into worker (id, queues, lanes, lease, registered_at, seen_at)
               select 'busy' || n, '{default}', '{g,g@1}', interval '1 day', now(), now() from generate_series(0, 49) n""",
            f"""insert into audit (id, at, actor, verb, promise)
                select gen_random_uuid(), now(), 'ann', 'resolve', 'f' || n from generate_series(1, {self.finished}, 9) n""",
        )


@contextmanager
def ground(prefer: str, crowd: Crowd) -> Generator[str]:
    """The DSN of a full namespace `troth` on a server of its own."""
    with Postgres.start(ephemeral=True, prefer=prefer, settings=SETTINGS) as server:
        migrate(server.dsn)
        with closing(connected(server.dsn)) as connection:
            fill(connection, crowd)
        yield server.dsn


def fill(connection: Connection, crowd: Crowd) -> None:
    """Insert the crowd; what was inserted is seen by all and carries its hints."""
    for statement in crowd.statements():
        connection.execute(statement.encode())
    connection.execute("vacuum")


def know(connection: Connection, statistics: str) -> None:
    """Put the planner's knowledge of every table of the namespace into one of `STATISTICS`.

    "emptied" is what ANALYZE leaves of a table whose rows have all gone: pages, no rows, and nothing about columns. It is
    written to the catalog by hand, which a superuser may; `test_emptied_is_what_analyze_leaves` holds it to the original.
    """
    ours = "from pg_class c where c.relnamespace = 'troth'::regnamespace and c.relkind in ('r', 'i')"
    if statistics == "analysed":
        connection.execute("analyze")
        return
    connection.execute(f"delete from pg_statistic where starelid in (select c.oid {ours})".encode())
    pages = "greatest(1, pg_relation_size(oid) / current_setting('block_size')::int)"
    known = {
        "fresh": "reltuples = -1, relpages = 0, relallvisible = 0",
        "emptied": f"reltuples = 0, relpages = {pages}, relallvisible = 0",
    }[statistics]
    connection.execute(f"update pg_class set {known} where oid in (select c.oid {ours})".encode())
