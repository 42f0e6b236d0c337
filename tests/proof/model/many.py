"""Many runs in several processes, each with a database of its own. Here, and not in `__main__`, so that a process that is
started anew finds it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.proof.model.rows import Limits
from tests.proof.model.running import Reached, run
from tests.proof.model.subject import Subject
from tests.support.postgres import Template
from troth.testing.server import Ground


@contextmanager
def ground() -> Iterator[Template]:
    """A server for the runs, gone at the end."""
    with TemporaryDirectory() as place:
        made = Ground(Path(place))
        try:
            yield made.template()
        finally:
            made.release()


def runs(dsn: str, first: int, last: int, steps: int) -> Reached:
    """The runs with these seeds, on an empty database."""
    reached = Reached()
    subject = Subject(dsn, Limits())
    try:
        for seed in range(first, last):
            run(subject, seed, steps, Limits(), reached)
    finally:
        subject.close()
    return reached


def _share(template: Template, first: int, last: int, steps: int) -> Reached:
    with template.clone() as dsn:
        return runs(dsn, first, last, steps)


def many(total: int, steps: int, processes: int, *, seed: int = 0, at_once: int = 100) -> Iterator[Reached]:
    """All runs, in chunks; what has been reached so far, after each. Raises the `Failure` of the first that differs."""
    reached = Reached()
    spawned = multiprocessing.get_context("spawn")
    with ground() as template, ProcessPoolExecutor(processes, mp_context=spawned) as pool:
        chunks = [
            pool.submit(_share, template, first, min(first + at_once, seed + total), steps)
            for first in range(seed, seed + total, at_once)
        ]
        for chunk in as_completed(chunks):
            if chunk.exception() is not None:
                pool.shutdown(cancel_futures=True)
            reached.add(chunk.result())
            yield replace(reached)
