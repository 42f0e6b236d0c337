"""What a namespace in Postgres is, compared with what this code needs: missing, behind, current, ahead, or differing.

It is read from one comment, which any role may read, so that a client without any right on a table can still be told
what is wrong. `query` and `judge` stand apart, for drivers of any kind.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, assert_never

from troth.errors import SchemaMismatch
from troth.schema.files import digest, revisions, sql_files
from troth.schema.names import DEFAULT_SCHEMA, VERSION_TABLE, checked, read_note

Kind = Literal["missing", "behind", "current", "ahead", "differs"]


@dataclass(frozen=True)
class State:
    """What was found. `revision` is the one in Postgres, `expected` the newest that this code knows."""

    kind: Kind
    schema: str
    revision: str | None
    expected: str

    @property
    def sentence(self) -> str:
        """What is so, and what to do about it."""
        here = f'The schema "{self.schema}"'
        migrate = "`troth migrate" + ("`" if self.schema == DEFAULT_SCHEMA else f" --schema {self.schema}`")
        match self.kind:
            case "missing":
                return f"{here} has no Troth in this database: run {migrate}."
            case "behind":
                return f"{here} is at revision {self.revision} and this Troth needs {self.expected}: run {migrate}."
            case "ahead":
                return (
                    f"{here} is at revision {self.revision}, newer than this Troth, which knows {self.expected}: "
                    "upgrade the package."
                )
            case "differs":
                return f"{here} has the tables of this Troth, but not its functions: run {migrate}."
            case "current":
                return f"{here} is at revision {self.revision}, with the functions of this Troth."
        assert_never(self.kind)

    def require(self) -> None:
        """Raise SchemaMismatch unless this code can speak to what is there; functions that differ do not matter."""
        if self.kind in ("missing", "behind", "ahead"):
            raise SchemaMismatch(self.sentence)


_QUERY: Final = """select pg_catalog.obj_description(c.oid, 'pg_class')
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = '{schema}' and c.relname = '{table}'"""


def query(schema: str) -> str:
    """One statement, with no parameters, that answers the one text `judge` takes; no row if there is nothing."""
    return _QUERY.format(schema=checked(schema), table=VERSION_TABLE)


def judge(
    schema: str, comment: str | None, *, migrations: Path | None = None, sql: Path | None = None
) -> State:
    """The state of a namespace whose note reads so."""
    known = revisions(migrations)
    found = read_note(comment)
    kind: Kind
    if found is None:
        kind = "missing"
    elif found["revision"] not in known:
        kind = "ahead"
    elif found["revision"] != known[-1]:
        kind = "behind"
    else:
        kind = "current" if found["digest"] == digest(sql_files(sql)) else "differs"
    return State(kind, schema, found["revision"] if found else None, known[-1])
