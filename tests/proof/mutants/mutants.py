"""All mutants of `sql/`."""

from __future__ import annotations

from typing import Final

from tests.proof.mutants.holding import FENCES, GUARDS, LOCKS
from tests.proof.mutants.mutant import Mutant
from tests.proof.mutants.telling import ATTEMPTS, ORDERS, WAKES

MUTANTS: Final[tuple[Mutant, ...]] = (*LOCKS, *FENCES, *WAKES, *ORDERS, *ATTEMPTS, *GUARDS)
