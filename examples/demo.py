"""The whole story, with real processes, in under a minute: `make demo`.

A workflow waits for a person. The worker that ran it is killed meanwhile, the same ID is started once more, the person
decides, and another worker finishes: with one e-mail sent, and the result that one would expect. Everything is its own
(Postgres too, in a temporary directory) and gone at the end. If anything of this does not happen, it says what, and
exits with 1.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from troth.dev import Postgres
from troth.dev.processes import alive, until
from troth.dev.up_crew import Child, Crew
from troth.schema import migrate

ORDER = "order-42"
LINK = "CLICK TO DECIDE:"
SECONDS_MAX = 20.0
"""How long anything may take before the demo gives up on it."""

COLOR = sys.stdout.isatty()
EXAMPLE = str(Path(__file__).with_name("approval.py"))


class Broken(Exception):
    """Something that had to happen did not."""


class Demo:
    """The processes, what they said, and the HTTP API as seen by a user."""

    def __init__(self, dsn: str, crew: Crew, said: Said) -> None:
        self.environment = {"TROTH_DSN": dsn, "TROTH_SCHEMA": "troth"}
        self.crew = crew
        self.said = said
        self.port = free_port()
        self.children: list[Child] = []

    def start_api(self) -> None:
        command = [sys.executable, "-m", "troth_api", "--host", "127.0.0.1", "--port", str(self.port)]
        api = self._start("api", command)
        wait_for("the API answers", lambda: self._ready() or dead(api))

    def start_worker(self, name: str) -> Child:
        command = [sys.executable, "-m", "troth.cli", "worker", EXAMPLE, "--name", name, "--grace", "2"]
        return self._start(name, command)

    def _start(self, name: str, command: list[str]) -> Child:
        child = self.crew.start(name, command, self.environment)
        self.children.append(child)
        return child

    def _ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request: the status and the JSON that came back."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=SECONDS_MAX * 2)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def start_order(self) -> tuple[int, Any]:
        return self.ask("POST", "/workflows/approve_order", {"id": ORDER, "args": {"order": ORDER}})

    def task_state(self) -> str | None:
        task = self.ask("GET", f"/promises/{ORDER}")[1].get("task")
        return task["state"] if task else None


class Said:
    """What the processes print, shown as it comes and kept to be counted."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self.lines: defaultdict[str, list[str]] = defaultdict(list)

    def hear(self, name: str, line: str) -> None:
        with self._turn:
            self.lines[name].append(line)
            print(f"    {paint(f'{name:<8}', '36')} | {line}", flush=True)

    def links(self) -> list[tuple[str, str]]:
        """The e-mails that were sent: by whom, and the link in each."""
        with self._turn:
            return [
                (name, line.partition(LINK)[2].strip())
                for name, lines in self.lines.items()
                for line in lines
                if LINK in line
            ]


def main() -> int:
    begin = time.monotonic()
    groups: list[int] = []
    try:
        with ExitStack() as stack:
            postgres = stack.enter_context(Postgres.start(ephemeral=True))
            tell(f"Postgres {postgres.version} runs in a temporary directory")
            migrate(postgres.dsn)
            said = Said()
            demo = Demo(postgres.dsn, stack.enter_context(Crew(said.hear)), said)
            try:
                story(demo)
            finally:
                groups += [child.process.pid for child in demo.children]
        expect(
            "every process is gone", not alive(postgres.pid) and until(lambda: not any(map(lives, groups)), 5)
        )
        expect("the temporary directory is gone", not postgres.data.exists())
    except Broken as broken:
        print(
            paint(f"\nThe demo failed: it was expected that {broken}.", "1;31"), file=sys.stderr, flush=True
        )
        return 1
    tell(f"No process and no file is left. {time.monotonic() - begin:.1f} s in all.")
    return 0


