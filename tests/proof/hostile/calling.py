"""Calls of every entry function, put together from the catalog: what is in order beside what is not.

Which functions a role may call, what their parameters are called and which fields they read out of JSON is asked of Postgres, so
that a new function is tried without a word here. What is known here is what items in order look like (`_ITEMS`), for calls to
come through the checks and into what lies behind them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import psycopg

from tests.proof.hostile.values import FIELD_TYPES, HUGE, hostile, hostile_field

BATCH = 50
ITEMS_MAX = 3
HUGE_SHARE = 0.001
"""How many of the parameters that could be get megabytes: each costs as much as a hundred calls."""

_PROBE = """
create function pg_temp.probe(p_calls text[]) returns table (n integer, state text, message text, place text)
  language plpgsql
as $$
declare
  v_constraint text;
begin
  for n in 1 .. cardinality(p_calls) loop
    begin
      execute p_calls[n];
      state := '00000'; message := null; place := null;
    exception when others then
      get stacked diagnostics
        state = returned_sqlstate, message = message_text, v_constraint = constraint_name, place = pg_exception_context;
      message := left(message, 300) || coalesce(' / constraint ' || nullif(v_constraint, ''), '');
      place := left(place, 2000);
    end;
    return next;
  end loop;
end $$
"""

_FUNCTIONS = """
select p.proname, coalesce(p.proargnames[1:p.pronargs], '{}'),
       array(select format_type(t, null) from unnest(p.proargtypes) with ordinality a(t, n) order by n),
       p.pronargdefaults
  from pg_proc p
 where p.pronamespace = 'troth'::regnamespace and not starts_with(p.proname, '_') and has_function_privilege(p.oid, 'execute')
 order by 1
