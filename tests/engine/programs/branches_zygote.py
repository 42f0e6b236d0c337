"""A process that has imported everything once and forks worker processes: `python -m tests.engine.programs.branches_zygote FD`.

It is spoken to over the socket FD, in lines of JSON. `fork` with a worker's options (those of `programs/worker.py`, and
`log`) is answered with its pid, `kill` ends one; each end is told, with its exit code (negative for a signal). Nothing has run
before a fork but imports: no loop, no thread, no connection. When the other end of the socket is closed, or this process is
killed, all its workers end with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from tests.engine.programs import worker

PR_SET_PDEATHSIG = 1


def run_worker(options: dict[str, Any]) -> NoReturn:
    """The life of a fork."""
    code = 1
    try:
        log = os.open(options["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TROTH_TEST_SCRATCH"] = options["scratch"]
        os.environ["TROTH_TEST_LEDGER"] = options["dsn"]
        if options.get("kill_at"):
            worker.KillPoint(options["kill_at"], None)
        asyncio.run(worker.main(options))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Forks:
    """The workers that live."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._selector = selectors.DefaultSelector()
        self._selector.register(line, selectors.EVENT_READ)
        self._living: dict[int, int] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    def serve(self) -> None:
        """Fork and tell until the other end is closed."""
        heard = b""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._line:
                    more = self._line.recv(65536)
                    if not more:
                        return
                    *orders, heard = (heard + more).split(b"\n")
                    for order in map(json.loads, orders):
                        if "fork" in order:
                            self._fork(order["fork"])
                        elif order["kill"] in self._living:
                            os.kill(order["kill"], signal.SIGKILL)
                else:
                    self._buried(key.fd, key.data)

    def end(self) -> None:
        """Kill whoever lives."""
        for pid in self._living:
            os.kill(pid, signal.SIGKILL)
        for pid in self._living:
            os.waitpid(pid, 0)

    def _fork(self, options: dict[str, Any]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            self._line.close()
            run_worker(options)
        self._living[pid] = os.pidfd_open(pid)
        self._selector.register(self._living[pid], selectors.EVENT_READ, pid)
        self._say({"pid": pid})

    def _buried(self, pidfd: int, pid: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        del self._living[pid]
        _, status = os.waitpid(pid, 0)
        self._say({"died": pid, "code": os.waitstatus_to_exitcode(status)})

    def _say(self, what: dict[str, int]) -> None:
        self._line.sendall(json.dumps(what).encode() + b"\n")


def main(fd: int, scratch: str, modules: list[str]) -> None:
    os.environ["TROTH_TEST_SCRATCH"] = scratch
    for module in modules:
        importlib.import_module(module)
    for late in ("asyncpg", "psycopg", "uvloop"):
        importlib.import_module(late)
    gc.freeze()
    forks = Forks(socket.socket(fileno=fd))
    try:
        with suppress(ConnectionError):
            forks.serve()
    finally:
        forks.end()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert Path(sys.argv[2]).is_dir()
    main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
