"""Notes: which of a message's lines they are, and the one by which an exception that came back knows where it came from."""

from __future__ import annotations

from typing import cast

from troth import limits
from troth.model import ErrorInfo
from troth.remote.classes import known_class


class Remote(str):
    """The last note of an exception that came back: where it was raised, for tracebacks, and all that was stored of it."""

    __slots__ = ("error",)
    error: ErrorInfo

    @classmethod
    def of(cls, error: ErrorInfo, text: str) -> Remote:
        """Like the end of a traceback."""
        said = f"{error.type}: {bounded(text, limits.error_member_bytes_max)}"
        note = cls(f"Raised elsewhere:\n{error.traceback or ''}{said}")
        note.error = error
        return note


def origin(error: BaseException) -> ErrorInfo | None:
    """What an exception was rebuilt from, if it was."""
    for note in _notes(error):
        # notes can be copied to another exception, and splitting a group does so
        if isinstance(note, Remote) and known_class(note.error.type) is type(error):
            return note.error
    return None


def own_notes(error: BaseException) -> list[str]:
    """The notes that somebody wrote."""
    return [note for note in _notes(error) if isinstance(note, str) and not isinstance(note, Remote)]


def text_and_notes(error: ErrorInfo) -> tuple[str, list[str]]:
    """A stored message, parted into what the exception says of itself and the lines of its notes."""
    count = error.parts.notes if error.parts is not None else 0
    if count <= 0:
        return error.message, []
    text, *notes = error.message.rsplit("\n", count)
    return text, notes


def _notes(error: BaseException) -> list[object]:
    try:
        notes: object = getattr(error, "__notes__", None)
    except Exception:  # noqa: BLE001 — a class may do anything at all
        return []
    return cast("list[object]", notes) if isinstance(notes, list) else []


def bounded(text: str, bytes_max: int) -> str:
    """At most so many bytes of UTF-8, of characters that Postgres can store."""
    clean = text[:bytes_max].replace("\0", "\ufffd").encode(errors="replace")
    if len(text) <= bytes_max and len(clean) <= bytes_max:
        return clean.decode()
    mark = "…"
    return clean[: bytes_max - len(mark.encode())].decode(errors="ignore") + mark


def last_bounded(text: str | None, bytes_max: int) -> str | None:
    """The same, but of its end."""
    if text is None:
        return None
    clean = text[-bytes_max:].replace("\0", "\ufffd").encode(errors="replace")
    return clean[-bytes_max:].decode(errors="ignore")
