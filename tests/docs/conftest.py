"""Pages to be played, each in an environment of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.docs.pages import Played, page


@pytest.fixture
def play() -> Iterator[Callable[[str], Played]]:
    """A page to be played, by its name."""
    played: list[Played] = []

    def begin(name: str) -> Played:
        played.append(Played(page(name)))
        return played[-1]

    yield begin
    for each in played:
        each.close()
