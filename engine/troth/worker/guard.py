"""The guard: finds time, chance and I/O of Python's own that workflow code uses, and names the line and the way.

What a workflow learns of the world must come through its journal. `time.time()` shows another instant at a replay,
`random.random()` another number, a file something else or nothing: the code takes another path and is parked, weeks later.
The guard says so while the code is written. A machine enters it around every run of code, so whatever is called meanwhile
in that thread is the workflow's; steps run elsewhere and are never looked at.

It sets Python's profile hook for the time of a run and puts back what was there. Debuggers and coverage go by the trace hook
or by `sys.monitoring` and do not notice; a profiler written in Python is called beside it; before one written in C, which
could not be put back, it stands aside. `sys.monitoring` itself would be no gain: its events are the process's, so each step
would pay for them. A hook costs about as much as the calls that it sees, hence it is for development and tests.

What it looks for are the few functions at the bottom, written in C, that everything else comes down to, and a few written in
Python where that is not enough. Each is judged by the way that leads to it from the user's code (`frames.py`). Passed over is
what only reports (logging reads the clock, a traceback the source), importing, finalizers, and what asyncio and Troth do for
themselves. `print` is allowed: nothing comes back from it. The hook does not see what C calls from C, such as a clock that is
the default of a pydantic field, nor classes made in C (`io.FileIO`).
"""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from dis import opmap
from types import BuiltinFunctionType, FrameType, ModuleType
from typing import Any, Final, Literal, TypeAlias

import structlog

from troth.errors import WorkflowMisuse
from troth.worker.frames import MACHINE, inside, module, nearest, owner, package

Mode: TypeAlias = Literal["log", "raise"]
Kind: TypeAlias = Literal["clock", "sleep", "chance", "secret", "uuid", "environment", "thread", "io"]
Hook: TypeAlias = Callable[[FrameType, str, Any], object]

WAYS: Final[Mapping[Kind, str]] = {
    "clock": "ctx.now(), which is the same at a replay",
    "sleep": "`await ctx.sleep(seconds)`, which holds no process",
    "chance": "ctx.random, which falls the same way at a replay",
    "secret": "a step, with `await ctx.run(function)`: what ctx.random gives is no secret",
    "uuid": "ctx.uuid4(), which is the same at a replay",
    "environment": "an argument, or a step: `await ctx.run(function)`",
    "thread": "`await ctx.run(function, ...)`: a step that is a plain function gets a thread",
    "io": "a step: `await ctx.run(function, ...)`",
}
"""What to use instead, by what was found."""

_log = structlog.get_logger("troth.worker")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of workflow code that no replay can repeat."""

    file: str
    line: int
    called: str
    kind: Kind

    @property
    def place(self) -> str:
        """`file.py:12`"""
        return f"{self.file}:{self.line}"

    @property
    def way(self) -> str:
        """What to use instead."""
        return WAYS[self.kind]

    def __str__(self) -> str:
        return f"{self.place}: workflow code called {self.called}, which a replay does not repeat. Use {self.way}."


def warn(finding: Finding) -> None:
    """Log a finding as a warning."""
    _log.warning(
        "workflow code that a replay does not repeat",
        line=finding.place,
        called=finding.called,
        use=finding.way,
    )


class _Entered(threading.local):
    """What was set before, for each time that this thread is inside."""

    def __init__(self) -> None:
        self.before: list[tuple[Any, Hook | None]] = []


class Guard(AbstractContextManager[None]):
    """Watches what workflow code calls while it is entered; one for a whole process is enough.

    In mode "log", `found` is told each line once; it must not raise. In mode "raise" the code gets a `WorkflowMisuse` as
    well, wherever it calls such a thing.
    """

    def __init__(self, mode: Mode = "log", found: Callable[[Finding], None] = warn) -> None:
        self._raises = mode == "raise"
        self._found = found
        self._named: set[tuple[str, int]] = set()
        self._entered = _Entered()

    def __enter__(self) -> None:
        before: Any = sys.getprofile()
        hook: Hook | None = self._look
        if before is not None:
            hook = _both(before, self._look) if callable(before) else None
        self._entered.before.append((before, hook))
        if hook is not None:
            sys.setprofile(hook)

    def __exit__(self, *exc: object) -> None:
        before, hook = self._entered.before.pop()
        # Python takes a hook away that has raised; one that the code set itself meanwhile is its own affair
        if hook is not None and sys.getprofile() in (hook, None):
            sys.setprofile(before)

    def _look(self, frame: FrameType, event: str, called: Any) -> None:
        # on the way of every call: one look into a dict, and only then closer
        if event == "c_call":
            owners = _BUILTINS.get(called.__name__)
            if owners is not None:
                found = _judged(called, owners, frame)
                if found is not None:
                    self._find(frame, *found)
        elif event == "call":
            packages = _FUNCTIONS.get(frame.f_code.co_qualname)
            if packages is not None:
                kind = packages.get(package(frame))
                if kind is not None:
                    self._find(frame.f_back, kind, f"{module(frame)}.{frame.f_code.co_qualname}")

    def _find(self, caller: FrameType | None, kind: Kind, called: str) -> None:
        frames, _ = inside(caller, MACHINE)
        if any(package(each) in _REPORTERS or each.f_code.co_name == "__del__" for each in frames):
            return
        if _is_the_collectors(frames):
            return
        at = nearest(frames, stops=_minds_its_own)
        if at is None:
            return
        if at > 0:
            if kind == "environment" and package(frames[at - 1]) not in _MAPPINGS:
                return  # a library's own settings; if it goes on to do I/O, that is found
            called = f"{module(frames[at - 1])}.{frames[at - 1].f_code.co_qualname}"
        file, line = frames[at].f_code.co_filename, frames[at].f_lineno
        if kind == "chance" and called.startswith("uuid."):
            kind = "uuid"
        finding = Finding(file, line, _spoken(called, kind), kind)
        if (file, line) not in self._named:
            self._named.add((file, line))
            self._found(finding)
        if self._raises:
            raise WorkflowMisuse(str(finding))


def _is_the_collectors(frames: Sequence[FrameType]) -> bool:
    """Whether the garbage collector called it: when that comes is nobody's doing."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    return any(each.f_code in callbacks for each in frames)


