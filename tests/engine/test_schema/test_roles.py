"""Who owns the namespace, who may call what, and what happens where the migrating user may not make roles."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from tests.engine.test_schema.conftest import Cluster, Folders, catalog, execute, owners
from troth.errors import DatabaseError, InvalidArgument
from troth.schema import check, migrate


def name_of(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["user"])


def test_each_role_may_do_its_part_and_no_more(database: str, schema: str, folders: Folders) -> None:
    report = folders.migrate(database, schema)
    may = {
        "client": {"size", "things"},
        "worker": {"add", "things"},
        "admin": {"size", "add", "things"},
        "nobody": set[str](),
    }
    tries = {
        "size": f"select {schema}.size('a')",
        "add": f"select {schema}.add('a' || random())",
        "things": f"select * from {schema}.things",
        "_rounded": f"select {schema}._rounded(1)",
        "read the table": f"select * from {schema}.thing",
        "write the table": f"insert into {schema}.thing values ('x', 1)",
        "empty the table": f"truncate {schema}.thing",
        "change the table": f"alter table {schema}.thing add note text",
        "change the version": f"update {schema}.troth_version set version_num = '9'",
        "add to the schema": f"create table {schema}.mine (id text)",
        "replace a function": f"drop function {schema}.size",
        "read the version": f"select * from {schema}.troth_version",
    }

    for who, allowed in may.items():
        role = f"{schema}_{who}" if who != "nobody" else "pg_monitor"
        done = set[str]()
        for what, statement in tries.items():
            try:
                execute(database, statement, role=role)
                done.add(what)
            except errors.InsufficientPrivilege:
                pass
        assert (who, done) == (who, allowed)

    assert (report.owner, report.skipped) == (f"{schema}_owner", ())
    assert report.roles == {each: f"{schema}_{each}" for each in ("client", "worker", "admin")}
    logins = (
        "select count(*) from pg_roles where rolname like %s and (rolcanlogin or rolsuper or rolcreaterole)"
    )
    assert execute(database, logins, f"{schema}_%") == [(0,)]


def test_everything_belongs_to_the_owner(database: str, schema: str) -> None:
    migrate(database, schema)

    assert owners(database, schema) == {f"{schema}_owner"}
    assert execute(
        database, "select nspowner::regrole::text from pg_namespace where nspname = %s", schema
    ) == [(f"{schema}_owner",)]


def test_an_entry_sees_the_namespace_whatever_the_callers_path(
    database: str, schema: str, folders: Folders
) -> None:
    folders.migrate(database, schema)
    execute(database, f"select {schema}.add('a', 7)")

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create temp table thing (id text, size int); insert into thing values ('a', 666)")
        assert connection.execute(f"select {schema}.size('a')".encode()).fetchone() == (7,)


def test_a_user_who_may_not_make_roles_owns_it(
    cluster: Cluster, database: str, schema: str, folders: Folders
) -> None:
    person = cluster.person(database)
    report = folders.migrate(person, schema)
    again = folders.migrate(person, schema)

    assert owners(database, schema) == {name_of(person)}
    assert report.owner == again.owner == name_of(person)
    assert report.roles == {}
    assert report.skipped == again.skipped
    assert (
        report.skipped[0]
        == f"role {schema}_owner: {name_of(person)} may not create roles; {name_of(person)} owns the schema"
    )
    assert "--grant client=ROLE" in report.skipped[1]
    public = "select has_function_privilege('pg_monitor', %s, 'execute')"
    assert execute(database, public, f"{schema}.size(text)") == [(False,)]
    assert check(person, schema, migrations=folders.migrations, sql=folders.sql).kind == "current"


def test_asking_for_roles_that_cannot_be_made_is_refused(
    cluster: Cluster, database: str, schema: str, folders: Folders
) -> None:
    with pytest.raises(DatabaseError, match=r"troth migrate --sql") as caught:
        folders.migrate(cluster.person(database), schema, roles=True)

    assert caught.value.code == "42501"


def test_a_user_with_createrole_makes_them_and_hands_over(
    cluster: Cluster, database: str, schema: str, folders: Folders
) -> None:
    person = cluster.person(database, "createrole")
    first = folders.migrate(person, schema)
    folders.revision(2, "alter table thing add note text")
    second = folders.migrate(person, schema)

    assert (first.skipped, second.skipped, second.revision) == ((), (), "0002")
    assert owners(database, schema) == {f"{schema}_owner"}


def test_a_member_of_the_owner_migrates_on(
    cluster: Cluster, database: str, schema: str, folders: Folders
) -> None:
    folders.migrate(database, schema)
    person = cluster.person(database)
    execute(database, f"grant {schema}_owner to {name_of(person)}")
    folders.revision(2, "alter table thing add note text")

    assert folders.migrate(person, schema).owner == f"{schema}_owner"
    assert owners(database, schema) == {f"{schema}_owner"}


@pytest.mark.parametrize("roles", ["auto", True, False])
def test_somebody_else_cannot_migrate_it(
    cluster: Cluster, database: str, schema: str, folders: Folders, roles: object
) -> None:
    folders.migrate(database, schema)

    with pytest.raises(DatabaseError, match="Migrate as a member of the schema's owner"):
        folders.migrate(cluster.person(database), schema, roles=roles)


def test_roles_of_another_database_that_one_is_no_member_of(
    cluster: Cluster, database: str, schema: str, folders: Folders
) -> None:
    folders.migrate(database, schema)
    elsewhere = cluster.database()
    person = cluster.person(elsewhere)
    report = folders.migrate(person, schema)

    assert report.owner == name_of(person)
    assert f"{name_of(person)} is not a member of {schema}_owner" in report.skipped[0]


def test_a_superuser_takes_over_what_a_user_began(
    cluster: Cluster, database: str, schema: str, folders: Folders
) -> None:
    folders.migrate(cluster.person(database), schema)
    execute(database, f"select {schema}.add('a', 7)")
    folders.migrate(database, schema, roles=True)
    folders.migrate(database, f"{schema}_b")

    assert owners(database, schema) == {f"{schema}_owner"}
    assert execute(database, f"select {schema}.size('a')", role=f"{schema}_client") == [(7,)]
    taken = catalog(database, schema).splitlines()[1:]  # the schema itself stays with whoever made it
    assert taken == catalog(database, f"{schema}_b").replace("SCHEMA_b", "SCHEMA").splitlines()[1:]


def test_without_roles_the_namespace_stays_with_its_owner(
    cluster: Cluster, database: str, schema: str, folders: Folders
) -> None:
    person = cluster.person(database)
    folders.migrate(person, schema)

    assert folders.migrate(database, schema, roles=False).owner == name_of(person)
    assert owners(database, schema) == {name_of(person)}


def test_existing_roles_are_granted_to(
    cluster: Cluster, database: str, schema: str, folders: Folders
) -> None:
    person, app = cluster.person(database), cluster.person(database)
    report = folders.migrate(person, schema, grants={"client": name_of(app), "worker": name_of(app)})

    assert execute(app, f"select {schema}.add('a', 7)") == [(7,)]
    assert execute(app, f"select {schema}.size('a')") == [(7,)]
    assert execute(app, f"select * from {schema}.things") == [("a", 7)]
    assert report.roles == {"client": name_of(app), "worker": name_of(app)}
    assert execute(database, "select from pg_roles where rolname like %s", f"{schema}_%") == []


def test_an_existing_owner_is_used(cluster: Cluster, database: str, schema: str, folders: Folders) -> None:
    owner = name_of(cluster.person(database))

    assert folders.migrate(database, schema, grants={"owner": owner}).owner == owner
    assert owners(database, schema) == {owner}


@pytest.mark.parametrize("grants", [{"everybody": "app"}, {"client": ""}])
def test_a_grant_that_cannot_be_read(
    database: str, schema: str, folders: Folders, grants: dict[str, str]
) -> None:
    with pytest.raises(InvalidArgument):
        folders.migrate(database, schema, grants=grants)


def test_a_grant_to_a_role_that_is_not_there(database: str, schema: str, folders: Folders) -> None:
    with pytest.raises(DatabaseError, match='role "no one" does not exist'):
        folders.migrate(database, schema, grants={"client": "no one"})
