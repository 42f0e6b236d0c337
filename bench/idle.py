"""What a worker costs that has nothing to do: transactions and CPU a second, of itself and of Postgres.

A commit is a statement here: an idle worker of any of these systems sends single statements. Its first seconds are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

from bench.conductor import HOME, OWN, PEERS_PYTHON, Bench, Result, postgres_cpu

SETTLE_S = 5.0


def idle(on: Bench, system: str, seconds: float) -> None:
    """One idle worker."""
    with on.database() as dsn:
        on.prepare(system, dsn)
        python = sys.executable if system in OWN else str(PEERS_PYTHON)
        with subprocess.Popen(
            [python, "-m", "bench.driver", system, "worker", dsn],
            cwd=HOME,
            env=os.environ | {"PYTHONPATH": str(HOME)},
            stdout=subprocess.DEVNULL,
        ) as process:
            try:
                time.sleep(SETTLE_S)
                before = on.counted(dsn), _cpu(process.pid), postgres_cpu(on.server)
                time.sleep(seconds)
                after = on.counted(dsn), _cpu(process.pid), postgres_cpu(on.server)
            finally:
                process.terminate()
    figures = {
        "idle statements/s": (after[0]["commits"] - before[0]["commits"]) / seconds,
        "idle worker CPU %": (after[1] - before[1]) / seconds * 100,
        "idle Postgres CPU %": (after[2] - before[2]) / seconds * 100,
    }
    on.results.append(Result(system, "idle", figures))
    print(f"{'idle':10} {system:14}", {k: round(v, 2) for k, v in figures.items()}, flush=True)


def _cpu(pid: int) -> float:
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)
