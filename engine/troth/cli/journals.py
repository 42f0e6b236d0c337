"""What takes a workflow along as a file: `export` and `import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from troth.cli.exits import Exit
from troth.cli.output import counted, emit, say
from troth.cli.session import Asked
from troth.cli.values import STDIN
from troth.errors import InvalidArgument


def export(
    id: str, /, *, output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None, session: Asked
) -> int:
    """Write a workflow with its whole journal as one JSON document, for `troth replay` and `troth import`.

    What a codec sealed stays sealed in it; all else can be read by whoever has the file.

    :param id: The workflow, pending or finished.
    :param output: The file to write, or to write over; standard output without one.
    """
    with session.client() as client:
        exported = client.export(id)
    if output is None:
        emit(exported)
        return Exit.OK
    try:
        output.write_bytes(msgspec.json.encode(exported) + b"\n")
    except OSError as error:
        raise _unusable(output, "written", error) from None
    if session.json:
        emit({"id": id, "file": str(output), "events": len(exported.journal)})
    else:
        say(f"{id}, {counted(len(exported.journal), 'event')}, is in {output}")
    return Exit.OK


def import_(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    id: str | None = None,
    session: Asked,
) -> int:
    """Bring an exported workflow into this namespace; it is halted, and runs only after `troth resume`.

    :param file: What `troth export` wrote; - reads it from standard input.
    :param id: The ID that it gets, if not the one that it had.
    """
    try:
        text = sys.stdin.buffer.read() if str(file) == STDIN else file.read_bytes()
    except OSError as error:
        raise _unusable(file, "read", error) from None
    with session.client() as client:
        imported = client.import_journal(text, id).started
    assert imported is not None
    if session.json:
        emit(imported)
    else:
        told = counted(imported.task.last_seq if imported.task else 0, "event")
        say(f"{imported.id} is here with {told}, halted; `troth resume {imported.id}` lets it run")
    return Exit.OK


def _unusable(file: Path, verb: str, error: OSError) -> InvalidArgument:
    return InvalidArgument(f"{file} cannot be {verb}: {error.strerror or error}.", hint="Name another file.")
