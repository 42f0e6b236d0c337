"""Whose code a frame runs, and which line of the user's a stack stands at.

A stack below a machine holds the user's code and what that leads to: Python's library, packages, asyncio, ourselves. Named
to a person is the line nearest to the trouble that he can change. A workflow may itself be an installed package: then the
package that the stack begins in is his, and the others around it are libraries.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FrameType
from typing import Final, Literal, TypeAlias

from troth.core.loop import MachineLoop

Owner: TypeAlias = Literal["ours", "python", "library", "user"]

MACHINE: Final[frozenset[CodeType]] = frozenset({MachineLoop.run.__code__, MachineLoop.abandon.__code__})
"""What stands in a stack just outside of a workflow's code."""

_OURS: Final = frozenset({"troth", "troth_api"})
_INSTALLED: Final = ("site-packages", "dist-packages")
_WRITTEN: Final = ("<stdin>", "<ipython-input", "<python-input")
"""Code without a file that somebody wrote all the same; other such code was generated."""

_current_frames: Final[Callable[[], dict[int, FrameType]]] = vars(sys)["_current_frames"]


def module(frame: FrameType) -> str:
    """The name of the module whose code it is."""
    return str(frame.f_globals.get("__name__", ""))


def package(frame: FrameType) -> str:
    """The outermost package of that module."""
    return module(frame).partition(".")[0]


def owner(frame: FrameType) -> Owner:
    """Whose code it is, as far as names and places tell."""
    file, root = frame.f_code.co_filename, package(frame)
    if root in _OURS:
        return "ours"
    if root in sys.stdlib_module_names or (file.startswith("<") and not file.startswith(_WRITTEN)):
        return "python"
    return "library" if any(place in file for place in _INSTALLED) else "user"


def inside(frame: FrameType | None, outside: frozenset[CodeType]) -> tuple[list[FrameType], FrameType | None]:
    """The frames from this one outwards, up to one that runs code of `outside`, and that one if there is any."""
    found: list[FrameType] = []
    while frame is not None and frame.f_code not in outside:
        found.append(frame)
        frame = frame.f_back
    return found, frame


def nearest(frames: Sequence[FrameType], *, stops: Callable[[FrameType], bool] | None = None) -> int | None:
    """The index of the innermost frame of the user's code, or None where there is none, or one that `stops` comes first."""
    home = _home(frames)
    for index, frame in enumerate(frames):
        whose = owner(frame)
        if whose == "user" or (whose == "library" and package(frame) == home):
            return index
        if stops is not None and stops(frame):
            return None
    return None


def _home(frames: Iterable[FrameType]) -> str | None:
    """The package of the outermost frame that is neither ours nor Python's."""
    home: str | None = None
    for frame in frames:
        if owner(frame) in ("library", "user"):
            home = package(frame)
    return home


def stack_of(thread: int) -> FrameType | None:
    """What a thread runs right now: its innermost frame."""
    return _current_frames().get(thread)
