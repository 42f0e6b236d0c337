"""Payloads: what was accepted reads the same live and after a trip through Postgres, or it was refused."""

import base64
import collections
import contextlib
import dataclasses
import datetime as dt
import enum
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import psycopg
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from troth import limits
from troth.codec import Payloads, Sealed, decode, encode, excerpt, type_name
from troth.context.reading import digest_of, digest_operation
from troth.errors import (
    InvalidArgument,
    InvalidPayload,
    PayloadTooDeep,
    PayloadTooLarge,
    TrothError,
    UndecodablePayload,
    ValueMismatch,
)
from troth.model import ErrorInfo

HERE = Path(__file__).parent


class Colour(enum.Enum):
    RED = "red"


class Odd(enum.Enum):
    NAN = float("nan")


@dataclasses.dataclass
class Order:
    id: str
    price: float = 1.0
    tags: set[str] = dataclasses.field(default_factory=set)


class Line(msgspec.Struct):
    sku: str
    counts: dict[int, int] = {}


class Model(pydantic.BaseModel):
    at: dt.datetime
    price: float = 1.0
    by: dict[str, int] = {}


class Aliased(pydantic.BaseModel):
    from_: str = pydantic.Field(alias="from")


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict, total=False):
    fast: bool


class Opaque:
    pass


class Name(str):
    __slots__ = ()


class Ratio(float):
    pass


class Count(int):
    pass


def nested(depth: int, around: Any = 0) -> Any:
    for _ in range(depth):
        around = [around]
    return around


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types and orders all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


# S64, S65: a trip through Postgres

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.floats(1e15, 1e25)
    | st.sampled_from([1e16, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, -0.0, 2.0**53, 1e15, 1e17])
    | NAMES
    | st.text(max_size=5)
    | st.sampled_from(["a,1e5", "[-0.0]", ":1e5,", "null", '"', "\\u0000", "\\", '":', "{[", "\x1f\x7f"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)


@pytest.fixture(scope="module")
def through_jsonb(postgres: Any) -> Any:
    with postgres.clone() as dsn, psycopg.connect(dsn, autocommit=True) as connection:

        def travel(text: bytes) -> bytes:
            row = connection.execute("select (%s::text)::jsonb::text", [text.decode()]).fetchone()
            assert row is not None
            back = row[0]
            assert isinstance(back, str)
            return back.encode()

        yield travel


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON)
def test_s65_accepted_values_are_the_same_live_and_stored(
    through_jsonb: Callable[[bytes], bytes], value: Any
) -> None:
    try:
        text = encode(value)
    except InvalidPayload:
        assert has_what_is_refused(value)
        return
    assert not has_what_is_refused(value)
    live, stored = decode(text, Any), decode(through_jsonb(text), Any)
    assert same(live, stored), (live, stored)
    assert live == value
    assert encode(live) == text
    assert encode(stored) == text


def has_what_is_refused(value: Any) -> bool:
    match value:
        case dict():
            return any(has_what_is_refused(part) for pair in value.items() for part in pair)
        case list():
            return any(map(has_what_is_refused, value))
        case float():
            return not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0)
        case str():
            return "\0" in value or any("\ud800" <= each <= "\udfff" for each in value)
        case _:
            return False


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.floats(allow_nan=False, allow_infinity=False).filter(bool))
def test_s65_every_float_comes_back_exactly(through_jsonb: Callable[[bytes], bytes], value: float) -> None:
    back = decode(through_jsonb(encode(value)), Any)
    assert type(back) is float
    assert back == value


def test_s65_keys_stand_as_jsonb_will_have_them(through_jsonb: Callable[[bytes], bytes]) -> None:
    value = {"bb": 1, "é": 2, "a": {"zz": 1, "y": 2}, "€": 1, "aaa": 1, "zz": 1, "": 0}
    text = encode(value)
    assert (
        list(decode(text, Any))
        == list(decode(through_jsonb(text), Any))
        == ["", "a", "bb", "zz", "é", "aaa", "€"]
    )


