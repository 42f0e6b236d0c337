"""A Postgres for one project: started from binaries, found again, stopped, thrown away.

    with Postgres.start() as postgres:        # data in ./.troth, kept
        print(postgres.dsn)

    with Postgres.start(ephemeral=True) as postgres:      # for a test: gone at the end

The law of its life:

1. *One at a time.* Whoever starts, adopts or throws away holds `.troth/lock`; who comes meanwhile is told so
   (`AlreadyStarting`) and changes nothing. Who comes later adopts the server that runs.
2. *One owner.* The server ends with the process that started it: at the end of the `with`, also on Ctrl-C and
   SIGTERM. Others who adopted it use it and leave it alone, unless they ask (`stop(adopted=True)`).
3. *Nothing is lost with the owner.* If he is killed, the server lives on; the next one to start adopts it at
   once and, since nobody else owns it, becomes its owner. If the server itself was killed, it is mended and
   started again (`server`). An ephemeral one whose owner is dead is swept away by the next start of anybody.
4. *Nothing foreign is touched*: no mode or owner of a directory that we did not make (`ground`), no process that
   is not of this data directory (`processes`), no file outside our own directories.

Where the data lie: in `.troth/pgdata`; or, if the server's user cannot enter there, in a directory that
`.troth/place` names; or, if ephemeral, in a temporary one. This file decides and keeps the law; `server` does.
It knows nothing of Troth's schema, and needs no driver.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Self

from troth.dev.binaries import Binaries, find_binaries
from troth.dev.failures import AlreadyRunning, AlreadyStarting, NoBinaries, StartFailed, VersionMismatch
from troth.dev.ground import server_user
from troth.dev.locks import FileLock
from troth.dev.places import check_usable, discard, kept, made_home, owner_lock, server_in, sweep, temporary
from troth.dev.processes import alive, of_server, until
from troth.dev.running import DIRECTORY, Record, read_record, write_record
from troth.dev.server import (
    Identity,
    Postmaster,
    Server,
    clear_staging,
    cluster_of,
    free_port,
    initialize,
    launch,
    ready,
    recover,
    shut_down,
)

__all__ = ["Postgres"]

ADOPT_SECONDS_MAX: Final = 120.0
"""How long a start waits for a server that is there and starting, or recovering, or shutting down."""
CLEAN_SECONDS_MAX: Final = 10.0
PORTS_TRIED_MAX: Final = 5

_NO_PORT: Final = "could not create any TCP/IP sockets"


class Postgres:
    """A running server that takes connections on `dsn` (loopback) and in the directory `socket`.

    `owned` says whether `stop`, and the end of a `with`, ends the server; it does not for one that another living
    process started.
    """

    def __init__(
        self,
        home: Path,
        server: Server,
        record: Record,
        owner: FileLock,
        *,
        owned: bool,
        process: subprocess.Popen[bytes] | None,
    ) -> None:
        self._home = home
        self._server = server
        self._record = record
        self._owner = owner
        self._process = process
        self._signals = ExitStack()
        self.owned = owned

    @property
    def dsn(self) -> str:
        """A DSN for libpq, psycopg and asyncpg: `postgresql://postgres:...@127.0.0.1:port/postgres`."""
        return self._record.dsn

    def dsn_of(self, database: str) -> str:
        """The same server, another database."""
        return Identity.of(self.data).dsn(self.port, database)

    @property
    def pid(self) -> int:
        """The postmaster's process ID."""
        return self._record.pid

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return self._record.port

    @property
    def version(self) -> str:
        """The server's version, such as `18.6`."""
        return self._record.version

    @property
    def data(self) -> Path:
        """The data directory, wherever it had to be placed."""
        return self._server.data

    @property
    def socket(self) -> Path:
        """The directory of the Unix socket, which the server's user and root alone can enter."""
        return self._server.socket

    @property
    def log(self) -> Path:
        """What the server says."""
        return self._server.log

    @property
    def ephemeral(self) -> bool:
        """Whether the data end with the server."""
        return self._server.ephemeral

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        *,
        ephemeral: bool = False,
        prefer: str | None = None,
        port: int | None = None,
        settings: Mapping[str, str | int] | None = None,
    ) -> Self:
        """Start the server of `directory` (by default `.troth` here), or adopt the one that runs there.

        `ephemeral` puts the data into a temporary directory, without fsync, and removes them with the server; then
        `directory` may be left out, and only who is given the DSN finds it. `prefer` is "installed", "embedded" or
        a major version such as "15". Without `port` it is the one that the data had before, or a free one.
        `settings` are server settings for this start; an adopted server keeps its own.

        Raises `AlreadyStarting`, `AlreadyRunning`, `NoBinaries`, `VersionMismatch` and `StartFailed`.
        """
        asked = _Asked(prefer, port, dict(settings or {}))
        with _ending_on_sigterm(), _in_one_sentence():
            sweep()
            if ephemeral and directory is None:
                user = server_user()
                place, owner = temporary(user)
                return cls._launched(place, server_in(place, place, user, ephemeral=True), owner, asked)
            home = made_home(directory or Path(DIRECTORY))
            with _one_at_a_time(home):
                return cls._started(home, asked, ephemeral=ephemeral)

    @classmethod
    def _started(cls, home: Path, asked: _Asked, *, ephemeral: bool) -> Self:
        running = _running(home)
        if running is not None and running.ephemeral != ephemeral:
            kind = "an ephemeral" if running.ephemeral else "a lasting"
            raise AlreadyRunning(f"In {home} {kind} Postgres runs (process {running.pid}): stop it first.")
        if not ephemeral:
            place, user = kept(home)
            check_usable(place, user)
            owner = owner_lock(place)
        elif running is not None:
            place = Path(running.data).parent
            user, owner = server_user(Path(running.data).stat().st_uid), owner_lock(place)
        else:
            user = server_user()
            place, owner = temporary(user)
        server = server_in(place, home, user, ephemeral=ephemeral)
        return cls._adopted(home, server, owner, asked) or cls._launched(home, server, owner, asked)

    @classmethod
    def _adopted(cls, home: Path, server: Server, owner: FileLock, asked: _Asked) -> Self | None:
        """The server of the data, if one lives; it is given the time to finish starting, or ending."""
        pid = _postmaster(server)
        if pid is None:
            return None
        if not until(lambda: not alive(pid) or ready(server, pid), ADOPT_SECONDS_MAX):
            raise StartFailed(
                f"Postgres (process {pid}) holds {server.data} and has not answered for {ADOPT_SECONDS_MAX:.0f} s: "
                f"end it (kill {pid}) and try again; its log is {server.log}."
            )
        said = Postmaster.of(server.data)
        if said is None or said.pid != pid or not alive(pid):
            return None
        version = (server.data / "PG_VERSION").read_text().strip()
        asked.check(home, said, version)
        recorded = read_record(home)
        if recorded is not None and recorded.pid == pid:
            version = recorded.version
        record = _record(server, pid, said.port, version)
        write_record(home, record)
        return cls(home, server, record, owner, owned=owner.acquire(), process=None)

    @classmethod
    def _launched(cls, home: Path, server: Server, owner: FileLock, asked: _Asked) -> Self:
        """A new server on the data, which are made if there are none; it is ours."""
        try:
            # It may be held still, by ourselves or another, for a server that died. But what runs in another
            # container on the same files cannot be seen from here, and two servers would ruin them.
            if not owner.acquire() and owner.held_elsewhere():
                raise AlreadyRunning(
                    f"The Postgres of {home} belongs to {owner.holder()} of another container: stop it there, or use "
                    f"another directory."
                )
            clear_staging(server)
            binaries = asked.binaries(server)
            if not server.data.exists():
                initialize(
                    server, binaries, synced=not server.ephemeral and asked.settings.get("fsync") != "off"
                )
            recover(server)
            process, port = _bound(server, binaries, asked)
            record = _record(server, process.pid, port, binaries.version)
            try:
                write_record(home, record)
            except BaseException:
                shut_down(server, process.pid, process=process)
                raise
        except BaseException:
            owner.release()
            if server.ephemeral:
                discard(server.data.parent)
            raise
        return cls(home, server, record, owner, owned=True, process=process)

    def stop(self, *, adopted: bool = False) -> None:
        """End the server if we own it, or, with `adopted`, whoever owns it; ephemeral data go with it.

        Sessions are ended and data flushed first. A second time, or when the server is gone already, it only
        clears up.
        """
        if not self.owned and not adopted:
            return
        self.owned = False
        if not self.ephemeral:
            self._owner.release()
        if self._alive():
            shut_down(self._server, self.pid, process=self._process, fast=not self.ephemeral)
        if self.ephemeral:
            # ours to the end: a sweep elsewhere would take what has no owner for stale, and clear it away under our hands
            discard(self.data.parent)
            self._owner.release()
        if self._home.exists():
            _clear_record(self._home, self.pid)

    def _alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self.pid in self._server.processes()

    @staticmethod
    def reset(directory: Path | None = None) -> None:
        """Stop the server of `directory` (by default `.troth` here), whoever owns it, and throw its data away.

        Raises `AlreadyStarting` if somebody is starting it at this moment.
        """
        home = (directory or Path(DIRECTORY)).resolve()
        if not home.exists():
            return
        with _ending_on_sigterm(), _in_one_sentence(), _one_at_a_time(home):
            running = _running(home)
            if running is not None and running.ephemeral:
                data = Path(running.data)
                server = server_in(data.parent, home, server_user(data.stat().st_uid), ephemeral=True)
                shut_down(server, running.pid, fast=False)
                discard(data.parent)
            _reset_kept(home)
            write_record(home, None)

    def __enter__(self) -> Self:
        self._signals.enter_context(_ending_on_sigterm())
        return self

    def __exit__(self, *_: object) -> None:
        with self._signals:
            self.stop()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a start was asked for."""

    prefer: str | None
    port: int | None
    settings: Mapping[str, str | int]

    @property
    def major(self) -> int | None:
        return int(self.prefer) if self.prefer is not None and self.prefer.isdecimal() else None

    def check(self, home: Path, running: Postmaster, version: str) -> None:
        """Raise `AlreadyRunning` if the server that runs is not what was asked for."""
        if self.port not in {None, running.port}:
            raise AlreadyRunning(
                f"The Postgres of {home} runs already (process {running.pid}), on port {running.port} instead of "
                f"{self.port}: stop it first, or leave the port out."
            )
        if self.major not in {None, int(version)}:
            raise AlreadyRunning(
                f"The Postgres of {home} runs already (process {running.pid}) and is version {version} instead of "
                f"{self.major}: use another directory, or throw this one's data away with --reset."
            )

    def binaries(self, server: Server) -> Binaries:
        """The binaries for the data that are there, or for new ones."""
        if not server.data.exists():
            return find_binaries(self.prefer, user=server.user)
        made_by = (server.data / "PG_VERSION").read_text().strip()
        try:
            return find_binaries(self.prefer, major=int(made_by), user=server.user)
        except NoBinaries as error:
            raise VersionMismatch(
                f"The data in {server.data} were made by Postgres {made_by}, and no Postgres {made_by} was found "
                f"that fits what was asked: install Postgres {made_by}, or throw the data away with --reset. ({error})"
            ) from None


def _bound(server: Server, binaries: Binaries, asked: _Asked) -> tuple[subprocess.Popen[bytes], int]:
    """The server on the port asked for, or on the one its data were born with, or on any that is free."""
    ports = [asked.port] if asked.port is not None else [Identity.of(server.data).port]
    for attempt in range(PORTS_TRIED_MAX):
        port = ports[0] if attempt == 0 else free_port()
        try:
            return launch(server, binaries, port, asked.settings), port
        except StartFailed as error:
            if _NO_PORT not in str(error) or attempt == PORTS_TRIED_MAX - 1:
                raise
            if asked.port is not None:
                raise StartFailed(
                    f"Port {port} of 127.0.0.1 is taken by another program: free it, or leave the port out."
                ) from None
    raise AssertionError("the last attempt returns or raises")


def _record(server: Server, pid: int, port: int, version: str) -> Record:
    dsn = Identity.of(server.data).dsn(port)
    return Record(dsn, pid, port, version, str(server.data), str(server.socket), server.ephemeral)


def _postmaster(server: Server) -> int | None:
    """The process that the data directory names as its postmaster, if it is that and lives."""
    said = Postmaster.of(server.data)
    return said.pid if said is not None and said.pid in server.processes() else None


def _running(home: Path) -> Record | None:
    """The server that the home's record names, if it is that and lives."""
    record = read_record(home)
    if record is None or not Path(record.data).exists():
        return None
    data = Path(record.data)
    return (
        record
        if record.pid in {p.pid for p in of_server(data, cluster_of(data), data.stat().st_uid)}
        else None
    )


