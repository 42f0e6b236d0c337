"""The API as a process: how it starts, refuses to start, streams, loses Postgres, and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped, unused-ignore]
import psycopg
import pytest

from tests.api.problems import problem
from tests.api.serving import END_SECONDS_MAX, Serve, refused
from troth.dev.postgres import Postgres
from troth.schema import migrate


def get(url: str, seconds: float = 60) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=seconds)


def post(url: str, body: object, seconds: float = 60) -> httpx.Response:
    return httpx.post(url, json=body, trust_env=False, timeout=seconds)


def family_of(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_when_told_to_even_while_somebody_waits(
    serve: Serve, dsn: str, db: psycopg.Connection[Any], number: signal.Signals
) -> None:
    """He is told how things stand: who was cut off would have no answer."""
    served = serve("--workers", "2", TROTH_DSN=dsn)
    assert get(f"{served.url}/readyz").json() == {"status": "ok"}
    post(f"{served.url}/promises", {"id": "p"})
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(get(f"{served.url}/promises/p?wait=60", 120)))
    asking.start()
    while not looked_for(db):
        time.sleep(0.02)
    family = family_of(served.process.pid)
    served.process.send_signal(number)
    assert served.process.wait(END_SECONDS_MAX) == 0
    asking.join()
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "pending")]
    assert not psutil.wait_procs(family, timeout=60)[1]
    assert "Traceback" not in served.log.read_text()


def test_starts_that_came_together_are_answered_when_it_is_told_to_end(
    serve: Serve, dsn: str, db: psycopg.Connection[Any], connect: Callable[..., psycopg.Connection[Any]]
) -> None:
    served = serve("--dsn", dsn)
    ids = [f"o{n}" for n in range(9)]
    with ThreadPoolExecutor(len(ids)) as pool, connect().cursor() as holder:
        holder.execute("begin")
        holder.execute("select start(id, 'f') from unnest(%s::text[]) id", [ids])
        asked = [pool.submit(post, f"{served.url}/workflows/f", {"id": id}) for id in ids]
        until_blocked(db, len(ids))  # all have come, and by now each asks for itself
        served.process.send_signal(signal.SIGTERM)
        holder.execute("rollback")
        answers = [each.result() for each in asked]
    assert [answer.status_code for answer in answers] == [201] * 9
    assert served.process.wait(END_SECONDS_MAX) == 0
    assert "Traceback" not in served.log.read_text()
    assert db.execute("select count(*) from promise").fetchone() == (9,)


def until_blocked(db: psycopg.Connection[Any], sessions: int) -> None:
    blocked = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    while db.execute(blocked).rowcount < sessions:
        time.sleep(0.001)


def looked_for(db: psycopg.Connection[Any]) -> bool:
    """Whether the API has asked for a promise."""
    asked = (
        "select from pg_stat_activity "
        "where datname = current_database() and application_name = 'troth' and query ~ '\\m(get|settled)\\M'"
    )
    return db.execute(asked).fetchone() is not None


def test_its_workers_end_with_it_when_it_is_killed(serve: Serve, dsn: str) -> None:
    served = serve("--dsn", dsn)
    family = family_of(served.process.pid)
    assert len(family) == 2
    served.process.kill()
    served.process.wait()
    assert not psutil.wait_procs(family, timeout=60)[1]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", served.port))


def test_a_port_that_is_taken_is_said_in_one_sentence(serve: Serve, dsn: str) -> None:
    served = serve("--dsn", dsn)
    code, said = refused("--dsn", dsn, "--port", str(served.port))
    assert (code, said.count("\n")) == (1, 1)
    assert f"Cannot listen on 127.0.0.1:{served.port}: Address already in use." in said
    assert get(f"{served.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--dsn", "postgresql://me:hidden@127.0.0.1:1/none"],
            "Postgres at 127.0.0.1:1 (database none) cannot be reached",
        ),
        (["--dsn", "nonsense"], "This is not a DSN"),
        (["--dsn", "DSN", "--schema", "absent"], "troth migrate"),
        (["--dsn", "DSN", "--schema", "not a name"], "not a name"),
        (["--dsn", "DSN", "--port", "70000"], "not a number from 0 to 65535"),
        (["--dsn", "DSN", "--workers", "0"], "not a number from 1 to"),
        (["--dsn", "DSN", "--host", "no.such.host.invalid"], "Cannot listen on no.such.host.invalid"),
    ],
)
def test_what_stands_in_the_way_is_said_in_one_sentence(
    dsn: str, arguments: list[str], sentence: str
) -> None:
    code, said = refused(*(dsn if each == "DSN" else each for each in arguments))
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith("troth-api: ")
    assert sentence in said
    assert "hidden" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("announced", [True, False])
def test_s66_a_body_of_a_gigabyte_is_refused_without_being_kept(
    serve: Serve, dsn: str, announced: bool
) -> None:
    served = serve("--dsn", dsn)
    get(f"{served.url}/readyz")
    workers = family_of(served.process.pid)
    before = sum(process.memory_info().rss for process in workers)
    sent, answer = stream(served.port, 1024**3, announced=announced)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
    assert b"application/problem+json" in answer
    assert b"payload_too_large" in answer
    assert sent < 64 * 1024**2
    assert sum(process.memory_info().rss for process in workers) - before < 32 * 1024**2
    assert get(f"{served.url}/healthz").status_code == 200


def stream(port: int, size: int, *, announced: bool) -> tuple[int, bytes]:
    """Send a body of this size, until the server has had enough: how much was taken, and the answer."""
    length = f"Content-Length: {size}" if announced else "Transfer-Encoding: chunked"
    head = f"POST /promises HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    piece = b"a" * 65536
    chunk = piece if announced else b"%x\r\n%s\r\n" % (len(piece), piece)
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode())
        try:
            while sent < size:
                connection.sendall(chunk)
                sent += len(piece)
        except OSError:
            pass
        answer = b""
        try:
            while b"payload_too_large" not in answer and (received := connection.recv(65536)):
                answer += received
        except OSError:
            pass
        return sent, answer


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Postgres]:
    """A Postgres of the test's own, which keeps its data and its port."""
    with Postgres.start(tmp_path / "pg", prefer=os.environ.get("TROTH_TEST_POSTGRES") or None) as postgres:
        yield postgres


