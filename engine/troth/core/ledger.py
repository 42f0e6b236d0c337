"""The book of one workflow: what its code has issued and not yet been told about, and how far it has been told.

The law of replay is judged here and nowhere else: an entry may be told only if the code has issued that very
operation — same path, same kind, same arguments, after the same entry. Anything else is `Diverged`, before the code
hears of it. An operation that the journal does not mention yet is legal: it is what happens next.

A timer that the code took back leaves `open`, but is remembered: it may have fired before that was known. Its entry
then only moves time. This file knows no asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NoReturn, Protocol

from troth.core.events import TIMER, Entry, Operation
from troth.errors import Diverged

_NAMED_MAX: Final = 3
"""How many operations a divergence names as what was issued instead."""


class Awaiter(Protocol):
    """What stands in the code for an open operation and is told its entry."""

    @property
    def operation(self) -> Operation: ...
    def tell(self, entry: Entry) -> None: ...
    def cancelled(self) -> bool: ...


class Ledger:
    """Open operations by path, in the order of their creation; `told` and `now` are those of the last entry told."""

    __slots__ = ("_awaiters", "_fresh", "_open", "_over", "_taken_back", "_thinned", "now", "open", "told")

    def __init__(self, started_at: int) -> None:
        self.told = 0
        self.now = started_at
        self._open: dict[str, Operation] = {}
        self.open: Mapping[str, Operation] = MappingProxyType(self._open)
        self._awaiters: dict[str, Awaiter] = {}
        self._taken_back: dict[str, Operation] = {}
        self._fresh: list[Operation] = []
        self._thinned = False
        self._over = False

    def add(self, awaiter: Awaiter) -> None:
        """The code has issued an operation."""
        operation = awaiter.operation
        self._open[operation.path] = operation
        self._awaiters[operation.path] = awaiter
        self._fresh.append(operation)

    def take_back(self, operation: Operation) -> None:
        """The code no longer wants it; one that nobody has heard of yet never was."""
        if self._awaiters.pop(operation.path, None) is None:
            return
        del self._open[operation.path]
        if operation.issued == self.told:
            self._thinned = True
        else:
            self._taken_back[operation.path] = operation

    def collect(self) -> list[Operation]:
        """What was issued since the last call and is still open."""
        fresh = self._fresh
        if not fresh:
            return []
        self._fresh = []
        if self._thinned:
            self._thinned = False
            return [operation for operation in fresh if operation.path in self._open]
        return fresh

    def given_up(self) -> list[Operation]:
        """The open operations for which the code no longer waits."""
        return [awaiter.operation for awaiter in self._awaiters.values() if awaiter.cancelled()]

    def enter(self, entry: Entry) -> Awaiter | None:
        """Book an entry about an operation and return whom to tell, or raise Diverged with nothing changed."""
        path = entry.path
        operation = self._open.get(path) or self._taken_back.get(path)
        if operation is None:
            self._diverged(entry)
        if operation.kind != entry.kind or operation.issued != entry.issued:
            raise Diverged(path, _described(entry), _described(operation), operation.line)
        if operation.digest != entry.digest and operation.digest is not None and entry.digest is not None:
            recorded, issued = _with_digest(entry, entry.digest), _with_digest(operation, operation.digest)
            raise Diverged(path, recorded, issued, operation.line)
        self.advance(entry)
        awaiter = self._awaiters.pop(path, None)
        if awaiter is None:
            del self._taken_back[path]
        else:
            del self._open[path]
        return awaiter

    def advance(self, entry: Entry) -> None:
        """Another entry is told: count it, and let time go on."""
        self.told = entry.seq
        self.now = entry.at

    def close(self) -> None:
        """The code has ended: what is still open is nobody's any more, but entries about it may yet come."""
        self._over = True
        self._taken_back.update(self._open)
        self._open.clear()
        self._awaiters.clear()
        self._fresh.clear()

    def _diverged(self, entry: Entry) -> NoReturn:
        instead = [operation for operation in self._open.values() if operation.issued == entry.issued]
        if not instead:
            instead = list(self._open.values())
        if self._over:
            issued = "nothing, for it has ended"
        elif not instead:
            issued = "nothing that is still open"
        else:
            issued = ", ".join(f"{_described(one)} at {one.path!r}" for one in instead[:_NAMED_MAX])
            if len(instead) > _NAMED_MAX:
                issued += f" and {len(instead) - _NAMED_MAX} more"
        raise Diverged(entry.path, _described(entry), issued, instead[0].line if instead else None)


def _described(what: Operation | Entry) -> str:
    return f"a {what.kind} issued after entry {what.issued}"


def _with_digest(what: Operation | Entry, digest: int) -> str:
    """The same where all but the arguments agree; a timer's digest is its duration."""
    if what.kind == TIMER:
        return f"{_described(what)} of {digest / 1_000_000:g} s"
    return f"{_described(what)} with arguments of digest {digest:x}"
