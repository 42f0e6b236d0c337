"""The hooks that asyncio and Python keep for those who write event loops, under names of our own.

All but the last are documented ("Extending asyncio", `sys`), yet begin with an underscore, which the checkers forbid to
others; this is the one place that minds.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

running_loop: Final[Callable[[], asyncio.AbstractEventLoop | None]] = vars(asyncio)["_get_running_loop"]
set_running_loop: Final[Callable[[asyncio.AbstractEventLoop | None], None]] = vars(asyncio)[
    "_set_running_loop"
]
unregister_task: Final[Callable[[asyncio.Task[Any]], None]] = vars(asyncio)["_unregister_task"]
current_task: Final[Callable[[asyncio.AbstractEventLoop], asyncio.Task[Any] | None]] = (
    asyncio.current_task if sys.version_info >= (3, 12) else vars(asyncio.tasks)["_current_tasks"].get
)
"""asyncio's own, which is written in Python before 3.12 and asked for at each run of a machine and each operation."""
frame_at: Final[Callable[[int], FrameType]] = vars(sys)["_getframe"]

if TYPE_CHECKING:

    class GatheringFuture(asyncio.Future[Any]):
        """What `asyncio.gather` answers with."""

else:
    GatheringFuture = vars(asyncio.tasks)["_GatheringFuture"]
