"""The mutator itself: what it makes of a file, which mutants must be killed, and that one which changes nothing survives."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.proof.mutation.__main__ import of_core
from tests.proof.mutation.killing import Ground, kill
from tests.proof.mutation.mutants import KINDS, mutants

SOURCE = '''\
"""A toy, with words that are left alone."""


def smallest(numbers: list[int]) -> int | None:
    assert numbers is not None, "words"
    found = None
    for number in numbers:
        if found is None or number < found:
            found = number
    return found
'''
TESTS = """\
from toy import smallest

assert smallest([3, 1, 2]) == 1
assert smallest([]) is None
"""


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    (tmp_path / "toy.py").write_text(SOURCE)
    (tmp_path / "test_toy.py").write_text(TESTS)
    return Ground(tmp_path, ("toy.py", "test_toy.py"), (".",), (("test_toy.py",),))


def test_each_mutant_is_the_file_with_one_thing_wrong() -> None:
    found = {(each.line, each.kind, each.after) for each in mutants("toy.py", SOURCE)}
    assert found == {
        (8, "comparison", "(found is not None)"),
        (8, "comparison", "(number <= found)"),
        (8, "negation", "(found is None and number < found)"),
        (8, "negation", "if not (found is None or number < found): found = number"),
        (10, "returned None", "return None"),
    }


def test_of_the_core_every_mutant_parses_and_differs() -> None:
    found = of_core()
    assert len({(each.file, each.text) for each in found}) == len(found) > 500
    assert {each.kind for each in found} == set(KINDS)
    for each in found:
        ast.parse(each.text)


def test_what_is_wrong_is_killed_and_what_is_the_same_survives(ground: Ground) -> None:
    chosen = [
        each
        for each in mutants("toy.py", SOURCE)
        if each.after in ("(found is not None)", "(number <= found)", "return None")
    ]
    told = {mutant.after: why for mutant, why in kill(ground, chosen)}
    assert "AssertionError" in (told["return None"] or "")
    assert told["(found is not None)"] is not None
    assert told["(number <= found)"] is None  # an equal number is the same number
    assert (ground.root / "toy.py").read_text() == SOURCE


def test_tests_that_are_red_anyhow_prove_nothing(ground: Ground) -> None:
    (ground.root / "test_toy.py").write_text("assert False\n")
    with pytest.raises(AssertionError, match="red without any mutant"):
        list(kill(ground, mutants("toy.py", SOURCE)))
