"""What a worker costs that has nothing to do: transactions and CPU a second, of itself and of Postgres.

Troth's and the floor's transactions are single statements when idle. A worker's first seconds are left out.
"""

from __future__ import annotations

import subprocess
import time

import psutil

from bench.conductor import HOME, Bench, Result, environment, postgres_cpu, python_of

SETTLE_S = 15.0
"""Until the keeper has had its first beat, and what asyncpg asks a new connection is behind it."""


def idle(on: Bench, system: str, seconds: float) -> None:
    """One idle worker."""
    with on.database() as dsn:
        on.prepare(system, dsn)
        with subprocess.Popen(
            [python_of(system), "-m", "bench.driver", system, "worker", dsn],
            cwd=HOME,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                time.sleep(SETTLE_S)
                before = on.counted(dsn), _cpu(process.pid), postgres_cpu(on.server)
                time.sleep(seconds)
                after = on.counted(dsn), _cpu(process.pid), postgres_cpu(on.server)
            finally:
                process.terminate()
    figures = {
        "transactions/s of an idle worker": (after[0]["commits"] - before[0]["commits"]) / seconds,
        "CPU of an idle worker, %": (after[1] - before[1]) / seconds * 100,
        "CPU of Postgres beside it, %": (after[2] - before[2]) / seconds * 100,
    }
    on.add(Result(system, "idle", figures))


def _cpu(pid: int) -> float:
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)
