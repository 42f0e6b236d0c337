"""The command line as its users meet it: a process, what it wrote, and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TROTH = (sys.executable, "-P", "-m", "troth.cli")  # -P: what lies around here is not imported instead
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class Answer:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document of a command with --json."""
        [line] = self.out.splitlines()
        return json.loads(line)

    @property
    def documents(self) -> list[Any]:
        """The JSON documents of a list, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """What went wrong: a sentence on standard error, nothing on standard output, and no traceback."""
        assert self.code != 0, self.out
        assert self.out == ""
        first, *hints = self.err.splitlines()
        assert first.startswith("troth: "), self.err
        assert all(hint.startswith("  ") for hint in hints), self.err
        assert len(hints) <= 2, self.err
        assert "Traceback" not in self.err
        assert 'File "' not in self.err
        return self.err


def environment(dsn: str | None = None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without what would tell the command line about another Postgres."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TROTH_", "PG", "DATABASE_"))
    }
    return clean | ({"TROTH_DSN": dsn} if dsn else {}) | dict(extra or {})


def troth(
    *words: str,
    dsn: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes = "",
    cwd: Path = Path("/"),
) -> Answer:
    """Run one command to its end."""
    ended = subprocess.run(
        [*TROTH, *words],
        env=environment(dsn, env),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        cwd=cwd,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Answer(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
