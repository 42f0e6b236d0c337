"""`make model`: as many runs against the oracle as anybody wants to wait for.

python -m tests.proof.model [runs] [steps] [processes] [first seed]
python -m tests.proof.model --replay FILE      one program, a step a line, as a failure shows it
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

from tests.proof.model.coverage import missing, table
from tests.proof.model.many import ground, many
from tests.proof.model.rows import Limits
from tests.proof.model.running import Failure, Reached, read, replay
from tests.proof.model.subject import Subject


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def again(file: str) -> int:
    with ground() as template, template.clone() as dsn:
        subject = Subject(dsn, Limits())
        difference = replay(subject, Limits(), read(Path(file).read_text().splitlines()))
        subject.close()
    say(f"{difference or 'no difference'}\n")
    return 1 if difference else 0


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--replay"]:
        return again(arguments[1])
    given = [int(each) for each in arguments]
    total, steps, processes, seed = given + [20_000, 100, os.cpu_count() or 1, 0][len(given) :]
    began, reached = time.monotonic(), Reached()
    try:
        for reached in many(total, steps, processes, seed=seed, at_once=min(100, -(-total // processes))):
            say(f"\r{reached.runs} runs, {reached.steps} steps, 0 differences")
    except Failure as failure:
        say(f"\n{failure}\n\nagain: make model RUNS=1 STEPS={steps} PROCESSES=1 SEED=(that seed),")
        say(" or python -m tests.proof.model --replay FILE with those lines in it\n")
        return 1
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    say(
        f"\r{table(reached)}\n\n{time.monotonic() - began:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of CPU"
    )
    few = missing(reached)
    say(f"\nmet less than a hundred times: {few}\n" if few else "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
