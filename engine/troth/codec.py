"""Payloads: from values to JSON text and back, so that what is stored is what was said.

Two things live here. The first, `encode` and `decode`, is JSON under one law: **a value that was accepted reads the
same live and after any number of trips through Postgres**, or it is refused before anything is written. So

- NUL and lone surrogates are refused (jsonb cannot hold them), NaN and Infinity (JSON has no word for them), -0.0
  (jsonb forgets its sign), two keys that become one;
- a float is written with all its digits and a `.0` (jsonb prints 1e16 back as an integer), an integer of any length
  as itself;
- sets are sorted, and keys stand in the order in which jsonb will give them back (shortest first, then by bytes), so
  that a loop over a dict or a set does the same when it is replayed in another process.

The second, `Payloads`, lets a user's `Codec` compress or encrypt that text. It marks what it sealed in the headers;
plain values stay legal beside it. Nothing is ever pickled.

Types are those of msgspec; pydantic models are told by their methods, and pydantic is never imported from here.
This file knows nothing of promises or of Postgres drivers.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar, cast

import msgspec
import msgspec.inspect
from typing_extensions import TypeForm

from troth import limits
from troth.errors import (
    InvalidArgument,
    InvalidPayload,
    PayloadTooDeep,
    PayloadTooLarge,
    TrothError,
    UndecodablePayload,
    ValueMismatch,
)
from troth.model import Codec, ErrorInfo, Sealed
from troth.remote import describe_error, text_of

__all__ = [
    "Codec",
    "Headers",
    "Json",
    "Payloads",
    "Sealed",
    "decode",
    "describe_error",
    "encode",
    "excerpt",
    "only_scalars",
    "type_name",
]

T = TypeVar("T")
Json = bytes | str | msgspec.Raw | None
"""JSON text as the drivers give it; None is SQL null, which is JSON null."""
Headers = Mapping[str, Any] | Json


def encode(
    value: object, what: str = "The value", max_bytes: int = limits.payload_bytes_max, *, ordered: bool = True
) -> bytes:
    """The canonical JSON text of a value; with `ordered=False` its keys stand as they come, for who orders them himself.

    Raises `InvalidPayload`, `PayloadTooLarge` or `PayloadTooDeep`, each naming `what` and, where it can, the place.
    """
    try:
        return _canonical(value, what, max_bytes, ordered)
    except TrothError:
        raise
    except RecursionError:
        raise _too_deep(what) from None
    except UnicodeEncodeError:
        fault = "holds half a surrogate pair, which is no character"
        raise _invalid(value, what, _has_surrogate, fault, "mend the string") from None
    except TypeError as error:
        fault, advice = f"cannot be written as JSON: {_one_line(error)}", f"use {_TYPES}"
        raise _invalid(value, what, _is_unencodable, fault, advice) from error
    except Exception as error:  # a user's own serializer, or an integer of more digits than Python will print
        raise InvalidPayload(f"{what} cannot be written as JSON: {_one_line(error)}.") from error


def decode(raw: Json, type_: TypeForm[T], what: str = "The value") -> T:
    """The value of type `type_` that JSON text says, read strictly: `"yes"` and `1` are no bool.

    Raises `ValueMismatch` when the text does not fit the type, `InvalidArgument` when no text ever could.
    """
    of_type = reader(type_)
    try:
        return cast(T, of_type.decode(b"null" if raw is None else raw))
    except RecursionError:
        raise _too_deep(what) from None
    except Exception as error:  # whatever a user's own type raises while it is built is a misfit too
        raise ValueMismatch(what, type_name(type_), excerpt(raw), _one_line(error)) from error


def type_name(type_: object) -> str:
    """A type as a person would write it."""
    if isinstance(type_, type) and not hasattr(type_, "__args__"):
        return type_.__qualname__
    return re.sub(r"\btyping(?:_extensions)?\.", "", str(type_))


def excerpt(raw: Json) -> str:
    """The beginning of some JSON text, short enough for a message."""
    text = _as_bytes(raw).decode(errors="replace")
    most = limits.excerpt_length_max
    return text if len(text) <= most else text[: most - 1] + "…"


_TYPES: Final = "builtins, dataclasses, enums, Literal, unions, msgspec or pydantic models"

# Encoding. Everything runs at the speed of C over the whole text; Python looks closer only where something is odd.


def _canonical(value: object, what: str, max_bytes: int, ordered: bool) -> bytes:
    kind = type(value)
    if kind in _SCALARS or (kind in (list, tuple) and only_scalars(cast("list[object]", value))):
        text = _ENCODER.encode(value)
        _refuse_size(text, what, max_bytes)
        if b"\\u0000" not in text:
            return (
                text  # nothing else can be odd about these: a third of the time, for what is said most often
            )
    try:
        text = _ENCODER.encode(value)
    except TypeError:
        text = _text_of_odd_keys(value, what)
    _refuse_size(text, what, max_bytes)
    _refuse_depth(text, what)
    if b"null" in text and value is not None:
        _refuse_not_finite(value, what)
    if b"\\u0000" in text and _NUL.search(text):
        raise _invalid(value, what, _has_nul, "holds a NUL, which Postgres cannot store", "remove it")
    text = _with_ordered_keys(text, what, ordered)
    if _ODD_NUMBER.search(text):
        if _MINUS_ZERO.search(_STRING.sub(b'""', text)):
            raise _invalid(value, what, _is_minus_zero, "holds -0.0, whose sign is lost", "add 0.0 to it")
        text = _NUMBER_OR_STRING.sub(_positional, text)
        _refuse_size(text, what, max_bytes)
    return text


def only_scalars(values: Sequence[object]) -> bool:
    """Whether there are no floats, nothing nested and nothing of a user's own among these."""
    return _SCALARS.issuperset(map(type, values))


