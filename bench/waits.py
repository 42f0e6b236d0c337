"""What Postgres' backends wait for while a work goes on, by looking at them fifty times a second."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Generator
from typing import Final

import psycopg

EVERY_S: Final = 0.02
LOOK: Final = """
select coalesce(wait_event_type || ':' || wait_event, 'CPU') from pg_stat_activity
 where datname = %s and pid <> pg_backend_pid() and state = 'active'"""


@contextlib.contextmanager
def watched(dsn: str, database: str) -> Generator[Counter[str]]:
    """How often an active backend of the database was seen on the CPU, or waiting for what."""
    seen: Counter[str] = Counter()
    ended = threading.Event()

    def look() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not ended.wait(EVERY_S):
                seen.update(event for (event,) in connection.execute(LOOK, [database]))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def share(seen: Counter[str], *events: str) -> float:
    """Which share of what was seen begins with one of these, in percent."""
    of_these = sum(count for event, count in seen.items() if event.startswith(events))
    return 100 * of_these / max(seen.total(), 1)
