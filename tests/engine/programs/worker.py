"""A worker process for tests: `python -m tests.engine.programs.worker '{"dsn": ...}'`.

`kill_at` is `<when>:<function>:<n>[:<text>]`: at the n-th call of that SQL function whose arguments contain the text, this
process ends itself by SIGKILL, so that a test dies at an instruction and not at an instant. `when` is

- `before` the call is sent, or `after` its answer came (a `claim` counts only if it got a task),
- `split`: the call is sent without what it says of how its workflows go on, then as `after`.

With `kill_pid` not this process but that one is ended at that point, at once and for good, and the answer is lost with it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.support.pooler import lead
from troth import Troth, Unreachable, Worker
from troth.gateway.pool import Pool


class KillPoint:
    """Wraps `Pool.run` so that it does not survive one of its calls."""

    def __init__(self, kill_at: str, kill_pid: int | None) -> None:
        self._when, self._function, count, *text = kill_at.split(":", 3)
        self._left = int(count)
        self._text = text[0] if text else ""
        self._pid = kill_pid
        self._run = Pool.run

        async def run(pool: Pool, call: Any, *, again: bool = True) -> Any:
            return await self.run(pool, call, again=again)

        vars_of_pool: Any = Pool
        vars_of_pool.run = run

    async def run(self, pool: Pool, call: Any, *, again: bool = True) -> Any:
        if (
            call.function != self._function
            or self._text not in " ".join(map(str, call.values))
            or self._left < 1
        ):
            return await self._run(pool, call, again=again)
        if self._when == "before":
            self._count()
        if self._when == "split" and self._left == 1:
            arguments = [(n, t, _without_then(v) if n == "turns" else v) for n, t, v in call.arguments]
            call = replace(call, arguments=tuple(arguments))
        answer = await self._run(pool, call, again=again)
        if self._when != "before" and (answer or self._function != "claim"):
            self._count()
        return answer

    def _count(self) -> None:
        self._left -= 1
        if self._left > 0:
            return
        if self._pid is None:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        else:
            os.kill(self._pid, signal.SIGQUIT)
            while state_of(self._pid) != "Z":
                time.sleep(0.01)
            raise Unreachable("The server was ended in the middle of a call.")


def _without_then(turns: str) -> str:
    items = json.loads(turns)
    for item in items:
        item.pop("then", None)
    return json.dumps(items)


def state_of(pid: int) -> str:
    """The kernel's letter for a process; Z (ended, not looked after) also for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


async def main(options: dict[str, Any]) -> None:
    modules = options.get("modules", ["tests.engine.programs.stories"])
    lead()
    async with Troth(options["dsn"], notify=options.get("notify", True)) as troth:
        worker = Worker(
            troth,
            [importlib.import_module(module) for module in modules],
            options.get("queues", ["default"]),
            concurrency=options.get("concurrency", 100),
            lease=timedelta(seconds=options.get("lease_s", 3)),
            poll=timedelta(seconds=options.get("poll_s", 0.3)),
            grace=timedelta(seconds=options.get("grace_s", 5)),
            name=options.get("name"),
            **({"keep": options["keep"]} if "keep" in options else {}),
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await worker.run()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    os.environ["TROTH_TEST_SCRATCH"] = given["scratch"]
    if given.get("kill_at"):
        KillPoint(given["kill_at"], given.get("kill_pid"))
    asyncio.run(main(given))