def test_when_postgres_goes_it_says_so_and_when_it_is_back_it_goes_on(
    serve: Serve, own: Postgres, tmp_path: Path
) -> None:
    migrate(own.dsn)
    served = serve("--dsn", own.dsn)
    assert post(f"{served.url}/promises", {"id": "p"}).status_code == 201
    own.stop()
    for answer in (
        get(f"{served.url}/readyz"),
        get(f"{served.url}/promises/p"),
        post(f"{served.url}/promises/p/resolve", {"value": 1}),
        post(f"{served.url}/workflows/approve", {"id": "o"}),
    ):
        document = problem(answer, 503, "postgres_unreachable")
        assert f"127.0.0.1:{own.port}" in document["detail"]
        assert answer.headers["retry-after"]
    assert get(f"{served.url}/healthz").status_code == 200
    again = Postgres.start(
        tmp_path / "pg", port=own.port, prefer=os.environ.get("TROTH_TEST_POSTGRES") or None
    )
    try:
        assert get(f"{served.url}/readyz").status_code == 200
        assert get(f"{served.url}/promises/p").json()["state"] == "pending"
        assert post(f"{served.url}/promises/p/resolve", {"value": 1}).status_code == 200
    finally:
        again.stop()


def test_a_schema_that_vanishes_is_said_by_readyz(serve: Serve, dsn: str) -> None:
    migrate(dsn, schema="vanishing")
    served = serve("--dsn", dsn, TROTH_SCHEMA="vanishing")
    assert get(f"{served.url}/readyz").status_code == 200
    with psycopg.connect(dsn) as connection:
        connection.execute("drop schema vanishing cascade")
    document = problem(get(f"{served.url}/readyz"), 503, "schema_mismatch")
    assert "troth migrate" in document["hint"]


def test_the_script_is_there() -> None:
    said = subprocess.run(
        [Path(sys.executable).with_name("troth-api"), "--help"], capture_output=True, text=True
    )
    assert said.returncode == 0
    assert "--allow-host" in said.stdout
