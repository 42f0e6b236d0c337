"""The table of what was tried: a line a pair, into the file that TROTH_RACES_REPORT names (`make races` shows it)."""

from __future__ import annotations

import os
from pathlib import Path


def told(line: str) -> None:
    """Add a line, from whichever process."""
    if path := os.environ.get("TROTH_RACES_REPORT"):
        with Path(path).open("a") as file:
            file.write(f"{line}\n")
