"""Who may do what: S86, and the isolation levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql as composed

from tests.support.postgres import TABLES
from tests.support.sql import Sql, Worker, promise, step, turn

CLIENT = {
    "start", "start_each", "start_many", "start_together", "create_promise", "resolve", "reject", "cancel", "settle_many", "get",
    "settled", "search", "tree", "journal", "record", "protocol",
}  # fmt: skip
WORKER = CLIENT | {"register", "claim", "advance", "commit_step", "heartbeat", "tick", "leave"}
ADMIN = WORKER | {"halt", "resume", "cancel_force", "fork", "settle_step", "import_journal", "purge"}
ROLES = {"client": CLIENT, "worker": WORKER, "admin": ADMIN}


@pytest.fixture
def as_role(another: Callable[..., Sql]) -> Callable[[str], Sql]:
    """A session that is nothing but a member of the role."""

    def become(role: str) -> Sql:
        session = another()
        session.query(f"set session authorization troth_{role}")
        return session

    return become


def entries(sql: Sql) -> set[str]:
    rows = sql.query(
        "select proname from pg_proc where pronamespace = 'troth'::regnamespace and not starts_with(proname, '_')"
    )
    return {each["proname"] for each in rows}


@pytest.mark.parametrize("role", ROLES)
def test_each_role_executes_its_functions_and_no_other(sql: Sql, role: str) -> None:
    allowed = sql.query(
        """select proname from pg_proc where pronamespace = 'troth'::regnamespace
              and has_function_privilege(%s, oid, 'execute')""",
        f"troth_{role}",
    )
    assert {each["proname"] for each in allowed} == ROLES[role]
    assert entries(sql) == ADMIN


def test_the_public_executes_nothing(sql: Sql) -> None:
    assert sql.query(
        """select p.oid::regprocedure::text from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            where pronamespace = 'troth'::regnamespace and a.grantee = 0"""
    ) == []  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_s86_no_role_touches_a_table(as_role: Callable[[str], Sql], role: str) -> None:
    session = as_role(role)
    for table in (*TABLES, "troth_version"):
        for statement in (
            "select from {}",
            "insert into {} default values",
            "update {} set ctid = null",
            "delete from {}",
            "truncate {}",
        ):
            with pytest.raises(
                (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)
            ) as caught:
                session.query(statement.format(table))
            if "ctid" not in statement:
                assert caught.value.sqlstate == "42501", (table, statement)
    for view in ("promises", "tasks", "workers", "queues", "closings"):
        assert session.query(f"select * from {view}") == []
    for ddl in (
        "create table troth.mine ()",
        "drop table troth.promise",
        "create function troth.f() returns int language sql as 'select 1'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.query(ddl)


def test_s86_everything_works_through_the_functions(as_role: Callable[[str], Sql], sql: Sql) -> None:
    client, session = as_role("client"), as_role("worker")
    worker = Worker(session)
    client.start("w", "f")
    session.register([{"name": "f", "version": 1}])
    worker.claim()
    worker.advance(turn("w", 1, 0, "suspend"), outcomes=[step("w", "s")], operations=[promise("w", "p", 1)])
    assert client.resolve("w~p", 1)["promise"]["settler"] == "troth_client"
    worker.claim()
    session.heartbeat("w1", ["w"], [2])
    session.tick()
    assert worker.finish("w", 2, 2, "done") == "ok"
    assert client.get(["w"])[0]["value"] == "done"
    assert session.leave("w1") == 0
    for verb, arguments in (("claim", ("w1", [], [], 1)), ("tick", ()), ("halt", ("w",)), ("purge", (None,))):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            client.call(verb, *arguments)
    for verb in ("halt", "resume", "cancel_force"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.call(verb, "w")
    assert as_role("admin").halt("w")["answer"] == "settled"


def test_a_path_of_the_callers_own_changes_nothing(as_role: Callable[[str], Sql], sql: Sql) -> None:
    """Somebody's temporary table of the same name is not taken for ours."""
    client = as_role("client")
    client.query("create temporary table promise (id text, state text)")
    client.query("set search_path = pg_temp, public")
    client.start("w", "f")
    assert sql.state("w") == "pending"
    assert client.query("select * from promise") == []


