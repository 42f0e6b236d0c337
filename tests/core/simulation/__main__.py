"""`make simulate`: as many random programs as anybody wants to wait for, on all processors.

python -m tests.core.simulation [runs] [first seed]
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.core.simulation.runs import calm_all, checked

_AT_ONCE = 500
"""Runs that a process takes at a time."""


def lived(first: int, last: int) -> Counter[str]:
    calm_all(range(first, last, 5))
    return checked(range(first, last))


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    runs, seed = (
        int(arguments[n]) if len(arguments) > n else default for n, default in ((0, 20_000), (1, 0))
    )
    began = time.monotonic()
    reached: Counter[str] = Counter()
    with ProcessPoolExecutor() as pool:
        chunks = range(seed, seed + runs, _AT_ONCE)
        asked = [pool.submit(lived, first, min(first + _AT_ONCE, seed + runs)) for first in chunks]
        for one in as_completed(asked):
            if one.exception() is not None:
                pool.shutdown(cancel_futures=True)
            reached.update(one.result())
            say(f"\r{reached['runs']} runs, 0 differences")
    spent = time.monotonic() - began
    say(f", in {spent:.0f} s. What the code went through:\n")
    say(", ".join(f"{what} {count}" for what, count in sorted(reached.items())) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
