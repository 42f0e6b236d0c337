"""sql/README.md is compared with the catalog: every verb, its signature, who may call it, what it answers and raises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.sql import Sql
from troth.errors import BY_SQLSTATE
from troth.schema import locations

README = locations().sql / "README.md"
SQL = locations().sql

# Ours to raise, though not of our class: who gets it sends the call again.
BORROWED = {"55P03"}

_CAST = re.compile(r"::[a-z]+(\[\])?")


class Verb(NamedTuple):
    signature: str
    roles: str
    answers: tuple[str, ...]
    errors: frozenset[str]


def written() -> dict[str, Verb]:
    rows = re.findall(
        r"^\| `(\w+)(\(.*?\) → .*?)` \| (.*?) \| (.*?) \| (.*?) \|$", README.read_text(), re.MULTILINE
    )
    return {
        name: Verb(
            signature,
            roles,
            tuple(re.findall(r"`([^`]+)`", answers)),
            frozenset(re.findall(r"`([^`]+)`", errors)),
        )
        for name, signature, roles, answers, errors in rows
    }


class Function(NamedTuple):
    signature: str
    roles: str
    source: str


def signature(arguments: str, result: str) -> str:
    """As a person would write it: without the casts of defaults."""
    return f"({_CAST.sub('', arguments).replace('DEFAULT ', '= ')}) → {result}"


@pytest.fixture
def catalog(sql: Sql) -> dict[str, Function]:
    rows = sql.query(
        """select proname, prosrc, pg_get_function_arguments(oid) as arguments, pg_get_function_result(oid) as result,
                  (select string_agg(r, ', ' order by n) from unnest(array['client', 'worker', 'admin']) with ordinality a(r, n)
                    where has_function_privilege('troth_' || r, p.oid, 'execute')) as roles
             from pg_proc p where pronamespace = 'troth'::regnamespace"""
    )
    return {
        row["proname"]: Function(
            signature(row["arguments"], row["result"]),
            row["roles"],
            row["prosrc"],
        )
        for row in rows
    }


def reach(catalog: dict[str, Function], name: str) -> str:
    """The text of a function and of all that it calls; of one that catches what it raises nothing is heard outside."""
    seen: dict[str, str] = {}
    todo = [name]
    while todo:
        each = todo.pop()
        if each not in seen:
            source = catalog[each].source
            seen[each] = "" if re.search(r"^exception$", source, re.MULTILINE) else source
            todo += [
                callee
                for callee in re.findall(r"(\b_\w+|(?<=\bfrom )\w+)\(", seen[each])
                if callee in catalog
            ]
    return "\n".join(seen.values())


def errors_of(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"errcode = '(\w+)'", text))


def test_every_verb_is_there_with_its_signature_and_roles(catalog: dict[str, Function]) -> None:
    entries = {
        name: (each.signature, each.roles) for name, each in catalog.items() if not name.startswith("_")
    }
    assert {name: (each.signature, each.roles) for name, each in written().items()} == entries


def test_every_error_is_there(catalog: dict[str, Function]) -> None:
    raised = {name: errors_of(reach(catalog, name)) for name in written()}
    assert {name: each.errors for name, each in written().items()} == raised


def test_every_answer_is_one(catalog: dict[str, Function]) -> None:
    for name, verb in written().items():
        text = reach(catalog, name) + "\n".join(catalog[each].source for each in ("_start_item", "_document"))
        for answer in verb.answers:
            assert f"'{answer}'" in text or f'"{answer}"' in text, (name, answer)


def test_every_sqlstate_has_its_class_and_its_line() -> None:
    listed = dict(re.findall(r"^\| `(TR\d{3}|25001)` \| `(\w+)` \|", README.read_text(), re.MULTILINE))
    assert listed == {state: kind.__name__ for state, kind in BY_SQLSTATE.items()}
    raised = {
        state
        for path in Path(SQL).rglob("*.sql")
        for state in re.findall(r"errcode = '(\w+)'", path.read_text())
    }
    assert raised - BORROWED <= set(listed)
    assert f"`{next(iter(BORROWED))}`" in README.read_text()