# What is refused


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "around",
    [
        lambda x: x,
        lambda x: [x],
        lambda x: {"a": [None, {"b": x}]},
        lambda x: (1, x),
        lambda x: Order("a", x),
        lambda x: [Order("a"), {"o": Order("b", x)}],
        lambda x: Model(at=dt.datetime.now(dt.UTC), price=x),
        lambda x: [None, Ratio(x)],
        lambda x: {1: x},
        lambda x: {x: 1},
        lambda x: {"a": {1.5: 1, x: 2}},
        lambda x: collections.OrderedDict(a=x),
        lambda x: {x},
        lambda x: collections.defaultdict(list, a=[x]),
    ],
)
def test_s65_not_finite_is_refused_wherever_it_hides(number: float, around: Callable[[float], Any]) -> None:
    with pytest.raises(InvalidPayload, match="not finite"):
        encode(around(number))


def test_s65_an_enum_of_nan_is_refused() -> None:
    with pytest.raises(InvalidPayload, match="not finite"):
        encode([Odd.NAN])


def test_null_is_no_nan() -> None:
    assert encode([None, "null", {"null": None}]) == b'[null,"null",{"null":null}]'
    assert encode(None) == b"null"
    assert encode({1: None}) == b'{"1":null}'


@pytest.mark.parametrize("value", [-0.0, [1, -0.0], {"a": -0.0}, Order("a", -0.0), [-0.0, 1e99]])
def test_s65_minus_zero_is_refused(value: object) -> None:
    with pytest.raises(InvalidPayload, match=r"-0\.0"):
        encode(value)


def test_what_looks_like_minus_zero_is_kept() -> None:
    assert encode([-0.5, "-0.0", ",-0.0,", 0.0, "1e5", ",1e5"]) == b'[-0.5,"-0.0",",-0.0,",0.0,"1e5",",1e5"]'
    assert encode([1e16, ",-0.0,", ",1e5"]) == b'[10000000000000000.0,",-0.0,",",1e5"]'


@pytest.mark.parametrize(
    "value", ["\0", "a\0b", ["x", "\0"], {"\0": 1}, {"a": {"b\0": 1}}, "\\\0", Order("\0")]
)
def test_s64_nul_is_refused(value: object) -> None:
    with pytest.raises(InvalidPayload, match="NUL"):
        encode(value)


@pytest.mark.parametrize("value", ["\\u0000", "\\\\u0000", "x\\u0000y"])
def test_s64_text_that_speaks_of_nul_is_kept(value: str) -> None:
    assert decode(encode(value), str) == value


@pytest.mark.parametrize("value", ["\ud800", ["a", "\udfff"], {"\ud800": 1}, Order("\ud834")])
def test_s64_lone_surrogates_are_refused(value: object) -> None:
    with pytest.raises(InvalidPayload, match="surrogate"):
        encode(value)


def test_characters_beyond_the_basic_plane_are_kept() -> None:
    assert decode(encode("𝄞 🦊"), str) == "𝄞 🦊"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (math.nan, "$"),
        ({"a": [1, {"price": math.inf}]}, "$.a[1].price"),
        ({"not an identifier": -0.0}, "$['not an identifier']"),
        ([Order("x", math.nan)], "$[0].price"),
        ({"a": ("\0",)}, "$.a[0]"),
        ({"a": {"k\0": 1}}, "$.a[key 'k\\x00']"),
        ({"a": Line("\ud800")}, "$.a.sku"),
        ({"a": [0, Opaque()]}, "$.a[1]"),
        (Model(at=dt.datetime.now(dt.UTC), price=math.nan), "$.price"),
    ],
)
def test_a_refusal_says_where(value: object, place: str) -> None:
    with pytest.raises(InvalidPayload, match=re.escape(f"(at {place})")):
        encode(value, "The result of step 'pay'")


