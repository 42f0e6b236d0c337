"""`python -m tests.proof.chaos --minutes 3`, or `make chaos MINUTES=60`: everything dies, and nothing is lost.

API processes, workers and Postgres are killed by SIGKILL, at instants drawn from a seed, while clients start workflows, decide
and cancel. It goes on until the time is over *and* all counts are reached; then comes calm: nobody is killed, everything that was
begun must end within a minute, and what clients were told, what the journals hold and what the steps did must agree.

The exit code is 0 if it did. The figures are printed in any case; so are the ends of all logs when something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg

from tests.proof.chaos import checks
from tests.proof.chaos.breakages import BREAKAGES, break_functions, breakage_settings
from tests.proof.chaos.checks import say
from tests.proof.chaos.clients import Book, Clients
from tests.proof.chaos.ground import Api, Crew, Database, leave, tails
from tests.proof.chaos.ledger import TABLES
from tests.proof.chaos.load import Load
from tests.proof.chaos.storm import APIS, Storm
from troth import Troth
from troth.schema import migrate
from troth.testing.server import POSTGRES_VARIABLE
from troth.testing.violations import install_violations

OPEN_AT_ONCE = 60
CALM_S_MAX = 60.0
OVERTIME = 2.0
"""How often the time asked for may pass until all counts are reached, beside five minutes."""
EAGER = 1.25
"""How much faster than asked for the killers go, since each needs a moment itself."""
PAUSE_EVERY_S = 7.0
LEAST: Final = {"workflows": (1000, 10_000), "workers": (60, 1000), "postgres": (6, 100)}
"""What 3 and 60 minutes must come to."""


def main() -> int:
    asked = _asked()
    signal.signal(signal.SIGTERM, leave)
    place = Path(tempfile.mkdtemp(prefix="troth-chaos-"))
    place.chmod(0o711)
    (place / "logs").mkdir()
    say(f"seed {asked.seed}, {asked.seconds:g} s, logs in {place / 'logs'}")
    chance = random.Random(f"ports {asked.seed} {time.time_ns()}")
    database = Database(place / "postgres", chance, asked.prefer, breakage_settings(asked.breakage))
    crew = Crew(database.dsn, place / "logs")
    apis = [Api(n, database.dsn, place / "logs", chance) for n in range(APIS)]
    wrong = ["it did not come to its end"]
    try:
        migrate(database.dsn)
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            install_violations(connection)
            connection.execute(TABLES)
            break_functions(connection, asked.breakage)
        wrong = asyncio.run(_Run(asked, database, apis, crew).to_its_end())
    finally:
        for api in apis:
            api.kill()
        crew.end()
        if wrong:
            say(tails(place / "logs", database.log))
        database.stop()
        if not wrong and not asked.keep:
            shutil.rmtree(place)
    for each in wrong:
        say(f"WRONG: {each}")
    say("failed" if wrong else "nothing was lost, doubled or wedged")
    return 1 if wrong else 0


class _Run:
    """One run: storm, calm, and the checks."""

    def __init__(self, asked: argparse.Namespace, database: Database, apis: list[Api], crew: Crew) -> None:
        self._asked = asked
        self._database = database
        self._apis = apis
        self._book = Book()
        paces = {
            "worker": asked.seconds / asked.workers / EAGER,
            "postgres": asked.seconds / asked.postgres / EAGER,
            "api": asked.seconds / max(asked.workers / 5, 1) / EAGER,
            "pause": min(PAUSE_EVERY_S, asked.seconds / 2),
        }
        self._storm = Storm(database, apis, crew, asked.seed, paces)

    async def to_its_end(self) -> list[str]:
        """What is wrong at the end; nothing, it is to be hoped."""
        for api in self._apis:
            api.spawn()
        if not all([await api.ready() for api in self._apis]):
            return ["the API did not come up"]
        self._storm.begin()
        troth = Troth(self._database.dsn, connections=10)
        urls = [api.url for api in self._apis]
        clients = Clients(troth, urls, random.Random(f"clients {self._asked.seed}"), self._book)
        try:
            return await self._with(Load(clients, self._asked.seed, OPEN_AT_ONCE), troth)
        finally:
            await clients.close()
            await troth.close()

    async def _with(self, load: Load, troth: Troth) -> list[str]:
        begun = time.monotonic()
        loading = asyncio.create_task(load.run())
        storming = asyncio.create_task(self._storm.run())
        for_ever = [
            asyncio.create_task(load.decide()),
            asyncio.create_task(self._storm.mend()),
            asyncio.create_task(checks.resume_the_unlucky(troth, self._book)),
        ]
        try:
            await self._until_enough(begun, [loading, storming, *for_ever])
            load.finish()
            self._storm.rest()
            await storming
            stormed_s = time.monotonic() - begun
            calm = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(CALM_S_MAX):
                    await checks.all_ended(troth, loading)
            calm_s = time.monotonic() - calm
            wrong = await checks.everything(self._database.dsn, self._book)
            wrong += [
                f"{job.get_coro()}: {job.exception()!r}"
                for job in for_ever
                if job.done() and not job.cancelled() and job.exception() is not None
            ]
        finally:
            for job in (loading, storming, *for_ever):
                job.cancel()
            await asyncio.gather(loading, storming, *for_ever, return_exceptions=True)
        if calm_s >= CALM_S_MAX:
            wrong.append(f"after {CALM_S_MAX:g} s of calm not everything had ended")
        wrong += [f"too few: {what}" for what in self._missing()]
        checks.show(self._database.dsn, self._book, self._storm.kills, stormed_s, calm_s)
        return wrong

    async def _until_enough(self, begun: float, jobs: list[asyncio.Task[None]]) -> None:
        said = begun
        guard = begun + self._asked.seconds * OVERTIME + 300
        while time.monotonic() - begun < self._asked.seconds or self._missing():
            await asyncio.sleep(0.5)
            late = time.monotonic() - begun > self._asked.seconds
            self._storm.abating = late and not any("kills" in each for each in self._missing())
            if any(job.done() for job in jobs) or time.monotonic() > guard:
                return
            if self._book.contradicted:
                return
            if time.monotonic() - said > 30:
                said = time.monotonic()
                kills = {kind: count for kind, count in self._storm.kills.items() if kind != "backends"}
                say(f"{said - begun:.0f} s, {len(self._book.ended)} workflows, {kills}")

    def _missing(self) -> list[str]:
        kills, asked = self._storm.kills, self._asked
        counts = {
            "workflows": (len(self._book.started), asked.workflows),
            "kills of workers": (kills["worker"], asked.workers),
            "kills of Postgres": (kills["postgres"], asked.postgres),
        }
        return [f"{what}: {have} of {want}" for what, (have, want) in counts.items() if have < want]


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser("chaos", description="Kill everything at random; nothing may be lost.")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--workflows", type=int, help="how many must be started at least")
    parser.add_argument("--workers", type=int, help="how many kills of workers there must be at least")
    parser.add_argument("--postgres", type=int, help="how many kills of Postgres there must be at least")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument(
        "--prefer",
        default=os.environ.get(POSTGRES_VARIABLE) or None,
        help="which Postgres: installed, embedded, 15, ...",
    )
    parser.add_argument(
        "--break", dest="breakage", choices=BREAKAGES, help="break the engine on purpose, to see it caught"
    )
    parser.add_argument("--keep", action="store_true", help="keep logs and data")
    asked = parser.parse_args()
    asked.seconds = asked.minutes * 60
    for what, (in_3, in_60) in LEAST.items():
        if getattr(asked, what) is None:
            setattr(asked, what, _least(asked.minutes, in_3, in_60))
    return asked


def _least(minutes: float, in_3: int, in_60: int) -> int:
    """What is asked of so many minutes: a short run is a dense one."""
    if minutes <= 3:
        return max(1, round(in_3 * minutes / 3))
    return round(in_3 + (in_60 - in_3) * (minutes - 3) / 57)


if __name__ == "__main__":
    sys.exit(main())
