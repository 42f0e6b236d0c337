"""The life of the development server: started, found again, killed, mended, stopped, thrown away.

Real servers and real processes. Each test has a directory of its own; what a server of it left is thrown away.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import psycopg
import pytest
import sqlalchemy

import troth.dev
from troth.dev import AlreadyRunning, AlreadyStarting, Postgres, StartFailed, VersionMismatch, find_running
from troth.dev.locks import FileLock
from troth.dev.processes import alive, until

SOURCE_ROOT = str(Path(troth.dev.__file__).parents[2])
PATIENCE_SECONDS = 120.0
QUICK: dict[str, str | int] = {"fsync": "off"}
"""Lasting data that need not outlive the power: what is tested is not the disk."""

STARTS_AND_WAITS = """
import pathlib, select, sys
from troth.dev import LauncherError, Postgres
try:
    with Postgres.start(pathlib.Path(sys.argv[1]), ephemeral=len(sys.argv) > 2, settings={"fsync": "off"}) as postgres:
        print(postgres.pid, postgres.owned, postgres.data, flush=True)
        # one long read could miss a signal that came just before it began
        while not (select.select([sys.stdin], [], [], 0.1)[0] and not sys.stdin.read(1)):
            pass
except LauncherError as error:
    print(type(error).__name__, error, flush=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / ".troth"
    yield home
    Postgres.reset(home)


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Another process that starts the server of a directory and holds it until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def spawn(home: Path, *more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", STARTS_AND_WAITS, str(home), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": SOURCE_ROOT},
        )
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.communicate()


def holder(home: Path) -> str | None:
    """The process that has locked the directory. Its lock is a file first, then held, then signed."""
    return next(iter(_lines(home / "lock")), None)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line and process.stderr is not None:
        pytest.fail(process.stderr.read())
    return line


def ask(dsn: str, sql: str) -> object:
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        row = connection.execute(sql.encode()).fetchone()
        return None if row is None else row[0]


def do(dsn: str, sql: str) -> None:
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        connection.execute(sql.encode())