def test_a_refusal_says_what() -> None:
    with pytest.raises(InvalidPayload, match=r"^The result of step 'pay' holds"):
        encode(math.nan, "The result of step 'pay'")


@pytest.mark.parametrize(
    "value", [Opaque(), [Opaque()], {"a": {Opaque(): 1}}, {1, "a"}, 1j, {(1, 2): 3}, print, iter([])]
)
def test_s68_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(InvalidPayload, match="cannot be written as JSON"):
        encode(value)


def test_s68_the_type_is_named() -> None:
    with pytest.raises(InvalidPayload, match="Opaque"):
        encode({"a": Opaque()})


def test_two_keys_that_become_one_are_refused() -> None:
    with pytest.raises(InvalidPayload, match="'1'"):
        encode({1: "a", "1": "b"})
    with pytest.raises(InvalidPayload, match="'red'"):
        encode({"deep": [{Colour.RED: 1, "red": 2}]})


def test_raw_json_obeys_the_same_law() -> None:
    assert encode([msgspec.Raw(b' {"bb" : 1,"a":2.50, "c":1E30} ')]) == (
        b'[{"a":2.5,"c":1000000000000000000000000000000.0,"bb":1}]'
    )
    for text in (
        b"NaN",
        b'{"a":1,"a":2}',
        b'{"a" :1,"a" :2}',
        b"[1",
        b"null",
        b"1e400",
        b'"\\u0000"',
        b" -0.0",
    ):
        with pytest.raises(InvalidPayload):
            encode([msgspec.Raw(text)])


def test_a_serializer_that_fails_is_told() -> None:
    class Broken(pydantic.BaseModel):
        x: int = 1

        @pydantic.field_serializer("x")
        def fail(self, _: int) -> str:
            raise RuntimeError("cannot say")

    with pytest.raises(InvalidPayload, match="cannot say"):
        encode(Broken())


# S66, S67: size and depth


def test_s66_the_limit_is_a_limit() -> None:
    fits = "x" * (limits.payload_bytes_max - 2)
    assert len(encode(fits)) == limits.payload_bytes_max
    with pytest.raises(
        PayloadTooLarge, match=rf"{limits.payload_bytes_max + 1} bytes .* {limits.payload_bytes_max}"
    ):
        encode(fits + "x")


def test_s66_the_limit_can_be_given() -> None:
    with pytest.raises(PayloadTooLarge, match="12 bytes as JSON, and at most 11"):
        encode("x" * 10, max_bytes=11)


def test_s66_digits_count() -> None:
    with pytest.raises(PayloadTooLarge):
        encode([1e300] * 5000)


def test_s67_depth() -> None:
    most = limits.payload_depth_max
    assert decode(encode(nested(most)), Any) == nested(most)
    for deep in (most + 1, 200, 10_000, 100_000):
        with pytest.raises(PayloadTooDeep, match="100 levels"):
            encode(nested(deep))


