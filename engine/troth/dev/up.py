"""`troth dev`: Postgres, the schema, the HTTP API and a worker, together until Ctrl-C.

The law of it: all or nothing. What cannot be started ends the rest; so does a part that ends by itself; SIGINT and
SIGTERM end all, in the reverse order of their start, and no process is left behind. Everything listens on the loopback
only. API and worker are processes of their own, started from commands, so that nothing of them is imported here.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from troth.dev.postgres import Postgres
from troth.dev.processes import alive
from troth.dev.running import DIRECTORY, HOST
from troth.dev.up_crew import Child, Crew
from troth.errors import TrothError

READY_SECONDS_MAX: Final = 60.0
LOOK_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 5

_COLORS: Final = {"api": "36", "worker": "35", "troth": "1"}


class PortTaken(TrothError):
    """Another program listens on the port that the API was to have."""

    title = "Port taken"


@dataclass(frozen=True)
class Plan:
    """What is to run. Without a `dsn`, Postgres is one of our own under `.troth/` here."""

    targets: Sequence[str]
    api: Sequence[str]
    dsn: str | None
    schema: str
    port: int
    reset: bool
    ephemeral: bool
    json: bool


def up(plan: Plan) -> int:
    """Run all of it until SIGINT or SIGTERM (0), or until a part of it ends by itself (1).

    Raises what stands in the way of starting: `LauncherError`, `Unreachable`, `SchemaMismatch`.
    """
    voice = _Voice(json_lines=plan.json)
    _check_port(plan.port)
    stop = _StopSignals()
    with stop, ExitStack() as stack:
        # Whatever ends us, from here on nothing may interrupt the ending.
        try:
            return _run(plan, voice, stack)
        except _Told as told:
            voice.say("stopping", f"{told.name}: stopping", signal=told.name)
            return 0
        finally:
            stop.disarm()


def _run(plan: Plan, voice: _Voice, stack: ExitStack) -> int:
    postgres = None if plan.dsn else stack.enter_context(_own_postgres(plan, voice))
    dsn = plan.dsn or (postgres.dsn if postgres else "")
    _migrate(dsn, plan.schema, voice)
    crew = stack.enter_context(Crew(voice.hear))
    environment = {"TROTH_DSN": dsn, "TROTH_SCHEMA": plan.schema}
    api = [*plan.api, "--host", HOST, "--port", str(plan.port)]
    crew.start("api", api, environment)
    worker = [sys.executable, "-P", "-m", "troth.cli", "worker", *plan.targets, "--guard"]
    worker += ["--grace", str(GRACE_SECONDS)]
    crew.start("worker", worker, environment)
    if not _wait_for_api(plan.port, crew):
        return _failed(crew, voice, f"The API did not answer within {READY_SECONDS_MAX:.0f} s")
    url = f"http://localhost:{plan.port}"
    voice.say("ready", f"API on {url} (its description: {url}/schema); Ctrl-C ends it all", url=url)
    while crew.ended() is None and (postgres is None or alive(postgres.pid)):
        time.sleep(LOOK_SECONDS)
    return _failed(crew, voice, "Postgres ended")


def _failed(crew: Crew, voice: _Voice, otherwise: str) -> int:
    """Say which part ended, or what else went wrong."""
    child = crew.ended()
    sentence = otherwise if child is None else _ending(child)
    if child is not None:
        child.reader.join(1.0)
    voice.say("failed", f"{sentence}; stopping the rest", reason=sentence)
    return 1


def _ending(child: Child) -> str:
    code = child.process.returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"The {'API' if child.name == 'api' else child.name} {how}"


@contextmanager
def _own_postgres(plan: Plan, voice: _Voice) -> Generator[Postgres]:
    home = Path(DIRECTORY)
    if plan.reset:
        Postgres.reset(home)
    with Postgres.start(home, ephemeral=plan.ephemeral) as postgres:
        where = "its data end with it" if postgres.ephemeral else f"data in {DIRECTORY}/"
        if not postgres.owned:
            where += ", and another process owns it"
        voice.say(
            "postgres",
            f"Postgres {postgres.version} on {HOST}:{postgres.port} ({where})",
            version=postgres.version,
            port=postgres.port,
        )
        yield postgres


def _migrate(dsn: str, schema: str, voice: _Voice) -> None:
    from troth.schema import migrate

    report = migrate(dsn, schema)
    if report.revision_before != report.revision:
        voice.say("migrated", f"Schema {schema} is at revision {report.revision}", revision=report.revision)


def _check_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise PortTaken(
                f"Port {port} of {HOST} cannot be had: {getattr(error, 'strerror', None) or error}.",
                hint="End what listens there, or choose another with --port.",
            ) from None


def _wait_for_api(port: int, crew: Crew) -> bool:
    """Whether the API answers that it is ready before the time is over, or a child is."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline and crew.ended() is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return True
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(LOOK_SECONDS)
    return False


class _Voice:
    """What is said, each line with who says it; lines of several threads never mix."""

    def __init__(self, *, json_lines: bool) -> None:
        self._json = json_lines
        self._color = sys.stdout.isatty() and not json_lines
        self._turn = threading.Lock()

    def hear(self, name: str, line: str) -> None:
        """Pass on a line of a child."""
        if self._json:
            self._write(json.dumps({"event": "log", "process": name, "line": line}))
        else:
            self._write(f"{self._prefix(name)}{line}")

    def say(self, event: str, sentence: str, **facts: object) -> None:
        """Say something of our own."""
        if self._json:
            self._write(json.dumps({"event": event, "message": sentence, **facts}))
        else:
            self._write(f"{self._prefix('troth')}{sentence}")

    def _prefix(self, name: str) -> str:
        padded = f"{name:<6} | "
        return f"\x1b[{_COLORS.get(name, '0')}m{padded}\x1b[0m" if self._color else padded

    def _write(self, line: str) -> None:
        with self._turn:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


class _Told(BaseException):
    """Somebody asked us to stop."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _StopSignals:
    """Turns the first SIGINT or SIGTERM into `_Told` wherever we are; later ones find us stopping already."""

    def __init__(self) -> None:
        self._armed = True
        self._restore = ExitStack()

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, self._heard)
            self._restore.callback(signal.signal, number, before)

    def __exit__(self, *_: object) -> None:
        self._restore.close()

    def disarm(self) -> None:
        """From here on signals change nothing: the end has begun."""
        self._armed = False

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise _Told(signal.Signals(number).name)
