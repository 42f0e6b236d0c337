"""What tests of workflows, and of Troth itself, need: a clock to be moved, crashes on purpose, the invariants as a view.

`plugin.py` is the pytest plugin and `environment.py` what its fixture `troth_env` gives; `server.py` has the Postgres of a test
run. `faults.py` and `crashes.py` let calls between workers and Postgres fail, `replays.py` and `hashing.py` run workflows' code
again and compare. It works on a namespace made for tests, as its owner or a superuser. Nothing of it is reachable from a
namespace that was merely migrated.

Names are imported when they are asked for: pytest loads the plugin of whoever has Troth installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from troth.testing.clock import Clock
    from troth.testing.crashes import CrashReport
    from troth.testing.environment import Environment
    from troth.testing.failures import (
        CrashDiffers,
        GuardFound,
        InvariantBroken,
        NotEnded,
        NotIdle,
        ReplayDiffers,
        TestFailure,
    )
    from troth.testing.faults import FaultKind, Point
    from troth.testing.hands import Hand
    from troth.testing.looks import Idle, Resting, Waiting
    from troth.testing.replays import Replays
    from troth.testing.server import Databases, Ground
    from troth.testing.steps import StepCall, Steps

__all__ = [
    "Clock",
    "CrashDiffers",
    "CrashReport",
    "Databases",
    "Environment",
    "FaultKind",
    "Ground",
    "GuardFound",
    "Hand",
    "Idle",
    "InvariantBroken",
    "NotEnded",
    "NotIdle",
    "Point",
    "ReplayDiffers",
    "Replays",
    "Resting",
    "StepCall",
    "Steps",
    "TestFailure",
    "Waiting",
]

_WHERE: Final = {
    "Clock": "clock",
    "CrashReport": "crashes",
    "Environment": "environment",
    "FaultKind": "faults",
    "Point": "faults",
    "Hand": "hands",
    "Idle": "looks",
    "Resting": "looks",
    "Waiting": "looks",
    "Replays": "replays",
    "Databases": "server",
    "Ground": "server",
    "StepCall": "steps",
    "Steps": "steps",
    **dict.fromkeys(
        (
            "CrashDiffers",
            "GuardFound",
            "InvariantBroken",
            "NotEnded",
            "NotIdle",
            "ReplayDiffers",
            "TestFailure",
        ),
        "failures",
    ),
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
