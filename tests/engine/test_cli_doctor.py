"""`troth doctor`: each of its checks, well and ill."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.cli import troth
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
        "halted",
    ]  # fmt: skip
    shown = troth("doctor", dsn=dsn)
    assert (shown.code, shown.err) == (0, "")
    assert "11 ok, 0 warnings, 0 problems" in shown.out


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
        ("troth: revision 0001, functions abc", "warning", "not its functions"),
    ],
)
def test_a_schema_ahead_or_differing(dsn: str, db: Connection, comment: str, grade: str, said: str) -> None:
    [noted] = db.execute("select obj_description('troth_version'::regclass)").fetchone() or [""]
    try:
        db.execute(sql.SQL("comment on table troth_version is {}").format(comment))
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
    assert "f in queue default (1 ready)" in check.sentence
    assert "f in queue slow (1 ready)" in check.sentence
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


def test_halted_workflows_with_their_reasons(dsn: str, db: Connection) -> None:
    db.execute("select start(format('a-%s', n), 'f') from generate_series(1, 7) n")
    db.execute("select halt(format('a-%s', n), 'look') from generate_series(1, 7) n")
    check = found(dsn)["halted"]
    assert check.grade == "warning"
    assert "a-1 (operator: look)" in check.sentence
    assert "and more" in check.sentence


def test_whoever_may_write_tables_is_named(dsn: str, db: Connection) -> None:
    db.execute("grant update on promise to public")
    check = found(dsn)["tables"]
    db.execute("revoke update on promise from public")
    assert check.grade == "problem"
    assert "PUBLIC may write tables (promise)" in check.sentence


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
