"""`python -m tests.proof.failover --runs 10`, or `make failover RUNS=10`: the primary dies under load, its standby is promoted.

The load is that of chaos: workflows of all kinds, people who decide, cancels; workers in processes of their own. All have a DSN
with both hosts and `target_session_attrs=read-write`. The primary is killed by SIGKILL, and they go on against the new one.

- *Synchronous*: no commit is answered before the standby has it. Whatever was acknowledged must be there, as after any crash.
- *Asynchronous*: the standby is made to lag, so that acknowledged things are lost with the primary. Workers are ended before the
  promotion (what they know never happened). Each client repeats its starts and settles, as they were acknowledged, under the same
  IDs; and ends with everything there. That nothing was lost at all in these runs would mean that nothing was tried.
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

from tests.proof.chaos import checks
from tests.proof.chaos.clients import Book, Clients, Contradicted
from tests.proof.chaos.ground import Crew, leave, tails
from tests.proof.chaos.load import Load
from tests.proof.failover.ground import Pair, made_template
from troth import Troth
from troth.dev.binaries import Binaries
from troth.testing.server import POSTGRES_VARIABLE

OPEN_AT_ONCE: Final = 12
WORKERS: Final = 2
LOAD_S: Final = 1.5
"""Before the primary dies, at least; and once more when its standby has taken over."""
LAG_S: Final = 0.7
CALM_S_MAX: Final = 60.0


def main() -> int:
    asked = _asked()
    signal.signal(signal.SIGTERM, leave)
    place = Path(tempfile.mkdtemp(prefix="troth-failover-"))
    place.chmod(0o711)
    chance = random.Random(f"ports {time.time_ns()}")
    lost = 0
    try:
        binaries = made_template(place / "template", asked.prefer, chance)
        say(f"Postgres {binaries.version}: {asked.runs} synchronous failovers, {asked.lagging} asynchronous")
        for number in range(asked.runs + asked.lagging):
            run = _Failover(
                place, binaries, number, synchronous=number < asked.runs, repeat=not asked.no_repeat
            )
            wrong = run.through()
            lost += run.lost
            for each in wrong:
                say(f"WRONG: {each}")
            if wrong:
                return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if asked.lagging and not lost:
        say("WRONG: the asynchronous failovers lost nothing, so nothing was tried")
        return 1
    say("nothing that was acknowledged is missing")
    return 0


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"failover: {text}\n")
    sys.stdout.flush()


class _Failover:
    """One failover: load, death, promotion, load, calm, checks."""

    def __init__(
        self, place: Path, binaries: Binaries, number: int, *, synchronous: bool, repeat: bool
    ) -> None:
        self._place = place
        self._binaries = binaries
        self._number = number
        self._synchronous = synchronous
        self._repeat = repeat and not synchronous
        self._chance = random.Random(f"failover {number} {time.time_ns()}")
        self._book = Book()
        self.lost = 0

    def through(self) -> list[str]:
        """What is wrong at its end."""
        place = self._place / f"run-{self._number}"
        place.mkdir(mode=0o711)
        with Pair(self._place / "template", place, self._binaries, self._chance) as pair:
            pair.start(synchronous=self._synchronous)
            self._crew = Crew(pair.dsn, place)
            try:
                self._spawn("w")
                wrong = asyncio.run(self._under_load(pair))
            finally:
                self._crew.end()
                if sys.exc_info()[0] is not None:
                    say(tails(place, pair.primary.server.log))
            if wrong:
                say(tails(place, pair.primary.server.log))
            return wrong

    def _spawn(self, kind: str) -> None:
        for number in range(WORKERS):
            self._crew.say("spawn", f"{kind}{number}")

    async def _under_load(self, pair: Pair) -> list[str]:
        troth = Troth(pair.dsn, connections=10)
        clients = Clients(troth, [], self._chance, self._book, forgiving=self._repeat)
        load = Load(clients, self._number, OPEN_AT_ONCE, quarrels=self._synchronous)
        loading, deciding = asyncio.create_task(load.run()), asyncio.create_task(load.decide())
        try:
            await self._until_busy(pair)
            acknowledged = len(self._book.started) + len(self._book.settled)
            out_s = await self._fail_over(pair)
            if self._repeat:
                self.lost = await self._repeat_all(clients)
            await asyncio.sleep(LOAD_S)
            load.finish()
            calm = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(CALM_S_MAX):
                    await checks.all_ended(troth, loading)
            calm_s = time.monotonic() - calm
            wrong = await checks.everything(pair.dsn, self._book)
        finally:
            loading.cancel()
            deciding.cancel()
            await asyncio.gather(loading, deciding, return_exceptions=True)
            await clients.close()
            await troth.close()
        if calm_s >= CALM_S_MAX:
            wrong.append(f"after {CALM_S_MAX:g} s of calm not everything had ended")
        say(
            f"{self._number + 1}: {'synchronous' if self._synchronous else 'asynchronous'}: {acknowledged} acknowledged before, "
            f"{len(self._book.started)} workflows in all, {self.lost} lost and repeated, "
            f"out for {out_s:.1f} s, calm after {calm_s:.1f} s"
        )
        return wrong

    async def _until_busy(self, pair: Pair) -> None:
        """Long enough for workflows to be at all places; an asynchronous standby stops hearing for the last part."""
        until = time.monotonic() + LOAD_S + self._chance.uniform(0, 1)
        while time.monotonic() < until or len(self._book.settled) < OPEN_AT_ONCE:
            await asyncio.sleep(0.05)
            if self._book.contradicted:
                return
        if not self._synchronous:
            pair.primary.silence()
            await asyncio.sleep(LAG_S)

    async def _fail_over(self, pair: Pair) -> float:
        """Seconds in which nobody took writes."""
        died = time.monotonic()
        await asyncio.to_thread(pair.primary.kill)
        if not self._synchronous:
            for number in range(WORKERS):
                await asyncio.to_thread(self._crew.say, "kill", f"w{number}")
        await asyncio.to_thread(pair.promote)
        if not self._synchronous:
            self._spawn("again")
        return time.monotonic() - died

    async def _repeat_all(self, clients: Clients) -> int:
        """Say again what was acknowledged, as it was; how much of it had been lost."""
        book = self._book
        starts, settled = dict(book.started), dict(book.settled)
        answers = await asyncio.gather(*[clients.start(id, *given) for id, given in starts.items()])
        if "conflict" in answers:
            raise Contradicted("a repeated start met something else")
        await asyncio.gather(*[clients.settle(id, "canceled") for id in book.canceled])
        again = await asyncio.gather(*[self._settled_again(clients, *given) for given in settled.items()])
        return answers.count("created") + again.count("settled")

    async def _settled_again(self, clients: Clients, id: str, outcome: str) -> str:
        """Its promise may be lost too: then its workflow makes it again, and the client asks until it has."""
        answer, stands = await clients.settle(id, outcome)
        if stands != outcome:
            self._book.contradicted.append(f"{id} was {outcome}, and after it was repeated {stands} stands")
        return answer


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "failover", description="Promote a standby under load; nothing may be missing."
    )
    parser.add_argument("--runs", type=int, default=10, help="synchronous failovers")
    parser.add_argument(
        "--lagging", type=int, default=5, help="asynchronous failovers of a standby that lags"
    )
    parser.add_argument("--no-repeat", action="store_true", help="clients repeat nothing: to see the loss")
    parser.add_argument("--prefer", default=os.environ.get(POSTGRES_VARIABLE) or None)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
