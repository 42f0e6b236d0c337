"""One process of one system: `python -m bench.driver SYSTEM prepare|worker|WORK DSN [SIZES]`. Prints one line of JSON.

Runs in the system's own virtual environment, from the root of the repository.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys

import uvloop

from bench.system import System
from bench.works import Sizes, measure, works_of


def system_of(name: str, dsn: str) -> System:
    """The system that `bench.systems.NAME` defines."""
    made: System = importlib.import_module(f"bench.systems.{name}").make(dsn)
    return made


def main(name: str, what: str, dsn: str, sizes: str = "{}") -> None:
    system = system_of(name, dsn)
    if what == "worker":
        system.work()
    elif what == "prepare":
        uvloop.run(system.prepare())
        print(json.dumps({"version": system.version, "settings": system.settings, "works": works_of(system)}))
    else:
        print(json.dumps(dataclasses.asdict(uvloop.run(measure(system, what, Sizes(**json.loads(sizes)))))))


if __name__ == "__main__":
    main(*sys.argv[1:])
