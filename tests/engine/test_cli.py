"""The verbs of the command line: what they answer to people and to programs, and with which exit code."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.cli import troth
from troth.cli.exits import MEANINGS, Exit

Connection = psycopg.Connection[Any]

PROMISE_KEYS = {
    "id", "state", "created_at", "latent", "function", "version", "queue", "args", "args_headers", "tags", "title",
    "parent", "timeout_at", "settled_at", "settler", "value", "error", "headers", "overdue", "task",
}  # fmt: skip


def test_start_attaches_to_the_same_and_shows_what_stands_in_the_way_of_another(dsn: str) -> None:
    words = ("start", "approve_order", "order-1", "order=order-1", "n=3", 's="3"', "raw:=[1.50]", "t=True")
    made = troth(
        *words, "--json", "--tag", "who=me", "--queue", "slow", "--delay", "1h", "--timeout", "7d", dsn=dsn
    )
    assert made.code == Exit.OK
    assert set(made.document) == {"answer", "promise"}
    assert made.document["answer"] == "created"
    promise = made.document["promise"]
    assert set(promise) == PROMISE_KEYS
    assert promise["args"] == {"order": "order-1", "n": 3, "s": "3", "raw": [1.5], "t": "True"}
    assert promise["tags"] == {"who": "me"}
    assert (promise["queue"], promise["task"]["state"]) == ("slow", "suspended")
    assert promise["timeout_at"] > promise["created_at"]

    again = troth(*words, dsn=dsn)
    assert (again.code, again.out) == (
        0,
        "order-1 was there already and is attached to: pending, its task suspended\n",
    )

    other = troth("start", "approve_order", "order-1", "order=order-2", dsn=dsn)
    assert other.code == Exit.FAILED
    assert '"s": "3"' in other.complaint
    assert "--on-conflict attach" in other.complaint
    document = json.loads(troth("start", "approve_order", "order-1", "--json", dsn=dsn).err)
    assert (document["error"], document["sqlstate"], document["exit"]) == ("IdConflict", "TR010", 1)
    assert document["promise"]["args"]["order"] == "order-1"
    forced = troth("start", "approve_order", "order-1", "--on-conflict", "attach", "--json", dsn=dsn)
    assert forced.document["answer"] == "attached"


def test_a_workflow_that_no_living_worker_knows_is_named_at_once(dsn: str, db: Connection) -> None:
    warned = troth("start", "aprove_order", "order-1", dsn=dsn)
    assert (warned.code, warned.out) == (0, "order-1 was created: pending, its task ready\n")
    assert "No living worker knows aprove_order in queue default" in warned.err
    assert "troth worker FILE" in warned.err
    assert troth("start", "aprove_order", "order-1", dsn=dsn).err == "", "said once"
    assert troth("start", "aprove_order", "order-2", "--json", dsn=dsn).err == ""
    db.execute("select * from claim('w', array['default'], array['approve_order'], 1)")
    assert troth("start", "approve_order", "order-3", dsn=dsn).err == ""
    assert "queue slow" in troth("start", "approve_order", "order-4", "--queue", "slow", dsn=dsn).err


def test_an_error_is_told_to_its_end_which_says_what_to_do(dsn: str, db: Connection) -> None:
    message = "x" * 200 + " do this"
    troth("start", "f", "a", "--delay", "1h", dsn=dsn)
    db.execute("select create_promise('p')")
    assert troth("reject", "p", "-m", message, dsn=dsn).out == f"p is rejected: {message}\n"
    assert message in troth("resolve", "p", "1", dsn=dsn).complaint
    assert message in troth("get", "p", dsn=dsn).out
    troth("cancel", "a", "--reason", message, dsn=dsn)
    assert message in troth("start", "f", "a", "--wait", "1s", dsn=dsn).out


def test_arguments_may_be_one_json_text(dsn: str) -> None:
    by_name = troth("start", "f", "a", '{"order": "x", "*": [1]}', "--json", dsn=dsn)
    assert by_name.document["promise"]["args"] == {"order": "x", "*": [1]}
    by_position = troth("start", "f", "b", '["x", 12345678901234567890123]', "--json", dsn=dsn)
    assert by_position.document["promise"]["args"] == {"*": ["x", 12345678901234567890123]}
    assert troth("start", "f", "b", '{"*": ["x", 12345678901234567890123]}', dsn=dsn).code == 0


def test_decisions_and_their_repetitions(dsn: str, db: Connection) -> None:
    for name in ("a", "b", "c", "d"):
        db.execute("select create_promise(%s)", [name])
    assert troth("resolve", "a", "true", dsn=dsn).out == "a is resolved: true\n"
    assert troth("resolve", "a", "true", dsn=dsn).out == "a was settled so already: resolved: true\n"
    late = troth("resolve", "a", "false", dsn=dsn)
    assert late.code == Exit.FAILED
    assert "a was settled before, and stays so: resolved: true" in late.complaint
    as_json = troth("resolve", "a", "false", "--json", dsn=dsn)
    assert (as_json.code, as_json.document["answer"], as_json.document["promise"]["value"]) == (
        1,
        "conflict",
        True,
    )
    assert set(as_json.document["promise"]) == PROMISE_KEYS

    assert troth("resolve", "b", "--value", "-", dsn=dsn, stdin="tomorrow, perhaps\n").code == 0
    assert db.execute("select value from promises where id = 'b'").fetchone() == ("tomorrow, perhaps",)

    rejected = troth(
        "reject", "c", "-m", "too dear", "--type", "Refused", "--data", '{"by": 5}', "--json", dsn=dsn
    )
    assert rejected.document["promise"]["error"] == {
        "type": "Refused",
        "message": "too dear",
        "data": {"by": 5},
    }
    assert troth("reject", "c", "-m", "another", dsn=dsn).code == Exit.FAILED

    assert troth("cancel", "d", "--reason", "no more", dsn=dsn).out == "d is canceled: no more\n"
    assert troth("cancel", "a", dsn=dsn).code == Exit.FAILED
    shown = troth("get", "d", dsn=dsn).out
    assert "no more" in shown
    assert "latent promise" in shown


@pytest.mark.parametrize(
    "words",
    [
        *(
            (verb,)
            for verb in ("resolve", "reject", "cancel", "halt", "resume", "get", "tree", "journal", "export")
        ),
        ("cancel", "--force"),
        ("settle-step", "--value", "1", "step"),
    ],
    ids=" ".join,
)
def test_an_unknown_id_is_not_found(dsn: str, words: tuple[str, ...]) -> None:
    verb, *options = words
    operation = options[-1:] if options[-1:] == ["step"] else []
    answer = troth(verb, *options[: len(options) - len(operation)], "nobody", *operation, dsn=dsn)
    assert answer.code == Exit.NOT_FOUND
    assert "nobody" in answer.complaint
    assert "troth list" in answer.complaint


def test_halt_and_resume(dsn: str, db: Connection) -> None:
    troth("start", "f", "a", dsn=dsn)
    assert troth("halt", "a", "--reason", "look at it", dsn=dsn).out.startswith("a is halted")
    assert troth("halt", "a", dsn=dsn).code == Exit.OK
    assert "operator: look at it" in troth("get", "a", dsn=dsn).out
    resumed = troth("resume", "a", "--json", dsn=dsn)
    assert (resumed.document["answer"], resumed.document["promise"]["task"]["state"]) == ("resumed", "ready")
    assert "is not halted" in troth("resume", "a", dsn=dsn).complaint
    db.execute("select create_promise('latent')")
    assert troth("halt", "latent", dsn=dsn).code == Exit.FAILED
    troth("cancel", "a", dsn=dsn)
    assert "has ended" in troth("halt", "a", dsn=dsn).complaint


@pytest.fixture
def begun(dsn: str, db: Connection) -> Connection:
    """The workflow `a`, claimed, with two steps and a promise behind it."""
    troth("start", "f", "a", "n=1", dsn=dsn)
    db.execute("select * from claim('w', '{default}', '{f}', 1)")
    db.execute(
        """select * from advance('[{"task": "a", "epoch": 1, "seen": 0}]', '[
             {"task": "a", "operation": "charge", "kind": "step", "issued": 0, "state": "resolved", "value": 7},
             {"task": "a", "operation": "2~ship:2", "kind": "step", "issued": 1, "state": "resolved"}]',
             '[{"task": "a", "operation": "approval", "kind": "promise", "issued": 2}]')"""
    )
    return db


def test_a_step_is_settled_by_hand(dsn: str, begun: Connection) -> None:
    first = troth("settle-step", "a", "2~stuck", "--value", '{"n": 1}', "--reason", "it hung", dsn=dsn)
    assert (first.code, first.out) == (0, "2~stuck of a is settled\n")
    assert (
        troth("settle-step", "a", "2~stuck", "--value", '{"n": 1}', dsn=dsn).out
        == "2~stuck of a was settled so already\n"
    )
    assert (
        "has its outcome, which stays"
        in troth("settle-step", "a", "2~stuck", "--value", "2", dsn=dsn).complaint
    )
    assert "troth tree a" in troth("settle-step", "a", "approval", "--value", "2", dsn=dsn).complaint
    troth("halt", "a", dsn=dsn)
    failed = troth("settle-step", "a", "fails", "--error", "gave up", dsn=dsn)
    assert failed.out == "fails of a is settled; `troth resume a` sends it on\n"
    as_json = troth("settle-step", "a", "last", "--value", "-", "--json", dsn=dsn, stdin="text")
    assert (as_json.code, as_json.document["answer"], as_json.document["promise"]["id"]) == (
        0,
        "recorded",
        "a",
    )
    told = troth("journal", "a", "--from", "3", "--json", dsn=dsn).documents
    assert [(each["operation"], each["value"], each["error"] and each["error"]["message"]) for each in told] == [
        ("2~stuck", {"n": 1}, None), ("fails", None, "gave up"), ("last", "text", None),
    ]  # fmt: skip
    troth("cancel", "a", "--force", dsn=dsn)
    assert "has ended: canceled" in troth("settle-step", "a", "late", "--value", "1", dsn=dsn).complaint
    begun.execute("select create_promise('latent')")
    assert "latent promise" in troth("settle-step", "latent", "late", "--value", "1", dsn=dsn).complaint
    assert begun.execute(
        "select detail ->> 'reason' from troth.audit where verb = 'settle_step' order by at limit 1"
    ).fetchone() == ("it hung",)


def test_a_workflow_is_forked(dsn: str, begun: Connection) -> None:
    first = troth("fork", "a", "b", "--before", "2~ship:2", "-m", "shipped too early", dsn=dsn)
    assert (first.code, first.out) == (0, "b goes on from event 1 of a as soon as a worker takes it\n")
    again = troth("fork", "a", "b", "--before", "2~ship:2", dsn=dsn)
    assert (again.code, again.out) == (0, "b is that fork of a already: pending, its task ready\n")
    pinned = troth("fork", "a", "c", "--pin", "4", "--json", dsn=dsn)
    assert (pinned.document["answer"], pinned.document["version"], pinned.document["task"]["last_seq"]) == (
        "created",
        4,
        2,
    )
    taken = troth("fork", "a", "b", dsn=dsn)
    assert (taken.code, "is not this fork" in taken.complaint) == (Exit.FAILED, True)
    nowhere = troth("fork", "a", "d", "--before", "3~ship", dsn=dsn)
    assert (nowhere.code, "charge, 2~ship:2" in nowhere.complaint) == (Exit.USAGE, True)
    assert troth("fork", "nobody", "d", dsn=dsn).code == Exit.NOT_FOUND
    assert troth("fork", "a~approval", "d", dsn=dsn).code == Exit.FAILED


def test_a_workflow_is_ended_by_force(dsn: str, begun: Connection) -> None:
    assert "told to cancel" in troth("cancel", "a", dsn=dsn).out
    assert troth("cancel", "a", "--force", "--reason", "enough", dsn=dsn).out == "a is canceled: enough\n"


def test_a_workflow_is_exported_and_imported(dsn: str, begun: Connection, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert troth("export", "a", "-o", str(file), dsn=dsn).out == f"a, 2 events, is in {file}\n"
    printed = troth("export", "a", dsn=dsn)
    assert printed.document == json.loads(file.read_text())
    assert (printed.document["format"], [each["operation"] for each in printed.document["journal"]]) == (
        1,
        ["charge", "2~ship:2"],
    )
    assert troth("export", "a", "-o", str(file), "--json", dsn=dsn).document == {
        "id": "a",
        "file": str(file),
        "events": 2,
    }
    came = troth("import", str(file), "--id", "b", dsn=dsn)
    assert (came.code, came.out) == (0, "b is here with 2 events, halted; `troth resume b` lets it run\n")
    assert "imported: imported by" in troth("get", "b", dsn=dsn).out
    piped = troth("import", "-", "--id", "c", "--json", dsn=dsn, stdin=printed.out)
    assert (piped.document["answer"], piped.document["id"], piped.document["task"]["state"]) == (
        "created",
        "c",
        "halted",
    )
    assert troth("export", "b", dsn=dsn).document["journal"][0]["value"] == 7
    assert troth("import", str(file), dsn=dsn).code == Exit.FAILED
    assert (
        "cannot be read: No such file"
        in troth("import", str(tmp_path / "none"), "--id", "d", dsn=dsn).complaint
    )
    assert "cannot be written: Is a directory" in troth("export", "a", "-o", str(tmp_path), dsn=dsn).complaint
    file.write_text("{}")
    broken = troth("import", str(file), dsn=dsn)
    assert (broken.code, "no exported workflow" in broken.complaint) == (Exit.USAGE, True)
    troth("start", "f", "fresh", dsn=dsn)
    assert "has not run yet" in troth("export", "fresh", dsn=dsn).complaint


def test_a_workflow_settles_itself(dsn: str) -> None:
    troth("start", "f", "a", dsn=dsn)
    answer = troth("resolve", "a", "1", dsn=dsn)
    assert answer.code == Exit.FAILED
    assert "troth cancel a" in answer.complaint


def test_lists_filter_page_and_say_so(dsn: str, db: Connection) -> None:
    db.execute(
        "select start(format('w-%s', n), 'f', p_tags => '{\"k\": \"v\"}') from generate_series(1, 3) n"
    )
    db.execute("select create_promise('p-1')")
    found = troth("list", "--json", dsn=dsn)
    assert [each["id"] for each in found.documents] == ["p-1", "w-1", "w-2", "w-3"]
    assert all(set(each) == PROMISE_KEYS for each in found.documents)
    page = troth("list", "--tag", "k=v", "--limit", "2", "--json", dsn=dsn)
    assert [each["id"] for each in page.documents] == ["w-1", "w-2"]
    assert "--after w-2" in page.err
    rest = troth(
        "list", "-t", "k=v", "--limit", "2", "--after", "w-2", "--state", "pending", "--json", dsn=dsn
    )
    assert [each["id"] for each in rest.documents] == ["w-3"]
    assert [each["id"] for each in troth("list", "--latent", "--json", dsn=dsn).documents] == ["p-1"]
    table = troth(
        "list", "--prefix", "w-", "--no-latent", "--function", "f", "--queue", "default", dsn=dsn
    ).out
    assert [line.split()[0] for line in table.splitlines() if " w-" in line] == ["w-1", "w-2", "w-3"]
    nothing = troth("list", "--function", "g", dsn=dsn)
    assert (nothing.code, nothing.out) == (0, "")


def test_what_others_wrote_reaches_the_terminal_as_text_only(dsn: str, db: Connection) -> None:
    db.execute("select create_promise('p', p_title => E'\\x1b]0;owned\\x07 [red]not red[/red]')")
    out = troth("get", "p", dsn=dsn).out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[red]not red[/red]" in out


def test_waiting_ends_with_the_promise_or_with_the_time(dsn: str, db: Connection) -> None:
    db.execute("select create_promise('p'), create_promise('q')")
    still = troth("get", "p", "--wait", "300ms", "--json", dsn=dsn)
    assert (still.code, still.document["state"]) == (1, "pending")
    db.execute("select resolve('p', '1'), reject('q', '{\"type\": \"E\", \"message\": \"m\"}')")
    assert troth("get", "p", "--wait", "60s", dsn=dsn).code == 0
    assert troth("get", "q", "--wait", "60s", dsn=dsn).code == 1
    assert troth("get", "q", dsn=dsn).code == 0
    begun = troth("start", "f", "w", "--wait", "0.2", "--json", dsn=dsn)
    assert (begun.code, begun.document["answer"], begun.document["promise"]["state"]) == (
        1,
        "created",
        "pending",
    )


BAD_INPUT: dict[str, tuple[tuple[str, ...], str]] = {
    "an ID with a slash": (("start", "f", "a/b"), "letters, digits"),
    "an ID with a tilde": (("start", "f", "a~b"), "~"),
    "an empty ID": (("start", "f", ""), "ID"),
    "a word that is no argument": (("start", "f", "a", "order-42"), "name=value"),
    "an argument twice": (("start", "f", "a", "x=1", "x=2"), "twice"),
    "NaN as JSON": (("start", "f", "a", "x:=NaN"), "no JSON"),
    "NaN inside the arguments": (("start", "f", "a", '{"x": NaN}'), "no JSON object"),
    "NaN as data": (("reject", "a", "--data", "NaN"), "no JSON"),
    "a NUL": (("start", "f", "a", 'x:="\\u0000"'), "NUL"),
    "one key twice": (("start", "f", "a", 'x:={"k": 1, "k": 2}'), "two keys"),
    "too deep": (("start", "f", "a", f"x:={'[' * 101}{']' * 101}"), "deeper"),
    "no such command": (("begin", "f"), "begin"),
    "no such option": (("get", "a", "--hurry"), "--hurry"),
    "an ID missing": (("get",), "ID"),
    "a word too many": (("get", "a", "b"), "b"),
    "no duration": (("start", "f", "a", "--delay", "soon"), "1h30m"),
    "too long a duration": (("start", "f", "a", "--delay", "40000d"), "36500"),
    "no tag": (("start", "f", "a", "--tag", "k"), "key=value"),
    "no state": (("list", "--state", "done"), "resolved"),
    "a page too long": (("list", "--limit", "1001"), "1000"),
    "no schema": (("get", "a", "--schema", "No Schema"), "lower-case"),
    "both ways to give a value": (("resolve", "a", "1", "--value", "2"), "twice"),
    "a step with neither value nor error": (("settle-step", "a", "s"), "--error"),
    "a step with a value and an error": (
        ("settle-step", "a", "s", "--value", "1", "--error", "x"),
        "--value",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_sentence_and_changes_nothing(dsn: str, db: Connection, case: str) -> None:
    words, named = BAD_INPUT[case]
    answer = troth(*words, dsn=dsn)
    assert answer.code == Exit.USAGE
    assert named in answer.complaint
    assert db.execute("select count(*) from promises").fetchone() == (0,)


def test_a_value_of_two_mebibytes_is_refused(dsn: str, db: Connection) -> None:
    db.execute("select create_promise('p')")
    answer = troth("resolve", "p", "--value", "-", dsn=dsn, stdin='"' + "x" * 2 * 1024 * 1024 + '"')
    assert answer.code == Exit.USAGE
    assert "1048576" in answer.complaint
    endless = troth("resolve", "p", "--value", "-", dsn=dsn, stdin=b" " * 5 * 1024 * 1024)
    assert "Standard input is longer" in endless.complaint
    binary = troth("resolve", "p", "--value", "-", dsn=dsn, stdin=b"\xff\xfe")
    assert "UTF-8" in binary.complaint
    assert db.execute("select state from promises").fetchone() == ("pending",)


def test_a_postgres_that_is_not_there(dsn: str) -> None:
    down = troth("get", "a", "--dsn", "postgresql://joe:s3cret@127.0.0.1:1/shop")
    assert down.code == Exit.UNREACHABLE
    assert "127.0.0.1:1 (database shop)" in down.complaint
    assert "s3cret" not in down.err
    wrong = troth("get", "a", "--dsn", dsn.rpartition("/")[0] + "/no_such_database")
    assert wrong.code == Exit.UNREACHABLE
    assert "no_such_database" in wrong.complaint
    for command in (("migrate",), ("serve", "--port", "0"), ("worker", "json")):
        answer = troth(*command, "--dsn", "postgresql://127.0.0.1:1/x")
        assert answer.code == (Exit.USAGE if command[0] == "worker" else Exit.UNREACHABLE)
        assert answer.complaint


def test_no_dsn_or_none_that_can_be_read(dsn: str) -> None:
    nothing = troth("get", "a")
    assert nothing.code == Exit.USAGE
    assert "troth dev" in nothing.complaint
    assert troth("get", "a", "--dsn", "mysql").code == Exit.USAGE
    assert troth("list", "--dsn", dsn, env={"TROTH_DSN": "postgresql://127.0.0.1:1/x"}).code == 0, (
        "--dsn comes first"
    )


def test_s99_an_applications_database_url_is_not_touched(dsn: str) -> None:
    answer = troth("list", env={"DATABASE_URL": dsn, "POSTGRES_URL": dsn})
    assert answer.code == Exit.USAGE
    assert "No Postgres is named" in answer.complaint
    assert troth("list", dsn=dsn, env={"DATABASE_URL": "postgresql://127.0.0.1:1/x"}).code == 0


def test_a_schema_that_is_missing(dsn: str) -> None:
    answer = troth("get", "a", "--schema", "elsewhere", dsn=dsn)
    assert answer.code == Exit.SCHEMA
    assert "troth migrate" in answer.complaint
    assert troth("get", "a", dsn=dsn, env={"TROTH_SCHEMA": "elsewhere"}).code == Exit.SCHEMA


def test_a_schema_that_is_newer_than_the_code(dsn: str, db: Connection) -> None:
    db.execute(
        "create or replace function protocol(out current integer, out oldest integer) language sql as 'select 3, 2'"
    )
    answer = troth("get", "a", dsn=dsn)
    assert answer.code == Exit.SCHEMA
    assert "Upgrade" in answer.complaint


def test_migrate_makes_compares_and_prints(dsn: str, db: Connection) -> None:
    assert troth("migrate", "--check", "--schema", "second", dsn=dsn).code == Exit.SCHEMA
    made = troth("migrate", "--schema", "second", "--json", dsn=dsn).document
    assert (made["schema"], made["revision_before"]) == ("second", None)
    assert made["roles"]["client"] == "second_client"
    checked = troth("migrate", "--check", "--schema", "second", "--json", dsn=dsn)
    assert (checked.code, checked.document["state"]) == (0, "current")
    assert "at revision" in troth("migrate", "--schema", "second", dsn=dsn).out
    text = troth("migrate", "--sql", "--schema", "third", "--no-roles").out
    assert text.startswith("-- Troth, schema third.")
    assert "create role" not in text
    db.execute("drop schema second cascade")


def test_migrate_refuses_what_contradicts_itself(dsn: str) -> None:
    assert troth("migrate", "--sql", "--check", dsn=dsn).code == Exit.USAGE
    assert troth("migrate", "--from", "0001", dsn=dsn).code == Exit.USAGE
    assert "client=ROLE" in troth("migrate", "--grant", "app", dsn=dsn).complaint
    assert "nobody" in troth("migrate", "--grant", "nobody=app", dsn=dsn).complaint


def test_help_lists_the_commands_and_what_exit_codes_mean() -> None:
    answer = troth("--help")
    assert answer.code == 0
    flat = " ".join(answer.out.split())
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning}" in flat
    commands = re.findall(r"^│ (\w[\w-]*) +[A-Z]", answer.out, re.MULTILINE)
    assert " ".join(commands) == (
        "dev migrate serve worker start resolve reject cancel get list tree journal halt resume settle-step fork"
        " export import replay doctor"
    )
    assert troth().out == answer.out
    assert "is a string, n=3 a number" in " ".join(troth("start", "--help").out.split())
    assert troth("--version").out.strip().count(".") == 2


def test_a_traceback_is_shown_only_on_request(dsn: str) -> None:
    assert "Traceback" in troth("get", "a", "--traceback", dsn=dsn).err
    assert "Traceback" in troth("get", "a", dsn=dsn, env={"TROTH_TRACEBACK": "1"}).err
    assert "Traceback" not in troth("get", "a", dsn=dsn, env={"TROTH_TRACEBACK": "0"}).err


def test_how_long_get_takes_to_start(
    dsn: str, db: Connection, record_property: Callable[[str, object], None]
) -> None:
    """It must be under 0.5 s on a quiet machine; a busy one proves nothing, so the time is only told."""
    db.execute("select create_promise('p')")
    times: list[float] = []
    for _ in range(3):
        begin = time.monotonic()
        assert troth("get", "p", "--json", dsn=dsn).code == 0
        times.append(time.monotonic() - begin)
    record_property("troth_get_seconds", round(min(times), 3))
