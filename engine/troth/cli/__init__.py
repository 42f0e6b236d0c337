"""The command line: `troth start ...`, `troth worker ...`, `troth dev ...`.

Every command is a function of one of the modules here, imported when it is called. A command asks a client, shows
what it answers (a table for people, JSON with `--json`) and returns an exit code (`exits`); it knows no SQL, but for
`doctor`, which looks where no verb does. What goes wrong is one sentence and what to do about it, never a traceback
unless one is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    from troth.cli.app import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
