"""How answers are shown: JSON for programs, tables for people, one sentence for what went wrong.

Whatever comes out of the database may have been written by anybody, so before it reaches a terminal everything that is
no printable character is escaped, and rich never reads it as markup. rich itself is imported by the first table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from troth.errors import IdConflict, TrothError
from troth.limits import excerpt_length_max

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from troth.model import ErrorInfo, PromiseInfo

PIPE_WIDTH: Final = 240
"""How wide a table may be where nobody knows how wide the paper is."""

_STYLES: Final = {
    "pending": "yellow",
    "ready": "yellow",
    "claimed": "blue",
    "suspended": "cyan",
    "resolved": "green",
    "rejected": "red",
    "canceled": "magenta",
    "timedout": "red",
    "halted": "bold red",
    "ok": "green",
    "warning": "yellow",
    "problem": "bold red",
}


def emit(document: object) -> None:
    """Write one JSON document, on a line of its own."""
    sys.stdout.buffer.write(msgspec.json.encode(document) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Write a sentence."""
    print(clean(text), flush=True)


def note(text: str) -> None:
    """Write a remark that is no part of the answer."""
    print(clean(text), file=sys.stderr, flush=True)


def complain(error: TrothError, *, json: bool, code: int) -> None:
    """Say what went wrong on standard error: a sentence and what to do about it, or the same as JSON."""
    if json:
        document: dict[str, object] = {
            "error": type(error).__name__,
            "sqlstate": error.sqlstate,
            "message": error.message,
            "hint": error.hint,
            "exit": int(code),
        }
        if isinstance(error, IdConflict) and error.detail:
            document["promise"] = msgspec.Raw(error.detail.encode())
        sys.stderr.write(msgspec.json.encode(document).decode() + "\n")
        return
    sentence = error.message.rstrip()
    sentence = sentence if sentence.endswith((".", "!", "?", "…")) else f"{sentence}."
    sentence = clean(sentence, keep="\n")
    sys.stderr.write(f"troth: {sentence}\n")
    if isinstance(error, IdConflict) and error.detail:
        sys.stderr.write(f"  There: {clean(_stored(error.detail))}\n")
    if error.hint:
        sys.stderr.write(f"  {clean(error.hint)}\n")


def _stored(document: str) -> str:
    """What an ID is taken by: the function with its arguments, and how it stands."""
    from troth.model import PromiseInfo

    there = msgspec.json.decode(document, type=PromiseInfo)
    args = shortened(value_text(there.args, there.args_headers))
    what = "a latent promise" if there.latent else f"{there.function} {args}"
    return f"{what}, {outcome_of(there)}."


def clean(text: str, *, keep: str = "") -> str:
    """The text without what a terminal would take for an order: such characters are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def console() -> Console:
    """Standard output, as wide as the terminal, or wide enough for tables in a pipe."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=wide, highlight=False, soft_wrap=False)


def styled(word: str) -> Text:
    """A state, or the grade of a check, in its color."""
    from rich.text import Text

    return Text(word, style=_STYLES.get(word, ""))


def cell(value: object) -> Text:
    """Something as the content of a cell; None is an empty one."""
    from rich.text import Text

    return value if isinstance(value, Text) else Text("" if value is None else clean(str(value)))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their headings; what is too long for a cell is folded, never lost."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    console().print(table)


def show_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and what they are, leaving out those that are nothing."""
    console().print(facts_table(facts))


def facts_table(facts: Iterable[tuple[str, object]]) -> Table:
    """Names and what they are, as two columns."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value not in (None, ""):
            table.add_row(name, cell(value))
    return table


def when(instant: datetime | None, now: datetime | None = None) -> str | None:
    """An instant in UTC, with how far it is from now."""
    if instant is None:
        return None
    away = (instant - (now or datetime.now(UTC))).total_seconds()
    far = span(abs(away))
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({f'in {far}' if away > 0 else f'{far} ago'})"


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])


def shortened(text: str) -> str:
    """The beginning of a text, short enough for a cell."""
    return text if len(text) <= excerpt_length_max else text[: excerpt_length_max - 1] + "…"


def value_text(raw: msgspec.Raw, headers: dict[str, Any] | None) -> str:
    """A payload as JSON text; one that a codec sealed is named, since nobody can read it here."""
    codec = (headers or {}).get("codec")
    return f"(sealed by the codec {codec!r})" if codec else bytes(raw).decode(errors="replace")


def error_of(promise: PromiseInfo) -> ErrorInfo | None:
    """What a promise failed with, if it did and can be read here."""
    from troth.codec import Payloads
    from troth.errors import UndecodablePayload
    from troth.model import ErrorInfo

    if promise.state not in ("rejected", "canceled"):
        return None
    try:
        return Payloads().open_error(promise.error, promise.headers)
    except UndecodablePayload:
        return ErrorInfo("sealed", value_text(promise.error, promise.headers))


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and what is counted, as one or as many."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def outcome_of(promise: PromiseInfo, *, whole: bool = False) -> str:
    """What a promise came to, in half a sentence: `resolved: true`. `whole` cuts no error short: its end says what to do."""
    if promise.state == "resolved":
        return f"resolved: {shortened(value_text(promise.value, promise.headers))}"
    error = error_of(promise)
    if error is not None:
        kind = "" if error.type.lower() in (promise.state, "canceled") else f"{error.type}: "
        message = error.message if whole else shortened(error.message)
        return f"{promise.state}: {kind}{message}"
    if promise.state == "pending" and promise.task is not None:
        return f"pending, its task {promise.task.state}"
    return promise.state
