"""The backlog again, worked off by several worker processes: what the second one adds, and whether eight stand in a queue."""

from __future__ import annotations

import dataclasses
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from bench.conductor import OWN, Bench, Result, driver
from bench.waits import share, watched
from bench.works import Sizes

COUNTS: Final = (2, 8)
"""Eight processes of a peer on a machine of two cores would show nothing but their Pythons."""


def together(on: Bench, system: str, sizes: Sizes) -> None:
    """Once for each number of processes; what backends waited for meanwhile is theirs and the client's."""
    for count in COUNTS if system in OWN else COUNTS[:1]:
        with on.database() as dsn:
            on.prepare(system, dsn)
            with watched(on.server.dsn, str(conninfo_to_dict(dsn)["dbname"])) as seen:
                said = driver(system, "drain", dsn, dataclasses.replace(sizes, workers=count))
            waits = {
                "active backends waiting for row locks, %": share(seen, "Lock:"),
                "active backends waiting for the WAL to be on disk, %": share(
                    seen, "IO:WAL", "LWLock:WALWrite"
                ),
                "active backends waiting for other latches, %": share(seen, "LWLock:")
                - share(seen, "LWLock:WALWrite"),
            }
            on.add(Result(system, f"{count} workers", said["figures"] | waits))
