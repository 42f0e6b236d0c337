"""The guard: each kind of thing that no replay repeats is named with its line and the way; what only reports is not."""

from __future__ import annotations

import asyncio
import concurrent.futures
import cProfile
import gc
import random
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.core.driving import STARTED_AT, step
from troth import Context
from troth.codec import Payloads
from troth.core import STEP, Entry, Machine, Operation, Raised, Returned
from troth.errors import WorkflowMisuse
from troth.model import JournalEntry
from troth.worker.guard import WAYS, Finding, Guard, Mode

HERE = __file__


class Seen:
    """Runs code as a workflow with the guard on, and keeps what was found."""

    def __init__(self, mode: Mode = "log") -> None:
        self.findings: list[Finding] = []
        self.guard = Guard(mode, self.findings.append)

    def run(self, code: Callable[[], Any]) -> Any:
        """What the code's machine came to, each of its steps ending with its own path."""

        async def main() -> Any:
            found = code()
            return await found if asyncio.iscoroutine(found) else found

        machine: Machine[Any] = Machine(main, started_at=STARTED_AT, watch=self.guard)
        machine.start()
        while not machine.done:
            soonest = min(machine.open.values(), key=_due)
            machine.feed(_told(machine, soonest))
        assert machine.outcome is not None
        return machine.outcome

    @property
    def kinds(self) -> list[str]:
        return [finding.kind for finding in self.findings]

    @property
    def called(self) -> list[str]:
        return [finding.called for finding in self.findings]


def _due(operation: Operation) -> int:
    return operation.at + operation.request if isinstance(operation.request, int) else 0


def _told(machine: Machine[Any], operation: Operation) -> Entry:
    at = machine.now + (operation.request if isinstance(operation.request, int) else 1)
    return Entry(
        machine.told + 1,
        operation.path,
        operation.kind,
        operation.issued,
        operation.digest,
        "resolved",
        operation.path,
        at,
    )


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(autouse=True)
def nothing_left_set() -> Iterator[None]:
    before = sys.getprofile()
    yield
    assert sys.getprofile() is before


DATABASE = sqlite3.connect(":memory:", check_same_thread=False)
IDLE = concurrent.futures.ThreadPoolExecutor(1)
PIPE = socket.socketpair()


@pytest.fixture(autouse=True, scope="module")
def closed() -> Iterator[None]:
    yield
    DATABASE.close()
    IDLE.shutdown()
    for end in PIPE:
        end.close()


FORBIDDEN = """
clock time.time : time.time()
clock time.monotonic_ns : time.monotonic_ns()
clock time.perf_counter : time.perf_counter()
clock time.gmtime : time.gmtime()
clock time.strftime : time.strftime("%Y")
clock datetime.now : datetime.now()
clock datetime.now : datetime.now(UTC)
clock datetime.now : Later.now()
clock datetime.utcnow : datetime.utcnow()
clock date.today : date.today()
clock date.today : datetime.today()
sleep time.sleep : time.sleep(0)
chance random.random : random.random()
chance random.randint : random.randint(1, 6)
chance random.shuffle : random.shuffle([1, 2])
chance random.seed : random.seed(4)
chance random.Random : random.Random()
chance os.urandom : os.urandom(4)
secret random.SystemRandom.random : random.SystemRandom().random()
secret secrets.token_hex : secrets.token_hex()
secret random.choice : secrets.choice([1, 2])
uuid uuid.uuid1 : uuid.uuid1()
uuid uuid.uuid4 : uuid.uuid4()
environment os.environ : os.environ["PATH"]
environment os.environ : os.environ.get("PATH")
environment os.getenv : os.getenv("PATH")
environment os.environ : "PATH" in os.environ
io open : open("/dev/null").close()
io open : io.open("/dev/null").close()
io os.listdir : os.listdir("/")
io posixpath.abspath : os.path.abspath("x")
io pathlib.Path.read_text : Path("/dev/null").read_text()
io pathlib.Path.exists : Path("/").exists()
io socket.getaddrinfo : socket.getaddrinfo("127.0.0.1", 1)
io socket.create_connection : socket.create_connection(("127.0.0.1", 1))
io socket.socket : socket.socket().close()
io socket.socket.send : PIPE[0].send(b"x")
io subprocess.run : subprocess.run(["true"])
io os.popen : os.popen("true").close()
io os.getpid : os.getpid()
io sqlite3.connect : sqlite3.connect(":memory:").close()
io sqlite3.Connection.execute : DATABASE.execute("select 1")
io psycopg.connection.Connection.connect : psycopg.connect("host=/nowhere")
io urllib.request.urlopen : urllib.request.urlopen("http://127.0.0.1:1/")
io httpx.get : httpx.get("http://127.0.0.1:1/")
thread threading.Thread.start : threading.Thread(target=int).start()
thread concurrent.futures.thread.ThreadPoolExecutor.submit : IDLE.submit(int).result()
""".strip().splitlines()
"""What is found, what it is called, and the line of code."""

