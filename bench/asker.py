"""Asks an HTTP server over connections that stay open, as cheaply as can be: what is measured is the server.

A client made for people (httpx) takes longer over a request than the API does, and on one machine it takes that from the API.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "


class Asker(asyncio.Protocol):
    """One connection: one request at a time, answers with a Content-Length only."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._read = b""

    @classmethod
    async def connected(cls, host: str, port: int) -> Asker:
        _, asker = await asyncio.get_running_loop().create_connection(cls, host, port)
        return asker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def post(self, path: str, body: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """The status and the body of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self._transport.write(head.encode() + _HEAD + body)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, there, body = self._read.partition(_HEAD)
        if not there:
            return
        length = int(head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0])
        if len(body) == length and self._answer is not None:
            self._read = b""
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server closed the connection"))

    def close(self) -> None:
        self._transport.close()
