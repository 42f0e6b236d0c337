"""Sixty-four connections that each start a workflow and wait for its end, one after the other, at one process of the API.

The connections speak HTTP/1.1 by hand: a full client would cost more CPU than the API that it asks, on the same machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Self
from urllib.request import urlopen

from troth.dev.server import free_port

CONNECTIONS: Final = 64
READY_S: Final = 60.0


@dataclass
class Connection:
    """One keep-alive connection to the API."""

    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def opened(cls, port: int) -> Self:
        return cls(port, *await asyncio.open_connection("127.0.0.1", port))

    async def post(self, path: str, document: object) -> bytes:
        """The body of the answer, which must be a success."""
        body = json.dumps(document).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        said = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = said.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        answer = await self.reader.readexactly(int(headers["content-length"]))
        assert status.split()[1] in ("200", "201"), (status, answer)
        return answer


async def start_and_wait(port: int, count: int, prefix: str) -> float:
    """So many workflows through all connections; per second."""
    connections = await asyncio.gather(*(Connection.opened(port) for _ in range(CONNECTIONS)))
    left = iter(range(count))

    async def caller(connection: Connection) -> None:
        for n in left:
            asked = {"id": f"{prefix}{n}", "args": {"x": n}}
            answer = json.loads(await connection.post("/workflows/one_step?wait=30", asked))
            assert answer["value"] == n, answer

    begun = time.perf_counter()
    await asyncio.gather(*map(caller, connections))
    taken = time.perf_counter() - begun
    for each in connections:
        each.writer.close()
    return count / taken


@contextlib.asynccontextmanager
async def api(dsn: str) -> AsyncIterator[int]:
    """One process of the API; its port."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "troth_api", "--port", str(port)],
        env=os.environ | {"TROTH_DSN": dsn},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            async with asyncio.timeout(READY_S):
                while not await asyncio.to_thread(_ready, port):
                    await asyncio.sleep(0.1)
            yield port
        finally:
            process.terminate()


def _ready(port: int) -> bool:
    with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
        return bool(answer.status == 200)
    return False