WORLD = """
import asyncio, io, logging, os, random, secrets, socket, sqlite3, subprocess, sys, threading, time, urllib.request
import uuid, zoneinfo
from datetime import UTC, date, datetime
from pathlib import Path
import httpx, psycopg, structlog

class Later(datetime):
    pass

MINE = random.Random(7)

async def main():
    return {line}
"""


def flow(directory: Path, line: str) -> Callable[[], Any]:
    """A workflow in a file of its own, whose last line is this one."""
    tools = {"DATABASE": DATABASE, "IDLE": IDLE, "PIPE": PIPE}
    module = _module(directory, "flow", WORLD.replace("{line}", line), **tools)
    main: Callable[[], Any] = module.main
    return main


def _module(directory: Path, name: str, text: str, **more: object) -> ModuleType:
    path = directory / f"{name}.py"
    path.write_text(text)
    module = ModuleType(name)
    vars(module).update(more)
    exec(compile(text, str(path), "exec"), vars(module))
    return module


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
@pytest.mark.parametrize("row", FORBIDDEN)
def test_each_kind_is_named_with_its_line_and_the_way(row: str, tmp_path: Path) -> None:
    (kind, called), line = row.partition(" : ")[0].split(), row.partition(" : ")[2]
    main = flow(tmp_path, line)
    seen = Seen()
    seen.run(main)
    [finding] = seen.findings
    assert (finding.kind, finding.called) == (kind, called)
    assert (finding.file, finding.line) == (str(tmp_path / "flow.py"), WORLD.count("\n"))
    assert finding.way == WAYS[finding.kind]
    assert str(finding) == (
        f"{finding.file}:{finding.line}: workflow code called {called}, which a replay does not repeat. Use {finding.way}."
    )
    with pytest.raises(WorkflowMisuse, match="a replay does not repeat"):
        _raise(Seen("raise").run(main))


def _raise(outcome: object) -> None:
    assert isinstance(outcome, Raised)
    raise outcome.exception


PERMITTED = {
    "a generator with a seed": "random.Random(3).random(), MINE.randint(1, 6), MINE.shuffle([1])",
    "conversions of an instant": "time.gmtime(3), time.strftime('%Y', (0,) * 9), time.asctime((0,) * 9)",
    "instants that are given": "datetime(2026, 1, 1), datetime.fromtimestamp(0, UTC)",
    "names made of names": "uuid.uuid5(uuid.NAMESPACE_DNS, 'x'), uuid.UUID(int=3)",
    "comparing secrets": "secrets.compare_digest('a', 'a')",
    "print": "print('x', file=sys.stdout, flush=True)",
    "paths without a file": "(Path('/a') / 'b').with_suffix('.c').name",
    "logging": "logging.getLogger('user').warning('it is %s', 'now')",
    "structlog": "structlog.get_logger('user').info('x')",
    "importing": "__import__('colorsys')",
    "time zones": "datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo.no_cache('Europe/Berlin')).utcoffset()",
    "text in memory": "io.StringIO('x').read()",
    "a loop's own time": "asyncio.get_running_loop().time()",
}


@pytest.mark.parametrize("what", PERMITTED)
def test_what_a_replay_repeats_or_what_only_reports_is_passed_over(what: str, tmp_path: Path) -> None:
    sys.modules.pop("colorsys", None)
    seen = Seen()
    assert isinstance(seen.run(flow(tmp_path, PERMITTED[what])), Returned)
    assert seen.findings == []


