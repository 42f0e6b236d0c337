"""The book of one workflow: what its code has issued and not yet been told about, and how far it has been told.

The law of replay is judged here and nowhere else: an entry may be told only if the code has issued that very
operation — same path, same kind, same arguments, after the same entry, together with the same others. Anything else is
`Diverged`, before the code hears of it. An operation that the journal does not mention yet is legal: it is what
happens next.

What was issued together, after one entry and until the code was idle again, is a cohort. All that is kept of it is a
number, its size above a checksum of its paths, so that an operation too many is found although every entry finds its own.

Three things are looser. A timer that the code took back leaves `open`, but is remembered: it may have fired before that
was known, and its entry then only moves time. An entry that a person wrote names no place: it is told where the code
asks for its path, also if that comes later. A patch that the code no longer asks about is passed over.

This file knows no asyncio.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Final, NoReturn, Protocol
from zlib import crc32

from msgspec import Struct

from troth.core.events import PATCH, TIMER, Entry, Operation
from troth.errors import Diverged

_NAMED_MAX: Final = 3
"""How many operations a divergence names as what was issued instead."""

_COHORT_NAMED_MAX: Final = 10
"""How many of a cohort it names."""

_BINDING: Final = frozenset({"cancel", "wait"})
"""The bindings that the workflow's end waits for."""

_NO_PATCHES: Final[frozenset[str]] = frozenset()

_CHECKSUM_BITS: Final = 19
_CHECKSUM: Final = (1 << _CHECKSUM_BITS) - 1
_COUNTED_MAX: Final = (1 << 12) - 1
"""Larger cohorts count as this many; the checksum is still that of all."""


class Awaiter(Protocol):
    """What stands in the code for an open operation and is told its entry."""

    @property
    def operation(self) -> Operation: ...
    def tell(self, entry: Entry) -> None: ...
    def cancelled(self) -> bool: ...


class Asked(Struct, frozen=True, eq=False):
    """What stands for an operation that nobody awaits."""

    operation: Operation

    def tell(self, entry: Entry) -> None: ...

    def cancelled(self) -> bool:
        return True


