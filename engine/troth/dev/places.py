"""Which directories one server uses, and what becomes of those that nobody uses any more.

A *home* is what the user named: a `.troth/`, with the record of what runs. A *place* is where the server's own
files lie: `pgdata`, `run` with its socket, `owner`, and `new` while data are made. The home is the place, unless
the server's user cannot enter it (then `place` in the home names ours elsewhere), or the data are ephemeral (then
it is a temporary directory).

Data that are there decide for themselves: where they lie is the place, and their owner is the server's user.
A temporary place gets its name only once its owner's lock is held, so whatever has the name and no holder is
stale, and anybody's next start removes it, with its server.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from troth.dev.failures import StartFailed
from troth.dev.ground import (
    ServerUser,
    can_enter,
    elsewhere,
    give,
    make,
    server_user,
    short_directory,
    temporary_bases,
    user_name,
)
from troth.dev.locks import FileLock
from troth.dev.processes import end, of_server
from troth.dev.server import Server, cluster_of

__all__ = ["check_usable", "discard", "kept", "made_home", "owner_lock", "server_in", "sweep", "temporary"]

SOCKET_PATH_BYTES_MAX: Final = 100
"""Of the whole path: the kernels allow 103 to 107."""

_LONGEST_SOCKET: Final = "/.s.PGSQL.65535"
_EPHEMERAL: Final = "troth-ephemeral-"
_DATA: Final = "pgdata"
_PLACE: Final = "place"
_HOME: Final = "home"


def made_home(directory: Path) -> Path:
    """The home, made if it is not there; others may pass through it only if the server's user has to."""
    home = directory.resolve()
    make(home, 0o711 if os.geteuid() == 0 else 0o700)
    ignore = home / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return home


def kept(home: Path) -> tuple[Path, ServerUser]:
    """The place of the home's lasting data, made or to be made, and who runs their server."""
    for place in _recorded(home):
        with suppress(FileNotFoundError):
            user = server_user((place / _DATA).stat().st_uid)
            if place != home:
                (place / _HOME).write_text(f"{home}\n")
            return place, user
    user = server_user()
    if can_enter(user, home):
        return home, user
    place = next((p for p in _recorded(home) if p != home), None) or elsewhere(home)
    (home / _PLACE).write_text(f"{place}\n")
    (place / _HOME).write_text(f"{home}\n")
    return place, user


def _recorded(home: Path) -> Iterator[Path]:
    """Where the home's data may be: in it, or where it says; but a copy of a home has no part in its data."""
    yield home
    with suppress(FileNotFoundError):
        place = elsewhere(home, Path((home / _PLACE).read_text().strip()))
        made_for = Path((place / _HOME).read_text().strip())
        if made_for == home or not made_for.exists():
            yield place


def check_usable(place: Path, user: ServerUser) -> None:
    """Raise `StartFailed` if there are data in the place that this user cannot run a server on."""
    if not (place / _DATA).exists():
        return
    owner = (place / _DATA).stat().st_uid
    if owner != user.uid:
        raise StartFailed(
            f"The data in {place / _DATA} belong to user {user_name(owner)}, and you are {user.name}: run as that "
            f"user, or have that user throw them away with --reset."
        )
    if not can_enter(user, place):
        raise StartFailed(
            f"Postgres runs as user {user.name} here, who cannot enter {place} (some directory above is closed to "
            f"others): let that user in again, or throw the data away with --reset."
        )


def temporary(user: ServerUser) -> tuple[Path, FileLock]:
    """A new temporary place that the server's user can enter, and its owner's lock, held."""
    for base in temporary_bases():
        if not os.access(base, os.W_OK) or not can_enter(user, base):
            continue
        making = Path(tempfile.mkdtemp(prefix="troth-new-", dir=base))
        making.chmod(0o711 if user.dropped else 0o700)
        owner = owner_lock(making)
        if not owner.acquire():
            raise StartFailed(f"Somebody locked {owner.path}, which was only just made: try again.")
        return making.rename(making.with_name(making.name.replace("troth-new-", _EPHEMERAL))), owner
    raise StartFailed(
        f"No temporary directory is open to both you and user {user.name}: set TMPDIR to one that is."
    )


def owner_lock(place: Path) -> FileLock:
    """The lock that the owner of the place's server holds for its life."""
    return FileLock(place / "owner")


def server_in(place: Path, home: Path, user: ServerUser, *, ephemeral: bool) -> Server:
    """The server of a place, with its socket's directory made."""
    socket = _socket_of(place)
    if socket.parent != place:
        short_directory(place)
    if not socket.exists():
        give(make(socket, 0o700), user)
    return Server(place / _DATA, socket, home / "postgres.log", user, ephemeral)


def _socket_of(place: Path) -> Path:
    socket = place / "run"
    if len(os.fsencode(socket)) + len(_LONGEST_SOCKET) <= SOCKET_PATH_BYTES_MAX:
        return socket
    return short_directory(place, made=False) / "run"


def discard(place: Path, *, home: Path | None = None) -> None:
    """Remove a place whose server is gone; of a home, only what belongs to the data."""
    shutil.rmtree(_socket_of(place), ignore_errors=True)
    if _socket_of(place).parent != place:
        with suppress(OSError):
            _socket_of(place).parent.rmdir()
    if home is None:
        shutil.rmtree(place, ignore_errors=True)
        return
    condemned = place / "new"
    shutil.rmtree(condemned, ignore_errors=True)
    with suppress(FileNotFoundError):
        (place / _DATA).rename(condemned)  # at once, so that no half of it is ever taken for data
        shutil.rmtree(condemned)
    (place / "owner").unlink(missing_ok=True)
    if place != home:
        (home / _PLACE).unlink(missing_ok=True)
        (place / _HOME).unlink(missing_ok=True)
        for empty in (place, place.parent):
            with suppress(OSError):
                empty.rmdir()


def sweep() -> None:
    """Remove the temporary places of ours whose owner is dead, with their servers."""
    for base in temporary_bases():
        for place in base.glob(f"{_EPHEMERAL}*"):
            with suppress(OSError):
                if place.lstat().st_uid == os.geteuid() and place.is_dir() and not place.is_symlink():
                    _sweep(place)


def _sweep(place: Path) -> None:
    owner = owner_lock(place)
    if not owner.acquire():
        return
    with owner:
        data = place / _DATA
        if data.exists():
            end(of_server(data, cluster_of(data), data.stat().st_uid))
        discard(place)
