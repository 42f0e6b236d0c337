"""What lies where, how long it may be, and what no file may say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TOP_LEVEL = {
    ".ci",
    ".gitignore",
    ".squawk.toml",
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "api",
    "bench",
    "compose.yaml",
    "constraints.txt",
    "docs",
    "engine",
    "examples",
    "migrations",
    "pyproject.toml",
    "sql",
    "tests",
    "tools",
}
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 80

# Nothing here may depend on the machine it was written on, or on a place that only that machine can reach.
NOT_OURS = {
    "a path of one machine": re.compile(r"(?<![\w.\]}*-])/(?:work|root|home|Users)/\w|/opt/(?:wheels|pip)\b"),
    "an address of a private network": re.compile(
        r"\b(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}\b"
    ),
    "a host of a private network": re.compile(r"//[\w.-]+\.(?:internal|intranet|corp|lan)\b"),
    "a package index": re.compile(r"//(?:pypi\.org/simple|files\.pythonhosted|registry\.npmjs|test\.pypi)"),
    "a way around the index": re.compile(r"--(?:extra-)?index-url|--find[-]links|--trusted[-]host"),
}


def test_the_top_level_is_the_house_of_the_design(files: list[Path]) -> None:
    assert {path.parts[0] for path in files} == TOP_LEVEL


def test_source_roots_hold_one_package_each(files: list[Path]) -> None:
    assert {path.parts[1] for path in files if path.parts[0] == "engine"} == {"troth"}
    assert {path.parts[1] for path in files if path.parts[0] == "api"} == {"troth_api"}


def test_both_packages_are_typed(root: Path) -> None:
    assert (root / "engine/troth/py.typed").is_file()
    assert (root / "api/troth_api/py.typed").is_file()


def test_a_file_can_be_read_in_one_sitting(root: Path, files: list[Path]) -> None:
    judged = [
        path
        for path in files
        if path.parts[0] in {"engine", "api", "sql", "migrations"} and path.suffix in {".py", ".sql"}
    ]
    assert len(judged) > 10
    lengths = {str(path): (root / path).read_text().count("\n") for path in judged}
    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_a_function_says_one_thing(root: Path, files: list[Path]) -> None:
    too_long: dict[str, int] = {}
    judged = 0
    for path in files:
        if path.parts[0] not in {"engine", "api"} or path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse((root / path).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                judged += 1
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    too_long[f"{path}:{node.lineno} {node.name}"] = lines
    assert judged > 100
    assert too_long == {}


def test_the_engine_silences_no_type_checker(root: Path, files: list[Path]) -> None:
    silenced = re.compile(r"#\s*(?:type:\s*ignore|pyright:\s*ignore|mypy:)")
    found = [
        f"{path}:{number}"
        for path in files
        if path.parts[0] == "engine" and path.suffix == ".py"
        for number, line in enumerate((root / path).read_text().splitlines(), 1)
        if silenced.search(line)
    ]
    assert found == []


def test_the_core_takes_nothing_of_asyncio_that_touches_the_world(root: Path, files: list[Path]) -> None:
    """import-linter sees that the core imports asyncio, as it must, but not what it takes from there."""
    worldly = re.compile(
        r"^(?!\s*def ).*\basyncio\.(?:run|Runner|to_thread|new_event_loop|open_\w+|start_\w+|create_subprocess_\w+"
        r"|subprocess|streams)\b|\bfrom asyncio\.(?:subprocess|streams|selector_events|unix_events)\b",
        re.MULTILINE,
    )
    core = [path for path in files if path.parts[:3] == ("engine", "troth", "core") and path.suffix == ".py"]
    assert core
    assert [
        f"{path}: {hit.group()}" for path in core for hit in worldly.finditer((root / path).read_text())
    ] == []


def test_no_file_knows_a_machine_or_a_network(root: Path, files: list[Path]) -> None:
    found: list[str] = []
    for path in files:
        try:
            text = (root / path).read_text()
        except UnicodeDecodeError:
            continue
        for what, pattern in NOT_OURS.items():
            found += [
                f"{path}:{text.count(chr(10), 0, hit.start()) + 1}: {what}: {hit.group()}"
                for hit in pattern.finditer(text)
            ]
    assert found == []