def story(demo: Demo) -> None:
    demo.start_api()
    elsewhere = "" if demo.port == 8000 else " (port 8000, which the link below names, is taken here)"
    tell(f"The HTTP API answers on http://localhost:{demo.port}{elsewhere}")
    workers = {name: demo.start_worker(name) for name in ("worker-1", "worker-2")}
    wait_for(
        "both workers are up",
        lambda: any(map(dead, workers.values())) or all(demo.said.lines[n] for n in workers),
    )

    tell(f"Start the workflow {ORDER}:  POST /workflows/approve_order")
    status, started = demo.start_order()
    expect("the start creates the workflow", (status, started["answer"]) == (201, "created"), started)
    wait_for("a worker sends the e-mail with the link", lambda: bool(demo.said.links()))
    ran_by, link = demo.said.links()[0]
    wait_for("the workflow waits for the person", lambda: demo.task_state() == "suspended")
    tell(f"{ran_by} ran it as far as it goes. The person has this link: {link}")

    victim = workers[ran_by].process
    os.kill(victim.pid, signal.SIGKILL)
    expect(f"{ran_by} is dead", victim.wait(SECONDS_MAX) == -signal.SIGKILL)
    tell(f"{ran_by} is killed with SIGKILL, while the person is still thinking")

    tell(f"Start {ORDER} once more, as a client would that knows of nothing")
    status, again = demo.start_order()
    expect(
        "the second start finds the first",
        (status, again["answer"], again["state"]) == (200, "attached", "pending"),
    )
    tell("It is attached to the one that waits; nothing runs twice")
    decide(demo, link)
    expect("the e-mail was sent once", len(demo.said.links()) == 1, demo.said.links())
    tell("The e-mail was sent once")


def decide(demo: Demo, link: str) -> None:
    promise = link.rpartition("/")[2]
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(demo.ask, "GET", f"/promises/{ORDER}?wait=20")
        time.sleep(0.2)  # the client waits already when the person decides
        tell(f"""The person decides:  POST /promises/{promise}/resolve {{"value": true}}""")
        begin = time.monotonic()
        status, settled = demo.ask("POST", f"/promises/{promise}/resolve", {"value": True})
        expect("the decision is accepted", (status, settled["answer"]) == (200, "settled"), settled)
        _, done = result.result(SECONDS_MAX * 2)
        seen_ms = (time.monotonic() - begin) * 1000
    expect("the other worker finishes", done["state"] == "resolved", done)
    expect("the result is right", done["value"] == f"{ORDER}: approved", done["value"])
    took_ms = (instant(done["settled_at"]) - instant(settled["settled_at"])).total_seconds() * 1000
    tell(f"Result: {paint(json.dumps(done['value']), '1;32')}")
    tell(
        f"Decided → done in {took_ms:.1f} ms by the clock of Postgres; the waiting client had it after {seen_ms:.1f} ms"
    )
    show_journal(demo)


def show_journal(demo: Demo) -> None:
    _, page = demo.ask("GET", f"/workflows/{ORDER}/journal")
    entries = page["items"]
    tell("Its journal:")
    for entry in entries:
        value = json.dumps(entry.get("value"))
        line = f"{entry['seq']}  {entry['operation']:<12} {entry['kind']:<8} {entry['state']:<9} {value}"
        print(f"    {line}", flush=True)
    told = [(entry["operation"], entry["state"]) for entry in entries]
    expect(
        "the journal has the e-mail and the decision",
        told == [("send_email", "resolved"), ("approval", "resolved")],
    )


def expect(what: str, so: object, found: object = None) -> None:
    if not so:
        fail(what, found)


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    if not until(holds, SECONDS_MAX):
        fail(f"{what} within {SECONDS_MAX:.0f} s")


def fail(what: str, found: object = None) -> NoReturn:
    raise Broken(what if found is None else f"{what} (instead: {found})")


def dead(child: Child) -> bool:
    if child.process.poll() is not None:
        child.reader.join(1.0)
        fail(f"the process {child.name} runs")
    return False


def lives(group: int) -> bool:
    """Whether anything is left of a process and its children."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def free_port() -> int:
    """The port that the links of the example name, or any that is free."""
    for port in (8000, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    fail("a port is free")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def tell(text: str) -> None:
    print(f"{paint('●', '1;34')} {text}", flush=True)


def paint(text: str, color: str) -> str:
    return f"\x1b[{color}m{text}\x1b[0m" if COLOR else text


if __name__ == "__main__":
    sys.exit(main())