class Ledger:
    """Open operations by path, in the order of their creation; `told` and `now` are those of the last entry told."""

    __slots__ = (
        "_awaiters",
        "_bound",
        "_by_hand",
        "_cohorts",
        "_decided",
        "_foreseen",
        "_fresh",
        "_given_up",
        "_never_were",
        "_open",
        "_over",
        "_patches",
        "_taken_back",
        "arrivals",
        "now",
        "open",
        "told",
    )

    def __init__(self, started_at: int) -> None:
        self.told = 0
        self.now = started_at
        self._open: dict[str, Operation] = {}
        self.open: Mapping[str, Operation] = MappingProxyType(self._open)
        self.arrivals: list[tuple[Awaiter, Entry]] = []
        """Operations just issued whose entries, written by hand, were there before them."""
        self._awaiters: dict[str, Awaiter] = {}
        self._bound: dict[str, Operation] = {}
        self._taken_back: dict[str, Operation] = {}
        self._fresh: list[Operation] = []
        self._never_were: list[str] = []
        self._cohorts = array("l")
        self._given_up: list[Operation] = []
        self._by_hand: dict[str, Entry] = {}
        self._foreseen = 0
        self._patches = _NO_PATCHES
        self._decided: dict[str, bool] = {}
        self._over = False

    # --- what the code does ---

    def add(self, awaiter: Awaiter) -> None:
        """The code has issued an operation."""
        operation = awaiter.operation
        path = operation.path
        self._open[path] = operation
        self._awaiters[path] = awaiter
        self._fresh.append(operation)
        if operation.binding in _BINDING:
            self._bound[path] = operation
        if self._by_hand and (entry := self._by_hand.pop(path, None)) is not None:
            self.arrivals.append((awaiter, entry))

    def take_back(self, operation: Operation) -> None:
        """The code no longer wants it; one that nobody has heard of yet never was."""
        path = operation.path
        if self._awaiters.pop(path, None) is None:
            return
        del self._open[path]
        if operation.issued == self.told:
            self._never_were.append(path)
        else:
            self._taken_back[path] = operation

    def give_up(self, operation: Operation) -> None:
        """The code no longer waits for it; the operation stays open."""
        self._given_up.append(operation)

    def decided(self, path: str) -> bool | None:
        """Whether this patch is applied, if the code has asked before."""
        return self._decided.get(path)

    def decide(self, path: str) -> bool:
        """Whether the code is to go the new way at this patch: decided once, and the same at every replay.

        It is where the journal has the patch, and where the code was never before. The caller issues the patch, so that
        the journal will have it.
        """
        self._decided[path] = applied = path in self._patches or self.told >= self._foreseen
        return applied

    # --- what the driver says and asks ---

    def foresee(self, seq: int, patches: Iterable[str]) -> None:
        """The code was here before after every entry below `seq`, and the journal has these patches."""
        self._foreseen = max(self._foreseen, seq)
        if patches:
            self._patches = self._patches.union(patches)

    def enter(self, entry: Entry) -> Awaiter | None:
        """Book an entry about an operation and return whom to tell, or raise Diverged with nothing changed."""
        path = entry.path
        operation = self._open.get(path) or self._taken_back.get(path)
        if operation is None:
            if entry.issued is None:
                self._by_hand[path] = entry
            elif entry.kind != PATCH:
                self._diverged(entry)
            self.advance(entry)
            return None
        if (
            operation.issued != entry.issued
            or operation.kind != entry.kind
            or operation.digest != entry.digest
            or self._cohorts[operation.issued] != entry.cohort
        ):
            self._judge(entry, operation)
        self.told = entry.seq
        self.now = entry.at
        if self._open.pop(path, None) is None:
            del self._taken_back[path]
            return None
        if operation.binding:
            self._bound.pop(path, None)
        return self._awaiters.pop(path, None)

    def advance(self, entry: Entry) -> None:
        """Another entry is told: count it, and let time go on."""
        self.told = entry.seq
        self.now = entry.at

    def arrival(self) -> tuple[Awaiter, Entry]:
        """The next of `arrivals`, booked."""
        awaiter, entry = self.arrivals.pop(0)
        path = entry.path
        self._judge(entry, awaiter.operation)
        if self._open.pop(path, None) is not None:
            self._bound.pop(path, None)
            del self._awaiters[path]
        return awaiter, entry

    def collect(self) -> list[Operation]:
        """What was issued after the last entry, now that the code is idle, and is still open. Once for each entry."""
        fresh = self._fresh
        if not fresh:
            self._cohorts.append(0)
            return []
        self._fresh = []
        if self._never_were:
            never_were = set(self._never_were)
            fresh = [operation for operation in fresh if operation.path not in never_were]
            self._never_were = []
        still = self._open
        all_open = True
        count = checksum = 0
        for operation in fresh:
            path, kind = operation.path, operation.kind
            if kind != PATCH:
                count += 1
                checksum += crc32(f"{path} {kind}".encode())  # a sum: their order may be a set's
            if path not in still:
                all_open = False
        if len(fresh) > _COUNTED_MAX:
            count = min(count, _COUNTED_MAX)
        self._cohorts.append(count << _CHECKSUM_BITS | checksum & _CHECKSUM)
        return fresh if all_open else [operation for operation in fresh if operation.path in still]

    def cohort(self, issued: int) -> int:
        """The number for all that was issued after this entry: its size above 19 bits of a checksum.

        What was taken back before the code was idle does not count, and patches do not: they may be removed.
        """
        return self._cohorts[issued]

    def take_given_up(self) -> list[Operation]:
        """What was given up since the last call and is still open, in order."""
        given_up = self._given_up
        if not given_up:
            return []
        self._given_up = []
        return [operation for operation in given_up if operation.path in self._open]

    # --- the end ---

    @property
    def bound(self) -> bool:
        """Whether operations are open that the workflow's end waits for."""
        return bool(self._bound)

    def wind_up(self) -> bool:
        """The code has ended. What is open is nobody's any more, but entries about it may yet come.

        Only what binds the workflow stays open, and patches, without which a replay would not come to the same end. True
        if there is anything to wait for. What is bound to be canceled is given up now.
        """
        if not self._bound:
            self.close()
            return False
        self._over = True
        for path, operation in list(self._open.items()):
            if not operation.binding and operation.kind != PATCH:
                self._taken_back[path] = self._open.pop(path)
        self._awaiters = {path: self._awaiters[path] for path in self._bound}
        self._let_go([path for path, operation in self._bound.items() if operation.binding == "cancel"])
        return True

    def let_go(self) -> None:
        """A request to cancel, after the code has ended: give up whatever it still waits for."""
        self._let_go(list(self._awaiters))

    def close(self) -> None:
        """All is over, or the machine is taken down. What outlives the workflow stays open: it may have to be begun."""
        self._over = True
        if not self._open:
            self._bound.clear()
            self._awaiters.clear()
            self.arrivals.clear()
            return
        outliving = {
            path: operation for path, operation in self._open.items() if operation.binding == "outlives"
        }
        self._taken_back.update(self._open)
        self._open.clear()
        self._open.update(outliving)
        for path in outliving:
            del self._taken_back[path]
        self._bound.clear()
        self._awaiters.clear()
        self.arrivals.clear()

    def _let_go(self, paths: list[str]) -> None:
        for path in paths:
            # what the code gave up itself was said then
            if not self._awaiters.pop(path).cancelled():
                self._given_up.append(self._open[path])

    # --- the judgement ---

    def confirm(self, entry: Entry) -> None:
        """Raise Diverged unless the code has issued what this entry, which is still to come, will be about."""
        operation = self._open.get(entry.path) or self._taken_back.get(entry.path)
        if operation is None:
            self._diverged(entry)
        self._judge(entry, operation)

    def _judge(self, entry: Entry, operation: Operation) -> None:
        """Raise Diverged unless the entry was recorded for this operation, or does not say."""
        path, issued = entry.path, entry.issued
        if operation.kind != entry.kind or (operation.issued != issued and issued is not None):
            raise Diverged(path, _described(entry), _described(operation), operation.line)
        if issued is None:
            return
        if operation.digest != entry.digest and operation.digest is not None and entry.digest is not None:
            recorded, now = _with_digest(entry, entry.digest), _with_digest(operation, operation.digest)
            raise Diverged(path, recorded, now, operation.line)
        cohort = entry.cohort
        if cohort is not None and cohort != self._cohorts[issued] and operation.kind != PATCH:
            raise Diverged(path, *self._cohorts_described(cohort, issued), operation.line)

    def _cohorts_described(self, recorded: int, issued: int) -> tuple[str, str]:
        """What an entry says was issued together with its operation, and what was now."""
        before, now = recorded >> _CHECKSUM_BITS, self._cohorts[issued] >> _CHECKSUM_BITS
        paths = [
            operation.path
            for operation in chain(self._open.values(), self._taken_back.values())
            if operation.issued == issued and operation.kind != PATCH
        ]
        names = ", ".join(paths[:_COHORT_NAMED_MAX])
        if len(paths) > _COHORT_NAMED_MAX:
            names += f" and {len(paths) - _COHORT_NAMED_MAX} more"
        others = " others" if now == before else ""
        return f"one of {_counted(before)} issued after entry {issued}", f"one of {now}{others}: {names}"

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
    if what.issued is None:
        return f"a {what.kind} settled by hand"
    return f"a {what.kind} issued after entry {what.issued}"


def _counted(operations: int) -> str:
    return "1 operation" if operations == 1 else f"{operations} operations"


def _with_digest(what: Operation | Entry, digest: int) -> str:
    """The same where all but the arguments agree; a timer's digest is its duration."""
    if what.kind == TIMER:
        return f"{_described(what)} of {digest / 1_000_000:g} s"
    return f"{_described(what)} with arguments of digest {digest:x}"
