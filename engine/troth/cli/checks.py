"""What `troth doctor` looks at. Each check is one sentence, and what to do if it is not fine.

They read the catalog and the namespace's views, which every role of ours may read; nothing is changed but the counters
of one NOTIFY. A check that this user may not make says so and the others go on; without a connection or a schema there
are no others.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, LiteralString, TypeAlias

import psycopg
from psycopg import conninfo, sql
from psycopg.rows import dict_row

from troth.cli.output import counted, shortened, span
from troth.errors import TrothError, Unreachable
from troth.gateway.failures import parse_dsn, place_of, translated
from troth.schema import judge, query

Grade: TypeAlias = Literal["ok", "warning", "problem"]
Row: TypeAlias = dict[str, Any]

SERVER_VERSION_MIN: Final = 150000
CONNECT_SECONDS_MAX: Final = 10
LISTEN_SECONDS_MAX: Final = 2.0
CLOCK_SECONDS_MAX: Final = 1.0
READY_SECONDS_MAX: Final = 10.0
OVERDUE_SECONDS_MAX: Final = 5.0
CLOSING_SECONDS_MAX: Final = 30.0
NEWS_SECONDS_MAX: Final = 15.0
"""The longest that a healthy worker takes to hear of news: the time between two heartbeats, and some."""
DEAD_ROWS_MAX: Final = 200_000
"""In a table of unfinished work; a busy worker that may vacuum leaves a tenth of them, and autovacuum comes after 5,000."""
STATEMENT_SECONDS_MAX: Final = 15
SHOWN_MAX: Final = 5
"""How many of many things a sentence names."""


@dataclass(frozen=True)
class Check:
    """What one look found."""

    name: str
    grade: Grade
    sentence: str
    advice: str | None = None


def examine(dsn: str, schema: str) -> list[Check]:
    """Look at everything, in an order in which the first problem explains those after it."""
    try:
        connection = _connected(dsn)
    except Unreachable as error:
        return [Check("connection", "problem", error.message, error.hint)]
    with connection:
        patient = _Patient(connection, dsn, schema)
        found = [_connection(patient), _version(patient), schema_check := _schema(patient)]
        found += [_listen(patient), _clock(patient)]
        if schema_check.grade != "problem":
            for name, look in _LOOKS.items():
                found += _looked(name, look, patient)
    return found


def stranger(dsn: str, schema: str, function: str, queue: str) -> bool:
    """Whether no living worker knows this function in this queue, as far as this user may look."""
    try:
        with _connected(dsn) as connection:
            patient = _Patient(connection, dsn, schema)
            return not patient.rows(
                """select from {schema}.workers w
                    where {live} and %(queue)s::text = any (w.queues) and %(function)s::text = any (w.lanes) limit 1""",
                queue=queue,
                function=function,
            )
    except (psycopg.Error, TrothError):
        return False


@dataclass(frozen=True)
class _Patient:
    connection: psycopg.Connection[Row]
    dsn: str
    schema: str

    def rows(self, text: LiteralString, **values: object) -> list[Row]:
        """The rows of a query in which `{schema}` is the namespace, `{live}` and `{known}` the conditions below."""
        schema = sql.Identifier(self.schema)
        live = sql.SQL(_LIVE)
        known = sql.SQL(_KNOWN).format(schema=schema, live=live)
        composed = sql.SQL(text).format(schema=schema, live=live, known=known)
        return self.connection.execute(composed, values).fetchall()


def _connected(dsn: str) -> psycopg.Connection[Row]:
    parts = {"connect_timeout": str(CONNECT_SECONDS_MAX), "application_name": "troth doctor"}
    try:
        return psycopg.Connection[Row].connect(
            conninfo.make_conninfo("", **parts | parse_dsn(dsn)),
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
        )
    except psycopg.Error as error:
        ours = translated(error, place_of(dsn))
        raise ours or Unreachable(str(error)) from error


def _looked(name: str, look: Callable[[_Patient], Iterator[Check]], patient: _Patient) -> list[Check]:
    """One check, in a transaction that does not wait for ever; what Postgres refuses is a check of its own."""
    try:
        with patient.connection.transaction():
            patient.connection.execute(f"set local statement_timeout = '{STATEMENT_SECONDS_MAX}s'".encode())
            return list(look(patient))
    except psycopg.errors.InsufficientPrivilege as error:
        said = error.diag.message_primary or "no right to"
        return [
            Check(
                name, "warning", f"This user may not look: {said}.", "Look as a member of one of its roles."
            )
        ]
    except psycopg.errors.QueryCanceled:
        return [
            Check(name, "warning", f"The look took longer than {STATEMENT_SECONDS_MAX} s and was given up.")
        ]


def _connection(patient: _Patient) -> Check:
    begin = time.monotonic()
    patient.connection.execute("select 1")
    away = time.monotonic() - begin
    user = patient.connection.info.user
    return Check("connection", "ok", f"Postgres {place_of(patient.dsn)} answers {user} in {span(away)}.")


def _version(patient: _Patient) -> Check:
    version = patient.connection.info.server_version
    shown = f"{version // 10000}.{version % 10000}"
    if version < SERVER_VERSION_MIN:
        return Check("version", "problem", f"This is Postgres {shown}.", "Troth needs Postgres 15 or newer.")
    return Check("version", "ok", f"This is Postgres {shown}.")


def _schema(patient: _Patient) -> Check:
    row = patient.connection.execute(query(patient.schema).encode()).fetchone()
    state = judge(patient.schema, None if row is None else next(iter(row.values())))
    sentence, _, advice = state.sentence.partition(": ")
    advice = advice[:1].upper() + advice[1:]
    match state.kind:
        case "current":
            return Check("schema", "ok", state.sentence)
        case "differs":
            return Check("schema", "warning", f"{sentence}.", advice)
        case "missing" | "behind" | "ahead":
            return Check("schema", "problem", f"{sentence}.", advice)


def _listen(patient: _Patient) -> Check:
    """A NOTIFY of one connection must reach the LISTEN of another: a pooler in transaction mode loses it."""
    channel = f"troth_doctor_{secrets.token_hex(6)}"
    begin = time.monotonic()
    try:
        with _connected(patient.dsn) as ear:
            ear.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
            patient.connection.execute("select pg_catalog.pg_notify(%s, '')", [channel])
            for _ in ear.notifies(timeout=LISTEN_SECONDS_MAX, stop_after=1):
                return Check("listen", "ok", f"A NOTIFY arrives, in {span(time.monotonic() - begin)}.")
    except (psycopg.Error, TrothError) as error:
        return Check("listen", "warning", f"LISTEN is refused: {_said(error)}.", _LISTEN_ADVICE)
    return Check(
        "listen", "warning", f"A NOTIFY did not arrive within {LISTEN_SECONDS_MAX:g} s.", _LISTEN_ADVICE
    )


_LISTEN_ADVICE: Final = (
    "Nothing is lost, but workers wait for their next look. Behind a pooler in transaction mode, give workers a "
    "listen_dsn that leads to Postgres itself, and prepared=False."
)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")


def _clock(patient: _Patient) -> Check:
    before = datetime.now(UTC)
    row = patient.connection.execute("select pg_catalog.clock_timestamp() as now").fetchone()
    after = datetime.now(UTC)
    assert row is not None
    ahead = (row["now"] - (before + (after - before) / 2)).total_seconds()
    if abs(ahead) <= CLOCK_SECONDS_MAX:
        return Check(
            "clock",
            "ok",
            f"This machine and Postgres have the same time (to {span(max(abs(ahead), 0.001))}).",
        )
    way = "ahead of" if ahead > 0 else "behind"
    return Check(
        "clock",
        "warning",
        f"The clock of Postgres is {span(abs(ahead))} {way} this machine's.",
        "Workflows go by the clock of Postgres alone; set both by NTP so that logs agree.",
    )


def _roles(patient: _Patient) -> Iterator[Check]:
    names = [f"{patient.schema}_{part}" for part in ("owner", "client", "worker", "admin")]
    there = {
        row["name"]
        for row in patient.rows(
            "select rolname::text as name from pg_catalog.pg_roles where rolname = any (%(names)s)",
            names=names,
        )
    }
    missing = [name for name in names if name not in there]
    if missing:
        yield Check(
            "roles",
            "warning",
            f"There is no role {_some(missing)}.",
            "That is fine where roles cannot be made and `troth migrate --grant` named others.",
        )
    else:
        yield Check("roles", "ok", f"The roles are there: {', '.join(names)}.")
    writers = patient.rows(
        """select c.relname::text as name,
                  case when acl.grantee = 0 then 'PUBLIC' else pg_catalog.pg_get_userbyid(acl.grantee)::text end as who
             from pg_catalog.pg_class c cross join pg_catalog.aclexplode(c.relacl) acl
            where c.relnamespace = %(schema)s::text::regnamespace and c.relkind in ('r', 'p')
              and acl.grantee <> c.relowner
              and acl.privilege_type in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
            group by 1, 2 order by 2, 1""",
        schema=patient.schema,
    )
    if not writers:
        yield Check("tables", "ok", "Nobody but their owner may write the tables.")
        return
    who = sorted({row["who"] for row in writers})
    yield Check(
        "tables",
        "problem",
        f"{_some(who)} may write tables ({_some(sorted({row['name'] for row in writers}))}).",
        "Revoke it: what is written past the functions can wedge workflows or run them twice.",
    )


_LIVE: Final[LiteralString] = "w.died_at is null and w.seen_at > pg_catalog.clock_timestamp() - w.lease"
_KNOWN: Final[LiteralString] = """exists (select from {schema}.workers w
               where {live} and q.queue = any (w.queues) and pg_catalog.rtrim(q.lane, '!') = any (w.lanes))"""


def _workers(patient: _Patient) -> Iterator[Check]:
    [row] = patient.rows(
        """select count(*) filter (where {live}) as live,
                   count(*) filter (where w.died_at is null and not ({live})) as silent,
                   count(*) filter (where w.died_at > pg_catalog.clock_timestamp() - interval '1 hour') as dead,
                   (select count(*) from {schema}.tasks) as tasks
              from {schema}.workers w"""
    )
    if row["silent"]:
        yield Check(
            "workers",
            "warning",
            f"{counted(row['silent'], 'worker')} fell silent and {counted(row['live'], 'is', 'are')} alive.",
            "The next tick of a living worker gives their work to others.",
        )
    elif row["live"]:
        yield Check("workers", "ok", f"{counted(row['live'], 'worker')} alive.")
    else:
        yield Check(
            "workers",
            "warning" if row["tasks"] else "ok",
            f"No worker is alive, and {counted(row['tasks'], 'workflow is', 'workflows are')} unfinished.",
            "Start one: troth worker FILE." if row["tasks"] else None,
        )
    if row["dead"]:
        yield Check(
            "dead workers",
            "warning",
            f"{counted(row['dead'], 'worker')} died within the last hour, without taking leave.",
            "Look at their logs: were they killed, out of memory, or cut off?",
        )


def _unknown_work(patient: _Patient) -> Iterator[Check]:
    rows = patient.rows(
        """select q.queue, pg_catalog.rtrim(q.lane, '!') as lane,
                  sum(q.ready)::bigint as ready, sum(q.suspended)::bigint as suspended,
                  extract(epoch from pg_catalog.clock_timestamp() - min(q.oldest_ready_at))::float8 as seconds
             from {schema}.queues q
            where (q.ready > 0 or q.suspended > 0) and not {known} group by 1, 2 order by 3 desc, 4 desc, 1, 2"""
    )
    ready = [row for row in rows if row["ready"]]
    asleep = [row for row in rows if row["suspended"]]
    if ready:
        yield Check(
            "ready work",
            "problem",
            "No living worker knows "
            + _some([f"{_lane(row)} ({row['ready']} ready, for {span(row['seconds'])})" for row in ready])
            + ".",
            "Start a worker that has this workflow, in this version, and serves this queue, or mend the name it was started by.",
        )
    else:
        yield Check("ready work", "ok", "Whatever is ready is known to a living worker.")
    if asleep:
        yield Check(
            "waiting versions",
            "warning",
            "No living worker knows "
            + _some([f"{_lane(row)} ({row['suspended']} suspended)" for row in asleep])
            + ".",
            "Nothing is lost, but when they wake nobody takes them: keep a worker with that version until they have ended.",
        )


def _lane(row: Row) -> str:
    return f"{row['lane']} in queue {row['queue']}"


def _overdue(patient: _Patient) -> Iterator[Check]:
    late = patient.rows(
        """select q.queue, q.lane, q.ready,
                   extract(epoch from pg_catalog.clock_timestamp() - q.oldest_ready_at)::float8 as seconds
              from {schema}.queues q
             where q.oldest_ready_at < pg_catalog.clock_timestamp() - %(ready)s * interval '1 second' and {known}
             order by q.oldest_ready_at""",
        ready=READY_SECONDS_MAX,
    )
    if late:
        first = late[0]
        yield Check(
            "waiting work",
            "warning",
            f"{first['lane']} in queue {first['queue']} has been ready for {span(first['seconds'])} "
            f"({first['ready']} ready), although a worker knows it.",
            "The workers are busy or stuck: look at their logs, or start more of them.",
        )
    [due] = patient.rows(
        """select (select count(*) from {schema}.promises
                    where state = 'pending'
                      and timeout_at < pg_catalog.clock_timestamp() - %(due)s * interval '1 second')
                  as promises,
                  (select count(*) from {schema}.tasks t cross join pg_catalog.jsonb_array_elements(t.waits) w
                    where (w ->> 'fire_at')::timestamptz < pg_catalog.clock_timestamp() - %(due)s * interval '1 second')
                  as timers""",
        due=OVERDUE_SECONDS_MAX,
    )
    if due["promises"] or due["timers"]:
        yield Check(
            "overdue",
            "problem",
            f"{counted(due['promises'], 'promise')} and {counted(due['timers'], 'timer')} should have ended by now.",
            "Living workers do what is due: start one, of any workflow, or look at the logs of those that run.",
        )
    elif not late:
        yield Check("overdue", "ok", "Nothing is overdue.")


def _halted(patient: _Patient) -> Iterator[Check]:
    rows = patient.rows(
        """select t.reason ->> 'code' as code, count(*) as number, (array_agg(t.id order by t.id))[:%(most)s] as ids,
                  (array_agg(t.reason ->> 'message' order by t.id))[1] as message
             from {schema}.tasks t where t.state = 'halted' group by 1 order by 2 desc, 1""",
        most=SHOWN_MAX,
    )
    if not rows:
        yield Check("halted", "ok", "No workflow is halted.")
        return
    total = sum(row["number"] for row in rows)
    advice = "Mend what stopped them, then `troth resume ID`."
    if any(row["code"] == "nondeterminism" for row in rows):
        advice += " `troth replay FILE --id ID` tells beforehand whether changed code fits a journal."
    yield Check(
        "halted",
        "warning",
        f"{counted(total, 'workflow')} halted, by reason: {'; '.join(map(_reason, rows))}.",
        advice,
    )


def _reason(row: Row) -> str:
    more = row["number"] - len(row["ids"])
    ids = ", ".join(row["ids"]) + (f" and {more} more" if more else "")
    return f"{row['code']} {row['number']} ({ids}: {shortened(row['message'] or '')})"


def _closings(patient: _Patient) -> Iterator[Check]:
    [row] = patient.rows(
        """select count(*) as number, (array_agg(c.id order by c.since, c.id))[:%(most)s] as ids,
                  extract(epoch from pg_catalog.clock_timestamp() - min(c.since))::float8 as seconds
             from {schema}.closings c where c.since < pg_catalog.clock_timestamp() - %(late)s * interval '1 second'""",
        most=SHOWN_MAX,
        late=CLOSING_SECONDS_MAX,
    )
    if not row["number"]:
        yield Check("closings", "ok", "Whatever ended workflows left open is canceled.")
        return
    more = row["number"] - len(row["ids"])
    ids = ", ".join(row["ids"]) + (f" and {more} more" if more else "")
    yield Check(
        "closings",
        "warning",
        f"{counted(row['number'], 'workflow has', 'workflows have')} left something open that nobody cancels, "
        f"the longest for {span(row['seconds'])}: {ids}.",
        "Living workers do this: start one, of any workflow. If some live, look for transactions that hold the rows for long.",
    )


def _deaf(patient: _Patient) -> Iterator[Check]:
    """Workers that beat and do not take in what is new for the tasks that they hold."""
    rows = patient.rows(
        """select w.id, extract(epoch from pg_catalog.clock_timestamp() - w.news_since)::float8 as seconds
             from {schema}.workers w
            where {live}
              and w.news_since < pg_catalog.clock_timestamp() - greatest(%(late)s * interval '1 second', w.lease)
            order by w.news_since""",
        late=NEWS_SECONDS_MAX,
    )
    if rows:
        yield Check(
            "blocked workers",
            "warning",
            "There has been news for what they hold, and it was not taken in, for: "
            + _some([f"{row['id']} ({span(row['seconds'])})" for row in rows])
            + ".",
            "Code that computes or waits without `await` blocks a worker's loop: its log names the line.",
        )


def _vacuum(patient: _Patient) -> Iterator[Check]:
    """Rows that come and go must be cleared away behind them."""
    rows = patient.rows(
        """select relname::text as name, n_dead_tup as dead from pg_catalog.pg_stat_user_tables
            where schemaname = %(schema)s and relname in ('task', 'wait') and n_dead_tup > %(most)s order by 1""",
        schema=patient.schema,
        most=DEAD_ROWS_MAX,
    )
    if not rows:
        yield Check("vacuum", "ok", "The tables of unfinished work are vacuumed.")
        return
    yield Check(
        "vacuum",
        "warning",
        "Dead rows pile up: " + _some([f"{row['dead']} in {row['name']}" for row in rows]) + ".",
        "Look for an old snapshot (a transaction, a replication slot). If there is none, set autovacuum_naptime = 1, or let "
        "workers vacuum: docs/operations.md says which users may.",
    )


_LOOKS: Final[dict[str, Callable[[_Patient], Iterator[Check]]]] = {
    "roles": _roles,
    "workers": _workers,
    "blocked workers": _deaf,
    "ready work": _unknown_work,
    "overdue": _overdue,
    "closings": _closings,
    "halted": _halted,
    "vacuum": _vacuum,
}


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN_MAX])
    return shown if len(names) <= SHOWN_MAX else f"{shown} and {len(names) - SHOWN_MAX} more"