def test_s67_mixed_depth_is_counted_exactly() -> None:
    def mixed(depth: int) -> Any:
        value: Any = {"]}[{": '"[['}
        for _ in range((depth - 1) // 2):
            value = [[], {}, {"k": value, "l": [1]}]
        return value

    most = limits.payload_depth_max
    assert encode(mixed(most - 1))
    assert encode([mixed(most - 1)])
    with pytest.raises(PayloadTooDeep):
        encode([[mixed(most - 1)]])


def test_s67_width_is_no_depth() -> None:
    wide: list[Any] = [[{"a": []}] for _ in range(5_000)]
    assert decode(encode(wide), Any) == wide


def test_s67_what_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    ring: dict[str, Any] = {}
    ring["a"] = [ring]
    odd: dict[int, Any] = {}
    odd[1] = odd
    for value in (loop, ring, odd):
        with pytest.raises(PayloadTooDeep, match="contains itself"):
            encode(value)


def test_s67_deep_text_is_refused_by_the_reader() -> None:
    with pytest.raises(PayloadTooDeep):
        decode(b"[" * 100_000 + b"]" * 100_000, Any)


# Types


CASES: list[tuple[Any, Any]] = [
    (bool, True),
    (int, 2**200),
    (int, -(2**64)),
    (float, 1e300),
    (float, 1e16),
    (str, "é"),
    (bytes, b"\x00\xff"),
    (None, None),
    (int | None, None),
    (int | str, "1"),
    (Literal["yes", "no"], "no"),
    (Colour, Colour.RED),
    (list[int], [1, 2]),
    (set[str], {"a", "b"}),
    (frozenset[int], frozenset({1, 2})),
    (tuple[int, str], (1, "a")),
    (dict[int, int], {1: 2, 10: 3}),
    (dict[Colour, int], {Colour.RED: 2}),
    (dict[uuid.UUID, float], {uuid.UUID(int=1): 1e22}),
    (Order, Order("x", 1e20, {"b", "a"})),
    (list[Order], [Order("x")]),
    (Line, Line("x", {5: 6, 4: 1})),
    (Point, Point(1, 2)),
    (Options, {"fast": True}),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("1E+400")),
    (uuid.UUID, uuid.UUID(int=7)),
    (dt.date, dt.date(2026, 1, 2)),
    (dt.time, dt.time(1, 2, 3)),
    (dt.timedelta, dt.timedelta(days=1, microseconds=1)),
    (dt.datetime, dt.datetime(2026, 1, 2, 3, 4, 5, 6)),  # noqa: DTZ001
    (dt.datetime, dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
    (Model, Model(at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), by={"b": 1, "a": 2})),
    (list[Model | None], [None]),
    (Aliased, Aliased.model_validate({"from": "x"})),
    (Annotated[int, msgspec.Meta(ge=1)], 5),
    (Any, {"a": [1, 2.5, None]}),
    (object, {"a": 1}),
]


@pytest.mark.parametrize(
    ("type_", "value"), CASES, ids=[f"{n}-{case[0]!r:.40}" for n, case in enumerate(CASES)]
)
def test_s65_typed_values_come_back(through_jsonb: Callable[[bytes], bytes], type_: Any, value: Any) -> None:
    text = encode(value)
    for back in (decode(text, type_), decode(through_jsonb(text), type_)):
        assert back == value
        assert type(back) is type(value)


def test_subclasses_of_scalars_are_what_they_are() -> None:
    assert encode([Name("a"), Ratio(1.5), Count(3)]) == b'["a",1.5,3]'


def test_an_offset_is_kept() -> None:
    at = dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5)))
    back = decode(encode(at), dt.datetime)
    assert (back, back.utcoffset()) == (at, at.utcoffset())


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        (b'"yes"', bool),
        (b"1", bool),
        (b"0", bool),
        (b"null", bool),
        (b"true", int),
        (b"1.5", int),
        (b'"1"', int),
        (b"1", str),
        (b'"maybe"', Literal["yes", "no"]),
        (b'"blue"', Colour),
        (b'{"id": 1}', Order),
        (b"{}", Order),
        (b'{"at": "yesterday"}', Model),
        (b"[1]", list[Model]),
        (b"0", Annotated[int, msgspec.Meta(ge=1)]),
        (b"1e400", float),
        (b"{", Any),
        (b'"\xff"', str),
        (b"", Any),
    ],
)
def test_a_misfit_is_told(text: bytes, type_: Any) -> None:
    with pytest.raises(ValueMismatch, match=r"^Promise 'a' does not fit: expected ") as caught:
        decode(text, type_, "Promise 'a'")
    assert caught.value.expected == type_name(type_)
    assert caught.value.found == excerpt(text)
    assert "\n" not in str(caught.value)


