"""The script for a DBA leaves what a program would have left."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_schema.conftest import Cluster, Folders, catalog, execute
from troth.dev.binaries import find_binaries
from troth.errors import InvalidArgument
from troth.schema import check, migrate, offline_sql

FUNCTIONS = "select pg_get_functiondef(oid) from pg_proc where pronamespace = %s::regnamespace order by 1"


def apply(dsn: str, script: str, folder: Path) -> str:
    """Apply a script as a DBA would; what psql said of errors."""
    (folder / "migration.sql").write_text(script)
    psql = find_binaries().directory / "psql"
    command = [str(psql) if psql.exists() else "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f"]
    done = subprocess.run(
        [*command, str(folder / "migration.sql")], capture_output=True, text=True, timeout=60
    )
    return done.stderr


@pytest.mark.parametrize("options", [{"roles": True}, {"roles": False}, {"grants": {"client": "pg_monitor"}}])
def test_the_script_leaves_what_a_migration_leaves(
    cluster: Cluster, database: str, schema: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    online = cluster.database()
    migrate(online, schema, **options)

    assert apply(database, offline_sql(schema, **options), tmp_path) == ""
    assert catalog(database, schema) == catalog(online, schema)
    assert execute(database, FUNCTIONS, schema) == execute(online, FUNCTIONS, schema)
    assert check(database, schema).kind == "current"


def test_a_migration_goes_on_from_the_script_and_the_script_from_a_migration(
    cluster: Cluster, database: str, schema: str, folders: Folders, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"migrations": folders.migrations, "sql": folders.sql}
    online = cluster.database()
    apply(online, offline_sql(schema, **where), tmp_path)
    folders.migrate(database, schema)
    execute(database, f"grant select on {schema}.things to pg_monitor")
    execute(online, f"grant select on {schema}.things to pg_monitor")
    folders.revision(2, "alter table thing alter size type bigint")
    folders.function(
        "thing/size.sql",
        (folders.sql / "thing/size.sql").read_text().replace("returns integer", "returns bigint"),
    )
    (folders.sql / "thing/add.sql").unlink()

    assert apply(database, offline_sql(schema, start="0001", **where), tmp_path) == ""
    assert folders.migrate(online, schema).revision_before == "0001"
    assert catalog(database, schema) == catalog(online, schema)
    assert "function add" not in catalog(database, schema)
    assert "pg_monitor" in catalog(database, schema)


def test_functions_alone(database: str, schema: str, folders: Folders, tmp_path: Path) -> None:
    folders.migrate(database, schema)
    folders.function("thing/more.sql", "create function _more() returns int language sql as 'select 1';")
    script = offline_sql(schema, start="0001", migrations=folders.migrations, sql=folders.sql)

    assert "create table" not in script
    assert apply(database, script, tmp_path) == ""
    assert check(database, schema, migrations=folders.migrations, sql=folders.sql).kind == "current"


def test_a_script_that_fails_leaves_nothing(
    database: str, schema: str, folders: Folders, tmp_path: Path
) -> None:
    folders.function("view/things.sql", "create view things as select missing from thing")
    script = offline_sql(schema, migrations=folders.migrations, sql=folders.sql)

    assert "missing" in apply(database, script, tmp_path)
    assert execute(database, "select from pg_namespace where nspname = %s", schema) == []


def test_an_unknown_start(schema: str) -> None:
    with pytest.raises(InvalidArgument, match="'0000' is no revision: known are 0001"):
        offline_sql(schema, start="0000")
