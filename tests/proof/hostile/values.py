"""Arguments that nobody means well with, and some that are in order, by the type of a parameter.

Everything is the text of a literal (None: null), so that what does not even parse is tried too.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

MANY = 10_001
"""One more than a batch holds."""

TEXTS = (
    "", " ", ".", "..", "~", "~~", "a~", "~a", "~cancel", "~delay", "w~~p", "w~p~", "null", "NULL", "0", "42",
    "-1", "NaN", "Infinity",
    "'", '"', "\\", "''; drop table promise; --", "$$", "%s", "%L %I %%", "{}", "[]", "a\nb", "a\tb", "\x01",
    "\x7f", "\u200b", "\ufeff",
    "שלום", "\u202eabc", "مرحبا", "e\u0301", "é", "👩‍👩‍👧", "\U0010ffff", "ﷺ" * 20, "a/b", "a?b#c", "a b",
    "a" * 128, "a" * 129, "a" * 255,
    "a" * 256, "a" * 63, "a" * 64, "a" * 101, "a" * 1001, "x" * 5000, "timeout", "worker", "workflow", "resolve",
    "pending", "f@1", "f@",
    "@1", "f@99999999999999999999", "f!", "f@1!", "!", "pg_temp", "troth",
)  # fmt: skip
NUMBERS = (
    "0", "1", "-1", "2", "2147483647", "-2147483648", "2147483648", "32767", "32768", "-32769", "9223372036854775807",
    "-9223372036854775808", "9223372036854775808", "1e5", "0.5", "1e400", "NaN", "Infinity", "-Infinity", "", "x",
    "100000", "9007199254740993",
)  # fmt: skip
JSON_NUMBERS = (
    "0", "-0", "-0.0", "1", "-1", "1.5", "1e308", "1e400", "1e131071", "-1e131071", "1e-16383", "2147483647",
    "2147483648", "-2147483649",
    "32768", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "NaN", "Infinity", "0.1e-400",
    "9007199254740993",
)  # fmt: skip
INTERVALS = (
    "0", "1 second", "-1 second", "1 microsecond", "1 hour", "36500 days", "36501 days", "100 years",
    "-178000000 years",
    "178000000 years", "178956970 years 7 mons", "2147483647 days", "-2147483648 days", "2562047788:00:54.775807",
    "NaN", "infinity",
    "-infinity", "", "1 mon -30 days", "-12 mons 360 days", "1 day -24:00", "-1 mon 40 days", "P1Y2M3DT4H5M6S", "x",
)  # fmt: skip
BYTES = (
    "",
    "\\x",
    "\\x00",
    "\\xff",
    "\\xzz",
    "\\x0",
    "\\xdeadbeef",
    "\\x" + "00" * 64,
    "abc\\",
    "\\x" + "ab" * 5000,
)
BOOLEANS = ("true", "false", "t", "0", "", "maybe")
FIELD_TYPES = ("text", "integer", "bigint", "smallint", "jsonb", "boolean", "bytea", "interval")


def nested(levels: int, kind: str = "[]") -> str:
    """JSON of so many levels."""
    return kind[0] * levels + kind[1] * levels if kind == "[]" else '{"a":' * levels + "1" + "}" * levels


JSONS = (
    "", "null", "true", "false", '""', '"x"', "[]", "{}", "[[]]", "[{}]", "[null]", '["x"]', "[1]", "[[1]]",
    '{"a": null}',
    '{"": ""}', '{"a": {"b": [1, {"c": null}]}}', '"\\u0000"', '{"a\\u0000b": 1}', '"\\ud800"', '"\\udc00\\ud800"',
    '"\\ud83d\\ude00"',
    '{"a": 1, "a": 2}', '{"\u202e": "שלום"}', '"👩‍👩‍👧"', "{", "[1,", "nul", "'x'", nested(99), nested(100),
    nested(101), nested(99, "{}"), nested(102, "{}"),
    nested(2000), nested(10_000), nested(10_000, "{}"), json.dumps("x" * 100_000), json.dumps(["y"] * 3000),
    "[" + ",".join(["{}"] * 200) + "]",
    json.dumps({f"k{n}": "v" for n in range(40)}), json.dumps({"k": "v" * 300}), '{"type": 1}', '{"message": {}}',
)  # fmt: skip
HUGE = {
    "jsonb": (
        "to_jsonb(repeat('x', 1048574))",
        "to_jsonb(repeat('x', 1048575))",
        "to_jsonb(repeat(E'\\u00e9\\\\\"\\n', 400000))",
        "(select jsonb_agg(n) from generate_series(1, 700000) n)",
        f"(select jsonb_agg('{{}}'::jsonb) from generate_series(1, {MANY}))",
        '(select jsonb_agg(\'{"id": "w", "task": "w"}\'::jsonb) from generate_series(1, 100000))',
        "(select jsonb_object_agg('k' || n, n) from generate_series(1, 100000) n)",
        "to_jsonb(repeat('z', 10000000))",
        "(repeat('[', 10000) || repeat(']', 10000))::jsonb",
    ),
    "text": ("repeat('x', 10000000)", "repeat(chr(128121), 1000000)"),
    "bytea": ("decode(repeat('ab', 5000000), 'hex')",),
    "text[]": (
        "array_fill('x'::text, array[1000000])",
        "array_fill(null::text, array[100000])",
        "array[repeat('x', 10000000)]",
    ),
    "integer[]": ("array_fill(1, array[1000000])",),
    "bytea[]": ("array_fill('\\xab'::bytea, array[1000000])", "array[decode(repeat('ab', 5000000), 'hex')]"),
}
"""SQL that makes what would be too long to send, by type."""


def hostile(type_: str, random: Random) -> str | None:
    """A literal for a parameter of this type that is not meant well."""
    if random.random() < 0.12:
        return None
    match type_:
        case "text":
            return random.choice(TEXTS)
        case "jsonb":
            return hostile_json(random)
        case "integer" | "bigint" | "smallint":
            return random.choice(NUMBERS)
        case "interval":
            return random.choice(INTERVALS)
        case "boolean":
            return random.choice(BOOLEANS)
        case "bytea":
            return random.choice(BYTES)
        case _ if type_.endswith("[]"):
            return _array(type_.removesuffix("[]"), random)
        case _:
            raise AssertionError(f"nobody knows what is hostile to a {type_}: say so here")


def _array(type_: str, random: Random) -> str:
    shape = random.random()
    if shape < 0.15:
        return random.choice(
            ("{}", "{null}", "{{}}", "{{a},{b}}", "{", "[5:6]={1,2}", "{1,2}", "{NULL,NULL}")
        )
    if shape < 0.2:
        return "{" + ",".join(["1"] * MANY) + "}"
    items = [hostile(type_, random) for _ in range(random.randrange(5))]
    return (
        "{"
        + ",".join("null" if each is None else json.dumps(each, ensure_ascii=False) for each in items)
        + "}"
    )


def hostile_json(random: Random) -> str:
    """JSON text, some of which is none."""
    if random.random() < 0.15:
        return random.choice(JSON_NUMBERS)
    return random.choice(JSONS)


def hostile_field(type_: str, random: Random) -> str:
    """JSON text for a field that is read as this type."""
    if random.random() < 0.4:
        return hostile_json(random)
    value: Any = hostile(type_, random)
    return json.dumps(value)
