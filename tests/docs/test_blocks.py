"""Each block of each page: typed, run as a program, typed into a terminal."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.docs.pages import HOME, PAGES, Block, blocks, commands, modules, name_of, source
from tests.docs.test_examples import process, until
from troth.cli import app as cli

PROGRAMS = [b for page in PAGES for b in blocks(page, "python") if b.is_program]
TERMINALS = [b for page in PAGES for b in blocks(page, "console")]
SESSIONS = [b for b in TERMINALS if b.page.parent.name == "docs" and "troth dev" in b.text]
COMMANDS = [(b, command) for b in TERMINALS for command, _ in commands(b)]


def place(value: object) -> str | None:
    return value.place if isinstance(value, Block) else None


def test_the_pages_are_typed(tmp_path: Path) -> None:
    """Strictly, with the lines of the page; what a page's first block imports is there below."""
    for page in PAGES:
        for name in modules(page):
            (tmp_path / f"{name}.py").write_text(source(page, name))
    checker = (sys.executable, "-m", "mypy", "--config-file", str(HOME / "pyproject.toml"))
    files = map(str, sorted(tmp_path.glob("*.py")))
    said = subprocess.run([*checker, *files], cwd=HOME, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("block", PROGRAMS, ids=place)
def test_a_program_prints_what_the_page_says(block: Block, dsn: str, tmp_path: Path) -> None:
    """With what the page has shown before it; the text block that follows is what it prints."""
    program = tmp_path / "program.py"
    before = [each for each in blocks(block.page, "python") if each.line <= block.line]
    program.write_text("\n".join(each.text for each in before))
    said = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "TROTH_DSN": dsn},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 0, said.stderr
    shown = next(each for each in blocks(block.page, "text") if each.line > block.line)
    printed = [line for line in said.stdout.splitlines() if "[info" not in line]
    assert printed == shown.text.splitlines()


@pytest.mark.parametrize("block", SESSIONS, ids=place)
def test_a_terminal_shows_what_the_page_says(block: Block, dsn: str, tmp_path: Path) -> None:
    """`troth dev FILE` is a worker on the database of the test; the commands behind it are typed one by one."""
    for each in blocks(block.page, "python"):
        if each.file:
            (tmp_path / each.file).write_text(each.text)
    (dev, _), *typed = commands(block)
    with worker(dev.removeprefix("troth dev "), dsn, tmp_path):
        for command, shown in typed:
            said = subprocess.run(
                [sys.executable, "-P", "-m", "troth.cli", *shlex.split(command)[1:]],
                cwd=tmp_path,
                env={**os.environ, "TROTH_DSN": dsn},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert like(shown).fullmatch(tidy(said.stdout)), f"{command}\n{said.stdout}{said.stderr}"
            come_to_rest(dsn, tmp_path)


@contextmanager
def worker(file: str, dsn: str, where: Path) -> Iterator[None]:
    command = (sys.executable, "-P", "-m", "troth.cli", "worker", str(where / file))
    log = where / "worker.log"
    with process(*command, dsn=dsn, log=log):
        until(lambda: "worker started" in log.read_text(), "the worker", log)
        yield


def come_to_rest(dsn: str, where: Path) -> None:
    """Let the worker come to rest: a person types more slowly than it works."""
    busy = "select count(*) = 0 from troth.tasks where state in ('ready', 'claimed')"
    with psycopg.connect(dsn, autocommit=True) as db:
        until(lambda: (db.execute(busy).fetchone() or (False,))[0], "rest", where / "worker.log")


def tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def like(shown: str) -> re.Pattern[str]:
    """What is shown, where `...` stands for anything."""
    return re.compile(".*".join(map(re.escape, tidy(shown).split("..."))), re.DOTALL)


class Parsed(Exception):
    pass


@pytest.mark.parametrize(("block", "command"), COMMANDS, ids=place)
def test_a_command_is_one(block: Block, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line's own parser takes it: no option is misspelt, none is missing."""

    def parsed(*_: object, **__: object) -> None:
        raise Parsed

    words = shlex.split(command)
    if words[0] != "troth":
        assert words[0] in ("curl", "make", "pip"), f"{block.place}: {command}"
        return
    monkeypatch.setattr(cli, "Session", parsed)
    meta = cli.application(listed=False)
    launch, bound, _ = meta.parse_args(words[1:], print_error=False, exit_on_error=False)
    with pytest.raises(Parsed):
        launch(*bound.args, **bound.kwargs)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]*)?)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


TOLD = {"benchmarks.md", "design.md", "performance.md", "reliability.md"}
"""Pages that tell how it is, and teach nothing that could be tried."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in TOLD], ids=lambda p: p.name)
def test_a_page_begins_with_a_program(page: Path) -> None:
    """What can be run stands before the second title."""
    first = blocks(page, "python")[0]
    assert first.file or first.is_program
    assert name_of(page) in modules(page)
    ast.parse(first.text)
    titles = [n for n, line in enumerate(page.read_text().splitlines(), 1) if line.startswith("## ")]
    assert first.line < titles[1 if page.name == "README.md" and page.parent.name == "docs" else 0]
