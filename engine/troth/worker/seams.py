"""Where tests may put something else in a worker's place: its connections, and the functions that it calls as steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from troth.gateway.pool import Pool
from troth.gateway.transactions import Transactions


def itself(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A step function stands for itself."""
    return fn


@dataclass(frozen=True, slots=True)
class Seams:
    """What a worker makes its pools with, and what is called where a step function is asked for."""

    pool: Callable[..., Pool] = Pool
    transactions: Callable[..., Transactions] = Transactions
    stand_in: Callable[[Callable[..., Any]], Callable[..., Any]] = itself
