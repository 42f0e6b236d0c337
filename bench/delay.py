"""A network between clients and Postgres: a proxy on the loopback that holds every packet back for half a millisecond each way.

`python -m bench.delay PORT` prints the port that it listens on. A process of its own, so that it delays nobody's event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import subprocess
import sys
from typing import Final

import uvloop

from bench.conductor import HOME, Bench, Result, driver
from bench.works import Sizes

ONE_WAY_S: Final = 0.0005
BYTES: Final = 1 << 16


def delayed(on: Bench, system: str, sizes: Sizes) -> None:
    """The backlogs, decisions and starts again, at one more millisecond of round trip."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.delay", str(on.server.port)],
        cwd=HOME,
        stdout=subprocess.PIPE,
        text=True,
    ) as proxy:
        assert proxy.stdout is not None
        port = int(proxy.stdout.readline())
        try:
            for work in ("drain", "steps", "decide", "starts"):
                with on.database() as dsn:
                    if work in on.prepare(system, dsn)["works"]:
                        far = re.sub(r":\d+/", f":{port}/", dsn)
                        said = driver(system, work, far, json.dumps(dataclasses.asdict(sizes)))
                        on.results.append(Result(system, f"{work}, 1 ms away", said["figures"]))
                        print(f"{work}, 1 ms away", system, said["figures"], flush=True)
        finally:
            proxy.terminate()


async def _serve(upstream: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", upstream)
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer), return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What comes is written half a millisecond later, in order, whatever comes meanwhile."""
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(BYTES):
            loop.call_later(ONE_WAY_S, writer.write, data)
    finally:
        loop.call_later(ONE_WAY_S, writer.close)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
