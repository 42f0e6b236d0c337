"""`troth doctor`: looks at an installation and says what is wrong with it, and what to do."""

from __future__ import annotations

from troth.cli.checks import Check, Grade, examine
from troth.cli.exits import Exit
from troth.cli.output import cell, clean, console, counted, emit, styled
from troth.cli.session import Asked


def doctor(*, session: Asked) -> int:
    """Look at Postgres, the schema, roles, workers and work, and say what is wrong and what to do.

    Exit code 1 means that it found a problem; warnings do not count.
    """
    found = examine(session.dsn(), session.schema)
    healthy = all(check.grade != "problem" for check in found)
    if session.json:
        emit({"ok": healthy, "checks": found})
    else:
        _show(found)
    return Exit.OK if healthy else Exit.FAILED


def _show(found: list[Check]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for check in found:
        text = cell(check.sentence)
        if check.advice:
            text.append(f"\n→ {clean(check.advice)}")
        table.add_row(styled(check.grade), check.name, text)
    paper = console()
    paper.print(table)
    counts = {grade: sum(check.grade == grade for check in found) for grade in _GRADES}
    warnings, problems = counts["warning"], counts["problem"]
    paper.print(f"{counts['ok']} ok, {counted(warnings, 'warning')}, {counted(problems, 'problem')}")


_GRADES: tuple[Grade, ...] = ("ok", "warning", "problem")
