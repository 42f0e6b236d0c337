"""`troth dev`: all of it together, found from a second terminal, and nothing left behind however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import EXAMPLES, TROTH, environment, troth
from tests.support.ports import free_port
from troth.cli.exits import Exit
from troth.dev import Postgres
from troth.dev.processes import alive, until

SECONDS_MAX = 60.0
Up = Callable[..., "Dev"]


class Dev:
    """A running `troth dev --json`."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.said: list[dict[str, Any]] = []
        self.seen: set[int] = set()

    def wait_for(self, event: str) -> dict[str, Any]:
        """Read on until it says so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            document: dict[str, Any] = json.loads(line)
            self.said.append(document)
            if document["event"] == event:
                return document
        pytest.fail(f"it ended without {event!r}: {self.said}")

    def children(self) -> dict[str, list[int]]:
        """Its descendants: the process IDs of API, worker and Postgres."""
        found: dict[str, list[int]] = {"troth_api": [], "worker": [], "postgres": []}
        for pid in descendants(self.process.pid):
            self.seen.add(pid)
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            for name, pids in found.items():
                if name in command:
                    pids.append(pid)
                    break
        return found

    def end(self, number: signal.Signals) -> int:
        """Send a signal, read what it still says, and give the exit code."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.said += [json.loads(line) for line in self.process.stdout]
        return self.process.wait(SECONDS_MAX)


def descendants(pid: int) -> list[int]:
    try:
        below = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return below + [each for child in below for each in descendants(child)]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Starts `troth dev approval.py` in a directory of its own."""
    shutil.copy(EXAMPLES / "approval.py", tmp_path)
    started: list[Dev] = []

    def start(*words: str, dsn: str | None = None) -> Dev:
        port = free_port()
        process = subprocess.Popen(
            [*TROTH, "--json", "dev", "approval.py", "--port", str(port), *words],
            cwd=tmp_path,
            env=environment(dsn, {"DATABASE_URL": "postgresql://127.0.0.1:1/not_ours"}),
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(Dev(process, port))
        return started[-1]

    yield start
    for dev in started:
        dev.process.kill()
        dev.process.communicate()
        for pid in filter(alive, dev.seen):
            os.kill(pid, signal.SIGKILL)
    Postgres.reset(tmp_path / ".troth")


def gone(pids: dict[str, list[int]]) -> bool:
    return until(lambda: not any(alive(pid) for each in pids.values() for pid in each), SECONDS_MAX)


def test_all_of_it_runs_is_found_and_leaves_nothing(up: Up, tmp_path: Path) -> None:
    dev = up("--ephemeral")
    ready = dev.wait_for("ready")
    assert ready["url"] == f"http://localhost:{dev.port}"
    pids = dev.children()
    assert all(pids.values()), pids
    (tmp_path / "below").mkdir()
    started = troth("start", "approve_order", "o-1", "order=o-1", "--json", cwd=tmp_path / "below")
    assert started.document["answer"] == "created", "a second terminal finds it through .troth/"
    with urllib.request.urlopen(f"http://127.0.0.1:{dev.port}/promises/o-1") as answer:
        assert json.load(answer)["id"] == "o-1"
    assert until(lambda: troth("resolve", "o-1~approval", "true", cwd=tmp_path).code == 0, SECONDS_MAX)
    assert troth("get", "o-1", "--wait", "60s", cwd=tmp_path).code == 0
    assert only_loopback(dev.port)

    assert dev.end(signal.SIGTERM) == 0
    assert gone(pids)
    assert not (tmp_path / ".troth" / "postgres.json").exists()
    assert not (tmp_path / ".troth" / "pgdata").exists(), "ephemeral"
    lines = [each["line"] for each in dev.said if each["event"] == "log" and each["process"] == "worker"]
    assert sum("CLICK TO DECIDE" in line for line in lines) == 1
    assert any("worker stopped" in line for line in lines), "the worker was not killed"


def only_loopback(port: int) -> bool:
    """Whether the port is closed on every other address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
        except OSError:
            return True
    if address.startswith("127."):
        return True
    with socket.socket() as other:
        other.settimeout(2)
        return other.connect_ex((address, port)) != 0


def test_data_are_kept_until_reset_and_ctrl_c_ends_it(up: Up, tmp_path: Path) -> None:
    first = up()
    first.wait_for("ready")
    troth("start", "approve_order", "o-1", "order=o-1", cwd=tmp_path)
    pids = first.children()
    assert first.end(signal.SIGINT) == 0
    assert gone(pids)
    second = up()
    second.wait_for("ready")
    assert troth("get", "o-1", cwd=tmp_path).code == 0
    assert second.end(signal.SIGTERM) == 0
    third = up("--reset")
    third.wait_for("ready")
    assert troth("get", "o-1", cwd=tmp_path).code == Exit.NOT_FOUND
    assert third.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("part", ["worker", "troth_api"])
def test_a_part_that_dies_ends_the_rest(up: Up, dsn: str, part: str) -> None:
    dev = up(dsn=dsn)
    dev.wait_for("ready")
    pids = dev.children()
    assert not pids["postgres"], "a DSN was given"
    os.kill(pids[part][0], signal.SIGKILL)
    failed = dev.wait_for("failed")
    assert "SIGKILL" in failed["message"]
    assert dev.process.wait(SECONDS_MAX) == Exit.FAILED
    assert gone(pids)


def test_its_children_end_with_it_even_if_it_is_killed(up: Up, dsn: str) -> None:
    dev = up(dsn=dsn)
    dev.wait_for("ready")
    pids = dev.children()
    dev.process.kill()
    assert gone(pids)


def test_a_workflow_file_that_fails_when_it_is_imported_ends_it(up: Up, dsn: str, tmp_path: Path) -> None:
    (tmp_path / "approval.py").write_text("raise RuntimeError('no config')\n")
    dev = up(dsn=dsn)
    failed = dev.wait_for("failed")
    assert "worker ended with exit code 2" in failed["message"]
    assert any("no config" in each.get("line", "") for each in dev.said)
    assert dev.process.wait(SECONDS_MAX) == Exit.FAILED


def test_what_cannot_be_is_said_before_anything_is_started(dsn: str, tmp_path: Path) -> None:
    assert "'nowhere.py' does not exist" in troth("dev", "nowhere.py", cwd=tmp_path).complaint
    (tmp_path / "bad.py").write_text("def broken(:\n")
    assert "bad.py:1" in troth("dev", "bad.py", cwd=tmp_path).complaint
    (tmp_path / "good.py").write_text("x = 1\n")
    refused = troth("dev", "good.py", "--reset", dsn=dsn, cwd=tmp_path)
    assert refused.code == Exit.USAGE
    assert "--reset" in refused.complaint
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        busy = troth("dev", "good.py", "--port", port, cwd=tmp_path)
    assert busy.code == Exit.FAILED
    assert f"Port {port}" in busy.complaint
    assert not (tmp_path / ".troth").exists()
    down = troth(
        "dev", "good.py", "--port", str(free_port()), "--dsn", "postgresql://127.0.0.1:1/x", cwd=tmp_path
    )
    assert down.code == Exit.UNREACHABLE