"""


class Function(NamedTuple):
    """An entry function: its parameters and their types, and how many of them must be given."""

    name: str
    parameters: tuple[tuple[str, str], ...]
    required: int


class Outcome(NamedTuple):
    """What one call came to."""

    function: str
    call: str
    state: str
    message: str
    place: str


@dataclass
class Known:
    """What there is by now: IDs, tasks as (task, epoch, last_seq), and what waits."""

    ids: list[str] = field(default_factory=lambda: ["w0"])
    tasks: list[tuple[str, int, int]] = field(default_factory=lambda: [("w0", 1, 0)])


class Caller:
    """One session of one role. Reads the ground over another, calls over its own."""

    def __init__(
        self, session: psycopg.Connection[Any], ground: psycopg.Connection[Any], random: Random
    ) -> None:
        self._session = session
        self._ground = ground
        self._random = random
        session.execute(_PROBE)
        self.functions = [
            Function(name, tuple(zip(names, types, strict=True)), len(names) - defaults)
            for name, names, types, defaults in session.execute(_FUNCTIONS)
        ]
        sources = ground.execute("select prosrc from pg_proc where pronamespace = 'troth'::regnamespace")
        self._fields = sorted({each for (source,) in sources for each in _fields(source)})
        self._known = Known()

    def calls(self, many: int) -> Iterator[Outcome]:
        """So many calls, batch after batch, each of them by itself."""
        for _ in range(0, many, BATCH):
            self._look()
            made = [self._call(self._random.choice(self.functions)) for _ in range(BATCH)]
            if self._random.random() < 0.03:
                self._session.execute("set default_transaction_isolation = 'repeatable read'")
            rows = self._session.execute(
                "select state, message, place from pg_temp.probe(%s)", [[call for _, call in made]]
            ).fetchall()
            self._session.execute("set default_transaction_isolation = 'read committed'")
            for (name, call), (state, message, place) in zip(made, rows, strict=True):
                yield Outcome(name, call, state, message or "", place or "")

    def _look(self) -> None:
        # chosen here and not by Postgres: the seed says which
        ids = self._ground.execute("select id from promise order by id").fetchall()
        tasks = self._ground.execute(
            "select id, epoch, last_seq from task order by state <> 'claimed', id limit 40"
        ).fetchall()
        self._known = Known(
            [each for (each,) in self._random.sample(ids, min(len(ids), 30))] or ["w0"],
            self._random.sample(tasks, min(len(tasks), 12)) or [("w0", 1, 0)],
        )

    def _call(self, function: Function) -> tuple[str, str]:
        random = self._random
        given = len(function.parameters)
        if random.random() < 0.6:
            given = random.randint(function.required, given)
        # most calls have one argument that is not meant well, some have several, some none
        odd = random.choices((0.0, 0.12, 0.5), (35, 50, 15))[0]
        arguments = []
        for name, type_ in function.parameters[:given]:
            if type_ in HUGE and random.random() < HUGE_SHARE:
                value = random.choice(HUGE[type_])
            elif random.random() < odd:
                value = _quoted(self._odd(name.removeprefix("p_"), type_))
            else:
                value = _quoted(self._in_order(name.removeprefix("p_"), type_, odd))
            arguments.append(f"{name} => {value}::{type_}")
        return function.name, f"select * from troth.{function.name}({', '.join(arguments)})"

    def _odd(self, name: str, type_: str) -> str | None:
        ready = (
            self._in_order(name, type_, 0) if type_.endswith("[]") and self._random.random() < 0.6 else None
        )
        if not ready:
            return hostile(type_, self._random)
        # as many items as it should have, and one of them not meant well
        items: list[Any] = ready.strip("{}").split(",")
        items[self._random.randrange(len(items))] = hostile(type_.removesuffix("[]"), self._random)
        return "{" + ",".join("null" if each is None else json.dumps(each.strip('"')) for each in items) + "}"

    def _in_order(self, name: str, type_: str, odd: float) -> str | None:
        random, known = self._random, self._known
        task, epoch, seq = random.choice(known.tasks)
        if name in _ITEMS:
            return self._items(name, odd)
        ready: dict[str, list[str | None]] = {
            "id": [random.choice(known.ids), f"w{random.randrange(60)}"],
            "new_id": [f"w{random.randrange(60)}"],
            "task": [task],
            "epoch": [str(epoch)],
            "operation": ["s", "t", "s:2", "2~s", "p"],
            "before": ["s", "p", None],
            "issued": ["0", str(seq)],
            "function": ["f", "g"],
            "args": ["{}", "[]", '{"a": 1}', "[{}, {}, {}, {}, {}]", None],
            "queue": ["default", "other", None],
            "lanes": ["{f,f@1,g,g@1,h}"],
            "pins": ["{f@1,f@1,g@1,g@1,h@2}"],
            "queues": ["{default,other}"],
            "worker": ["hw", "hw2"],
            "limit": ["1", "5", "100"],
            "tags": ['{"a": "b"}', None],
            "on_conflict": ["error", "attach"],
            "state": ["pending", "resolved", None],
            "actor": ["somebody", None],
            "priority": ["0", "-5"],
            "has_default": ["true", "false"],
            "ids": [_array(known.ids[:5])],
            "tasks": [_array([task])],
            "epochs": [_array([epoch])],
            "lease": ["15 seconds", "1 hour"],
            "before_interval": ["0", "1 hour"],
        }
        if name == "before" and type_ == "interval":
            name = "before_interval"
        if name in ready:
            return random.choice(ready[name])
        plain: dict[str, list[str | None]] = {
            "text": ["word", None],
            "jsonb": ["1", '{"a": [1]}', '"x"', "null", None],
            "integer": ["1", "3", None],
            "bigint": ["1", "77", None],
            "interval": ["0", "1 microsecond", "1 minute", "1 hour", None],
            "boolean": ["true", "false"],
            "bytea": ["\\x00", None],
            "text[]": ["{}", "{f}"],
            "integer[]": ["{}", "{1}"],
            "bytea[]": [None, "{}", '{"\\\\x00"}'],
        }
        return random.choice(plain[type_])

    def _items(self, name: str, odd: float) -> str:
        random, known = self._random, self._known
        task, epoch, seq = random.choice(known.tasks)
        other = random.choice(known.ids)
        words = {
            "$task": task,
            "$epoch": epoch,
            "$seq": seq,
            "$id": other,
            "$new": f"w{random.randrange(60)}",
        }
        made: list[Any] = []
        for item in random.choices(_ITEMS[name], k=random.randint(0 if name != "turns" else 1, ITEMS_MAX)):
            filled = {
                key: words.get(value, value) if isinstance(value, str) else value
                for key, value in item.items()
            }
            parts = {key: json.dumps(value) for key, value in filled.items()}
            if random.random() < max(odd, 0.05):
                key, type_ = random.choice(self._fields)
                if random.random() < 0.5 and parts:
                    key = random.choice(list(parts))
                    type_ = random.choice(
                        [each for known_key, each in self._fields if known_key == key] or ["jsonb"]
                    )
                parts[key] = hostile_field(type_, random)
            if parts and random.random() < 0.03:
                del parts[random.choice(list(parts))]
            made.append("{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in parts.items()) + "}")
        if name == "record":
            return made[0] if made else "{}"
        return "[" + ", ".join(made) + "]"


def _fields(source: str) -> Iterator[tuple[str, str]]:
    """What a function reads out of JSON: names and types."""
    for columns in re.findall(r"(?:jsonb_to_record(?:set)?\([^()]*\)(?: as)?\s*\w*\s*)\(([^()]*)\)", source):
        for name, type_ in re.findall(r'"?(\w+)"? (\w+)', columns):
            if type_ in FIELD_TYPES:
                yield name, type_
    for name in re.findall(r"->>? '(\w+)'", source):
        yield name, "jsonb"


def _array(items: list[Any]) -> str:
    return "{" + ",".join(map(json.dumps, items)) + "}"


def _quoted(literal: str | None) -> str:
    if literal is None:
        return "null"
    # a string with escapes: whatever it is, it is one literal
    return "E'" + literal.replace("\\", "\\\\").replace("'", "\\'") + "'"


def tally(outcomes: Iterator[Outcome], is_ours: Any) -> tuple[Counter[tuple[str, str]], list[Outcome]]:
    """How often which function was answered what, and what should not have been."""
    counts: Counter[tuple[str, str]] = Counter()
    offenders: list[Outcome] = []
    for outcome in outcomes:
        counts[outcome.function, outcome.state] += 1
        if not is_ours(outcome):
            offenders.append(outcome)
    return counts, offenders


_OUTCOME = {"task": "$task", "operation": "s", "kind": "step", "issued": 0, "state": "resolved", "value": 1}
_OPERATION = {"task": "$task", "operation": "p", "kind": "promise", "issued": 0}
_TURN = {"task": "$task", "epoch": "$epoch", "seen": "$seq"}
_ITEMS: dict[str, list[dict[str, Any]]] = {
    "turns": [
        _TURN,
        {**_TURN, "then": "suspend"},
        {**_TURN, "then": "suspend", "keep": True},
        {**_TURN, "then": "suspend", "close": True},
        {**_TURN, "asked": True},
        {**_TURN, "then": "release"},
        {**_TURN, "then": "release", "charged": True},
        {**_TURN, "then": "halt", "reason": {"code": "x"}},
        {**_TURN, "then": "finish", "state": "resolved", "value": [1]},
        {**_TURN, "then": "finish", "state": "rejected", "error": {"type": "E"}},
    ],
    "outcomes": [
        _OUTCOME,
        {**_OUTCOME, "operation": "s:2", "issued": "$seq", "cohort": 0, "digest": 5, "at": 1},
        {**_OUTCOME, "operation": "t", "kind": "timer", "micros": 0},
        {**_OUTCOME, "operation": "x:patch", "kind": "patch"},
        {**_OUTCOME, "state": "rejected", "error": {"type": "E"}, "retried": True},
    ],
    "operations": [
        _OPERATION,
        {**_OPERATION, "operation": "q", "timeout": 60_000_000, "default": 1, "has_default": True, "title": "t",
            "tags": {"a": "b"}},
        {**_OPERATION, "operation": "o", "kind": "wait", "promise": "$id", "digest": 1, "cohort": 0},
        {**_OPERATION, "operation": "c", "kind": "call", "function": "f", "args": {}, "queue": "default",
            "priority": 1},
        {**_OPERATION, "operation": "d", "kind": "start", "function": "g", "promise": "$new",
            "delay": 1_000_000, "timeout": 9_000_000},
    ],
    "timers": [
        {"task": "$task", "operation": "t", "issued": 0, "micros": 1},
        {"task": "$task", "operation": "u", "kind": "timer", "issued": "$seq",
            "micros": 60_000_000, "cohort": 0, "digest": 1},
        {"task": "$task", "operation": "s", "kind": "retry", "issued": 0, "micros": 1_000},
    ],
    "attempts": [
        {"task": "$task", "operation": "s", "number": 1},
        {"task": "$task", "operation": "s", "number": 2, "error": {"type": "E"}, "ended": True,
            "retry_in": 5, "elapsed": 7},
        {"task": "$task", "operation": "s", "number": 1, "details": {"at": 3}},
    ],
    "cancels": [{"task": "$task", "promise": "$id"}],
    "items": [
        {"id": "$new", "function": "f", "args": {}, "queue": "default",
            "delay": 0.5, "timeout": 60, "priority": 0, "tags": {"a": "b"}},
        {"id": "$new", "function": "g"},
        {"id": "$id", "verb": "resolve", "value": 1, "headers": {}, "digest": "00"},
        {"id": "$id", "verb": "reject", "error": {"type": "E"}},
        {"id": "$id", "verb": "cancel", "reason": "x"},
    ],
    "functions": [{"name": "f", "version": 1, "queue": "default"}, {"name": "g", "version": 2}],
    "record": [
        {"id": "$new", "function": "f", "queue": "default", "args": {}, "version": 1, "started_at": 1, "seed": 1,
            "tags": {"a": "b"}, "title": "t"},
    ],
    "entries": [
        {"seq": 1, "operation": "s", "kind": "step", "issued": 0, "state": "resolved", "value": 1, "at": 1,
            "epoch": 1},
        {"seq": 2, "operation": "p", "kind": "promise", "issued": 1, "state": "rejected",
            "error": {}, "at": 2, "epoch": 1, "digest": 1, "cohort": 1},
    ],
}  # fmt: skip
