"""constraints.txt pins everything that pyproject.toml names, and nothing but versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9A-Za-z.!+_-]*")


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, Version]:
    lines = (root / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    return {
        canonicalize_name(name): Version(version)
        for name, _, version in (line.partition("==") for line in lines)
    }


def _required(root: Path) -> list[Requirement]:
    document = tomllib.loads((root / "pyproject.toml").read_text())
    project = document["project"]
    lines: list[str] = [*project["dependencies"], *document["build-system"]["requires"]]
    for group in (*project["optional-dependencies"].values(), *document["dependency-groups"].values()):
        lines += group
    return [Requirement(line) for line in lines if not line.startswith("troth[")]


def test_every_requirement_is_pinned_to_a_version_that_it_allows(
    root: Path, pins: dict[str, Version]
) -> None:
    required = _required(root)
    assert len(required) > 20
    unpinned = [str(need) for need in required if canonicalize_name(need.name) not in pins]
    assert unpinned == []
    refused = [
        str(need)
        for need in required
        if not need.specifier.contains(pins[canonicalize_name(need.name)], prereleases=True)
    ]
    assert refused == []


def test_troth_itself_is_not_pinned(pins: dict[str, Version]) -> None:
    assert "troth" not in pins