def test_a_misfit_shows_but_the_beginning() -> None:
    with pytest.raises(ValueMismatch) as caught:
        decode(encode("x" * 10_000), int)
    assert len(caught.value.found) == limits.excerpt_length_max
    assert caught.value.found.endswith("…")


def test_s70_a_type_that_fails_while_it_is_built_is_a_misfit() -> None:
    @dataclasses.dataclass
    class Picky:
        x: int

        def __post_init__(self) -> None:
            raise KeyError("no")

    with pytest.raises(ValueMismatch, match="Picky"):
        decode(b'{"x":1}', Picky)


@pytest.mark.parametrize(
    "type_", [Opaque, list[Opaque], Callable[[int], int], list[int] | set[int], "int", 5, Model | int]
)
def test_types_that_no_json_fits_are_refused(type_: Any) -> None:
    with pytest.raises(InvalidArgument, match="fits no payload"):
        decode(b"1", type_)


def test_types_that_cannot_be_hashed_work() -> None:
    assert decode(b"1", Annotated[int, ["not hashable"]]) == 1


def test_equal_looking_types_are_not_confused() -> None:
    assert decode(b"1", Literal[1]) == 1
    with pytest.raises(ValueMismatch):
        decode(b"1", Literal["1"])
    assert decode(b"1", int) == 1
    with pytest.raises(ValueMismatch):
        decode(b"1", bool)


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        (bool, "bool"),
        (None, "None"),
        (type(None), "NoneType"),
        (int | None, "int | None"),
        (Literal["a"], "Literal['a']"),
        (list[int], "list[int]"),
        (Order, "Order"),
        (Any, "Any"),
    ],
)
def test_type_names(type_: Any, name: str) -> None:
    assert type_name(type_) == name


def test_json_comes_in_any_form_of_the_drivers() -> None:
    assert [decode(raw, int | None) for raw in (b"1", "1", msgspec.Raw(b"1"), None)] == [1, 1, 1, None]
    assert [excerpt(raw) for raw in (b"1", "1", msgspec.Raw(b"1"), None)] == ["1", "1", "1", "null"]


