"""The functions are loaded whole, over whatever an earlier version left, beside whoever is calling them."""

from __future__ import annotations

from secrets import token_hex
from threading import Event, Thread

import psycopg
import pytest

from tests.engine.test_schema.conftest import ADD, SIZE, THINGS, Folders, catalog, execute
from troth.errors import DatabaseError
from troth.schema import MisplacedSql, locations, sql_files


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("thing/size.sql", SIZE.replace("returns integer", "returns bigint")),
        ("thing/size.sql", SIZE.replace("p_id text", "p_name text").replace("= p_id", "= p_name")),
        ("thing/add.sql", ADD.replace(" default 1", "")),
        ("thing/add.sql", ADD.replace("p_size integer default 1", "p_size smallint default 1")),
        ("internal/rounded.sql", "create view rounded as select 1 as one;"),
        ("view/things.sql", "create view things as select size::bigint as size from thing;"),
        ("view/things.sql", "create view others as select id from thing;"),
    ],
)
def test_what_changes_is_as_if_made_anew(
    database: str, schema: str, folders: Folders, path: str, text: str
) -> None:
    folders.migrate(database, schema)
    folders.function(path, text)
    folders.migrate(database, schema)
    folders.migrate(database, f"{schema}_b")

    changed = catalog(database, schema)
    assert changed == catalog(database, f"{schema}_b").replace("SCHEMA_b", "SCHEMA")


def test_what_no_file_defines_goes_and_what_users_made_stays(
    database: str, schema: str, folders: Folders
) -> None:
    folders.migrate(database, schema)
    execute(database, f"create function {schema}.mine() returns int language sql as 'select 1'")
    execute(database, f"create view {schema}.my_view as select 1 as one")
    (folders.sql / "thing/size.sql").unlink()
    (folders.sql / "view/things.sql").unlink()
    folders.function(
        "thing/add.sql", ADD.replace("p_size integer default 1", "p_size integer, p_more integer")
    )
    folders.migrate(database, schema)

    functions = "select oid::regprocedure::text from pg_proc where pronamespace = %s::regnamespace order by 1"
    assert [row[0].removeprefix(f"{schema}.") for row in execute(database, functions, schema)] == [
        "_rounded(integer)",
        "add(text,integer,integer)",
        "mine()",
    ]
    views = "select relname from pg_class where relkind = 'v' and relnamespace = %s::regnamespace"
    assert execute(database, views, schema) == [("my_view",)]


def test_a_function_of_two_forms_in_two_files(database: str, schema: str, folders: Folders) -> None:
    folders.function("thing/also.sql", SIZE.replace("p_id text", "p_id text, p_scale integer"))
    folders.migrate(database, schema)
    folders.function("thing/size.sql", SIZE.replace("returns integer", "returns bigint"))
    folders.migrate(database, schema)

    forms = "select count(*) from pg_proc where pronamespace = %s::regnamespace and proname = 'size'"
    assert execute(database, forms, schema) == [(2,)]


def test_comments_of_the_files_stay_behind_the_tag(database: str, schema: str, folders: Folders) -> None:
    folders.function("thing/size.sql", SIZE + "comment on function size(text) is 'How large.';\n")
    folders.migrate(database, schema)
    folders.migrate(database, schema)

    comments = "select obj_description(%s::regprocedure), obj_description(%s::regclass)"
    assert execute(database, comments, f"{schema}.size(text)", f"{schema}.things") == [
        ("troth: How large.", "troth:")
    ]


def test_what_others_were_granted_by_hand_is_kept(database: str, schema: str, folders: Folders) -> None:
    folders.migrate(database, schema)
    execute(database, f"grant execute on function {schema}.size to pg_monitor")
    execute(database, f"grant select on {schema}.things to pg_monitor, public")
    folders.revision(2, "alter table thing alter size type bigint")
    folders.function("thing/size.sql", SIZE.replace("returns integer", "returns bigint"))
    folders.migrate(database, schema)

    can = "select has_function_privilege('pg_monitor', %s, 'execute'), has_table_privilege('pg_monitor', %s, 'select')"
    assert execute(database, can, f"{schema}.size(text)", f"{schema}.things") == [(True, True)]


