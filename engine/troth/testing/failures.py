"""What makes a test fail here. All are AssertionErrors: something that the test took for granted did not hold."""

from __future__ import annotations


class TestFailure(AssertionError):
    """A workflow under test did not do what was asked of it."""

    __test__ = False  # no test class, whatever the name suggests


class NotIdle(TestFailure):
    """Workflows were still going on when the patience for them had run out."""


class NotEnded(TestFailure):
    """A workflow was expected to end, and it waits."""


class ReplayDiffers(TestFailure):
    """A workflow's code, told the same events again, did something else."""


class GuardFound(TestFailure):
    """Workflow code uses what a replay does not repeat."""


class CrashDiffers(TestFailure):
    """With a crash in it, a scenario came out differently, repeated a recorded step, or broke an invariant."""


class InvariantBroken(TestFailure):
    """The namespace is in a state that must never be."""
