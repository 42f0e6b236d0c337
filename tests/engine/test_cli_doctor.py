"""`troth doctor`: each of its checks, well and ill."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.cli import troth
from tests.support.sql import Sql, Worker, promise, step, timer, turn, wait
from troth.cli.checks import Check, examine
from troth.cli.exits import Exit

Connection = psycopg.Connection[Any]


def found(dsn: str, schema: str = "troth") -> dict[str, Check]:
    """What the checks find, by their names."""
    checks = examine(dsn, schema)
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def test_a_healthy_installation(dsn: str) -> None:
    answer = troth("doctor", "--json", dsn=dsn)
    assert answer.code == 0
    assert answer.document["ok"] is True
    checks = answer.document["checks"]
    assert all(set(check) == {"name", "grade", "sentence", "advice"} for check in checks)
    assert [check["name"] for check in checks if check["grade"] == "ok"] == [
        "connection", "version", "schema", "listen", "clock", "roles", "tables", "workers", "ready work", "overdue",
        "closings", "halted", "vacuum",
    ]  # fmt: skip
    shown = troth("doctor", dsn=dsn)
    assert (shown.code, shown.err) == (0, "")
    assert "13 ok, 0 warnings, 0 problems" in shown.out


def test_without_postgres_or_schema_there_is_nothing_else_to_look_at(dsn: str) -> None:
    down = troth("doctor", "--json", "--dsn", "postgresql://127.0.0.1:1/x")
    assert down.code == Exit.FAILED
    assert [(check["name"], check["grade"]) for check in down.document["checks"]] == [
        ("connection", "problem")
    ]
    missing = found(dsn, "elsewhere")
    assert missing["schema"].grade == "problem"
    assert missing["schema"].advice == "Run `troth migrate --schema elsewhere`."
    assert "roles" not in missing


@pytest.mark.parametrize(
    ("comment", "grade", "said"),
    [
        ("troth: revision 9999, functions abc", "problem", "newer than this Troth"),
        ("troth: revision {now}, functions abc", "warning", "not its functions"),
    ],
)
def test_a_schema_ahead_or_differing(dsn: str, db: Connection, comment: str, grade: str, said: str) -> None:
    [noted] = db.execute("select obj_description('troth_version'::regclass)").fetchone() or [""]
    try:
        now = re.findall(r"revision (\w+)", str(noted))[0]
        db.execute(sql.SQL("comment on table troth_version is {}").format(comment.replace("{now}", now)))
        check = found(dsn)["schema"]
    finally:
        db.execute(sql.SQL("comment on table troth_version is {}").format(noted))
    assert check.grade == grade
    assert said in check.sentence
    assert check.advice


def test_ready_work_that_no_living_worker_knows(dsn: str, db: Connection) -> None:
    db.execute("select start('a', 'f'), start('b', 'f', p_queue => 'slow')")
    check = found(dsn)["ready work"]
    assert check.grade == "problem"
    assert re.search(r"f in queue default \(1 ready, for \d+ ms\)", check.sentence)
    assert "f in queue slow (1 ready, for" in check.sentence
    assert "waiting versions" not in found(dsn)
    assert found(dsn)["workers"].grade == "warning"
    assert troth("doctor", dsn=dsn).code == Exit.FAILED
    db.execute(
        "insert into worker (id, queues, lanes, registered_at, seen_at)"
        " values ('w', '{default,slow}', '{f}', clock_timestamp(), clock_timestamp())"
    )
    assert found(dsn)["ready work"].grade == "ok"
    db.execute(
        "update worker set seen_at = seen_at - interval '1 hour', registered_at = registered_at - interval '1 hour'"
    )
    ill = found(dsn)
    assert ill["ready work"].grade == "problem"
    assert "fell silent" in ill["workers"].sentence
    db.execute("update worker set died_at = clock_timestamp()")
    assert "1 worker died" in found(dsn)["dead workers"].sentence


def test_work_that_waits_although_a_worker_knows_it(dsn: str, db: Connection) -> None:
    db.execute("select start('a', 'f')")
    db.execute("update task set ready_at = ready_at - interval '1 minute'")
    db.execute(
        "insert into worker (id, queues, lanes, registered_at, seen_at)"
        " values ('w', '{default}', '{f}', clock_timestamp(), clock_timestamp())"
    )
    check = found(dsn)["waiting work"]
    assert check.grade == "warning"
    assert "1 min" in check.sentence


def test_promises_and_timers_past_their_instant(dsn: str, db: Connection) -> None:
    db.execute(
        "select create_promise('p', p_timeout => interval '1 hour'), start('a', 'f', p_delay => interval '1 hour')"
    )
    assert found(dsn)["overdue"].grade == "ok"
    db.execute(
        "update promise set created_at = created_at - interval '2 hours', open_at = open_at - interval '2 hours',"
        " timeout_at = timeout_at - interval '2 hours', expires_at = expires_at - interval '2 hours'"
    )
    db.execute("update wait set fire_at = fire_at - interval '2 hours'")
    check = found(dsn)["overdue"]
    assert check.grade == "problem"
    assert "1 promise and 1 timer" in check.sentence


def test_halted_workflows_by_their_reasons(dsn: str, db: Connection) -> None:
    db.execute("select start(format('a-%s', n), 'f') from generate_series(1, 7) n")
    db.execute("select halt(format('a-%s', n), 'look') from generate_series(1, 6) n")
    check = found(dsn)["halted"]
    assert check.grade == "warning"
    assert check.sentence == (
        "6 workflows halted, by reason: operator 6 (a-1, a-2, a-3, a-4, a-5 and 1 more: look)."
    )
    assert "replay" not in (check.advice or "")
    db.execute("select halt('a-7', 'x')")
    db.execute('update task set reason = \'{"code": "nondeterminism", "message": "m"}\' where id = \'a-7\'')
    check = found(dsn)["halted"]
    assert check.sentence.endswith("; nondeterminism 1 (a-7: m).")
    assert "troth replay" in (check.advice or "")


def living(db: Connection, *lanes: str, id: str = "w") -> None:
    """A worker that is alive and knows these lanes of the queue default."""
    db.execute(
        "insert into worker (id, queues, lanes, registered_at, seen_at)"
        " values (%s, '{default}', %s, clock_timestamp(), clock_timestamp())",
        [id, list(lanes)],
    )


def test_s54_s83_work_of_a_version_that_no_living_worker_has(dsn: str, db: Connection) -> None:
    sql = Sql(db)
    old = Worker(sql, "old", ["f"])
    for n in range(3):
        sql.start(f"a-{n}", "f")
    old.claim()
    for n in range(3):
        old.wait_for(f"a-{n}")
    sql.resolve("a-0~approval", True)
    sql.leave("old")
    other = Worker(sql, "other", ["g"])
    sql.start("b", "g")
    other.claim()
    other.wait_for("b")
    sql.leave("other")
    living(db, "f", "f@2", id="new")
    ill = found(dsn)
    assert ill["ready work"].grade == "problem"
    assert "f@1 in queue default (1 ready, for" in ill["ready work"].sentence
    assert ill["waiting versions"].grade == "warning"
    assert (
        "f@1 in queue default (2 suspended), g@1 in queue default (1 suspended)"
        in ill["waiting versions"].sentence
    )
    assert "g@1" not in ill["ready work"].sentence
    assert "version" in (ill["waiting versions"].advice or "")
    [row] = sql.query(
        "select lane, ready, suspended, known, oldest_ready_at is not null as since from queues where lane = 'f@1'"
    )
    assert row == {"lane": "f@1", "ready": 1, "suspended": 2, "known": False, "since": True}
    living(db, "f@1", "g@1", id="both")
    well = found(dsn)
    assert well["ready work"].grade == "ok"
    assert "waiting versions" not in well


def test_work_that_is_to_be_claimed_alone_is_of_the_same_lane(dsn: str, db: Connection) -> None:
    db.execute("select start('a', 'f'), start('b', 'f')")
    db.execute("update task set lane = 'f!' where id = 'b'")
    assert "f in queue default (2 ready, for" in found(dsn)["ready work"].sentence
    living(db, "f")
    assert found(dsn)["ready work"].grade == "ok"


def test_s48_what_a_workflow_waits_for_and_since_when(db: Connection) -> None:
    sql = Sql(db)
    worker = Worker(sql)
    sql.start("a", "f")
    sql.start("late", "f", delay="1 hour")
    sql.create_promise("theirs")
    [claimed] = worker.claim()
    began = db.execute("select started_at from task where id = 'a'").fetchone()
    worker.advance(turn("a", 1, 0), outcomes=[step("a", "look")])
    worker.advance(
        turn("a", 1, 1, "suspend"),
        operations=[promise("a", "approval", 0), wait("a", "theirs", "theirs", 1)],
        timers=[timer("a", "timer", 3_600_000_000, 1), {**timer("a", "send", 9_000_000, 1), "kind": "retry"}],
    )
    db.execute(
        "insert into attempt (task, operation, number, epoch, started_at) values"
        " ('a', 'send', 1, 1, clock_timestamp()), ('a', 'send', 2, 1, clock_timestamp())"
    )
    [row] = sql.query("select waits, state, started_at, kept_by from tasks where id = 'a'")
    assert (row["state"], row["started_at"], row["kept_by"]) == ("suspended", (began or [None])[0], None)
    waits = {each["operation"]: each for each in row["waits"]}
    [event] = sql.query("select at from checkpoint where task = 'a' and seq = 1")

    def since(operation: str) -> datetime:
        return datetime.fromisoformat(waits[operation]["since"])

    assert {name: each["kind"] for name, each in waits.items()} == {
        "approval": "promise", "theirs": "wait", "timer": "timer", "send": "retry",
    }  # fmt: skip
    assert since("approval") == row["started_at"]
    assert since("theirs") == since("timer") == since("send") == event["at"]
    assert (waits["approval"]["promise"], waits["theirs"]["promise"]) == ("a~approval", "theirs")
    assert waits["send"]["attempt"] == 2
    assert "attempt" not in waits["timer"]
    assert "fire_at" in waits["timer"]
    [late] = sql.query("select waits from tasks where id = 'late'")
    assert [(each["kind"], "since" in each) for each in late["waits"]] == [("delay", False)]
    assert claimed["task"] == "a"


def test_closings_that_do_not_go_on(dsn: str, db: Connection) -> None:
    db.execute("insert into closing (id, since) values ('a', clock_timestamp())")
    assert found(dsn)["closings"].grade == "ok"
    db.execute(
        "insert into closing (id, since) select 'b-' || n, clock_timestamp() - interval '5 minutes' from generate_series(1, 6) n"
    )
    check = found(dsn)["closings"]
    assert check.grade == "warning"
    assert "6 workflows have left something open that nobody cancels" in check.sentence
    assert "5 min: b-1, b-2, b-3, b-4, b-5 and 1 more" in check.sentence
    db.execute("delete from closing")


@pytest.mark.broken_on_purpose("a worker that beats and holds a task for ever")
def test_a_worker_that_beats_and_does_not_take_in_news_is_blocked(dsn: str, db: Connection) -> None:
    sql = Sql(db)
    worker = Worker(sql)
    sql.start("a", "f")
    worker.claim()
    worker.advance(turn("a", 1, 0), operations=[promise("a", "approval", 0)])
    assert "blocked workers" not in found(dsn)
    sql.resolve("a~approval", True)
    assert "blocked workers" not in found(dsn), "it has had no time yet"
    db.execute("update task set last_at = last_at - interval '2 minutes'")
    check = found(dsn)["blocked workers"]
    assert check.grade == "warning"
    assert "w1 (2 min" in check.sentence
    assert "names the line" in (check.advice or "")
    db.execute("update worker set seen_at = seen_at - interval '1 hour'")
    assert "blocked workers" not in found(dsn), "it is silent, which is said elsewhere"


def test_whoever_may_write_tables_is_named(dsn: str, db: Connection) -> None:
    db.execute("grant update on promise to public")
    check = found(dsn)["tables"]
    db.execute("revoke update on promise from public")
    assert check.grade == "problem"
    assert "PUBLIC may write tables (promise)" in check.sentence


def test_dead_rows_that_pile_up(dsn: str, db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("troth.cli.checks.DEAD_ROWS_MAX", 20)
    db.execute("vacuum task")
    db.execute("select start('w' || n, 'f') from generate_series(1, 21) n")
    assert found(dsn)["vacuum"].grade == "ok"
    db.execute("select cancel('w' || n) from generate_series(1, 21) n")
    db.execute("select pg_stat_force_next_flush()")
    check = found(dsn)["vacuum"]
    assert check.grade == "warning"
    assert re.search(r"pile up: \d\d in task\.", check.sentence)
    db.execute("vacuum task")
    assert found(dsn)["vacuum"].grade == "ok"


def test_roles_that_are_not_there(dsn: str, db: Connection) -> None:
    troth("migrate", "--schema", "bare", "--no-roles", dsn=dsn)
    check = found(dsn, "bare")["roles"]
    assert check.grade == "warning"
    assert "bare_owner, bare_client, bare_worker, bare_admin" in check.sentence
    db.execute("drop schema bare cascade")


def test_what_a_user_may_not_look_at_is_said_and_the_rest_goes_on(dsn: str, db: Connection) -> None:
    db.execute("drop role if exists troth_test_stranger")
    db.execute("create role troth_test_stranger login password 'x'")
    try:
        ill = found(make_conninfo(dsn, user="troth_test_stranger", password="x"))
        assert ill["schema"].grade == "ok"
        assert ill["halted"].grade == "warning"
        assert "may not look" in ill["halted"].sentence
    finally:
        db.execute("drop role troth_test_stranger")


@pytest.fixture
def deaf(dsn: str) -> Iterator[str]:
    """A DSN through which statements pass and notifications do not, as with a pooler in transaction mode."""
    parts = conninfo_to_dict(dsn)
    target = (str(parts.get("host", "127.0.0.1")), int(parts.get("port") or 5432))
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket, *, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                # In an idle session a notification comes as a message of its own: A, length, pid, channel, payload.
                if not (answers and data.startswith(b"A\0\0\0")):
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            with closing(source), closing(sink):
                pass

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(target)
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=pump, args=(source, sink), kwargs={"answers": answers}, daemon=True
                ).start()

    threading.Thread(target=accept, daemon=True).start()
    host, port = listener.getsockname()[:2]
    yield make_conninfo(dsn, host=host, port=port, sslmode="disable", gssencmode="disable")
    listener.close()


def test_a_pooler_that_swallows_notifications_is_warned_of(deaf: str) -> None:
    check = found(deaf)["listen"]
    assert check.grade == "warning"
    assert "did not arrive within 2 s" in check.sentence
    assert "listen_dsn" in (check.advice or "")


def test_clocks_that_differ(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("troth.cli.checks.CLOCK_SECONDS_MAX", -1.0)
    check = found(dsn)["clock"]
    assert check.grade == "warning"
    assert "NTP" in (check.advice or "")
