"""From an exception to what is stored of it: bounded, and never failing."""

from __future__ import annotations

import traceback
from typing import Any, Final, NamedTuple

from troth import limits
from troth.errors import ErrorDetails, StoredError
from troth.model import ErrorInfo, ErrorParts
from troth.remote.classes import type_name
from troth.remote.notes import bounded, last_bounded, origin, own_notes, text_and_notes
from troth.remote.parts import json_bytes, members_of, parts_bytes_max, plain_parts

members_max: Final = 32
"""Members of groups, and the causes of members, in one description."""


class _Scale(NamedTuple):
    message_bytes: int
    traceback_bytes: int
    parts_bytes: int


_WHOLE: Final = _Scale(limits.error_message_bytes_max, limits.error_traceback_bytes_max, parts_bytes_max)
_MEMBER: Final = _Scale(limits.error_member_bytes_max, 2 * 1024, 2 * 1024)


def describe_error(error: BaseException) -> ErrorInfo:
    """What is stored of an exception: bounded, and never failing, whatever the exception is like."""
    return _Describing().of(error, limits.error_causes_max, _WHOLE)


def text_of(error: BaseException) -> str:
    """What an exception says of itself, even if it cannot."""
    try:
        text = str(error)
        return str.__str__(text)
    except Exception as broken:  # noqa: BLE001 — an error about an error helps nobody
        return f"<its message could not be made: {type(broken).__qualname__}>"


class _Describing:
    """One description under way: what it has told already, and how many members it may still tell of."""

    def __init__(self) -> None:
        self._told: set[int] = set()
        self._members_left = members_max

    def of(self, error: BaseException, causes_left: int, scale: _Scale) -> ErrorInfo:
        self._told.add(id(error))
        if type(error) is StoredError:
            return self._fitted(error.error, causes_left, scale)  # it only stands for what was stored
        came = origin(error)
        # a group may have been split since, and then counts others
        whole = came if members_of(error) is None else None
        text = text_of(error) if whole is None else text_and_notes(whole)[0]
        message = bounded("\n".join([text, *own_notes(error)]), scale.message_bytes)
        args, attributes = plain_parts(error, text, scale.parts_bytes)
        members = self._members(error, causes_left)
        parts = ErrorParts(args, attributes, message.count("\n", len(text)), members)
        return ErrorInfo(
            type=_type(type(error)) if came is None else came.type,
            message=message,
            data=_members_in_short(error) if whole is None else whole.data,
            traceback=last_bounded((came and came.traceback) or _frames(error), scale.traceback_bytes),
            cause=self._cause(error, causes_left, scale),
            parts=None if parts == ErrorParts() else parts,
        )

    def _cause(self, error: BaseException, causes_left: int, scale: _Scale) -> ErrorInfo | None:
        if isinstance(error, StoredError):
            stored = error.error
            return self._fitted(stored, causes_left - 1, scale) if self._may(causes_left, scale) else None
        below = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if below is None or id(below) in self._told or not self._may(causes_left, scale):
            return None
        return self.of(below, causes_left - 1, scale)

    def _members(self, error: BaseException, causes_left: int) -> list[ErrorInfo]:
        members = members_of(error) or ()
        return [
            self.of(each, causes_left - 1, _MEMBER) for each in members if self._may(causes_left, _MEMBER)
        ]

    def _fitted(self, error: ErrorDetails, causes_left: int, scale: _Scale) -> ErrorInfo:
        """What was stored before, within the bounds of this description."""
        cause = error.cause
        parts = error.parts if isinstance(error, ErrorInfo) else None
        if parts is not None:
            members = [
                self._fitted(each, causes_left - 1, _MEMBER)
                for each in parts.members
                if self._may(causes_left, _MEMBER)
            ]
            fits = json_bytes([parts.args, parts.attributes]) <= scale.parts_bytes
            args, attributes = (parts.args, parts.attributes) if fits else (None, {})
            parts = ErrorParts(args, attributes, parts.notes, members)
        return ErrorInfo(
            error.type,
            bounded(error.message, scale.message_bytes),
            error.data,
            last_bounded(error.traceback, scale.traceback_bytes),
            self._fitted(cause, causes_left - 1, scale) if cause and self._may(causes_left, scale) else None,
            parts,
        )

    def _may(self, causes_left: int, scale: _Scale) -> bool:
        """Whether one more may be told of, below one with so many causes left; if so, it counts."""
        if causes_left <= 0 or (scale is _MEMBER and self._members_left <= 0):
            return False
        self._members_left -= scale is _MEMBER
        return True


def _members_in_short(error: BaseException) -> Any:
    """The members of a group for people and programs that look at the data."""
    members = members_of(error)
    if members is None:
        return None
    most = limits.error_member_bytes_max
    return {
        "exceptions": [
            {
                "type": _type(type(each)),
                "message": bounded("\n".join([text_of(each), *own_notes(each)]), most),
            }
            for each in members[: limits.error_causes_max]
        ]
    }


def _frames(error: BaseException) -> str | None:
    """The last frames of the traceback. Only places in code: messages stand elsewhere, bounded."""
    return "".join(traceback.format_tb(error.__traceback__, limit=-limits.error_frames_max)) or None


def _type(cls: type) -> str:
    return bounded(type_name(cls), limits.error_type_length_max)
