"""The critical pairs, in every order that up to three points in each of the two calls leave; none of it by chance."""

from __future__ import annotations

import pytest

from tests.proof.races.pairs import PAIRS
from tests.proof.races.report import told
from tests.proof.races.schedules import explore, orders
from tests.proof.races.stage import Stage


@pytest.mark.parametrize("name", PAIRS)
def test_every_order(stage: Stage, name: str) -> None:
    explored = explore(stage, PAIRS[name], enough=3)
    told(
        f"orders {name}: {explored.schedules} tried, {explored.distinct} distinct, {explored.blocked} with a wait; "
        + ", ".join(f"{first}/{second} {n}" for (first, second), n in explored.outcomes.items())
    )
    assert explored.findings == []
    assert explored.schedules >= 20


def test_orders_are_all_there_are() -> None:
    assert list(orders((1, 2))) == [(0, 1, 1), (1, 0, 1), (1, 1, 0)]
    assert len(set(orders((4, 4)))) == 70
