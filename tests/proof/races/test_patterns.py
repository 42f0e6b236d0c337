"""Each wrong pattern is found: put into our functions, some order of two calls shows it."""

from __future__ import annotations

import pytest

from tests.proof.races.pairs import PAIRS
from tests.proof.races.patterns import PATTERNS, Pattern
from tests.proof.races.report import told
from tests.proof.races.schedules import explore
from tests.proof.races.stage import Stage


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda each: each.name)
def test_wrong_pattern_is_found(stage: Stage, pattern: Pattern) -> None:
    with stage.mutated(pattern.edits):
        explored = explore(stage, PAIRS[pattern.pair], enough=1)
    told(f"wrong  {pattern.name}: found by order {explored.schedules} of {pattern.pair}")
    assert explored.findings


def test_text_that_is_not_there_is_an_error(stage: Stage) -> None:
    with pytest.raises(LookupError, match="resolve has 0 times"), stage.mutated([("resolve", "nowhere", "")]):
        pass
