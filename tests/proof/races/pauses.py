"""Named points inside the functions of a test's namespace, at which a session can be made to stand still.

Behind each statement of each plpgsql function that may change something a call of `_pause('function:n')` is put in, by text:
what runs is otherwise what `sql/` says. A point costs nothing until the session says at which it wants to stop
(`races.stops`); there it waits for an advisory lock that the conductor holds, whatever the function's own lock_timeout is.
In one more mode a session says as notices which points it passes.

The rewriting knows as much of plpgsql as it takes to find the semicolons that end statements: strings, comments and parentheses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

_TOKEN = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|(?P<dollar>\$\w*\$).*?(?P=dollar)|(?P<word>\w+)|(?P<mark>[();])",
    re.DOTALL,
)

_PAUSE = """
create function _pause(p_point text) returns void
  language plpgsql volatile
as $$
declare
  v_stops constant text := current_setting('races.stops', true);
  v_place integer;
begin
  if coalesce(v_stops, '') = '' then
    return;
  elsif v_stops = 'trace' then
    raise notice 'at %', p_point;  -- a setting would be gone with a transaction that fails
    return;
  end if;
  v_place := array_position(string_to_array(v_stops, ' '), p_point);
  if v_place is not null then
    perform _pause_here(v_place);
  end if;
end $$;

create function _pause_here(p_place integer) returns void
  language plpgsql volatile
  set lock_timeout = 0
as $$
begin
  perform pg_advisory_lock(pg_backend_pid(), p_place);
  perform pg_advisory_unlock(pg_backend_pid(), p_place);
end $$;
"""


@dataclass(frozen=True)
class Point:
    """A place between two statements: the name it is stopped at by, and the statement that was just done."""

    name: str
    after: str

    @property
    def locks(self) -> bool:
        """Whether that statement took the locks of rows."""
        return re.search(r"\bfor (no key )?(update|share)\b|\b_lock_", self.after) is not None

    @property
    def writes(self) -> bool:
        return (
            re.search(r"\b(insert into|update \w+|delete from)\b", self.after) is not None and not self.locks
        )

    @property
    def looks(self) -> bool:
        return re.search(r"\bfrom (promise|task|wait|checkpoint|closing|worker)\b", self.after) is not None


def install(connection: Connection, schema: str = "troth") -> dict[str, Point]:
    """Put the points into every function of the namespace, over a superuser's connection; by their names."""
    points: dict[str, Point] = {}
    for each in functions(connection, schema).values():
        load(connection, each, points)
    connection.execute(_PAUSE)
    return points


@dataclass(frozen=True)
class Function:
    """A function as `sql/` has it, and what it is made of."""

    name: str
    body: str
    definition: str
    paused: bool
    """Whether points are put in: it is plpgsql, and may change something."""


def functions(connection: Connection, schema: str = "troth") -> dict[str, Function]:
    """The functions of a namespace, as they are now."""
    rows = connection.execute(
        """select p.proname, p.prosrc, pg_get_functiondef(p.oid), l.lanname = 'plpgsql' and p.provolatile = 'v'
             from pg_proc p join pg_language l on l.oid = p.prolang
            where p.pronamespace = %s::regnamespace and l.lanname in ('plpgsql', 'sql') and p.prokind = 'f'
            order by p.proname""",
        [schema],
    ).fetchall()
    return {row[0]: Function(*row) for row in rows}


def load(connection: Connection, function: Function, points: dict[str, Point]) -> None:
    """Replace a function by this text of it, with its points, which are put into `points`."""
    definition = function.definition
    if function.paused:
        for name in [each for each in points if each.startswith(f"{function.name}:")]:
            del points[name]
        definition = definition.replace(function.body, rewritten(function.name, function.body, points))
    connection.execute(definition.encode())


def rewritten(name: str, source: str, points: dict[str, Point]) -> str:
    """The body with its points; each is added to `points`."""
    parts: list[str] = []
    done = 0
    for n, end in enumerate(_ends(source)):
        statement = " ".join(source[done:end].split()) if n else ""
        point = Point(f"{name}:{n}", statement)
        points[point.name] = point
        # an `if` leaves FOUND and the row count as the statement before set them, which a `perform` would not
        parts += [source[done:end], f" if _pause('{point.name}') is null then end if;"]
        done = end
    return "".join(parts) + source[done:]


def _ends(source: str) -> Iterator[int]:
    """Where the first statement begins, and where each ends."""
    depth, begun = 0, False
    for token in _TOKEN.finditer(source):
        if token["mark"] == "(":
            depth += 1
        elif token["mark"] == ")":
            depth -= 1
        elif token["mark"] == ";" and begun and depth == 0:
            yield token.end()
        elif not begun and depth == 0 and (token["word"] or "").lower() == "begin":
            begun = True
            yield token.end()
