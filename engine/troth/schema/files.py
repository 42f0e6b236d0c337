"""Where the tables and the functions are written, and what each file of functions defines.

In the repository they stand at its top (`migrations/`, `sql/`), in an installed wheel inside the package. A file
of functions holds one verb (or a few helpers) and says in a line `-- grant: client, worker` who may execute it;
a function that begins with `_` is a helper and belongs to its callers alone.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from troth.schema.names import AUDIENCES, Audience

_DEFINES: Final = re.compile(
    r"^create\s+(?:or\s+replace\s+)?(?P<kind>function|procedure|view)\s+(?P<name>[a-z_][a-z0-9_]*)",
    re.MULTILINE,
)
_GRANT: Final = re.compile(r"^--\s*grant:(?P<audiences>.*)$", re.MULTILINE)
_PLAIN_CREATE: Final = re.compile(r"^create\s+(?=(?:function|procedure|view)\s)", re.MULTILINE)


class MisplacedSql(ValueError):
    """A file of `sql/` breaks the house rules; its text says which file and which rule."""


@dataclass(frozen=True)
class Locations:
    """The two folders that a namespace is built from."""

    migrations: Path
    sql: Path


@dataclass(frozen=True)
class SqlFile:
    """One file of `sql/`: its text as loaded, the functions or views it defines, and who may execute them."""

    path: str
    text: str
    kind: Literal["function", "view"]
    names: tuple[str, ...]
    audiences: frozenset[Audience]

    @property
    def entries(self) -> tuple[str, ...]:
        """The functions that somebody outside may call."""
        return tuple(name for name in self.names if not name.startswith("_"))


def locations() -> Locations:
    """The folders beside this code: inside an installed package, else at the top of the repository."""
    package = Path(__file__).resolve().parents[1]
    top = package if (package / "sql").is_dir() else package.parents[1]
    return Locations(migrations=top / "migrations", sql=top / "sql")


def sql_files(folder: Path | None = None) -> tuple[SqlFile, ...]:
    """Every file of `sql/`, in the order of loading: functions before views, each by path."""
    folder = folder or locations().sql
    paths = sorted(folder.rglob("*.sql"), key=lambda path: path.relative_to(folder).as_posix())
    files = [_read(path.relative_to(folder).as_posix(), path.read_text("utf-8")) for path in paths]
    return tuple(sorted(files, key=lambda file: file.kind == "view"))


def digest(files: tuple[SqlFile, ...]) -> str:
    """What tells two sets of functions apart: a hash over paths and texts."""
    of_all = hashlib.sha256()
    for file in files:
        for part in (file.path, file.text):
            of_all.update(hashlib.sha256(part.encode()).digest())
    return of_all.hexdigest()[:32]


def revisions(migrations: Path | None = None) -> tuple[str, ...]:
    """The revisions that this code knows, oldest first: a revision's ID is the number its file begins with."""
    versions = (migrations or locations().migrations) / "versions"
    return tuple(sorted(path.stem.split("_")[0] for path in versions.glob("[0-9]*_*.py")))


def _read(path: str, text: str) -> SqlFile:
    defined = [(found["kind"], found["name"]) for found in _DEFINES.finditer(text)]
    views = {kind == "view" for kind, _ in defined}
    if len(views) != 1:
        raise MisplacedSql(f"sql/{path}: a file defines functions, or it defines views, and at least one.")
    names = tuple(dict.fromkeys(name for _, name in defined))
    kind: Literal["function", "view"] = "view" if views.pop() else "function"
    audiences = _audiences(path, text)
    entries = [name for name in names if not name.startswith("_")]
    if kind == "view" and audiences:
        raise MisplacedSql(f"sql/{path}: everybody may read a view, so it has no line `-- grant:`.")
    if kind == "function" and entries and not audiences:
        raise MisplacedSql(
            f"sql/{path}: say who may execute {entries[0]} in a line `-- grant: client, worker, admin`."
        )
    if kind == "function" and audiences and not entries:
        raise MisplacedSql(f"sql/{path}: {names[0]} begins with _ and is a helper: it is granted to nobody.")
    # In place: what is replaced keeps its identity, and calls under way find it where it was.
    return SqlFile(path, _PLAIN_CREATE.sub("create or replace ", text), kind, names, audiences)


def _audiences(path: str, text: str) -> frozenset[Audience]:
    """Whom the file's grant line names; an admin may do all that anybody may."""
    named = {word.strip() for found in _GRANT.finditer(text) for word in found["audiences"].split(",")}
    audiences = frozenset[Audience](audience for audience in AUDIENCES if audience in named)
    if named - audiences:
        raise MisplacedSql(
            f"sql/{path}: `-- grant:` names client, worker and admin only, not {', '.join(sorted(named - audiences))}."
        )
    admin: frozenset[Audience] = frozenset({"admin"})
    return audiences | admin if audiences else audiences