def _reset_kept(home: Path) -> None:
    place, user = kept(home)
    server = server_in(place, home, user, ephemeral=False)
    pid = _postmaster(server)
    if pid is not None:
        shut_down(server, pid, fast=False)
    recover(server)
    clear_staging(server)
    discard(place, home=home)


def _clear_record(home: Path, pid: int) -> None:
    """Take the record away, unless it is already that of the next server."""
    lock = FileLock(home / "lock")
    with lock:
        if until(lock.acquire, CLEAN_SECONDS_MAX):
            record = read_record(home)
            if record is not None and record.pid == pid:
                write_record(home, None)


@contextmanager
def _one_at_a_time(home: Path) -> Generator[None]:
    lock = FileLock(home / "lock")
    if not lock.acquire():
        raise AlreadyStarting(
            f"The Postgres of {home} is being started by {lock.holder()} at this moment: wait for it and try again."
        )
    with lock:
        yield


@contextmanager
def _in_one_sentence() -> Generator[None]:
    """What the file system refuses becomes an error of ours that names the file and the reason."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StartFailed(
            f"The files of Postgres could not be made or read: {error.strerror or error}{where}; make room or give "
            f"yourself the right, or choose another directory."
        ) from error


@contextmanager
def _ending_on_sigterm() -> Generator[None]:
    """Let SIGTERM leave by way of every `finally`, as Ctrl-C does, where nobody has decided otherwise."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
