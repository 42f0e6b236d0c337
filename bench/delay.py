"""A network between clients and Postgres: a proxy on the loopback that holds every packet back for half a millisecond each way.

`python -m bench.delay PORT` prints the port that it listens on. A process of its own, so that it delays nobody's event loop.
"""

from __future__ import annotations

import asyncio
import re
import selectors
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Final

import psycopg

from bench.conductor import HOME, Bench, Result, driver
from bench.works import Sizes

ONE_WAY_S: Final = 0.0004
"""The proxy's own work makes up for the rest; what it came to is measured and shown."""
FAR: Final = ("starts", "drain", "steps", "decide")
PINGS: Final = 200


def delayed(on: Bench, system: str, sizes: Sizes) -> None:
    """The starts, backlogs and decisions again, at one more millisecond of round trip."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.delay", str(on.server.port)],
        cwd=HOME,
        stdout=subprocess.PIPE,
        text=True,
    ) as proxy:
        assert proxy.stdout is not None
        port = int(proxy.stdout.readline())
        try:
            near, far = (_round_trip_ms(dsn) for dsn in (on.server.dsn, _through(on.server.dsn, port)))
            on.add(Result(system, "1 ms away", {"round trip as measured, ms more": far - near}))
            for work in FAR:
                on.tried(system, f"{work}, 1 ms away", partial(_far, on, system, work, port, sizes))
        finally:
            proxy.terminate()


def _far(on: Bench, system: str, work: str, port: int, sizes: Sizes) -> None:
    with on.database() as dsn:
        if work in on.prepare(system, dsn)["works"]:
            said = driver(system, work, _through(dsn, port), sizes)
            on.add(Result(system, f"{work}, 1 ms away", said["figures"]))


def _through(dsn: str, port: int) -> str:
    return re.sub(r":\d+/", f":{port}/", dsn)


def _round_trip_ms(dsn: str) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        taken: list[float] = []
        for _ in range(PINGS):
            begun = time.perf_counter()
            connection.execute("select 1")
            taken.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(taken)


class _Side(asyncio.Protocol):
    """One end of a connection: what comes here leaves at the other end half a millisecond later, in order."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        for data in self._early:
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        asyncio.get_running_loop().call_later(ONE_WAY_S, self.other.write, data)

    def connection_lost(self, _: Exception | None) -> None:
        assert self.other is not None
        asyncio.get_running_loop().call_later(ONE_WAY_S, self.other.close)

    def write(self, data: bytes) -> None:
        if self.transport is None:
            self._early.append(data)
        else:
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


async def _serve(upstream: int) -> None:
    loop = asyncio.get_running_loop()
    dials = set[asyncio.Task[object]]()

    def accepted() -> _Side:
        here, there = _Side(), _Side()
        here.other, there.other = there, here
        dial = loop.create_task(loop.create_connection(lambda: there, "127.0.0.1", upstream))
        dials.add(dial)
        dial.add_done_callback(dials.discard)
        return here

    server = await loop.create_server(accepted, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    # select() waits to the microsecond; epoll, and so uvloop, to the millisecond, which is the whole delay
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_serve(int(sys.argv[1])))
