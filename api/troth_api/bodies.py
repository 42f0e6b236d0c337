"""Request bodies: JSON read strictly, with the payloads inside kept as the text that was sent.

What cannot be stored and come back the same is refused here, before anything is asked of Postgres: invalid UTF-8,
half surrogate pairs, NUL, NaN, -0.0, one key twice, numbers that are short to write and endless to read, too much, too
deep.
Nothing else is changed: an integer of any length and a decimal of any precision pass as they were written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Annotated, Any, Final, Literal, TypeVar, cast

import msgspec
from litestar.dto import AbstractDTO, DTOFieldDefinition
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from troth import limits as payload_limits
from troth.errors import InvalidArgument, InvalidPayload, PayloadTooDeep, PayloadTooLarge
from troth.model import Sealed
from troth_api import limits

T = TypeVar("T", bound=msgspec.Struct)


class StartWorkflow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is started: `args` is an object (by name) or an array (by position); `delay` and `timeout` are in seconds.

    A workflow of the same function with the same `args` under the same `id` is attached to; with `on_conflict`
    "attach", any workflow under it.
    """

    id: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    queue: str | None = None
    delay: float | None = None
    timeout: float | None = None
    priority: Annotated[int, msgspec.Meta(ge=-32768, le=32767)] | None = None
    tags: dict[str, str] | None = None
    on_conflict: Literal["error", "attach"] = "error"


class CreatePromise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A latent promise: with `default` it is resolved with that once `timeout` (seconds) has passed."""

    id: str
    timeout: float | None = None
    default: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    tags: dict[str, str] | None = None
    title: str | None = None


class Resolve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value to resolve with: any JSON, `null` too."""

    value: msgspec.Raw


class RejectError(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An error as it is stored."""

    message: str
    type: str = "Rejected"
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Reject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why it is rejected: an `error`, or a `reason` in words, which is an error of type "Rejected"."""

    error: RejectError | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why it is canceled, in words; `force` ends a workflow without asking its code."""

    reason: str | None = None
    force: bool = False


class Fork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `id` of the new workflow, and the first operation of the journal that it does not take along.

    Without `before` it takes all. `version` is that of the code that it runs with, if another than the original's.
    """

    id: str
    before: str | None = None
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    reason: str | None = None


class SettleStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a step brought: its `value` (any JSON), or the `error` that it failed with; `reason` says why you decide so."""

    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: RejectError | msgspec.UnsetType = msgspec.UNSET
    reason: str | None = None


class StrictJson(AbstractDTO[T]):
    """Reads a handler's `data` with `read_json`, and shows its type in the OpenAPI document."""

    def decode_bytes(self, value: bytes) -> Any:
        return read_json(value, self.model_type)

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, backend_cls: Any = None
    ) -> None:
        """Nothing is generated: the type is read as it is."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        del field_definition, handler_id
        schema: Reference | Schema = schema_creator.for_field_definition(
            FieldDefinition.from_annotation(cls.model_type)
        )
        return schema

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        del model_type
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        del field_definition
        return False


def read_json(body: bytes, type_: type[T]) -> T:
    """A body as a value of `type_`. Raises `InvalidPayload`, `PayloadTooDeep`, `PayloadTooLarge`, `InvalidArgument`."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidPayload(f"The body is not UTF-8 (at byte {error.start}).") from None
    _refuse_depth(text)
    _refuse_what_jsonb_cannot_hold(text)
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        raise InvalidArgument(
            f"The body does not fit: {error}.", hint="/schema shows what is expected."
        ) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidPayload(f"The body is not JSON: {error}.") from None


def sealed(raw: msgspec.Raw, what: str) -> Sealed:
    """A payload of a body, as it is stored. Raises `PayloadTooLarge`."""
    data = bytes(raw)
    most = payload_limits.payload_bytes_max
    if len(data) > most:
        raise PayloadTooLarge(
            f"{what} is {len(data)} bytes as JSON; at most {most} are stored.",
            hint="Store it elsewhere and pass a reference.",
        )
    return Sealed(data)