def _text_of_odd_keys(value: object, what: str) -> bytes:
    """The text of a value that has keys other than strings: two of them may become one (1 and "1")."""
    _read_pairs(_UNORDERED.encode(value), what)
    named = msgspec.to_builtins(value, enc_hook=_to_builtin, order="deterministic", str_keys=True)
    _refuse_not_finite(value, what)
    return _ENCODER.encode(named)


def _to_builtin(value: Any) -> Any:
    """What msgspec does not know by itself: pydantic models, and subclasses of str, int and float."""
    if _is_pydantic(value):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"{type(value).__qualname__} has no JSON form")


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_to_builtin, order="deterministic")
_UNORDERED: Final = msgspec.json.Encoder(enc_hook=_to_builtin)
_UNTYPED: Final = msgspec.json.Decoder()


def _refuse_size(text: bytes, what: str, max_bytes: int) -> None:
    if len(text) > max_bytes:
        raise PayloadTooLarge(
            f"{what}: {len(text)} bytes as JSON, and at most {max_bytes} are stored."
            " Store it elsewhere and pass a reference."
        )


def _refuse_depth(text: bytes, what: str) -> None:
    most = limits.payload_depth_max
    if len(text) <= most or text.count(b"[") + text.count(b"{") <= most:
        return
    # Only the brackets, all of one kind; each round takes away the innermost pairs, so rounds count the depth.
    nest = _STRING.sub(b"", text).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(limits.payload_depth_max):
        nest = nest.replace(b"[]", b"")
        if not nest:
            return
    raise _too_deep(what)


def _refuse_not_finite(value: object, what: str) -> None:
    """NaN and Infinity, which msgspec would write as null. json refuses them, anywhere, at the speed of C."""
    tree = msgspec.to_builtins(value, enc_hook=_to_builtin)
    try:
        json.dumps(tree, allow_nan=False, check_circular=False)
    except ValueError:
        raise _invalid(value, what, _is_not_finite, "holds a float that is not finite", "use None") from None


def _with_ordered_keys(text: bytes, what: str, ordered: bool) -> bytes:
    """The text with each object's keys as jsonb orders them, if that is wanted.

    Whatever does not read back to itself (raw JSON of a user's own, a key said twice) is looked at closely.
    """
    try:
        same = _ENCODER.encode(_UNTYPED.decode(text)) == text
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidPayload(f"{what} has raw JSON in it that cannot be read: {_one_line(error)}.") from error
    if same and (not ordered or text.count(b'":') <= 1):
        return text
    return _UNORDERED.encode(_read_pairs(text, what))


def _read_pairs(text: bytes, what: str) -> Any:
    try:
        return _PAIRS.decode(text.decode())
    except _KeyTwice as twice:
        raise InvalidPayload(
            f"{what} has two keys that are both {twice.args[0]!r} as JSON; keep one."
        ) from None


class _KeyTwice(Exception):
    """One object says one key twice."""


def _in_jsonb_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > 1:
        pairs.sort(key=_jsonb_rank)
    ordered = dict(pairs)
    if len(ordered) != len(pairs):
        raise _KeyTwice(next(a for (a, _), (b, _) in itertools.pairwise(pairs) if a == b))
    return ordered


def _jsonb_rank(pair: tuple[str, Any]) -> tuple[int, bytes]:
    key = pair[0].encode()
    return len(key), key


