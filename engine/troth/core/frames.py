"""Who is asking: the few things that the machine can only learn from its callers' frames.

asyncio makes tasks and futures for its own ends, and says nothing of these. Four times it matters who they are for:

- `as_completed` begins what it is given in the order of a set, that is of addresses, and
- `wait_for` makes a task of its coroutine on Python 3.11 and none later on: `tasks.py` mends both;
- `gather` answers with a future of asyncio's own, which would hash by its address;
- an operation is named to people by the line of their code that issued it.

Code objects are compared, not names: whoever replaced one of those functions by his own is not mistaken for it.
"""

from __future__ import annotations

import asyncio
from types import CodeType, FrameType
from typing import Any, Final

from troth.core.handles import drain
from troth.core.hooks import GatheringFuture, frame_at


def _code(*path: str) -> CodeType | None:
    """The code of a function in asyncio's module of tasks, if this Python has it."""
    found: Any = asyncio.tasks
    for name in path:
        found = getattr(found, name, None)
    code: CodeType | None = getattr(found, "__code__", None)
    return code


WAIT_FOR: Final = _code("wait_for")
_AS_COMPLETED: Final = (_code("as_completed"), _code("_AsCompletedIterator", "__init__"))
_ENSURE_FUTURE: Final = (_code("ensure_future"), _code("_ensure_future"))
GATHERED: Final = GatheringFuture.__init__.__code__
_DRAIN: Final = drain.__code__


def asking() -> FrameType | None:
    """The frame that had `ensure_future` call the caller of this to make a task; None if that came another way."""
    caller = frame_at(2)
    if caller.f_code not in _ENSURE_FUTURE:
        return None
    frame = caller.f_back
    while frame is not None and (frame.f_code in _ENSURE_FUTURE or frame.f_code.co_name == "<setcomp>"):
        frame = frame.f_back
    return frame


def given_to_as_completed(frame: FrameType) -> object:
    """What this frame of `as_completed` was given to begin, or None if it is another function's."""
    if frame.f_code not in _AS_COMPLETED:
        return None
    given = frame.f_locals
    return given.get("fs", given.get("aws"))


def where() -> tuple[CodeType, int] | None:
    """The place in the user's code that led here: the innermost frame that is neither ours nor asyncio's."""
    frame: FrameType | None = frame_at(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(("troth.", "asyncio.")):
            return frame.f_code, frame.f_lasti
        if frame.f_code is _DRAIN:
            return None
        frame = frame.f_back
    return None