_STRING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS: Final = re.compile(r"[^\[\]{}]+")
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SURROGATE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u[dD][89abAB]")
_MINUS_ZERO: Final = re.compile(r"-0(?:\.0*)?(?:[eE].*)?")
_EXPONENT: Final = re.compile(r"[eE]([-+]?\d+)")


def _refuse_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= limits.body_depth_max:
        return
    depth = 0
    for bracket in _NOT_BRACKETS.sub("", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > limits.body_depth_max:
            raise PayloadTooDeep(
                f"The body nests lists and objects deeper than {limits.body_depth_max} levels.",
                hint="Flatten it, or store it elsewhere and pass a reference to it.",
            )


def _refuse_what_jsonb_cannot_hold(text: str) -> None:
    if _NUL.search(text):
        raise InvalidPayload(
            "The body holds a NUL (\\u0000), which Postgres cannot store.", hint="Remove it."
        )
    reader = _Reader()
    try:
        read = reader.read(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidPayload(f"The body is not JSON: {error}.") from None
    if len(text) + reader.digits > limits.body_bytes_max:
        raise PayloadTooLarge(
            f"The body's numbers have {reader.digits} digits once written out, beyond {limits.body_bytes_max} bytes.",
            hint="Write such a number as a string.",
        )
    if _SURROGATE.search(text):
        try:
            json.dumps(read, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InvalidPayload(
                "The body holds half a surrogate pair, which is no character.", hint="Mend the string."
            ) from None


class _Reader:
    """Reads JSON for its faults. Numbers stay text; `digits` counts what their exponents stand for."""

    def __init__(self) -> None:
        self.digits = 0

    def read(self, text: str) -> object:
        decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_float=self._number,
            parse_int=self._number if "-0" in text else str,
            parse_constant=self._constant,
        )
        return decoder.decode(text)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        read = dict(pairs)
        if len(read) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidPayload(
                f"The body has one object that says {twice[:100]!r} twice.", hint="Keep one."
            )
        return read

    def _number(self, text: str) -> str:
        if text.startswith("-0") and _MINUS_ZERO.fullmatch(text):
            raise InvalidPayload(
                f"The body holds {text[:40]}, whose sign Postgres would lose.", hint="Write 0."
            )
        exponent = _EXPONENT.search(text)
        if exponent is not None:
            self.digits += abs(int(exponent[1][:20]))
        return text

    def _constant(self, name: str) -> object:
        raise InvalidPayload(f"The body holds {name}, for which JSON has no word.", hint="Use null.")


def text_of_error(body: Reject) -> msgspec.Raw:
    """The error payload of a rejection, as clients in Python write it. Raises `InvalidArgument`."""
    if (body.error is msgspec.UNSET) == (body.reason is msgspec.UNSET):
        raise InvalidArgument(
            'A rejection takes either "error" or "reason".',
            hint='For example {"reason": "why not"}, or {"error": {"type": "TooDear", "message": "why not"}}.',
        )
    return _raw(body.error if isinstance(body.error, RejectError) else RejectError(cast("str", body.reason)))


def outcome_of(body: SettleStep) -> tuple[Sealed | None, Sealed | None]:
    """The value or the error that a step is settled with, as it is stored. Raises `InvalidArgument`."""
    match body.value, body.error:
        case msgspec.Raw() as value, msgspec.UnsetType():
            return sealed(value, "The value"), None
        case msgspec.UnsetType(), RejectError() as error:
            return None, sealed(_raw(error), "The error")
        case _:
            raise InvalidArgument(
                'A step has either "value" or "error".',
                hint='For example {"value": 7}, or {"error": {"type": "TooDear", "message": "why"}}.',
            )


def _raw(error: RejectError) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({"type": error.type, "message": error.message} | _data(error)))


def _data(error: RejectError) -> dict[str, object]:
    return {} if error.data is msgspec.UNSET else {"data": error.data}
