"""What an event loop can usually do and a workflow's cannot, with a sentence for each that names the way.

A workflow is replayed: whatever it learns of the world must come through an entry of its journal. Sockets, threads,
processes and signals belong into a step. This class refuses all of them at once, where they are called.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from troth.errors import WorkflowMisuse


def _refused(method: str, what: str, way: str) -> Any:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        raise WorkflowMisuse(f"{what} has no place in a workflow (loop.{method}): {way}.")

    refuse.__name__ = refuse.__qualname__ = method
    return refuse


def _io(method: str) -> Any:
    return _refused(method, "Talking to the outside", "do it in a step, with `await ctx.run(function, ...)`")


def _thread(method: str) -> Any:
    return _refused(
        method,
        "A thread",
        "call the function as a step, with `await ctx.run(function, ...)`: a sync one gets a thread",
    )


def _signal(method: str) -> Any:
    return _refused(method, "A signal", "let whoever gets it settle a `ctx.promise(...)` by its ID")


def _driven(method: str) -> Any:
    return _refused(method, "Driving the loop", "it is driven by the worker; `await` what you wait for")


def _setting(method: str) -> Any:
    return _refused(
        method, "Changing how the loop works", "tasks are named and ordered by it, so that replays agree"
    )


class RefusingLoop(asyncio.AbstractEventLoop):
    """An event loop that refuses everything which is not computing, waiting or branching."""

    run_forever = _driven("run_forever")
    run_until_complete = _driven("run_until_complete")
    stop = _driven("stop")
    close = _driven("close")
    shutdown_asyncgens = _driven("shutdown_asyncgens")
    shutdown_default_executor = _driven("shutdown_default_executor")

    call_soon_threadsafe = _thread("call_soon_threadsafe")
    run_in_executor = _thread("run_in_executor")
    set_default_executor = _thread("set_default_executor")

    add_signal_handler = _signal("add_signal_handler")
    remove_signal_handler = _signal("remove_signal_handler")

    set_task_factory = _setting("set_task_factory")
    set_exception_handler = _setting("set_exception_handler")
    set_debug = _setting("set_debug")

    getaddrinfo = _io("getaddrinfo")
    getnameinfo = _io("getnameinfo")
    create_connection = _io("create_connection")
    create_server = _io("create_server")
    create_unix_connection = _io("create_unix_connection")
    create_unix_server = _io("create_unix_server")
    create_datagram_endpoint = _io("create_datagram_endpoint")
    connect_accepted_socket = _io("connect_accepted_socket")
    connect_read_pipe = _io("connect_read_pipe")
    connect_write_pipe = _io("connect_write_pipe")
    start_tls = _io("start_tls")
    sendfile = _io("sendfile")
    subprocess_shell = _io("subprocess_shell")
    subprocess_exec = _io("subprocess_exec")
    add_reader = _io("add_reader")
    remove_reader = _io("remove_reader")
    add_writer = _io("add_writer")
    remove_writer = _io("remove_writer")
    sock_recv = _io("sock_recv")
    sock_recv_into = _io("sock_recv_into")
    sock_recvfrom = _io("sock_recvfrom")
    sock_recvfrom_into = _io("sock_recvfrom_into")
    sock_sendall = _io("sock_sendall")
    sock_sendto = _io("sock_sendto")
    sock_connect = _io("sock_connect")
    sock_accept = _io("sock_accept")
    sock_sendfile = _io("sock_sendfile")
