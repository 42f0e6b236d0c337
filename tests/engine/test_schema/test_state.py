"""What a namespace is, compared with what the code needs, in one sentence that says what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.engine.test_schema.conftest import Cluster, Folders, execute
from troth.errors import SchemaMismatch
from troth.schema import State, check, excluding, include_name, locations
from troth.schema.files import revisions
from troth.schema.state import Kind


@pytest.fixture
def look(database: str, schema: str, folders: Folders) -> Callable[[], State]:
    def checked() -> State:
        return check(database, schema, migrations=folders.migrations, sql=folders.sql)

    return checked


def test_from_missing_to_ahead(
    database: str, schema: str, folders: Folders, look: Callable[[], State]
) -> None:
    run = f"run `troth migrate --schema {schema}`."
    assert look().sentence == f'The schema "{schema}" has no Troth in this database: {run}'
    execute(database, f"create schema {schema}")
    assert look().kind == "missing"
    folders.migrate(database, schema)
    assert look().sentence == f'The schema "{schema}" is at revision 0001, with the functions of this Troth.'
    folders.function("thing/more.sql", "create function _more() returns int language sql as 'select 1';")
    assert look().sentence == (
        f'The schema "{schema}" has the tables of this Troth, but not its functions: {run}'
    )
    folders.revision(2, "alter table thing add note text")
    assert look().sentence == (f'The schema "{schema}" is at revision 0001 and this Troth needs 0002: {run}')
    folders.migrate(database, schema)
    assert look().kind == "current"
    (folders.migrations / "versions" / "0002_test.py").unlink()
    assert look().sentence == (
        f'The schema "{schema}" is at revision 0002, newer than this Troth, which knows 0001: upgrade the package.'
    )


@pytest.mark.parametrize(
    ("kind", "speaks"),
    [("missing", False), ("behind", False), ("ahead", False), ("differs", True), ("current", True)],
)
def test_only_known_tables_are_spoken_to(kind: Kind, speaks: bool) -> None:
    state = State(kind, "troth", "0001", "0002")

    if speaks:
        state.require()
    else:
        with pytest.raises(SchemaMismatch):
            state.require()


def test_anybody_may_check(cluster: Cluster, database: str, schema: str, folders: Folders) -> None:
    folders.migrate(database, schema)
    person = cluster.person(database)

    assert check(person, schema, migrations=folders.migrations, sql=folders.sql).kind == "current"


def test_revisions_are_one_line_of_numbers() -> None:
    """`check` reads the revisions off the files' names; Alembic must read the same off what stands in them."""
    config = Config()
    config.set_main_option("script_location", str(locations().migrations))
    chain = [revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()]

    assert tuple(reversed(chain)) == revisions()


def test_users_autogenerate_leaves_namespaces_alone() -> None:
    assert not include_name("troth", "schema", {})
    assert not include_name("task", "table", {"schema_name": "troth"})
    assert include_name("task", "table", {"schema_name": None})
    assert include_name(None, "schema", {})
    assert include_name("app", "schema", {})
    assert not excluding("a", "b")("b", "schema", {})
    assert excluding("a", "b")("troth", "schema", {})


def test_looking_at_the_state_imports_no_alembic() -> None:
    code = (
        "import sys, troth.schema as s; s.judge('troth', None); s.query('troth');"
        "print([m for m in ('alembic', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )

    assert done.stdout.strip() == "[]"
