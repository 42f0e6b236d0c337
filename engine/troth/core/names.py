"""Structural names: an operation is called by where it stands in the code, never by when it ran.

    approval          the first operation of that name in the workflow itself
    approval:2        the second one
    2~approval        in its second task (`gather`, `TaskGroup`, `create_task`)
    2~1~approval      in the first task of that task
    payments~approval in the task, or the scope, that was given the name `payments`
    fix:patch         whether to go the way of the patch `fix`

Each task is a scope. A scope counts its names and its unnamed tasks in its own program order, so a branch that is
late or early changes nobody else's names. Operations and named tasks of a scope share one count: were `a` both an
operation and a task, then `a~x` could be an operation of that task and something that the child `a` has made. Patches
are not counted, and no operation is ever called like one: adding or removing one renames nothing else.

This file knows no asyncio and no operation.
"""

from __future__ import annotations

import re
from typing import Final

from troth import limits
from troth.errors import WorkflowMisuse

_ALLOWED: Final = re.compile(r"[A-Za-z0-9\-._@!$&'()*+,;=]+")


def checked_name(name: str) -> str:
    """The name as it is, or WorkflowMisuse: it becomes a part of IDs, where `~`, `:` and numbers have a meaning."""
    if len(name) > limits.name_length_max:
        raise WorkflowMisuse(
            f"The name {name[:20]!r}... has {len(name)} characters: use at most {limits.name_length_max}."
        )
    if not _ALLOWED.fullmatch(name) or name.isdigit():
        raise WorkflowMisuse(
            f"{name!r} cannot name an operation or a task: use letters, digits and any of -._@!$&'()*+,;= and not "
            "digits alone."
        )
    return name


class Scope:
    """What one task counts: the names it has used and the tasks it has made."""

    __slots__ = ("_counts", "_number", "_parent", "prefix", "tasks")

    def __init__(self, prefix: str = "", parent: Scope | None = None, number: int = 0) -> None:
        self.prefix = prefix
        self._parent = parent
        self._number = number
        self.tasks = 0
        self._counts: dict[str, int] | None = None

    def path(self, name: str) -> str:
        """The path of the next operation of this name here, which is counted by this call."""
        counts = self._counts
        if counts is None:
            counts = self._counts = {}
        seen = counts.get(name)
        if seen is None:
            counts[checked_name(name)] = 1
            return self.prefix + name
        counts[name] = seen + 1
        return f"{self.prefix}{name}:{seen + 1}"

    def patch(self, name: str) -> str:
        """The path of the patch of this name here: one, however often it is asked about."""
        return f"{self.prefix}{checked_name(name)}:patch"

    def child(self, name: str | None = None) -> Scope:
        """The scope of a task made here: the next number, or its given name, which takes no number."""
        if name is not None:
            return Scope(f"{self.path(name)}~", self)
        self.tasks += 1
        return Scope(f"{self.prefix}{self.tasks}~", self, self.tasks)

    def rename(self, name: str) -> bool:
        """Give a name to this scope as if it had been made with it; False where that would no longer be the same.

        `asyncio.create_task(..., name=)` of CPython 3.11 and 3.12 names its task just after making it.
        """
        parent = self._parent
        used = self._counts or self.tasks
        if parent is None or used or not self._number or parent.tasks != self._number:
            return False
        parent.tasks -= 1
        self._number = 0
        self.prefix = f"{parent.path(name)}~"
        return True
