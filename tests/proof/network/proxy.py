"""A TCP proxy in front of Postgres that does to connections what networks do: cuts, silence, delay, answers that are lost.

It runs in a thread of its own, so that it goes on whatever the test's loop does. It reads what clients send just far enough to
know which of Troth's functions a message calls (statements are parsed once and executed by name), so that an accident can
befall the very call that it is meant for. What the server says it passes on unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal, Self, TypeVar

from psycopg.conninfo import conninfo_to_dict

Accident = Literal["before", "sent", "answered", "silence"]
"""When the connection breaks: before the call reaches the server, as soon as it is sent, or once the server has answered (what it
did is committed, and the answer is lost). Or it does not break, but falls silent before the call."""

T = TypeVar("T")

_SSL_REQUEST = 80877103
_READY_FOR_QUERY = b"Z\x00\x00\x00\x05"


class Proxy:
    """Stands before the Postgres of a DSN until it is closed; `with Proxy(dsn) as proxy` does."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._server = str(parts["host"]), int(parts["port"] or 5432)
        self._dsn = dsn
        self.calls: Counter[str] = Counter()
        """How often each function was called through here."""
        self.struck: Counter[str] = Counter()
        """How often an accident befell a call of each."""
        self.connected = 0
        """Connections so far."""
        self.delay_s = 0.0
        self._refusing = False
        self._silent = False
        self._accidents: dict[str, tuple[Accident, int]] = {}
        self._lines: set[_Line] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._listener = self._in_loop(self._listen)
        self.port: int = self._listener.sockets[0].getsockname()[1]

    @property
    def dsn(self) -> str:
        """The same database by way of this proxy."""
        host, port = self._server
        assert f"@{host}:{port}/" in self._dsn
        return self._dsn.replace(f"@{host}:{port}/", f"@127.0.0.1:{self.port}/")

    def strike(self, function: str, accident: Accident, times: int = 1) -> None:
        """Let an accident befall the next calls of a function."""
        self._accidents[function] = accident, times

    def cut(self, *, refuse: bool = False) -> None:
        """Reset all connections; with `refuse` new ones too, until `heal`."""
        self._refusing = refuse
        self._in_loop(self._reset_all)

    def fall_silent(self) -> None:
        """From now on nothing arrives anywhere, and nobody is told. Who connects is accepted, and hears nothing."""
        self._silent = True
        self._in_loop(self._silence_all)

    def heal(self) -> None:
        """Let new connections be good ones. Those that fell silent stay so: the way that they took is gone."""
        self._refusing = self._silent = False

    @property
    def open(self) -> int:
        """Connections that neither side has closed, those gone silent among them."""
        return len(self._lines)

    def close(self) -> None:
        self._in_loop(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- in its own loop ---

    def _in_loop(self, act: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(60)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=2**20)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        self.connected += 1
        line = _Line(self, reader, writer, silent=self._silent)
        self._lines.add(line)
        try:
            await line.live(*self._server)
        except asyncio.CancelledError:
            pass  # the proxy ends
        finally:
            self._lines.discard(line)

    async def _reset_all(self) -> None:
        for line in list(self._lines):
            line.reset()

    async def _silence_all(self) -> None:
        for line in self._lines:
            line.silent = True

    async def _end(self) -> None:
        self._listener.close()
        tasks = [line.task for line in self._lines if line.task is not None]
        await self._reset_all()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def befalls(self, functions: list[str]) -> Accident | None:
        """What befalls a message that calls these."""
        self.calls.update(functions)
        for function in functions:
            accident, times = self._accidents.get(function, ("before", 0))
            if times > 0:
                self._accidents[function] = accident, times - 1
                self.struck[function] += 1
                return accident
        return None


class _Line:
    """One client's connection and its other half to the server."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, silent: bool
    ) -> None:
        self.silent = silent
        self.task = asyncio.current_task()
        self._proxy = proxy
        self._client = reader, writer
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._reading = Reading()
        self._losing_answer = False

    async def live(self, host: str, port: int) -> None:
        """Carry what both sides say, until either ends or an accident happens."""
        try:
            self._server = await asyncio.open_connection(host, port)
            ways = [asyncio.create_task(self._to_server()), asyncio.create_task(self._to_client())]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            self.reset()

    def reset(self) -> None:
        """Break both halves. What was sent to the server before stays sent."""
        _reset(self._client[1])
        if self._server is not None:
            self._server[1].close()

    async def _to_server(self) -> None:
        assert self._server is not None
        while chunk := await self._client[0].read(2**18):
            accident = self._proxy.befalls(list(self._reading.calls(chunk)))
            if accident == "before":
                return
            self._losing_answer = accident == "answered"
            self.silent = self.silent or accident == "silence"
            await self._pass_on(chunk, self._server[1])
            if accident == "sent":
                return
        if self.silent:
            await asyncio.Event().wait()  # the server does not hear that the client is gone

    async def _to_client(self) -> None:
        assert self._server is not None
        told = b""
        while chunk := await self._server[0].read(2**18):
            if self._losing_answer:
                told = (told + chunk)[-(2**18) :]
                if _READY_FOR_QUERY in told:
                    return
                continue
            await self._pass_on(chunk, self._client[1])

    async def _pass_on(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        if self._proxy.delay_s:
            await asyncio.sleep(self._proxy.delay_s)
        if not self.silent:
            writer.write(chunk)
            await writer.drain()


class Reading:
    """What a client says, as far as it tells which functions are called: text by text, or by the name of a statement."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._statements: dict[bytes, str] = {}

    def calls(self, chunk: bytes) -> Iterator[str]:
        """The functions that a further piece executes."""
        self._rest += chunk
        while (message := self._next()) is not None:
            kind, body = message
            if kind == b"P":
                name, text, *_ = body.split(b"\0")
                self._statements[name] = text.decode()
            elif kind == b"B":
                _portal, statement, *_ = body.split(b"\0", 2)
                yield from _functions(self._statements.get(statement, ""))
            elif kind == b"Q":
                yield from _functions(body.decode(errors="replace"))

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 0 if not self._begun else 1
        if len(self._rest) < head + 4:
            return None
        (length,) = struct.unpack("!i", self._rest[head : head + 4])
        if len(self._rest) < head + length:
            return None
        kind, body = self._rest[:head], self._rest[head + 4 : head + length]
        self._rest = self._rest[head + length :]
        if not self._begun:
            (code,) = struct.unpack("!i", body[:4])
            self._begun = code != _SSL_REQUEST
        return kind, body


def _functions(text: str) -> Iterator[str]:
    """The functions of the namespace `troth` in a query; `commit` and the like by their own word."""
    for piece in text.replace('"', "").split("troth.")[1:]:
        yield piece.partition("(")[0]
    word = text.strip(" ;\0").partition(" ")[0].lower()
    if word in {"begin", "commit", "rollback", "listen"}:
        yield word


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as a firewall or a dying host does."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