def test_a_thread_that_asyncio_would_use_is_named_although_the_loop_refuses_it(seen: Seen) -> None:
    async def code() -> None:
        await asyncio.to_thread(int)

    assert isinstance(seen.run(code), Raised)
    assert (seen.kinds, seen.called) == (["thread"], ["asyncio.threads.to_thread"])


def test_asyncio_and_the_context_are_no_users(seen: Seen) -> None:
    async def code() -> None:
        async with asyncio.timeout(3), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(1))
        await asyncio.wait_for(step("a"), 5)
        queue: asyncio.Queue[int] = asyncio.Queue()
        queue.put_nowait(1)
        await queue.get()

    assert isinstance(seen.run(code), Returned)
    assert seen.findings == []


def test_time_and_chance_of_the_context_are_the_way() -> None:
    seen = Seen("raise")
    drawn: list[object] = []

    async def code() -> None:
        drawn.append((ctx.now(), ctx.random.random(), ctx.random.choice([1, 2]), ctx.uuid4()))
        await ctx.run(clocked)
        await ctx.sleep(3)

    async def clocked() -> float:
        return time.time()

    machine: Machine[None] = Machine(code, started_at=STARTED_AT, watch=seen.guard)
    ctx = Context(machine, "w", payloads=Payloads(), seed=1)
    machine.start()
    [operation] = machine.open.values()
    assert operation.kind == STEP
    stored = JournalEntry(1, operation.path, STEP, "resolved", STARTED_AT)
    machine.feed(Entry(1, operation.path, STEP, 0, operation.digest, "resolved", stored, STARTED_AT))
    assert seen.findings == []
    assert drawn
    machine.evict()


def helper() -> float:
    return time.time()


def test_the_line_is_the_users_nearest_one_and_each_is_named_once(seen: Seen) -> None:
    async def code() -> None:
        for _ in range(3):
            helper()
        await step("a")
        helper()
        tempfile.gettempdir()
        helper()

    tempfile.tempdir = None
    seen.run(code)
    seen.run(code)
    first = helper.__code__.co_firstlineno + 1
    assert [finding.line for finding in seen.findings if finding.called == "time.time"] == [first]
    assert [finding.called for finding in seen.findings if finding.line != first] == ["tempfile.gettempdir"]


def test_a_library_is_named_by_the_line_that_uses_it_and_an_installed_workflow_by_its_own(
    seen: Seen, tmp_path: Path
) -> None:
    (tmp_path / "site-packages").mkdir()
    library = _module(
        tmp_path / "site-packages", "clockwork", "import time\ndef tick(): return time.time()\n"
    )
    sys.modules["clockwork"] = library
    flows = _module(
        tmp_path / "site-packages",
        "flows",
        "import clockwork\nasync def main():\n    def inner():\n        return clockwork.tick()\n    return inner()\n",
    )
    try:
        seen.run(library.tick)
        Machine(flows.main, started_at=STARTED_AT, watch=seen.guard).start()
    finally:
        del sys.modules["clockwork"]
    mine, installed = seen.findings
    assert (mine.file, mine.called) == (HERE, "clockwork.tick")
    assert (Path(installed.file).name, installed.line, installed.called) == ("flows.py", 4, "clockwork.tick")


def test_what_asyncio_and_troth_do_for_themselves_is_passed_over(seen: Seen, tmp_path: Path) -> None:
    text = "import time\ndef tick(): return time.time()\n"
    for name in ("troth.made_up", "asyncio.made_up"):
        seen.run(_module(tmp_path, name, text).tick)
        assert seen.findings == [], name
    seen.run(_module(tmp_path, "trothful.made_up", text).tick)
    assert len(seen.findings) == 1


def test_finalizers_run_when_they_please_and_are_nobodys(seen: Seen) -> None:
    class Closes:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            time.time()

    def code() -> None:
        Closes()
        gc.collect()

    seen.run(code)
    assert seen.findings == []