def test_s20_sets_are_written_the_same_in_every_process() -> None:
    code = (
        "from troth.codec import encode; import dataclasses\n"
        "print(encode([{'b','a','c','dd'}, {1: {'x','y','z'}}, {'k': frozenset('qwertz')}]).decode())"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert texts == {'[["a","b","c","dd"],{"1":["x","y","z"]},{"k":["e","q","r","t","w","z"]}]\n'}


def test_pydantic_is_not_imported() -> None:
    code = "import sys, troth.codec, troth.registry; print('pydantic' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout.strip() == "False"


# Codecs


class Zlib:
    """Compresses; a counter in front makes each sealing of one value different, as a nonce does."""

    name = "zlib"

    def __init__(self) -> None:
        self.count = 0

    def encode(self, plain: bytes) -> bytes:
        self.count += 1
        return self.count.to_bytes(4, "big") + zlib.compress(plain)

    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(data[4:])

    def digest(self, plain: bytes) -> bytes:
        return hashlib.sha256(b"key" + plain).digest()


SECRET = {"card": "4242-4242", "bb": 1, "a": 2}


def test_plain_payloads_have_no_headers() -> None:
    assert Payloads().seal(SECRET) == Sealed(encode(SECRET), None, None)
    assert Payloads().open(encode(SECRET), None, dict[str, Any]) == SECRET


def test_a_codec_seals_and_opens() -> None:
    payloads = Payloads(Zlib())
    sealed = payloads.seal(SECRET)
    assert json.loads(sealed.headers or b"") == {"codec": "zlib"}
    assert b"4242" not in sealed.data
    assert isinstance(json.loads(sealed.data), str)
    for headers in (
        sealed.headers,
        {"codec": "zlib"},
        '{"codec": "zlib"}',
        msgspec.Raw(sealed.headers or b""),
    ):
        assert payloads.open(sealed.data, headers, dict[str, Any]) == SECRET
    assert payloads.plain(sealed.data, sealed.headers) == encode(SECRET)


def test_s97_sealing_twice_differs_but_the_digest_does_not() -> None:
    payloads = Payloads(Zlib())
    one, two = payloads.seal(SECRET), payloads.seal(dict(reversed(SECRET.items())))
    assert one.data != two.data
    assert one.digest == two.digest
    assert payloads.seal({"card": "other"}).digest != one.digest


@pytest.mark.parametrize("headers", [None, {}, b"{}", b"null", {"codec": None}, {"else": 1}])
def test_plain_settles_stay_legal_beside_a_codec(headers: Any) -> None:
    assert Payloads(Zlib()).open(b"true", headers, bool) is True


def test_s70_an_unknown_codec_is_told() -> None:
    sealed = Payloads(Zlib()).seal(SECRET)
    with pytest.raises(UndecodablePayload, match=r"Promise 'a' .*'zlib'.*none is configured") as caught:
        Payloads().open(sealed.data, sealed.headers, dict[str, Any], "Promise 'a'")
    assert caught.value.codec == "zlib"
    with pytest.raises(UndecodablePayload, match=r"'aes'.*the one configured is 'zlib'"):
        Payloads(Zlib()).open(sealed.data, {"codec": "aes"}, dict[str, Any])


@pytest.mark.parametrize("data", [b'"AAAAAAA="', b'"not base64!"', b"5", b"null", b'{"a":1}'])
def test_s70_what_the_codec_refuses_is_told(data: bytes) -> None:
    with pytest.raises(UndecodablePayload):
        Payloads(Zlib()).open(data, {"codec": "zlib"}, int)


def test_what_a_codec_hid_is_in_no_message() -> None:
    payloads = Payloads(Zlib())
    sealed = payloads.seal({"at": "4242-4242"})
    for type_ in (int, Model, Colour):
        with pytest.raises(ValueMismatch, match="sealed by the codec 'zlib'") as caught:
            payloads.open(sealed.data, sealed.headers, type_)
        assert "4242" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


def test_what_sealing_adds_counts() -> None:
    class Doubling(Zlib):
        def encode(self, plain: bytes) -> bytes:
            return plain * 2

    with pytest.raises(PayloadTooLarge, match="sealed by the codec 'zlib'"):
        Payloads(Doubling(), max_bytes=100).seal("x" * 50)
    with pytest.raises(PayloadTooLarge):
        Payloads(Zlib(), max_bytes=100).seal("x" * 200)


def test_sealed_text_is_base64() -> None:
    sealed = Payloads(Zlib()).seal(1)
    assert zlib.decompress(base64.b64decode(json.loads(sealed.data))[4:]) == b"1"


# Errors as payloads


@pytest.mark.parametrize("payloads", [Payloads(), Payloads(Zlib())])
def test_errors_are_sealed_and_opened(payloads: Payloads) -> None:
    sealed = payloads.seal_error(ValueError("it broke"))
    info = payloads.open_error(sealed.data, sealed.headers)
    assert (info.type, info.message) == ("ValueError", "it broke")
    assert payloads.open_error(*_both(payloads.seal_error(ErrorInfo("A", "b")))) == ErrorInfo("A", "b")


def _both(sealed: Sealed) -> tuple[bytes, bytes | None]:
    return sealed.data, sealed.headers


@pytest.mark.parametrize("data", ["x" * 2_000_000, nested(100), math.nan, "\0", Opaque()])
def test_s69_an_error_always_fits(data: Any) -> None:
    info = ErrorInfo("A", "b", data, "trace", ErrorInfo("C", "d", data))
    back = Payloads().open_error(*_both(Payloads().seal_error(info)))
    assert back == ErrorInfo("A", "b", None, "trace", ErrorInfo("C", "d"))


def test_s69_an_error_that_is_all_too_long_keeps_its_name() -> None:
    payloads = Payloads(max_bytes=100)
    assert payloads.open_error(
        *_both(payloads.seal_error(ErrorInfo("A", "b", None, "t" * 200)))
    ) == ErrorInfo("A", "b")
    assert payloads.open_error(*_both(payloads.seal_error(ErrorInfo("A", "b" * 200)))).type == "A"


@pytest.mark.parametrize(
    ("text", "info"),
    [
        (b'"too dear"', ErrorInfo("Rejected", "too dear", "too dear")),
        (None, ErrorInfo("Rejected", "no reason was given")),
        (b'{"why": 1}', ErrorInfo("Rejected", '{"why": 1}', {"why": 1})),
        (b'{"type": "A", "message": "b", "more": 1}', ErrorInfo("A", "b")),
    ],
)
def test_s39_who_rejects_by_hand_may_write_anything(text: bytes | None, info: ErrorInfo) -> None:
    assert Payloads().open_error(text, None) == info


# Digests


def test_the_digest_of_an_operation() -> None:
    one = digest_operation("step", "pay", encode({"b": 1, "a": 2}))
    assert one == digest_operation("step", "pay", encode({"a": 2, "b": 1}))
    assert 0 <= one < 2**63
    others = {
        digest_operation("step", "pay", encode({"a": 2, "b": 2})),
        digest_operation("step", "pax", encode({"b": 1, "a": 2})),
        digest_operation("timer", "pay", encode({"b": 1, "a": 2})),
        digest_operation("stepp", "ay", encode({"b": 1, "a": 2})),
    }
    assert len(others) == 4
    assert one not in others


def test_the_digest_is_the_same_for_ever() -> None:
    assert digest_operation("step", "pay", b'{"order":"x"}') == 7121754727045777171


@given(
    st.lists(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.floats(allow_nan=False)
        | st.lists(st.integers())
    )
)
def test_the_digest_of_a_steps_arguments_is_that_of_their_text(args: list[object]) -> None:
    try:
        text = encode([args, {}])
    except InvalidPayload:
        text = b"?"
    assert digest_of("step", "pay", tuple(args), {}) == digest_operation("step", "pay", text if args else b"")


@given(st.text(), st.text(), st.binary())
def test_digests_fit_into_a_bigint(kind: str, name: str, args: bytes) -> None:
    try:
        assert 0 <= digest_operation(kind, name, args) < 2**63
    except UnicodeEncodeError:
        assert has_what_is_refused(kind + name)


# Nothing but our own errors ever leaves


@settings(max_examples=300)
@given(
    st.recursive(
        st.none()
        | st.floats()
        | st.text()
        | st.binary()
        | st.complex_numbers()
        | st.just(Opaque())
        | st.dates(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.integers() | st.floats() | st.none() | st.binary(), inner)
            | st.builds(Order, st.text(), inner)
            | st.tuples(inner)
        ),
        max_leaves=8,
    )
)
def test_encode_raises_none_but_our_errors(value: object) -> None:
    with contextlib.suppress(TrothError):
        decode(encode(value), Any)


@settings(max_examples=300)
@given(
    st.binary(max_size=40), st.sampled_from([Any, int, Order, Model, Line, dict[str, Any], bytes, Decimal])
)
def test_decode_raises_none_but_our_errors(text: bytes, type_: Any) -> None:
    with contextlib.suppress(TrothError):
        decode(text, type_)


def test_type_checkers_infer_what_is_decoded() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(HERE / "typing/codec_types.py")],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
    assert re.findall(r'Revealed type is "(.*)"', run.stdout) == [
        "int",
        "int | None",
        "Literal['yes'] | Literal['no']",
        "dict[str, list[int]]",
        "bool",
    ]
    assert run.returncode == 0, run.stdout