_PAIRS: Final = json.JSONDecoder(object_pairs_hook=_in_jsonb_order)

_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SCALARS: Final = frozenset({int, str, bool, type(None)})
_ODD_NUMBER: Final = re.compile(rb"(?:^|[\[,:])-?(?:0\.0|\d[\d.]*e)")
_MINUS_ZERO: Final = re.compile(rb"(?:^|[\[,:])-0\.0(?:[,\]}]|$)")
_NUMBER_OR_STRING: Final = re.compile(_STRING.pattern + rb"|-?\d[\d.]*e[-+]?\d+")
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def _positional(token: re.Match[bytes]) -> bytes:
    """A number such as 1e16 with all its digits, still a float to whoever reads it."""
    found = token[0]
    if found.startswith(b'"'):
        return found
    digits = format(Decimal(found.decode()), "f")
    return (digits if "." in digits else digits + ".0").encode()


# Refusals say where. These walk the value as it was given, and only once it is refused.


def _too_deep(what: str) -> PayloadTooDeep:
    return PayloadTooDeep(
        f"{what} nests deeper than {limits.payload_depth_max} levels, or contains itself."
        " Flatten it, or store it elsewhere and pass a reference."
    )


def _invalid(
    value: object, what: str, is_bad: Callable[[object], bool], fault: str, advice: str
) -> InvalidPayload:
    place = _place(value, is_bad)
    return InvalidPayload(f"{what} {fault}{f' (at {place})' if place else ''}; {advice}.")


def _place(value: object, is_bad: Callable[[object], bool]) -> str | None:
    """Where the first bad part of a value stands: `$.items[3]`."""
    ahead: list[tuple[str, object]] = [("$", value)]
    seen: set[int] = set()
    while ahead:
        path, part = ahead.pop()
        if is_bad(part):
            return path
        if id(part) not in seen:
            seen.add(id(part))
            ahead.extend(reversed([(path + step, inner) for step, inner in _parts(part)]))
    return None


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[object, object]", value).items():
            yield f".{key!s:.40}" if isinstance(key, str) and key.isidentifier() else f"[{key!r:.40}]", inner
            yield f"[key {key!r:.40}]", key
    elif isinstance(value, list | tuple | set | frozenset):
        for at, inner in enumerate(cast("list[object]", value)):
            yield f"[{at}]", inner
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield f".{name}", getattr(value, name)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name, None)
    elif _is_pydantic(value):
        for name, inner in vars(value).items():
            yield f".{name}", inner


def _has_nul(part: object) -> bool:
    return isinstance(part, str) and "\0" in part


def _has_surrogate(part: object) -> bool:
    return isinstance(part, str) and any("\ud800" <= character <= "\udfff" for character in part)


def _is_not_finite(part: object) -> bool:
    return isinstance(part, float) and not math.isfinite(part)


def _is_minus_zero(part: object) -> bool:
    return isinstance(part, float) and not part and math.copysign(1, part) < 0


def _is_unencodable(part: object) -> bool:
    if next(_parts(part), None) is not None:
        return False
    with contextlib.suppress(ValueError):  # which its own error tells
        try:
            _UNORDERED.encode(part)
        except TypeError:
            return True
    return False


# Decoding.


def reader(type_: object) -> msgspec.json.Decoder[Any]:
    """What reads JSON text as a `type_`, strictly. Raises `InvalidArgument` when no text ever could be one."""
    try:
        return _cached_reader(type_)
    except TypeError:  # a form that cannot be hashed, such as an Annotated with a list in it
        return _new_reader(type_)


def _new_reader(type_: Any) -> msgspec.json.Decoder[Any]:
    try:
        strangers = {type_name(cls) for cls in _custom_classes(msgspec.inspect.type_info(type_))}
        if not strangers:
            return msgspec.json.Decoder(type_, dec_hook=_from_builtin, strict=True)
        reason = f"{', '.join(sorted(strangers))} cannot be read from JSON"
    except Exception as error:  # noqa: BLE001 — annotations of a user fail in their own ways
        reason = _one_line(error)
    raise InvalidArgument(f"The type {type_name(type_)} fits no payload: {reason}. Use {_TYPES}.")


_cached_reader: Final = functools.lru_cache(maxsize=limits.decoders_cached_max)(_new_reader)


def _custom_classes(info: object) -> Iterator[type]:
    """The classes within a type that neither msgspec nor our hook can build."""
    ahead, seen = [info], set[int]()
    while ahead:
        part = ahead.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, msgspec.inspect.CustomType):
            if part.cls is not object and not _is_pydantic(part.cls):
                yield part.cls
        elif isinstance(part, msgspec.Struct):
            ahead.extend(getattr(part, name) for name in part.__struct_fields__)
        elif isinstance(part, tuple):
            ahead.extend(cast("tuple[object, ...]", part))


