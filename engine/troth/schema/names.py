"""The names a namespace is made of: its schema, its roles, its version table, and the tag on what we made.

Every one of them follows from the schema's name, so that two namespaces share nothing. A name that gets past
`checked` needs no escape anywhere; it is quoted all the same, since `user` is a name too.
"""

import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final, Literal

from troth.errors import InvalidArgument

DEFAULT_SCHEMA: Final = "troth"
VERSION_TABLE: Final = "troth_version"
# Begins the comment of every function and view that the loader made: what carries it may be dropped by it.
TAG: Final = "troth:"
# One key for all namespaces of a database: migrations are rare, and roles are shared by all of them.
ADVISORY_LOCK_KEY: Final = 0x74726F7468  # "troth"

Audience = Literal["client", "worker", "admin"]
AUDIENCES: Final[tuple[Audience, ...]] = ("client", "worker", "admin")

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,50}")
_RESERVED = frozenset({"public", "information_schema"})


def checked(schema: str) -> str:
    """The schema's name as it is, or InvalidArgument: it must be ours alone and leave room for the roles' names."""
    if not _NAME.fullmatch(schema):
        raise InvalidArgument(
            f"The schema's name is {schema!r}: use 1 to 51 lower-case letters, digits and underscores, "
            "and no digit in front."
        )
    if schema in _RESERVED or schema.startswith("pg_"):
        raise InvalidArgument(f'Troth needs a schema of its own, and "{schema}" is not one: name another.')
    return schema


def owner_role(schema: str) -> str:
    """The NOLOGIN role that owns everything in the namespace."""
    return f"{schema}_owner"


def audience_role(schema: str, audience: Audience) -> str:
    """The NOLOGIN role that may execute what is granted to this audience."""
    return f"{schema}_{audience}"


ParentNames = MutableMapping[Literal["schema_name", "table_name", "schema_qualified_table_name"], str | None]
NameType = Literal["schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint"]


def excluding(*schemas: str) -> Callable[[str | None, NameType, ParentNames], bool]:
    """An Alembic `include_name` that leaves these namespaces out of a user's own autogenerate."""
    ours = frozenset(schemas)

    def include(name: str | None, kind: NameType, parents: ParentNames) -> bool:
        return (name if kind == "schema" else parents.get("schema_name")) not in ours

    return include


def include_name(name: str | None, kind: NameType, parents: ParentNames) -> bool:
    """Keep a user's own autogenerate away from the namespace `troth`; `excluding` does so for other names.

    In their `env.py`: `context.configure(..., include_schemas=True, include_name=troth.schema.include_name)`.
    """
    return _include_default(name, kind, parents)


_include_default = excluding(DEFAULT_SCHEMA)


def note(revision: str, digest: str) -> str:
    """The comment of the version table: what was loaded last, readable without any privilege."""
    return f"{TAG} revision {revision}, functions {digest}"


_NOTE = re.compile(rf"{TAG} revision (?P<revision>\S+), functions (?P<digest>[0-9a-f]+)")


def read_note(comment: str | None) -> Mapping[Literal["revision", "digest"], str] | None:
    """The revision and the functions' digest that `note` wrote, or None if this is no note of ours."""
    found = _NOTE.fullmatch(comment or "")
    return {"revision": found["revision"], "digest": found["digest"]} if found else None