@pytest.mark.parametrize(("kind", "config"), [("entry", True), ("helper", False)])
def test_entries_are_pinned_and_helpers_plain(sql: Sql, kind: str, config: bool) -> None:
    rows = sql.query(
        """select proname, prosecdef, coalesce(proconfig::text, '') as config from pg_proc
            where pronamespace = 'troth'::regnamespace and starts_with(proname, '_') = %s""",
        kind == "helper",
    )
    assert len(rows) > 15
    wrong = [
        each
        for each in rows
        if each["prosecdef"] is not config or ("search_path=troth, pg_temp" in each["config"]) is not config
    ]
    assert wrong == []


@pytest.mark.unrecorded("the log of changes is made of triggers")
def test_nothing_fires_by_itself(sql: Sql) -> None:
    """No triggers, no sequences, no foreign keys: a namespace may live on any node."""
    assert sql.query("select tgname from pg_trigger where not tgisinternal") == []
    assert (
        sql.query("select relname from pg_class where relkind = 'S' and relnamespace = 'troth'::regnamespace")
        == []
    )
    assert (
        sql.query(
            "select conname from pg_constraint where contype = 'f' and connamespace = 'troth'::regnamespace"
        )
        == []
    )


# isolation levels

CALLS: dict[str, tuple[Any, ...]] = {
    "resolve": ("p",),
    "reject": ("p",),
    "cancel": ("p",),
    "settle_many": ([],),
    "claim": ("w1", ["default"], ["f"], 1),
    "advance": ([],),
    "heartbeat": ("w1", [], []),
    "tick": (),
    "leave": ("w1",),
    "register": ([],),
    "halt": ("w",),
    "resume": ("w",),
    "cancel_force": ("w",),
    "fork": ("w", "x"),
    "settle_step": ("w", "s"),
    "import_journal": ({}, []),
    "purge": (None,),
}
ANYWHERE: dict[str, tuple[Any, ...]] = {
    "start": ("x", "f"),
    "start_each": ("f", ["z"], [{}]),
    "start_many": ([],),
    "start_together": ([],),
    "create_promise": ("y",),
    "get": (["p"],),
    "settled": (["p"],),
    "search": (),
    "tree": ("w",),
    "journal": ("w",),
    "record": ("w",),
    "protocol": (),
    "commit_step": ("w", 1, "s", 0),
}


def test_every_function_is_here(sql: Sql) -> None:
    assert set(CALLS) | set(ANYWHERE) == entries(sql)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("verb", CALLS)
def test_what_changes_is_refused_with_an_old_snapshot(sql: Sql, verb: str, level: str) -> None:
    with pytest.raises(psycopg.Error) as caught, sql.connection.transaction():  # noqa: PT012
        sql.query(f"set transaction isolation level {level}")
        sql.call(verb, *CALLS[verb])
    assert caught.value.sqlstate == "25001"
    assert level.upper() in str(caught.value)


@pytest.mark.parametrize("verb", ANYWHERE)
def test_what_only_reads_or_inserts_is_allowed_anywhere(sql: Sql, verb: str) -> None:
    with sql.connection.transaction():
        sql.query("set transaction isolation level serializable")
        sql.call(verb, *ANYWHERE[verb])


@pytest.mark.parametrize("verb", ["get", "search", "tree", "journal", "record", "protocol"])
def test_what_reads_may_be_asked_of_a_standby(sql: Sql, verb: str) -> None:
    with sql.connection.transaction():
        sql.query("set transaction read only")
        sql.call(verb, *ANYWHERE[verb])


@pytest.mark.parametrize("composable", [composed.Identifier("troth", "_settle")])
def test_helpers_are_out_of_reach(as_role: Callable[[str], Sql], composable: composed.Identifier) -> None:
    session = as_role("admin")
    query = composed.SQL("select {}(null, null, null, null, null, null, 'me', now())").format(composable)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.connection.execute(query)
