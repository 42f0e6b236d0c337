"""What the proofs of the network share."""

from __future__ import annotations

import pytest

from troth.worker import turns


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers say things again soon enough for a test."""
    monkeypatch.setattr(turns, "AWAY_LONGEST_S", 0.5)