def _from_builtin(type_: Any, value: Any) -> Any:
    if type_ is object:
        return value
    return type_.model_validate_json(_UNORDERED.encode(value))


def _is_pydantic(thing: object) -> bool:
    """Whether a class, or the class of a value, is a pydantic model, told by the two methods that are used."""
    cls: object = thing if isinstance(thing, type) else type(thing)
    return callable(getattr(cls, "model_validate_json", None)) and callable(getattr(cls, "model_dump", None))


_LINK: Final = re.compile(r"For further information visit \S+")  # of pydantic


def _one_line(error: BaseException) -> str:
    return " ".join(_LINK.sub("", text_of(error)).split())[:500].rstrip(".")


# Payload codecs.


@dataclasses.dataclass(frozen=True, slots=True)
class Payloads:
    """Seals values for the wire and opens what comes back, through the codec that the program configured, if any."""

    codec: Codec | None = None
    max_bytes: int = limits.payload_bytes_max

    def seal(self, value: object, what: str = "The value") -> Sealed:
        """Encode a value, and let the codec have it. Raises as `encode` does."""
        return self.seal_plain(encode(value, what, self.max_bytes), what)

    def seal_plain(self, plain: bytes, what: str = "The value") -> Sealed:
        """The same for a value that was encoded already."""
        if self.codec is None:
            return Sealed(plain)
        data = b'"' + base64.b64encode(self.codec.encode(plain)) + b'"'
        _refuse_size(data, f"{what}, sealed by the codec {self.codec.name!r},", self.max_bytes)
        headers = _ENCODER.encode({"codec": self.codec.name})
        return Sealed(data, headers, self.codec.digest(plain))

    def seal_error(self, error: BaseException | ErrorInfo, what: str = "The error") -> Sealed:
        """Encode an exception. It always fits: what is too much of it is left out."""
        full = error if isinstance(error, ErrorInfo) else describe_error(error)
        for each in (full, full.without_data(), ErrorInfo(full.type, full.message)):
            try:
                return self.seal(each, what)
            except (InvalidPayload, PayloadTooLarge, PayloadTooDeep):
                continue
        return self.seal(ErrorInfo(full.type, "its description cannot be stored"), what)

    def open(self, raw: Json, headers: Headers, type_: TypeForm[T], what: str = "The value") -> T:
        """Read what was stored as a value of `type_`. Raises `UndecodablePayload` or `ValueMismatch`."""
        if headers is None:
            return decode(raw, type_, what)
        name = _codec_name(headers)
        plain = self.plain(raw, headers, what)
        try:
            return decode(plain, type_, what)
        except ValueMismatch:
            if name is None:
                raise
        # What a codec hid must not show in a message, nor hang behind it as its cause.
        raise ValueMismatch(what, type_name(type_), f"a value sealed by the codec {name!r}")

    def plain(self, raw: Json, headers: Headers, what: str = "The value") -> bytes:
        """The plain JSON text of what was stored. Raises `UndecodablePayload`."""
        name = _codec_name(headers)
        if name is None:
            return _as_bytes(raw)
        if self.codec is None or self.codec.name != name:
            have = f"the one configured is {self.codec.name!r}" if self.codec else "none is configured"
            raise UndecodablePayload(what, name, have)
        try:
            return self.codec.decode(base64.b64decode(decode(raw, str, what), validate=True))
        except Exception as error:
            raise UndecodablePayload(what, name, f"it failed with {type(error).__qualname__}") from error

    def open_error(self, raw: Json, headers: Headers, what: str = "The error") -> ErrorInfo:
        """Read what a promise was rejected with; whoever rejects by hand may have written any JSON."""
        plain = self.plain(raw, headers, what)
        try:
            return decode(plain, ErrorInfo, what)
        except ValueMismatch:
            data = decode(plain, object, what)
        message = data if isinstance(data, str) else "no reason was given" if data is None else excerpt(plain)
        return ErrorInfo("Rejected", message, data)


def _codec_name(headers: Headers) -> str | None:
    if headers is None:
        return None
    known = headers if isinstance(headers, Mapping) else decode(headers, dict[str, Any] | None, "The headers")
    name = (known or {}).get("codec")
    return None if name is None else str(name)


def _as_bytes(raw: Json) -> bytes:
    return b"null" if raw is None else raw.encode() if isinstance(raw, str) else bytes(raw)
