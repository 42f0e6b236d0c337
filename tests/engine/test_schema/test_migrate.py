"""One transaction that brings a namespace to what the code needs, however many ask for it at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.engine.test_schema.conftest import Cluster, Folders, execute
from troth.errors import DatabaseError, InvalidArgument, SchemaMismatch, Unreachable
from troth.schema import MigrateReport, check, migrate
from troth.schema.script import lock


def at_once(*places: tuple[str, str]) -> list[MigrateReport]:
    """Migrate all of these at the same moment, with the real tables and functions."""
    barrier = Barrier(len(places))

    def one(place: tuple[str, str]) -> MigrateReport:
        barrier.wait()
        return migrate(*place, roles=True)

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, places))


def test_migrating_twice_makes_then_keeps(database: str, schema: str) -> None:
    identities = "select oid, proname from pg_proc where pronamespace = %s::regnamespace order by oid"

    first = migrate(database, schema)
    made = execute(database, identities, schema)
    second = migrate(database, schema)

    assert (first.revision_before, second.revision_before) == (None, first.revision)
    assert first.functions == second.functions == len(made) > 0
    assert execute(database, identities, schema) == made
    assert check(database, schema).kind == "current"


def test_four_at_once_on_an_empty_database(database: str, schema: str) -> None:
    reports = at_once(*[(database, schema)] * 4)

    assert sorted(report.revision_before or "" for report in reports) == ["", *[reports[0].revision] * 3]
    assert execute(database, f"select version_num from {schema}.troth_version") == [(reports[0].revision,)]


def test_four_at_once_where_transactions_are_serializable_by_default(database: str, schema: str) -> None:
    strict = make_conninfo(
        database, options="-c default_transaction_isolation=serializable -c default_transaction_read_only=on"
    )

    assert len(at_once(*[(strict, schema)] * 4)) == 4
    assert check(strict, schema).kind == "current"


def test_two_databases_at_once_share_the_roles(cluster: Cluster, schema: str) -> None:
    databases = [cluster.database(), cluster.database(), cluster.database()]

    at_once(*[(each, schema) for each in databases])

    assert [check(each, schema).kind for each in databases] == ["current"] * 3


def test_two_namespaces_in_one_database_share_nothing(database: str, schema: str, folders: Folders) -> None:
    for each in (schema, f"{schema}_b"):
        folders.migrate(database, each)
    execute(database, f"select {schema}.add('a', 7)")

    assert execute(database, f"select {schema}.size('a'), {schema}_b.size('a')") == [(7, None)]
    assert not execute(
        database,
        """select from pg_depend d join pg_class c on c.oid = d.objid join pg_class r on r.oid = d.refobjid
            where c.relnamespace = %s::regnamespace and r.relnamespace = %s::regnamespace""",
        schema,
        f"{schema}_b",
    )


def test_a_schema_named_like_a_keyword(database: str, folders: Folders) -> None:
    folders.migrate(database, "user", roles=False)
    folders.migrate(database, "user", roles=False)

    assert execute(database, "select \"user\".add('a')") == [(1,)]


def test_a_failing_function_leaves_nothing(database: str, schema: str, folders: Folders) -> None:
    folders.function("thing/broken.sql", "create function _broken() returns nothing language sql as '';")

    with pytest.raises(DatabaseError, match=r'sql/thing/broken.sql: type "nothing" does not exist') as caught:
        folders.migrate(database, schema)

    assert caught.value.code == "42704"
    assert execute(database, "select from pg_namespace where nspname = %s", schema) == []
    assert execute(database, "select from pg_roles where rolname like %s", f"{schema}_%") == []


def test_a_failing_revision_leaves_what_was_there(database: str, schema: str, folders: Folders) -> None:
    folders.migrate(database, schema)
    folders.revision(2, "create table other (id text); select 1/0")
    folders.function("thing/more.sql", "create function _more() returns int language sql as 'select 1';")

    with pytest.raises(DatabaseError, match="migrations: division by zero"):
        folders.migrate(database, schema)

    assert check(database, schema, migrations=folders.migrations).revision == "0001"
    assert execute(database, "select to_regclass(%s)", f"{schema}.other") == [(None,)]
    assert execute(database, f"select {schema}.add('a')") == [(1,)]


def test_signs_in_revisions_mean_what_they_say(database: str, schema: str, folders: Folders) -> None:
    folders.revision(
        2, "alter table thing add note text default '50%'; comment on table thing is 'a::b %s {c}'"
    )
    folders.migrate(database, schema)

    execute(database, f"select {schema}.add('a')")
    assert execute(
        database, f"select note, obj_description('{schema}.thing'::regclass) from {schema}.thing"
    ) == [("50%", "a::b %s {c}")]


def test_newer_tables_are_left_alone(database: str, schema: str, folders: Folders) -> None:
    folders.revision(2, "alter table thing add note text")
    folders.migrate(database, schema)
    (folders.migrations / "versions" / "0002_test.py").unlink()

    with pytest.raises(SchemaMismatch, match="at revision 0002, newer than this Troth, which knows 0001"):
        folders.migrate(database, schema)


def test_somebody_elses_schema_is_refused(database: str, schema: str, folders: Folders) -> None:
    execute(database, f"create schema {schema}")
    execute(database, f"create table {schema}.task (id int)")

    with pytest.raises(SchemaMismatch, match=r"holds tables that are not Troth's \(task, for one\)"):
        folders.migrate(database, schema)


def test_an_empty_schema_made_beforehand_is_used(database: str, schema: str, folders: Folders) -> None:
    execute(database, f"create schema {schema}")

    assert folders.migrate(database, schema).owner == f"{schema}_owner"


@pytest.mark.parametrize("name", ["", "Troth", "public", "pg_troth", "a" * 52, "1st", 'a"b', "a b", "a\n"])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidArgument):
        migrate("postgresql://nowhere.invalid/x", name)


def test_unreachable_says_where_and_not_the_password() -> None:
    with pytest.raises(
        Unreachable, match=r"Postgres at 127.0.0.1:1, database db cannot be reached: "
    ) as caught:
        migrate("postgresql://user:hush@127.0.0.1:1/db")

    assert "hush" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("dsn", ["", "postgresql+asyncpg://me:hush@localhost/db", "hush"])
def test_a_dsn_that_cannot_be_read_is_not_repeated(dsn: str) -> None:
    with pytest.raises(InvalidArgument, match="The DSN cannot be read") as caught:
        check(dsn)

    assert "hush" not in str(caught.value)


def test_a_dsn_of_keywords(database: str, schema: str, folders: Folders) -> None:
    keywords = " ".join(f"{name}='{value}'" for name, value in conninfo_to_dict(database).items())

    assert folders.migrate(keywords, schema).revision == "0001"


def test_a_connection_that_is_lost_ends_in_a_sentence(database: str, schema: str, folders: Folders) -> None:
    with psycopg.connect(database) as other, ThreadPoolExecutor(1) as pool:
        other.execute(lock().encode())
        migration = pool.submit(folders.migrate, database, schema)
        ended = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'advisory' and datname = %s"
        while not execute(database, ended, conninfo_to_dict(database)["dbname"]):
            sleep(0.01)

        with pytest.raises(Unreachable, match=r"The connection to Postgres was lost: .* migrate again"):
            migration.result(timeout=60)


def test_a_held_lock_ends_in_a_sentence(
    database: str, schema: str, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("troth.schema.script.LOCK_TIMEOUT_SECONDS", 1)
    folders.migrate(database, schema)
    folders.revision(2, "alter table thing add note text")

    with psycopg.connect(database) as reader:
        reader.execute(f"select from {schema}.things".encode())
        with pytest.raises(DatabaseError, match="Somebody's transaction stands in the way"):
            folders.migrate(database, schema)
    assert folders.migrate(database, schema).revision == "0002"