def _both(first: Hook, second: Hook) -> Hook:
    def hook(frame: FrameType, event: str, called: Any) -> None:
        first(frame, event, called)
        second(frame, event, called)

    return hook


def _minds_its_own(frame: FrameType) -> bool:
    return package(frame) == "asyncio" or owner(frame) == "ours"


# What is looked for.

_REPORTERS: Final = frozenset(
    {
        "logging", "structlog", "loguru", "warnings", "traceback", "linecache", "opentelemetry", "prometheus_client",
        "sentry_sdk", "ddtrace", "importlib", "zoneinfo", "pdb", "bdb", "pydevd", "debugpy", "coverage", "_pytest",
        "ipykernel", "colorama",
    }
)  # fmt: skip
"""They read clocks, threads and files to tell people of what happened, or to load code; the workflow hears nothing of it."""

_MAPPINGS: Final = frozenset({"os", "collections", "_collections_abc"})
"""Where `os.environ` is made of."""

_FILES: Final = (
    "open read write stat lstat fstat statvfs access listdir scandir mkdir rmdir remove unlink rename replace link symlink "
    "readlink chmod chown truncate utime chdir getcwd pipe mkfifo sendfile"
)
_PROCESSES: Final = (
    "fork forkpty system posix_spawn posix_spawnp execv execve kill killpg wait waitpid getpid getppid times uname "
    "getloadavg cpu_count spawnv"
)
_C: Final[tuple[tuple[Kind, str, str], ...]] = (
    ("clock", "time", "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns"),
    ("clock", "time", "thread_time thread_time_ns clock_gettime clock_gettime_ns gmtime localtime ctime asctime strftime"),
    ("clock", "datetime.datetime", "now utcnow"),
    ("clock", "datetime.date", "today"),
    ("sleep", "time", "sleep"),
    ("chance", "_random.Random", "random getrandbits seed"),
    ("chance", "os", "urandom getrandom"),
    ("uuid", "_uuid", "generate_time_safe UuidCreate"),
    ("environment", "os", "putenv unsetenv"),
    ("io", "os", _FILES),
    ("io", "os", _PROCESSES),
    ("io", "io", "open open_code"),
    ("io", "builtins", "input"),
    ("io", "socket", "getaddrinfo gethostbyname gethostbyname_ex gethostbyaddr gethostname getnameinfo"),
    ("io", "socket.socket", "connect connect_ex bind listen send sendall sendto sendmsg recv recv_into recvfrom recvmsg"),
    ("io", "_ssl._SSLSocket", "do_handshake read write"),
    ("io", "sqlite3", "connect"),
    ("io", "sqlite3.Connection", "execute executemany executescript commit rollback"),
    ("io", "sqlite3.Cursor", "execute executemany executescript fetchone fetchmany fetchall"),
    ("io", "_posixsubprocess", "fork_exec"),
    ("thread", "_thread", "start_new_thread start_joinable_thread"),
)  # fmt: skip
"""Functions and methods that are written in C, by the module or the class that they belong to."""

