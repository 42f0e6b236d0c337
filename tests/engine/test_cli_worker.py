"""`troth worker`: what it imports, what it says about what it cannot import, and how it stops."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.cli import EXAMPLES, TROTH, environment, troth
from troth.cli.exits import Exit

Connection = psycopg.Connection[Any]
Start = Callable[..., subprocess.Popen[str]]

SECONDS_MAX = 60.0


@pytest.fixture
def start(dsn: str) -> Iterator[Start]:
    """Starts a command that goes on until it is told to stop; what is left at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, cwd: Path = EXAMPLES) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*TROTH, *words],
            env=environment(dsn, {"PYTHONUNBUFFERED": "1"}),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_workflow_from_its_start_to_its_end_by_the_command_line_alone(
    dsn: str, db: Connection, start: Start
) -> None:
    worker = start("worker", "approval.py", "--name", "w", "--grace", "1s")
    assert troth("start", "approve_order", "order-42", "order=order-42", dsn=dsn).code == 0
    until(lambda: db.execute("select 1 from tasks where state = 'suspended'").fetchone() is not None, worker)
    tree = troth("tree", "order-42", dsn=dsn).out
    assert [line.split("order-42", 1)[1].split()[0:2] for line in tree.splitlines()] == [
        ["pending", "approve_order,"],
        ["~approval", "pending"],
    ]
    assert [each["id"] for each in troth("tree", "order-42", "--json", dsn=dsn).documents] == [
        "order-42",
        "order-42~approval",
    ]
    assert troth("resolve", "order-42~approval", "true", dsn=dsn).code == 0
    ended = troth("start", "approve_order", "order-42", "order=order-42", "--wait", "20s", "--json", dsn=dsn)
    assert (ended.code, ended.document["answer"]) == (0, "attached")
    assert ended.document["promise"]["value"] == "order-42: approved"

    journal = troth("journal", "order-42", "--json", dsn=dsn).documents
    assert [(each["seq"], each["operation"], each["kind"], each["state"]) for each in journal] == [
        (1, "send_email", "step", "resolved"),
        (2, "approval", "promise", "resolved"),
    ]
    assert {"at", "epoch", "issued", "value", "error", "digest", "promise"} <= set(journal[0])
    second = troth("journal", "order-42", "--from", "2", dsn=dsn).out
    assert "approval" in second
    assert "send_email" not in second
    [name] = db.execute("select id from workers where died_at is null").fetchone() or [None]
    assert str(name).startswith("w-")

    worker.send_signal(signal.SIGTERM)
    said, log = worker.communicate(timeout=SECONDS_MAX)
    assert worker.returncode == 0
    assert said.count("CLICK TO DECIDE") == 1, "standard output is the user's own"
    assert said.count("\n") == 1
    assert "worker started" in log
    assert "Traceback" not in log


def test_it_stops_on_ctrl_c_and_logs_json_on_request(db: Connection, start: Start) -> None:
    worker = start(
        "--json", "worker", "approval.py:approve_order", "--queue", "a", "-q", "b", "--concurrency", "3"
    )
    until(lambda: db.execute("select queues from workers").fetchone() == (["a", "b"],), worker)
    worker.send_signal(signal.SIGINT)
    _, log = worker.communicate(timeout=SECONDS_MAX)
    assert worker.returncode == 0
    documents = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [each["event"] for each in documents] == ["worker started", "worker stopped"]


def test_a_module_by_its_name_from_the_directory_one_stands_in(
    db: Connection, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "names.py").write_text("NAME = 'buy'\n")
    (tmp_path / "shop" / "flows.py").write_text(
        "from troth import workflow\nfrom shop.names import NAME\n\n"
        "@workflow(name=NAME)\nasync def anything(ctx):\n    return 1\n\n"
        "@workflow\nasync def other(ctx):\n    return 2\n"
    )
    worker = start("worker", "shop.flows:anything", cwd=tmp_path)
    until(lambda: db.execute("select array_agg(lanes) from workers").fetchone() != (None,), worker)
    lanes = str(db.execute("select lanes from workers").fetchone())
    assert "buy" in lanes
    assert "other" not in lanes


BAD_FILES: dict[str, tuple[str, str, Exit]] = {
    "syntax": ("x = 1\ndef broken(:\n", "bad.py:2", Exit.USAGE),
    "raises": (
        "def f():\n    raise RuntimeError('no config')\n\nf()\n",
        "bad.py:2 raised RuntimeError",
        Exit.USAGE,
    ),
    "imports nothing that is there": ("import not_there_at_all\n", "bad.py:1", Exit.USAGE),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit", Exit.USAGE),
    "has no workflow": ("x = 1\n", "no workflows", Exit.USAGE),
    "is not async": (
        "from troth import workflow\n\n@workflow\ndef f(ctx):\n    return 1\n",
        "bad.py:",
        Exit.USAGE,
    ),
    "has no context": (
        "from troth import workflow\n\n@workflow\nasync def f():\n    return 1\n",
        "ctx",
        Exit.USAGE,
    ),
    "says one name twice": (
        "from troth import workflow\nasync def f(ctx):\n    pass\nworkflow(name='a')(f)\ng, h = workflow(f), workflow(f)\n",
        "Two workflows",
        Exit.USAGE,
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_one_sentence(dsn: str, tmp_path: Path, case: str) -> None:
    text, named, code = BAD_FILES[case]
    (tmp_path / "bad.py").write_text(text)
    answer = troth("worker", "bad.py", dsn=dsn, cwd=tmp_path)
    assert answer.code == code
    assert named in answer.complaint


def test_what_is_not_there_is_named(dsn: str, tmp_path: Path) -> None:
    assert "'nowhere.py' does not exist" in troth("worker", "nowhere.py", dsn=dsn, cwd=tmp_path).complaint
    assert "no module 'nowhere'" in troth("worker", "nowhere", dsn=dsn, cwd=tmp_path).complaint
    (tmp_path / "folder.py").mkdir()
    assert "is a directory" in troth("worker", "folder.py", dsn=dsn, cwd=tmp_path).complaint
    unknown = troth("worker", f"{EXAMPLES / 'approval.py'}:refuse_order", dsn=dsn)
    assert unknown.code == Exit.NOT_FOUND
    assert "approve_order" in unknown.complaint


def test_a_file_may_be_called_as_a_module_of_python_is(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("x = 1\n")
    assert "no workflows" in troth("worker", "queue.py", dsn=dsn, cwd=tmp_path).complaint


def test_a_namespace_that_is_missing_and_options_that_cannot_be(dsn: str) -> None:
    file = str(EXAMPLES / "approval.py")
    assert troth("worker", file, "--schema", "elsewhere", dsn=dsn).code == Exit.SCHEMA
    assert troth("worker", file, "--concurrency", "0", dsn=dsn).code == Exit.USAGE
    assert troth("worker", file, "--queue", "a queue", dsn=dsn).code == Exit.USAGE
    down = troth("worker", file, "--dsn", "postgresql://127.0.0.1:1/x")
    assert down.code == Exit.UNREACHABLE
    assert down.complaint


def test_serve_becomes_the_api_and_ends_with_it(dsn: str, start: Start) -> None:
    serve = start("serve", "--port", "0")
    assert serve.stderr is not None
    first = serve.stderr.readline()
    assert "http://127.0.0.1:" in first
    command = Path(f"/proc/{serve.pid}/cmdline").read_text()
    assert "troth_api" in command
    assert dsn not in command, "a password has no place in a list of processes"
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(SECONDS_MAX) == 0
    assert troth("serve", "--schema", "elsewhere", dsn=dsn).code == Exit.SCHEMA
