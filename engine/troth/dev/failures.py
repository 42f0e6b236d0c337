"""Why the development server could not be had: the launcher's own errors.

Each message is written where it is raised, since only there is it known which directory, which user and which
server are meant; each says what was wrong and what to do, in one sentence, and at most carries the end of the
server's log behind it.
"""

from __future__ import annotations

from troth.errors import TrothError

__all__ = [
    "AlreadyRunning",
    "AlreadyStarting",
    "LauncherError",
    "NoBinaries",
    "StartFailed",
    "VersionMismatch",
]


class LauncherError(TrothError):
    """The development server could not be started, adopted, stopped or thrown away."""

    status = 503
    title = "Postgres could not be had"


class AlreadyStarting(LauncherError):
    """Another process is starting, or throwing away, the Postgres of the same directory at this moment."""

    status = 503
    title = "Postgres is being started"


class AlreadyRunning(LauncherError):
    """A Postgres of this directory runs, but not the one that was asked for (other port, version or kind)."""

    status = 503
    title = "Another Postgres runs here"


class NoBinaries(LauncherError):
    """No Postgres that we can run was found on this machine."""

    status = 503
    title = "No Postgres found"


class VersionMismatch(LauncherError):
    """The data were made by a major version of Postgres that is not on this machine, or not the one asked for."""

    status = 503
    title = "Postgres version does not fit"


class StartFailed(LauncherError):
    """Postgres, or the making of its data, failed; the message ends with what its log said."""

    status = 503
    title = "Postgres did not start"
