"""A primary and its standby: made as copies of one template, streaming, killed and promoted.

The standby is a copy of the same resting data with `standby.signal` in it, which is what a base backup of a resting server is; so
the embedded binaries, which bring no `pg_basebackup`, can be tried as well. All listens on loopback and is one machine: what is
tried is what Postgres and its clients say to each other, not networks.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import psutil  # type: ignore[import-untyped, unused-ignore]
import psycopg

from tests.proof.chaos.ground import free_port
from tests.proof.chaos.ledger import TABLES
from troth.dev.binaries import Binaries, find_binaries
from troth.dev.ground import environment, give, make, server_user
from troth.dev.server import Identity, Server, initialize
from troth.schema import migrate
from troth.testing.violations import install_violations

PATIENCE_S: Final = 60.0
SETTINGS: Final[dict[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "fsync": "off",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
}
STANDBY: Final = "standby"


class Node:
    """One server process on one data directory."""

    def __init__(self, server: Server, binaries: Binaries, port: int) -> None:
        self.server = server
        self.port = port
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """For this very server, whatever it is."""
        return Identity.of(self.server.data).dsn(self.port)

    def start(self, **settings: str) -> None:
        """Start it, and wait until it takes connections."""
        given = (
            SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self.server.socket)} | settings
        )
        command = [str(self._binaries.postgres), "-D", str(self.server.data)]
        for name, value in given.items():
            command += ["-c", f"{name}={value}"]
        user = self.server.user
        with self.server.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=0o077,
                start_new_session=True,
                user=user.uid if user.dropped else None,
                group=user.gid if user.dropped else None,
                extra_groups=[] if user.dropped else None,
            )
        self.until("select true", "it to take connections")

    def until(self, question: str, what: str) -> None:
        """Ask it until it says yes."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(psycopg.OperationalError), psycopg.connect(self.dsn, autocommit=True) as connection:
                if (connection.execute(question.encode()).fetchone() or (False,))[0]:
                    return
            said = self.server.log.read_text(errors="replace")[-2000:]
            assert self._process is not None
            assert self._process.poll() is None, f"waiting for {what}: it ended\n{said}"
            assert time.monotonic() < deadline, f"waiting for {what}\n{said}"
            time.sleep(0.05)

    def rest(self) -> None:
        """End it in good order."""
        self._end(signal.SIGINT)

    def silence(self) -> None:
        """Stop what sends the log to standbys: from now on they hear nothing, and are not told so."""
        for child in self._children():
            with suppress(psutil.NoSuchProcess):  # a session may end at this moment
                if "walsender" in " ".join(child.cmdline()):
                    child.suspend()

    def kill(self) -> None:
        """SIGKILL for it and all its children."""
        if self._process is None or self._process.poll() is not None:
            return
        psutil.Process(self._process.pid).suspend()
        children = self._children()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self._end(signal.SIGKILL)
        psutil.wait_procs(children, timeout=PATIENCE_S)

    def _children(self) -> list[Any]:
        assert self._process is not None
        return list(psutil.Process(self._process.pid).children(recursive=True))

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE_S)


class Pair:
    """Data of which there are a primary and a standby; both are gone at the end of the `with`."""

    def __init__(self, template: Path, place: Path, binaries: Binaries, chance: random.Random) -> None:
        self._place = place
        nodes = []
        for name in ("primary", STANDBY):
            server = server_at(place / name, place)
            subprocess.run(["cp", "-a", str(template / "pgdata"), str(server.data)], check=True)
            nodes.append(Node(server, binaries, free_port(chance)))
        self.primary, self.standby = nodes

    @property
    def dsn(self) -> str:
        """Whoever of the two takes writes."""
        identity = Identity.of(self.standby.server.data)
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres:{identity.password}@{hosts}/postgres?target_session_attrs=read-write"

    def start(self, *, synchronous: bool) -> None:
        """The standby streams, and if it is to be `synchronous`, no commit is answered that it does not have."""
        names = {"synchronous_standby_names": STANDBY} if synchronous else {}
        self.primary.start(**names)
        identity = Identity.of(self.standby.server.data)
        signal_file = self.standby.server.data / "standby.signal"
        signal_file.touch()
        give(signal_file, self.standby.server.user)
        whom = f"host=127.0.0.1 port={self.primary.port} user=postgres password={identity.password}"
        self.standby.start(primary_conninfo=f"{whom} application_name={STANDBY}")
        kind = "sync" if synchronous else "async"
        self.primary.until(
            f"select exists (select from pg_stat_replication where state = 'streaming' and sync_state = '{kind}')",
            f"the standby to be {kind}",
        )

    def promote(self) -> None:
        """Make a primary of the standby."""
        self.standby.until("select pg_promote(false)", "it to be told")
        self.standby.until("select not pg_is_in_recovery()", "it to be promoted")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.primary.kill()
        self.standby.kill()
        shutil.rmtree(self._place, ignore_errors=True)


def server_at(place: Path, logs: Path) -> Server:
    """The directories of one server, which its user can enter."""
    user = server_user()
    make(place, 0o711)
    socket = give(make(place / "run", 0o700), user)
    return Server(place / "pgdata", socket, logs / f"{place.name}.log", user, ephemeral=True)


def made_template(place: Path, prefer: str | None, chance: random.Random) -> Binaries:
    """Data with the namespace and the ledger in them, at rest."""
    user = server_user()
    binaries = find_binaries(prefer, user=user)
    server = server_at(place, place.parent)
    initialize(server, binaries, synced=False)
    node = Node(server, binaries, free_port(chance))
    try:
        node.start()
        migrate(node.dsn)
        with psycopg.connect(node.dsn, autocommit=True) as connection:
            install_violations(connection)
            connection.execute(TABLES)
        node.rest()
    finally:
        node.kill()
    return binaries
