"""compose.yaml and the Dockerfile say the same as the command line and the package do.

They are read, not run: what a container engine would do with them is seen where there is one.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((root / "compose.yaml").read_text())
    return document


def test_the_services_are_postgres_migrate_api_and_worker(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", "migrate", "api", "worker"}
    assert compose["services"]["postgres"]["image"] == "postgres:17"


def test_ours_are_one_image_and_find_postgres_by_troth_dsn(root: Path, compose: dict[str, Any]) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    for name in ("migrate", "api", "worker"):
        service = compose["services"][name]
        assert service["build"] == "."
        assert service["image"] == f"troth:{version}"
        assert set(service["environment"]) == {"TROTH_DSN"}
        assert service["command"][0] == {"migrate": "migrate", "api": "serve", "worker": "worker"}[name]


def test_api_and_worker_wait_for_the_migration_and_that_for_postgres(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["restart"] == "no"
    for name in ("api", "worker"):
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["postgres"]["healthcheck"]["test"][1] == "pg_isready"
    assert services["api"]["healthcheck"]["test"][0] == "CMD"


def test_the_api_is_offered_to_this_machine_only(compose: dict[str, Any]) -> None:
    assert compose["services"]["api"]["ports"] == ["127.0.0.1:8000:8000"]


def test_the_volumes_named_are_declared_and_the_files_mounted_are_there(
    root: Path, compose: dict[str, Any]
) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = re.sub(r"^\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            if source.startswith("."):
                assert (root / source).is_file(), source
            else:
                assert source in compose["volumes"]


def test_the_image_runs_as_nobody_special_and_copies_what_is_there(root: Path) -> None:
    text = (root / "Dockerfile").read_text()
    instructions = [line.split() for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert ["FROM", "python:3.11-slim"] in instructions
    last_user = [words[1] for words in instructions if words[0] == "USER"][-1]
    assert last_user not in {"root", "0"}
    assert f" {last_user}\n" in text
    copied = [source for words in instructions if words[0] == "COPY" for source in words[1:-1]]
    copied = [source for source in copied if not source.startswith(("--", "/"))]
    assert [source for source in copied if not (root / source).exists()] == []
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {path.split("/")[0] for path in wheel["only-include"]} <= set(copied)