def test_raising_ends_the_code_as_any_error_of_its_own_and_can_be_caught() -> None:
    seen = Seen("raise")

    async def code() -> str:
        try:
            time.time()
        except WorkflowMisuse:
            await step("cleanup")
        time.time()
        return "not reached"

    outcome = seen.run(code)
    assert isinstance(outcome, Raised)
    assert isinstance(outcome.exception, WorkflowMisuse)
    assert "ctx.now()" in str(outcome.exception)
    with pytest.raises(WorkflowMisuse):  # not only the first time
        _raise(seen.run(code))


def test_what_runs_outside_the_machine_is_not_looked_at(seen: Seen) -> None:
    between: list[float] = []

    async def code() -> None:
        await step("a")

    machine: Machine[None] = Machine(code, started_at=STARTED_AT, watch=seen.guard)
    machine.start()
    between.append(time.time())
    worker = threading.Thread(target=lambda: between.append(random.random()))
    worker.start()
    worker.join()
    machine.feed(_told(machine, machine.open["a"]))
    between.append(time.time())
    assert machine.done
    assert seen.findings == []


async def test_a_step_that_runs_while_machines_do_is_not_flagged(seen: Seen) -> None:
    """A worker's loop runs machines from callbacks and steps as tasks, in the same thread."""

    async def a_step() -> float:
        for _ in range(5):
            await asyncio.sleep(0)
            time.time()
        return random.random()

    async def code() -> None:
        for _ in range(5):
            await step("a")

    machine: Machine[None] = Machine(code, started_at=STARTED_AT, watch=seen.guard)
    done = asyncio.Event()

    def turn(first: bool = False) -> None:
        if first:
            machine.start()
        elif not machine.done:
            machine.feed(_told(machine, next(iter(machine.open.values()))))
        if machine.done:
            done.set()
        else:
            asyncio.get_running_loop().call_soon(turn)

    asyncio.get_running_loop().call_soon(turn, True)
    await asyncio.gather(a_step(), done.wait())
    assert seen.findings == []


def test_a_tracer_survives_and_keeps_seeing_lines(seen: Seen) -> None:
    """Debuggers and coverage set the trace hook."""
    lines: list[int] = []

    def tracer(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code is helper.__code__ and event == "line":
            lines.append(frame.f_lineno)
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        seen.run(helper)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert lines == [helper.__code__.co_firstlineno + 1]
    assert seen.kinds == ["clock"]


def test_a_profiler_in_python_is_called_beside_and_put_back(seen: Seen) -> None:
    calls: list[str] = []

    def profiler(frame: FrameType, event: str, arg: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_name)

    sys.setprofile(profiler)
    try:
        seen.run(helper)
        assert sys.getprofile() is profiler
        helper()
    finally:
        sys.setprofile(None)
    assert calls.count("helper") == 2
    assert seen.kinds == ["clock"]


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="there it goes by sys.monitoring and is not in the way"
)
def test_a_profiler_in_c_is_stood_aside_for(seen: Seen) -> None:
    profile = cProfile.Profile()
    still: Callable[[], object] = sys.getprofile
    profile.enable()
    try:
        seen.run(helper)
        assert still() is profile
    finally:
        profile.disable()
    profile.create_stats()
    assert any(name == "helper" for _, _, name in vars(profile)["stats"])
    assert seen.findings == []


def test_a_hook_that_the_code_sets_itself_is_left_to_it(seen: Seen) -> None:
    def its_own(frame: FrameType, event: str, arg: object) -> None:
        pass

    seen.run(lambda: sys.setprofile(its_own))
    assert sys.getprofile() is its_own
    sys.setprofile(None)


def test_without_a_word_about_whom_to_tell_it_is_logged() -> None:
    guard = Guard()

    async def code() -> None:
        time.time()

    machine: Machine[None] = Machine(code, started_at=STARTED_AT, watch=guard)
    with capture_logs() as logs:
        machine.start()
    [said] = logs
    assert said["log_level"] == "warning"
    assert said["called"] == "time.time"
    assert said["line"].startswith(f"{HERE}:")
    assert "ctx.now()" in said["use"]


def test_what_the_garbage_collector_calls_is_nobodys(seen: Seen) -> None:
    def timed(_phase: str, _info: dict[str, int]) -> None:
        time.perf_counter()

    gc.callbacks.append(timed)
    try:
        seen.run(gc.collect)
    finally:
        gc.callbacks.remove(timed)
    assert seen.findings == []
