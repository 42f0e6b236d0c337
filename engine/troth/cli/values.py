"""How words of a command line are read: arguments, values, durations, tags.

The rule for a value is the same everywhere: it is JSON if it is valid JSON, and otherwise the text itself. So
`order=order-42` is a string, `n=3` a number, `n='"3"'` the string 3. JSON is passed on as it was written, so that no
number is changed on the way; the codec looks at it as at any payload.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from cyclopts import Parameter

from troth import limits
from troth.errors import InvalidArgument, InvalidPayload, PayloadTooLarge

STDIN: Final = "-"
STDIN_BYTES_MAX: Final = 4 * limits.payload_bytes_max
"""Beyond this nothing is read: JSON may be longer with blanks than without, but not for ever."""

_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")


def read_json(text: str) -> msgspec.Raw | None:
    """The text as JSON, or None if it is none."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    except RecursionError:
        pass  # too deep for anybody: the codec will say so
    return msgspec.Raw(text.encode())


def read_value(text: str) -> msgspec.Raw | str:
    """A value: JSON if it is valid JSON, otherwise the text itself; `-` is what stands on standard input."""
    return _said(_standard_input() if text == STDIN else text)


def _said(text: str) -> msgspec.Raw | str:
    found = read_json(text)
    return text if found is None else found


def _standard_input() -> str:
    data = sys.stdin.buffer.read(STDIN_BYTES_MAX + 1)
    if len(data) > STDIN_BYTES_MAX:
        raise PayloadTooLarge(
            f"Standard input is longer than {STDIN_BYTES_MAX} bytes.",
            hint="Store it elsewhere and pass a reference.",
        )
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise InvalidPayload(
            "Standard input is not UTF-8.", hint="Encode binary data, as base64 for one."
        ) from None


def read_arguments(words: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A workflow's arguments, positional and by name: words `name=value`, or one JSON object or array."""
    if len(words) == 1 and words[0].lstrip()[:1] in ("{", "["):
        return _whole(words[0])
    named: dict[str, Any] = {}
    for word in words:
        name, value = _named(word)
        if name in named:
            raise InvalidArgument(f"The argument {name!r} is given twice.", hint="Keep one.")
        named[name] = value
    return (), named


def _whole(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        if text.lstrip().startswith("["):
            return tuple(_POSITIONALS.decode(text)), {}
        named = _NAMED.decode(text)
        rest = named.pop("*", None)
        return (() if rest is None else tuple(_POSITIONALS.decode(rest))), named
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidArgument(
            f"The arguments are no JSON object or array: {error}.",
            hint="""Write '{"name": value}', '[value]', or name=value for each argument.""",
        ) from None


_NAMED: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_POSITIONALS: Final = msgspec.json.Decoder(list[msgspec.Raw])


def _named(word: str) -> tuple[str, msgspec.Raw | str]:
    name, sign, text = word.partition("=")
    forced = name.endswith(":")
    name = name.removesuffix(":")
    if not sign or not name.isidentifier():
        raise InvalidArgument(
            f"{word!r:.100} is no argument.",
            hint="Write name=value, name:=JSON, or one JSON object or array for all.",
        )
    if not forced:
        return name, _said(text)
    found = read_json(text)
    if found is None:
        raise InvalidArgument(
            f"The argument {name!r} is no JSON: {text!r:.100}.",
            hint=f"""Write {name}=text for a string, or {name}:='"text"'.""",
        )
    return name, found


def read_duration(text: str) -> timedelta:
    """A duration: `7d`, `1h30m`, `90s`, `250ms`, or a number of seconds such as `2.5`."""
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        seconds = float(text)
    elif re.fullmatch(f"(?:{_PART.pattern})+", text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        raise ValueError(f"{text!r:.40} is no duration; write 7d, 1h30m, 90s, 250ms, or seconds such as 2.5")
    longest = timedelta(days=limits.timeout_days_max)
    if seconds > longest.total_seconds():
        raise ValueError(f"{text!r:.40} is longer than {limits.timeout_days_max} days")
    return timedelta(seconds=seconds)


def _convert_duration(_: object, tokens: Sequence[Any]) -> timedelta:
    return read_duration(tokens[0].value)


Duration: TypeAlias = Annotated[
    timedelta, Parameter(converter=_convert_duration, n_tokens=1, metavar="DURATION")
]


def read_tags(words: Iterable[str]) -> dict[str, str] | None:
    """Tags as `key=value`; None if there are none."""
    tags: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise InvalidArgument(f"{word!r:.100} is no tag.", hint="Write --tag key=value.")
        tags[key] = value
    return tags or None
