"""Puts in place what pip cannot install: the venv module, Postgres 15 and plpgsql_check.

    python3 tools/system.py venv|postgres|proof

It looks first and installs only what is missing, only as root, only where there is apt-get. Where it may not
install, it says what is skipped and succeeds, since Troth runs on the embedded Postgres as well; with CI=true
a missing piece is a failure, because there nothing may be skipped. It needs no package outside the standard
library: it runs before there is an environment.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Piece:
    """Something of the system, the Debian package that brings it, and what goes without it."""

    name: str
    package: str
    without: str
    paths: tuple[Path, ...] = ()
    module: str | None = None

    def missing(self) -> bool:
        if self.module is not None:
            return importlib.util.find_spec(self.module) is None
        return not any(path.exists() for path in self.paths)


PIECES = {
    "venv": [
        Piece(
            name="Python's venv module",
            package=f"python{sys.version_info.major}.{sys.version_info.minor}-venv",
            without=".venv cannot be made",
            module="ensurepip",
        ),
    ],
    "proof": [
        Piece(
            name="pgbouncer",
            package="pgbouncer",
            without="nothing is tried through a pooler",
            paths=(Path("/usr/sbin/pgbouncer"),),
        ),
    ],
    "postgres": [
        Piece(
            name="Postgres 15",
            package="postgresql-15",
            without="the tests run on the embedded Postgres only",
            paths=(Path("/usr/lib/postgresql/15/bin/postgres"),),
        ),
        Piece(
            name="plpgsql_check",
            package="postgresql-15-plpgsql-check",
            without="the SQL functions are not checked",
            paths=(Path("/usr/lib/postgresql/15/lib/plpgsql_check.so"),),
        ),
    ],
}


def installable() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: list[str]) -> None:
    """Asks apt-get; a refusal is no error here, the look afterwards judges."""
    print(f"system: installing {' '.join(packages)}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        answer = subprocess.run(
            ["apt-get", "--quiet", *arguments], env=quiet, capture_output=True, text=True, check=False
        )
        if answer.returncode != 0:
            print(f"system: apt-get {arguments[0]} failed:\n{answer.stdout}{answer.stderr}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in PIECES:
        print(f"usage: system.py {'|'.join(PIECES)}", file=sys.stderr)
        return 2
    pieces = PIECES[arguments[0]]
    if (missing := [piece for piece in pieces if piece.missing()]) and installable():
        install([piece.package for piece in missing])
        importlib.invalidate_caches()
    missing = [piece for piece in pieces if piece.missing()]
    for piece in missing:
        print(f"system: skipped {piece.name} ({piece.package}): {piece.without}", file=sys.stderr)
    if missing and os.environ.get("CI") == "true":
        print("system: CI skips nothing; install it and run again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
