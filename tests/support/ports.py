"""Ports for servers that are told theirs.

A port that the system gave and took back may be given to somebody else before it is used; and two servers that share a port
(granian lets them) answer each other's clients. So a process of the tests takes a number from a range that the system gives
nobody, and keeps it from the other processes for as long as it lives.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

FIRST, LAST = 20_000, 29_999
_kept: list[IO[str]] = []


def free_port() -> int:
    """A port of the loopback that nobody uses, and that no other test will be given."""
    for port in random.sample(range(FIRST, LAST + 1), LAST + 1 - FIRST):
        if _keep(port) and _is_free(port):
            return port
    raise AssertionError(f"no port from {FIRST} to {LAST} is free")


def _keep(port: int) -> bool:
    file = (Path(tempfile.gettempdir()) / f"troth-test-port-{os.getuid()}-{port}").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _kept.append(file)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
