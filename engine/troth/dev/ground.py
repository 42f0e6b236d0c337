"""The ground that a server stands on: which user runs it, and in which directories.

Postgres refuses to run as root. Containers and CI run everything as root. So when we are root the server runs as
an unprivileged user, and then the trouble begins: that user may be unable to enter the project's directory, or
the virtual environment that holds the binaries. The easy way out, widening the modes of what is in the way, is
how other launchers opened people's home directories. The law here: **no mode and no owner is ever changed but of
a directory that this module has just made itself.** What the server's user cannot reach is placed, or copied,
elsewhere, and `.troth/` records where.

Whether a user can reach a directory is never computed from mode bits (there are ACLs, and mounts that squash
root): a process of that user is sent there.

Directories with predictable names in places that others can write are used only if they belong to us, are no
links, and nobody else can write them; otherwise we say so and stop.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from troth.dev.failures import StartFailed

__all__ = [
    "ServerUser",
    "cached_copy",
    "can_enter",
    "elsewhere",
    "environment",
    "give",
    "make",
    "run_as",
    "server_user",
    "short_directory",
    "temporary_bases",
    "user_name",
]

# Predictable names below these are used only after `_made_by_us`. The data are kept where nothing clears them up.
_STATE: Final = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108
_CACHE: Final = (Path("/var/cache"), Path("/var/tmp"))  # noqa: S108
_SHORT: Final = Path("/tmp")  # noqa: S108
_OURS: Final = "troth-"
_UNPRIVILEGED: Final = ("postgres", "nobody")
_ENTER_SECONDS_MAX: Final = 20.0


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Who runs the server. `dropped` says that it is not who we are, so privileges are dropped to him."""

    name: str
    uid: int
    gid: int
    dropped: bool


def server_user(owner: int | None = None) -> ServerUser:
    """Who is to run the server: ourselves, or, when we are root, the owner of the data, `postgres` or `nobody`."""
    if os.geteuid() != 0:
        return ServerUser(user_name(os.geteuid()), os.geteuid(), os.getegid(), dropped=False)
    if owner:
        try:
            entry = pwd.getpwuid(owner)
        except KeyError:
            return ServerUser(str(owner), owner, owner, dropped=True)
        return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid, dropped=True)
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(name, entry.pw_uid, entry.pw_gid, dropped=True)
    raise StartFailed(
        "Postgres does not run as root, and there is neither a user 'postgres' nor a user 'nobody' to run it as: "
        "make one (useradd --system postgres), or run as another user."
    )


def user_name(uid: int) -> str:
    """A user's name, or his number where he has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def environment() -> dict[str, str]:
    """What a server program is started with: nothing of the caller's libpq settings, messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def run_as(user: ServerUser, command: Sequence[str], seconds_max: float) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as the server's user, from `/`: he may be unable to enter our directory."""
    return subprocess.run(
        command,
        cwd="/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds_max,
        check=False,
        umask=0o077,
        start_new_session=True,
        user=user.uid if user.dropped else None,
        group=user.gid if user.dropped else None,
        extra_groups=[] if user.dropped else None,
    )


def can_enter(user: ServerUser, directory: Path) -> bool:
    """Whether the server's user can enter the directory; a process of his is sent there."""
    if not user.dropped:
        return os.access(directory, os.X_OK)
    shell = ["/bin/sh", "-c", 'cd -- "$1" 2>/dev/null', "sh", str(directory)]
    return run_as(user, shell, _ENTER_SECONDS_MAX).returncode == 0


_CLOSED: Final = 0o700


def make(directory: Path, mode: int) -> Path:
    """Make the directory with this very mode, whatever the umask; one that is there already is left as it is."""
    try:
        directory.mkdir(mode=_CLOSED)
    except FileExistsError:
        if not directory.is_dir():
            raise
    else:
        directory.chmod(mode)
    return directory


def give(path: Path, user: ServerUser) -> Path:
    """Give something that we have just made to the server's user."""
    if user.dropped:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
    return path


def elsewhere(directory: Path, recorded: Path | None = None) -> Path:
    """A directory of ours for the data of a project that the server's user cannot enter, named by its path.

    `recorded` is where they were put before, which holds on when the project has moved.
    """
    if (
        recorded is not None
        and recorded.name.startswith(_OURS)
        and recorded.parent in {_STATE[0] / "troth", _STATE[1]}
    ):
        return _made_by_us(recorded, 0o711)
    if os.access(_STATE[0], os.W_OK):
        return _made_by_us(_made_by_us(_STATE[0] / "troth", 0o711) / f"{_OURS}{_key(directory)}", 0o711)
    return _made_by_us(_STATE[1] / f"{_OURS}{_key(directory)}", 0o711)


def short_directory(directory: Path, *, made: bool = True) -> Path:
    """A directory of ours, or its name, for the socket of a server whose own directory has too long a path."""
    short = _SHORT / f"{_OURS}{_key(directory)}"
    return _made_by_us(short, 0o711) if made else short


def temporary_bases() -> list[Path]:
    """Where temporary directories may be made, the user's own choice first."""
    return list(dict.fromkeys(base.resolve() for base in (Path(tempfile.gettempdir()), _SHORT, _STATE[-1])))


def _key(directory: Path) -> str:
    return hashlib.sha256(f"{os.geteuid()}:{directory.resolve()}".encode()).hexdigest()[:12]


def cached_copy(package: Path, libraries: Iterable[Path], mark: Path, user: ServerUser) -> Path | None:
    """The package and its libraries, copied once to where the server's user can run them; None if we may not.

    `mark` is the file by whose path, size and time a copy is known to be still the right one.
    """
    base = next((b for b in _CACHE if os.access(b, os.W_OK)), None)
    if base is None or not user.dropped:
        return None
    state = mark.stat()
    key = hashlib.sha256(f"{mark}:{state.st_size}:{state.st_mtime_ns}".encode()).hexdigest()[:12]
    ours = _made_by_us(base / "troth", 0o755) if base == _CACHE[0] else base
    cache = ours / f"troth-postgres-{key}"
    if not cache.is_dir():
        making = Path(tempfile.mkdtemp(prefix="troth-copying-", dir=ours))
        try:
            _copy(package, making / package.name)
            for library in libraries:
                _copy(library, making / library.name)
            making.chmod(0o755)
            try:
                making.rename(cache)
            except OSError:
                if not cache.is_dir():  # otherwise another process was faster, with the same files
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return _made_by_us(cache, 0o755) / package.name


def _made_by_us(directory: Path, mode: int) -> Path:
    make(directory, mode)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StartFailed(
            f"{directory} is there already and could be somebody else's (it must be a directory that belongs to "
            f"{user_name(os.geteuid())} and that nobody else can write): remove it and try again."
        )
    if stat.S_IMODE(found.st_mode) == _CLOSED and mode != _CLOSED:
        directory.chmod(mode)  # whoever made it was killed before he opened it
    return directory


def _copy(source: Path, target: Path) -> None:
    """Copy a tree so that everyone can read it, and run what could be run; what a server never opens stays."""
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.a", "include", "doc")
    )
    target.chmod(0o755)
    for path in target.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