def test_what_a_file_grants_no_more_is_taken_back(database: str, schema: str, folders: Folders) -> None:
    folders.migrate(database, schema)
    folders.function("thing/size.sql", SIZE.replace("grant: client", "grant: worker"))
    folders.migrate(database, schema)

    can = "select has_function_privilege(%s, %s, 'execute')"
    assert execute(database, can, f"{schema}_client", f"{schema}.size(text)") == [(False,)]
    assert execute(database, can, f"{schema}_worker", f"{schema}.size(text)") == [(True,)]


def test_a_users_view_on_ours_stands_through_a_reload_and_is_named_if_tables_change(
    database: str, schema: str, folders: Folders
) -> None:
    folders.migrate(database, schema)
    execute(database, f"create view public.board as select id from {schema}.things")
    folders.function("view/things.sql", THINGS.replace("id, size", "id, size, size * 2 as double"))
    folders.migrate(database, schema)
    folders.revision(2, "alter table thing add note text")

    with pytest.raises(DatabaseError, match=r"view public\.board depends on view things"):
        folders.migrate(database, schema)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SIZE.replace("security definer ", ""),
            r"size\(text\) is not security definer",
        ),
        (SIZE.replace("set search_path from current", ""), "does not pin its path"),
        (SIZE.replace("from current", "= pg_catalog"), "does not pin its path"),
        (
            SIZE.replace("-- grant: client\n", "").replace("size(", "_size("),
            "is a helper and must not be security definer",
        ),
    ],
)
def test_an_entry_that_would_run_with_its_callers_rights(
    database: str, schema: str, folders: Folders, text: str, message: str
) -> None:
    folders.function("thing/size.sql", text)

    with pytest.raises(DatabaseError, match=message):
        folders.migrate(database, schema)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (
            "thing/size.sql",
            SIZE.replace("-- grant: client\n", ""),
            "sql/thing/size.sql: say who may execute size",
        ),
        (
            "thing/size.sql",
            SIZE.replace("client", "everybody"),
            "client, worker and admin only, not everybody",
        ),
        ("thing/size.sql", SIZE.replace("size(", "_size("), "_size begins with _ and is a helper"),
        ("view/things.sql", "-- grant: client\n" + THINGS, "everybody may read a view"),
        ("thing/nothing.sql", "-- nothing\n", "a file defines functions, or it defines views"),
        ("thing/both.sql", THINGS + SIZE, "a file defines functions, or it defines views"),
    ],
)
def test_a_file_that_breaks_the_house_rules(folders: Folders, path: str, text: str, message: str) -> None:
    folders.function(path, text)

    with pytest.raises(MisplacedSql, match=message):
        sql_files(folders.sql)


SLOW = """-- grant: worker
create function slow() returns bigint
  language plpgsql security definer set search_path from current
as $$ begin
  return (select sum(_rounded(n)) from generate_series(1, 40) n, pg_sleep(0.002 + n * 0));
end $$;
"""


def test_callers_go_on_while_functions_are_replaced(database: str, schema: str, folders: Folders) -> None:
    """A statement that calls a helper row by row, and is prepared, outlives the helper's being replaced."""
    folders.function("thing/slow.sql", SLOW)
    folders.migrate(database, schema)
    over, failures, answers = Event(), list[psycopg.Error](), set[int]()

    def call() -> None:
        try:
            with psycopg.connect(database, autocommit=True, prepare_threshold=0) as connection:
                while not over.is_set():
                    connection.execute(f"select {schema}.add(%s)".encode(), [token_hex(8)])
                    row = connection.execute(f"select {schema}.slow()".encode()).fetchone()
                    answers.add(row[0] if row else -1)
        except psycopg.Error as error:
            failures.append(error)

    caller = Thread(target=call)
    caller.start()
    for turn in range(15):
        helper = f"begin return p_size + {turn}; end"
        folders.function(
            "internal/rounded.sql",
            f"create function _rounded(p_size integer) returns integer language plpgsql as $$ {helper} $$;",
        )
        folders.migrate(database, schema)
    over.set()
    caller.join()

    assert failures == []
    assert len(answers) > 2


def test_the_real_files_keep_the_rules() -> None:
    files = sql_files()

    assert locations().sql.is_dir()
    assert len(files) == len(list(locations().sql.rglob("*.sql")))
    assert {"start", "resolve"} <= {name for file in files for name in file.entries}
    assert all("admin" in file.audiences for file in files if file.entries and file.kind == "function")