_PYTHON: Final[tuple[tuple[Kind, str, str], ...]] = (
    ("environment", "os", "_Environ.__getitem__ _Environ.__setitem__ _Environ.__delitem__ _Environ.__iter__"),
    ("thread", "threading", "Thread.start"),
    ("thread", "concurrent", "ThreadPoolExecutor.submit ProcessPoolExecutor.submit"),
    ("thread", "multiprocessing", "BaseProcess.start"),
    ("thread", "asyncio", "to_thread"),
    ("io", "asyncio", "create_subprocess_exec create_subprocess_shell open_connection open_unix_connection start_server"),
    ("io", "subprocess", "Popen.__init__"),
    ("io", "socket", "socket.__init__"),
    ("io", "urllib", "OpenerDirector.open"),
    ("io", "http", "HTTPConnection.request"),
    ("io", "requests", "Session.send"),
    ("io", "urllib3", "PoolManager.urlopen HTTPConnectionPool.urlopen"),
    ("io", "httpx", "Client.send AsyncClient.send"),
    ("io", "aiohttp", "ClientSession._request"),
    ("io", "psycopg", "Connection.connect Connection.execute Cursor.execute Cursor.executemany Cursor.fetchone"),
    ("io", "psycopg", "Cursor.fetchall Cursor.fetchmany Connection.commit Connection.rollback"),
    ("io", "psycopg", "AsyncConnection.connect AsyncConnection.execute AsyncCursor.execute AsyncCursor.executemany"),
    ("io", "psycopg", "AsyncCursor.fetchone AsyncCursor.fetchmany AsyncCursor.fetchall"),
    ("io", "asyncpg", "connect create_pool Connection.execute Connection.executemany Connection.fetch Connection.fetchrow"),
    ("io", "asyncpg", "Connection.fetchval Connection.prepare Pool.acquire Pool.execute Pool.fetch Pool.fetchrow Pool.fetchval"),
)  # fmt: skip
"""Functions that are written in Python, by their package: where the way down leads through no C that a hook is shown."""


def _by_name(rows: tuple[tuple[Kind, str, str], ...]) -> Mapping[str, Mapping[str, Kind]]:
    found: dict[str, dict[str, Kind]] = {}
    for kind, belongs_to, names in rows:
        for name in names.split():
            found.setdefault(name, {})[belongs_to] = kind
    return found


_BUILTINS: Final = _by_name(_C)
_FUNCTIONS: Final = _by_name(_PYTHON)

_MODULES: Final = {
    "posix": "os",
    "nt": "os",
    "_io": "io",
    "_socket": "socket",
    "_sqlite3": "sqlite3",
    "_datetime": "datetime",
}
"""By what names people know the modules below theirs."""


# Judging.


def _judged(
    called: BuiltinFunctionType, owners: Mapping[str, Kind], caller: FrameType
) -> tuple[Kind, str] | None:
    """What a function written in C is found to be, and what it is called; None if it is another of the same name."""
    name, whose = called.__name__, called.__self__
    if isinstance(whose, ModuleType):
        home = _MODULES.get(whose.__name__, whose.__name__)
        kind = owners.get(home)
        if kind is None or (name in _CLOCK_UNLESS_GIVEN and _arguments(caller) != _CLOCK_UNLESS_GIVEN[name]):
            return None
        if name == "urandom" and caller.f_code.co_qualname.startswith("SystemRandom."):
            kind = "secret"
        return kind, name if home in ("io", "builtins") else f"{home}.{name}"
    for base in (whose if isinstance(whose, type) else type(whose)).__mro__:
        home = f"{_MODULES.get(base.__module__, base.__module__)}.{base.__qualname__}"
        kind = owners.get(home)
        if kind is not None:
            if kind == "chance":
                return (kind, f"random.{name}") if _is_wild(whose, name, caller) else None
            return kind, f"{home}.{name}"
    return None


_GLOBAL: Final[object] = getattr(random.random, "__self__", None)
"""The instance that the functions of the module `random` are methods of."""


def _is_wild(whose: object, name: str, caller: FrameType) -> bool:
    """Whether a generator's numbers are beyond the code: the process's own, or one that the system seeds."""
    if whose is _GLOBAL:
        return True
    return (
        name == "seed" and caller.f_code is random.Random.seed.__code__ and caller.f_locals.get("a") is None
    )


_CLOCK_UNLESS_GIVEN: Final = {"gmtime": 0, "localtime": 0, "ctime": 0, "asctime": 0, "strftime": 1}
"""Functions of `time` that read the clock when they are given only so many arguments."""


def _arguments(caller: FrameType) -> int | None:
    """How many arguments the call has that a frame stands at; None where that is another instruction than a plain call."""
    code, at = caller.f_code.co_code, caller.f_lasti
    return code[at + 1] if code[at] == opmap["CALL"] else None


def _spoken(called: str, kind: Kind) -> str:
    """The name as people know it: without private modules in it."""
    if kind == "environment" and not called.startswith("os.getenv"):
        return "os.environ"
    parts = [part for part in called.split(".") if not part.startswith("_") or part.endswith("__")]
    spoken = ".".join(parts).removesuffix(".__init__")
    for long, short in (
        ("random.Random.", "random."),
        ("datetime.datetime.", "datetime."),
        ("datetime.date.", "date."),
    ):
        spoken = spoken.replace(long, short)
    return spoken