async def test_a_lasting_server_takes_every_driver_and_keeps_its_data(home: Path) -> None:
    with Postgres.start(home) as postgres:
        assert postgres.owned
        settings = {
            name: ask(postgres.dsn, f"show {name}") for name in ("fsync", "timezone", "server_encoding")
        }
        assert settings == {"fsync": "on", "timezone": "UTC", "server_encoding": "UTF8"}
        connection = await asyncpg.connect(postgres.dsn)
        assert await connection.fetchval("select lower('ÄÖ')") == "äö"  # the locale knows more than ASCII
        await connection.close()
        engine = sqlalchemy.create_engine(postgres.dsn.replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect() as session:
            assert session.scalar(sqlalchemy.text("select 1")) == 1
        engine.dispose()
        do(postgres.dsn, "create table kept as select 42 as answer")
        do(postgres.dsn, "create database other")
        assert ask(postgres.dsn_of("other"), "select current_database()") == "other"
        first = postgres.pid, postgres.port
    assert not alive(first[0])
    assert find_running(home.parent) is None
    with Postgres.start(home) as postgres:
        assert ask(postgres.dsn, "select answer from kept") == 42
        assert postgres.port == first[1]  # a DSN that somebody noted holds on


def test_nobody_gets_in_without_the_password(home: Path) -> None:
    with Postgres.start(home) as postgres:
        without = re.sub(r":[0-9a-f]{48}@", "@", postgres.dsn)
        assert without != postgres.dsn
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(without, passfile="/dev/null")
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(without, passfile="/dev/null", host=str(postgres.socket))
        password = postgres.dsn.split(":")[2].split("@")[0]
        psycopg.connect(without, password=password, host=str(postgres.socket)).close()

        def mode(path: Path) -> int:
            return stat.S_IMODE(path.stat().st_mode)

        private = [home / "postgres.json", home / "postgres.log", postgres.data / "troth.json"]
        assert [mode(path) for path in private] == [0o600, 0o600, 0o600]
        assert [mode(postgres.data), mode(postgres.socket)] == [0o700, 0o700]
        assert (home / ".gitignore").read_text() == "*\n"


def test_settings_and_binaries_can_be_chosen(home: Path) -> None:
    with Postgres.start(
        home, prefer="embedded", settings={"max_connections": 37, "work_mem": "5MB"}
    ) as postgres:
        assert postgres.version.split(".")[0] == "18"
        assert (ask(postgres.dsn, "show max_connections"), ask(postgres.dsn, "show work_mem")) == (
            "37",
            "5MB",
        )
        assert ask(postgres.dsn, "show server_version") == postgres.version


# --- two of them -------------------------------------------------------------------------------------------------


def test_who_comes_later_adopts_the_server_and_leaves_it_alone(home: Path) -> None:
    with Postgres.start(home, settings=QUICK) as owner:
        with Postgres.start(home, settings=QUICK) as guest:
            assert (guest.pid, guest.dsn, guest.owned, guest.version) == (
                owner.pid,
                owner.dsn,
                False,
                owner.version,
            )
        assert ask(owner.dsn, "select 1") == 1
        with pytest.raises(AlreadyRunning, match=f"on port {owner.port} instead of 1: stop it first"):
            Postgres.start(home, port=1, settings=QUICK)
        with pytest.raises(AlreadyRunning, match="instead of 99: use another directory"):
            Postgres.start(home, prefer="99", settings=QUICK)
        with pytest.raises(AlreadyRunning, match="a lasting Postgres runs"):
            Postgres.start(home, ephemeral=True)
        guest = Postgres.start(home, settings=QUICK)
        guest.stop(adopted=True)
        assert not alive(owner.pid)


def test_two_starts_at_once_one_wins_and_the_other_says_so(
    home: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    first = spawn(home)
    assert until(lambda: holder(home) == str(first.pid), PATIENCE_SECONDS)
    first.send_signal(signal.SIGSTOP)  # in the middle of its start, for as long as it takes to look
    with pytest.raises(AlreadyStarting, match=f"being started by process {first.pid} at this moment: wait"):
        Postgres.start(home, settings=QUICK)
    first.send_signal(signal.SIGCONT)
    pid, owned, _ = line_of(first).split(maxsplit=2)
    assert owned == "True"
    with Postgres.start(home, settings=QUICK) as later:
        assert (str(later.pid), later.owned) == (pid, False)


def test_of_many_starts_at_once_exactly_one_makes_the_server(
    home: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    lines = [line_of(process) for process in [spawn(home) for _ in range(4)]]
    owners = [line for line in lines if " True " in line]
    assert len(owners) == 1, lines
    pid = owners[0].split()[0]
    for line in lines:
        assert line.startswith((f"{pid} ", "AlreadyStarting The Postgres of ")), lines


def test_the_same_directory_by_another_name_is_the_same_server(home: Path) -> None:
    with Postgres.start(home, settings=QUICK) as owner:
        (home.parent / "link").symlink_to(home.parent)
        with Postgres.start(home.parent / "link" / ".troth", settings=QUICK) as guest:
            assert (guest.pid, guest.owned) == (owner.pid, False)
        assert alive(owner.pid)


def test_a_server_of_another_container_is_left_alone(home: Path) -> None:
    """Its processes cannot be seen from here, but its owner's lock can."""
    Postgres.start(home, settings=QUICK).stop()
    places = [home, *(Path(line) for line in _lines(home / "place"))]
    lock = FileLock(next(place for place in places if (place / "pgdata").exists()) / "owner")
    assert lock.acquire()
    with lock:
        lock.path.write_text("1 pid:[1]\n")
        with pytest.raises(AlreadyRunning, match="belongs to process 1 of another container"):
            Postgres.start(home, settings=QUICK)
    with Postgres.start(home, settings=QUICK) as postgres:
        assert postgres.owned


# --- killed ------------------------------------------------------------------------------------------------------


def test_a_server_whose_owner_was_killed_is_adopted_and_owned(
    home: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    owner = spawn(home)
    pid = int(line_of(owner).split()[0])
    owner.kill()
    owner.wait()
    assert alive(pid)
    with Postgres.start(home, settings=QUICK) as heir:
        assert (heir.pid, heir.owned) == (pid, True)
        assert ask(heir.dsn, "select 1") == 1
    assert until(lambda: not alive(pid), PATIENCE_SECONDS)


def test_a_killed_postmaster_is_replaced_and_what_was_committed_is_there(home: Path) -> None:
    first = Postgres.start(home, settings=QUICK)
    do(first.dsn, "create table kept as select 42 as answer")
    busy = psycopg.connect(first.dsn, autocommit=True)
    orphan = busy.info.backend_pid
    # A backend that never looks up from its work outlives its postmaster, and holds the shared memory.
    busy.pgconn.send_query(b"do $$ declare n int8 = 0; begin loop n = n + 1; end loop; end $$")
    os.kill(first.pid, signal.SIGKILL)
    assert until(lambda: not alive(first.pid), PATIENCE_SECONDS)
    assert alive(orphan)
    assert find_running(home.parent) is None
    with Postgres.start(home, settings=QUICK) as second:
        assert (second.owned, second.port) == (True, first.port)
        assert second.pid != first.pid
        assert not alive(orphan)
        assert ask(second.dsn, "select answer from kept") == 42
        first.stop()  # the old handle no longer has a server, and must not take the new one's record
        assert find_running(home.parent) is not None
    busy.close()


def test_a_pid_file_that_names_a_stranger_is_not_believed(home: Path) -> None:
    first = Postgres.start(home, settings=QUICK)
    os.kill(first.pid, signal.SIGKILL)
    assert until(lambda: not alive(first.pid), PATIENCE_SECONDS)
    owner = first.data.stat().st_uid
    as_user = owner if os.geteuid() == 0 else None
    # Of the server's own user, standing in its directory, but no Postgres: Postgres itself would believe the number.
    with subprocess.Popen(["sleep", "60"], user=as_user, cwd="/" if as_user else first.data) as stranger:
        for lock in (first.data / "postmaster.pid", *first.socket.glob(".s.PGSQL.*.lock")):
            lock.write_text(lock.read_text().replace(str(first.pid), str(stranger.pid)))
        try:
            with Postgres.start(home, settings=QUICK) as second:
                assert ask(second.dsn, "select 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()
    first.stop()


def test_a_killed_initdb_leaves_nothing_half_made(
    home: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    def making() -> list[Path]:
        places = [home, *(Path(line) for line in _lines(home / "place"))]
        return [m for place in places if (m := place / "new" / "pgdata" / "global").exists()]

    killed = spawn(home)
    assert until(lambda: bool(making()), PATIENCE_SECONDS)
    killed.kill()
    killed.wait()
    place = making()[0].parents[2]
    assert not (place / "pgdata").exists()
    with Postgres.start(home, settings=QUICK) as postgres:
        assert postgres.data == place / "pgdata"
        assert ask(postgres.dsn, "select 1") == 1
        assert not (place / "new").exists()


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_the_server_ends_with_its_owner_on_a_signal(
    home: Path, spawn: Callable[..., subprocess.Popen[str]], number: signal.Signals, code: int
) -> None:
    owner = spawn(home)
    pid = int(line_of(owner).split()[0])
    record = find_running(home.parent)
    assert record is not None
    with closing(psycopg.connect(record.dsn)):  # an open session does not hold it up
        owner.send_signal(number)
        assert owner.wait(PATIENCE_SECONDS) == code
    assert not alive(pid)
    assert "database system is shut down" in (home / "postgres.log").read_text()
    assert not (home / "postgres.json").exists()


def test_a_signal_during_the_start_leaves_no_process_and_no_half(
    home: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    starting = spawn(home)
    assert until(lambda: holder(home) == str(starting.pid), PATIENCE_SECONDS)
    starting.send_signal(signal.SIGTERM)
    assert starting.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert find_running(home.parent) is None
    with Postgres.start(home, settings=QUICK) as postgres:
        assert postgres.owned


# --- thrown away -------------------------------------------------------------------------------------------------


def test_reset_stops_the_server_and_throws_its_data_away_and_nothing_else(home: Path) -> None:
    Postgres.reset(home)  # nothing there: nothing to do
    first = Postgres.start(home, settings=QUICK)
    do(first.dsn, "create table gone ()")
    foreign = home / "mine.txt"
    foreign.write_text("mine")
    Postgres.reset(home)
    assert not alive(first.pid)
    assert not first.data.exists()
    assert not first.socket.exists()
    assert foreign.read_text() == "mine"
    assert first.data.parent == home or not first.data.parent.exists()
    with Postgres.start(home, settings=QUICK) as second:
        assert ask(second.dsn, "select to_regclass('gone')") is None
    first.stop()


def test_ephemeral_data_end_with_the_server() -> None:
    with Postgres.start(ephemeral=True) as postgres:
        place = postgres.data.parent
        assert (postgres.owned, postgres.ephemeral, ask(postgres.dsn, "show fsync")) == (True, True, "off")
        assert place.exists()
    assert not place.exists()
    assert not alive(postgres.pid)
    postgres.stop()


def test_an_ephemeral_server_with_a_directory_is_found_there(home: Path) -> None:
    with Postgres.start(home, ephemeral=True) as postgres:
        found = find_running(home.parent)
        assert found is not None
        assert (found.dsn, found.ephemeral) == (postgres.dsn, True)
        guest = Postgres.start(home, ephemeral=True)
        assert (guest.pid, guest.owned) == (postgres.pid, False)
        with pytest.raises(AlreadyRunning, match="an ephemeral Postgres runs"):
            Postgres.start(home, settings=QUICK)
    assert not postgres.data.parent.exists()
    assert not (home / "postgres.json").exists()


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary ones, where no other test's start sweeps."""
    directory = Path(tempfile.mkdtemp(prefix="troth-test-"))
    directory.chmod(0o755)  # the server's user has to enter it
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield directory
    shutil.rmtree(directory)


def test_an_ephemeral_server_whose_owner_was_killed_is_swept_by_the_next_start(
    home: Path, temporary: Path, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    owner = spawn(home, "ephemeral")
    pid, _, data = line_of(owner).split(maxsplit=2)
    assert Path(data).is_relative_to(temporary)
    with Postgres.start(ephemeral=True):
        assert alive(int(pid))  # its owner lives: it is left alone
    owner.kill()
    owner.wait()
    assert alive(int(pid))
    with Postgres.start(ephemeral=True) as another:
        assert not alive(int(pid))
        assert not Path(data).parent.exists()
        assert ask(another.dsn, "select 1") == 1


# --- what cannot be ----------------------------------------------------------------------------------------------


def test_data_of_another_major_version_are_refused_with_what_to_do(home: Path) -> None:
    with Postgres.start(home, prefer="embedded", settings=QUICK) as postgres:
        data = postgres.data
    with pytest.raises(
        VersionMismatch, match=r"were made by Postgres 18.*install Postgres 18, or .* --reset"
    ):
        Postgres.start(home, prefer="installed", settings=QUICK)
    with Postgres.start(
        home, settings=QUICK
    ) as postgres:  # unasked, the binaries that fit the data are found
        assert postgres.version.startswith("18.")
    (data / "PG_VERSION").write_text("14\n")
    with pytest.raises(VersionMismatch, match=r"were made by Postgres 14.*install Postgres 14"):
        Postgres.start(home, settings=QUICK)


def test_a_start_that_fails_says_why_in_the_servers_words(home: Path) -> None:
    with pytest.raises(StartFailed, match=r"could not start on .*invalid value for parameter \"work_mem\""):
        Postgres.start(home, settings={"work_mem": "much"})
    assert find_running(home.parent) is None
    with Postgres.start(home, settings=QUICK) as postgres:
        assert postgres.owned


def test_a_disk_without_room_is_one_clear_sentence_and_leaves_nothing(home: Path) -> None:
    script = STARTS_AND_WAITS.replace(
        "try:",
        "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\ntry:",
        1,
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(home)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": SOURCE_ROOT},
        timeout=PATIENCE_SECONDS,
    )
    assert re.match(
        r"StartFailed Postgres \S+ could not make its data in \S+: .*File too large", answer.stdout
    ), answer
    with Postgres.start(home, settings=QUICK) as postgres:
        assert not (postgres.data.parent / "new").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartFailed, match=r"Not a directory \(.*file/\.troth\); make room or"):
        Postgres.start(tmp_path / "file" / ".troth", settings=QUICK)


def test_a_taken_port_is_said_if_it_was_asked_for_and_avoided_if_not(home: Path) -> None:
    with Postgres.start(home, settings=QUICK) as postgres:
        port = postgres.port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(StartFailed, match=f"Port {port} of 127.0.0.1 is taken by another program"):
            Postgres.start(home, port=port, settings=QUICK)
        with Postgres.start(home, settings=QUICK) as postgres:
            assert postgres.port != port
            assert ask(postgres.dsn, "select 1") == 1


def test_a_long_path_gets_a_socket_in_a_short_one(tmp_path: Path) -> None:
    base = tmp_path
    if os.geteuid() == 0:  # so that the data stay below the long path
        base = Path(f"/tmp/troth-test-{os.getpid()}")
        base.mkdir()
        base.chmod(0o755)
    deep = base / ("long" * 12) / ("longer" * 10)
    deep.mkdir(parents=True, mode=0o755)
    home = deep / ".troth"
    try:
        with Postgres.start(home, settings=QUICK) as postgres:
            assert postgres.data == home / "pgdata"
            sockets = [path for path in postgres.socket.iterdir() if path.suffix != ".lock"]
            assert len(sockets) == 1
            assert len(os.fsencode(sockets[0])) <= 100
            password = postgres.dsn.split(":")[2].split("@")[0]
            psycopg.connect(
                host=str(postgres.socket), port=postgres.port, user="postgres", password=password
            ).close()
        Postgres.reset(home)
        assert not postgres.socket.parent.exists()
    finally:
        if base != tmp_path:
            subprocess.run(["rm", "-rf", str(base)], check=True)
