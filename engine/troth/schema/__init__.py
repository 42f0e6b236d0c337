"""A namespace in Postgres: where its tables and functions come from, and whether it is what this code needs.

Tables are Alembic revisions under `migrations/`, changed once and never edited. Functions are files under `sql/`,
loaded whole at every migration, so the text of any of them can be read in one place. Nothing above this package
knows that Alembic exists, and nothing here knows what the functions do.

`migrate`, `check` and `offline_sql` bring Alembic with them, so they are imported when first asked for: a client that
only wants to know which schema it speaks to (`query`, `judge`) does not pay for it.
"""

from typing import TYPE_CHECKING, Any

from troth.schema.files import Locations, MisplacedSql, SqlFile, locations, sql_files
from troth.schema.names import DEFAULT_SCHEMA, VERSION_TABLE, checked, excluding, include_name
from troth.schema.state import State, judge, query

if TYPE_CHECKING:
    from troth.schema.apply import MigrateReport, check, migrate, offline_sql

__all__ = [
    "DEFAULT_SCHEMA",
    "VERSION_TABLE",
    "Locations",
    "MigrateReport",
    "MisplacedSql",
    "SqlFile",
    "State",
    "check",
    "checked",
    "excluding",
    "include_name",
    "judge",
    "locations",
    "migrate",
    "offline_sql",
    "query",
    "sql_files",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from troth.schema import apply

    return getattr(apply, name)
