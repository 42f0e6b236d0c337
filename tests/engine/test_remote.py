"""What is stored of exceptions, whatever they are like, and what comes back of it: S69, S71 and all that travels."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import pickle
import subprocess
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth import errors, limits
from troth.codec import Payloads, encode
from troth.errors import PromiseRejected, StepError, StoredError
from troth.model import ErrorInfo, ErrorParts
from troth.remote import describe_error, rebuilt, text_of
from troth.remote.classes import known_class, type_name
from troth.remote.describe import members_max
from troth.remote.parts import parts_bytes_max


def read(text: str, type_: Any) -> Any:
    return msgspec.json.decode(text, type=type_)


class Unknown(Exception):
    """What `otherwise` gives here."""


def unknown() -> BaseException:
    return Unknown()


def stored(error: BaseException | ErrorInfo) -> ErrorInfo:
    """What another process reads."""
    sealed = Payloads().seal_error(error)
    return Payloads().open_error(sealed.data, sealed.headers)


def sent(error: BaseException) -> BaseException:
    """The error as another process gets it."""
    return rebuilt(stored(error), unknown)


E = TypeVar("E", bound=BaseException)


def raised(error: E, cause: BaseException | None = None) -> E:
    """The error as it is once it was raised and caught."""
    try:
        if cause is None:
            raise error
        raise error from cause
    except BaseException:
        return error


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


# --- What is stored ---


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __reduce__(self) -> str:
        raise TypeError("not me")


class OwnText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError


class SaysOwnText(Exception):
    def __str__(self) -> str:
        return OwnText("mine")


def test_s69_an_exception_is_described() -> None:
    info = describe_error(raised(ValueError("it broke")))
    assert (info.type, info.message, info.data, info.cause) == ("ValueError", "it broke", None, None)
    assert info.traceback is not None
    assert "raise error" in info.traceback
    assert describe_error(Silent()).type.endswith("test_remote.Silent")


def test_s69_an_exception_that_was_never_raised_has_no_traceback() -> None:
    assert describe_error(ValueError("x")).traceback is None


def test_s69_str_that_raises() -> None:
    assert describe_error(Silent()).message == "<its message could not be made: RuntimeError>"
    assert describe_error(SaysOwnText()).message == "mine"
    assert type(text_of(SaysOwnText())) is str


def test_s69_unpicklable() -> None:
    assert describe_error(Unpicklable()).type.endswith("Unpicklable")


def test_s69_ten_megabytes_are_cut() -> None:
    message = describe_error(ValueError("é" * 10_000_000)).message
    assert message.endswith("…")
    assert limits.error_message_bytes_max - 8 <= len(message.encode()) <= limits.error_message_bytes_max


def test_s69_a_message_of_just_the_limit_is_kept_whole() -> None:
    exact = "x" * limits.error_message_bytes_max
    assert describe_error(ValueError(exact)).message == exact


def test_s69_nul_and_lone_surrogates_are_replaced() -> None:
    assert describe_error(ValueError("a\0b\ud800c")).message == "a\ufffdb?c"


def test_s69_cyclic_causes_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    info = describe_error(one)
    assert info.cause is not None
    assert info.cause.message == "two"
    assert info.cause.cause is None


def test_s69_at_most_five_causes() -> None:
    error = ValueError("0")
    for number in range(1, 100):
        outer = ValueError(str(number))
        outer.__cause__ = error
        error = outer
    depth, info = 0, describe_error(error)
    while info.cause is not None:
        depth, info = depth + 1, info.cause
    assert depth == limits.error_causes_max


def test_s69_deep_recursion_keeps_the_last_frames() -> None:
    def down(left: int) -> None:
        if left == 0:
            raise ValueError("bottom")
        down(left - 1)

    with pytest.raises(ValueError, match="bottom") as caught:
        down(500)
    trace = describe_error(caught.value).traceback
    assert trace is not None
    assert 'raise ValueError("bottom")' in trace
    assert len(trace.encode()) <= limits.error_traceback_bytes_max


def test_s69_a_long_traceback_keeps_its_end() -> None:
    # each frame another function: equal ones would be told as repeated
    frames = "".join(f"def f{number}():\n    f{number + 1}()\n" for number in range(40))
    names: dict[str, Any] = {}
    exec(compile(frames + "def f40():\n    1 / 0\n", "x" * 2_000 + ".py", "exec"), names)
    with pytest.raises(ZeroDivisionError) as caught:
        names["f0"]()
    trace = describe_error(caught.value).traceback
    assert trace is not None
    assert trace.rstrip().endswith("in f40")
    assert limits.error_traceback_bytes_max / 2 < len(trace.encode()) <= limits.error_traceback_bytes_max


def test_the_context_is_a_cause_unless_suppressed() -> None:
    def fail(from_none: bool) -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            if from_none:
                raise ValueError("outer") from None
            raise ValueError("outer")  # noqa: B904

    with pytest.raises(ValueError, match="outer") as caught:
        fail(from_none=False)
    cause = describe_error(caught.value).cause
    assert cause is not None
    assert cause.type == "KeyError"
    with pytest.raises(ValueError, match="outer") as caught:
        fail(from_none=True)
    assert describe_error(caught.value).cause is None


def test_notes_belong_to_the_message() -> None:
    error = ValueError("x")
    error.add_note("while shipping")
    assert describe_error(error).message == "x\nwhile shipping"


def test_notes_of_another_kind_do_no_harm() -> None:
    error = ValueError("x")
    error.__notes__ = 5  # type: ignore[assignment]
    assert describe_error(error).message == "x"


def test_a_group_tells_of_its_members() -> None:
    info = describe_error(ExceptionGroup("two failed", [ValueError("a"), KeyError("b")] * 10))
    assert info.message.startswith("two failed")
    assert info.data["exceptions"][:2] == [
        {"type": "ValueError", "message": "a"},
        {"type": "KeyError", "message": "'b'"},
    ]
    assert len(info.data["exceptions"]) == limits.error_causes_max


def test_a_stored_error_hands_on_what_it_was_told() -> None:
    stored = ErrorInfo("app.Boom", "it broke", {"n": 1}, "File x", ErrorInfo("OSError", "disk"))
    info = describe_error(StepError("pay", stored))
    assert info.type == "troth.errors.StepError"
    assert info.data is None
    assert info.cause == ErrorInfo("app.Boom", "it broke", {"n": 1}, "File x", ErrorInfo("OSError", "disk"))
    again = describe_error(PromiseRejected("a", info))
    assert again.cause is not None
    assert again.cause == info


def test_stored_errors_do_not_grow_without_end() -> None:
    info = ErrorInfo("E", "m")
    for _ in range(50):
        info = describe_error(StepError("pay", info))
    depth = 0
    while info.cause is not None:
        depth, info = depth + 1, info.cause
    assert depth <= limits.error_causes_max


@dataclasses.dataclass
class Strange(Exception):
    value: object

    def __str__(self) -> str:
        return self.value  # type: ignore[return-value]


@given(st.one_of(st.text(), st.integers(), st.none(), st.characters(categories=["Cs"])))
def test_s69_any_description_can_be_stored(value: object) -> None:
    info = describe_error(Strange(value))
    assert read(encode(info).decode(), ErrorInfo) == info


def test_what_only_repeats_the_message_is_not_stored_twice() -> None:
    assert describe_error(ValueError("it broke")).parts is None
    assert describe_error(ValueError()).parts is None
    assert describe_error(errors.LimitExceeded("Too many.")).parts is None
    assert stored(ValueError("x", 1)).parts == ErrorParts(args=["x", 1])


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1},
        b"x",
        1j,
        object(),
        float("nan"),
        float("inf"),
        -0.0,
        2**64,
        "\0",
        "\ud800",
        {1: 2},
        Path("/"),
    ],
)
@pytest.mark.parametrize(
    "within", [lambda v: v, lambda v: [1, v], lambda v: {"a": {"b": v}}], ids=["", "list", "dict"]
)
def test_what_is_not_plain_json_is_left_out_and_the_rest_kept(
    value: object, within: Callable[[object], object]
) -> None:
    error = ValueError("x", within(value))
    error.code, error.odd = 5, within(value)  # type: ignore[attr-defined]
    assert describe_error(error).parts == ErrorParts(attributes={"code": 5})
    assert stored(error).parts == ErrorParts(attributes={"code": 5})


def test_arguments_and_attributes_are_bounded_together() -> None:
    half = "x" * (parts_bytes_max // 2 - 20)
    error = ValueError(half, 1)
    error.first, error.second, error.last = half, half, 1  # type: ignore[attr-defined]
    parts = describe_error(error).parts
    assert parts == ErrorParts(args=[half, 1], attributes={"first": half, "last": 1}) or parts == ErrorParts(
        args=[half, 1], attributes={"last": 1}
    )
    assert len(encode([parts.args, parts.attributes])) <= parts_bytes_max
    assert describe_error(ValueError("x", "y" * parts_bytes_max)).parts is None
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep]
    assert describe_error(ValueError("x", deep)).parts is None


def test_a_huge_attribute_is_not_walked_to_its_end() -> None:
    error = ValueError("x")
    cyclic: list[Any] = [1]
    cyclic.append(cyclic)
    error.cyclic, error.big = cyclic, [[0]] * 10_000_000  # type: ignore[attr-defined]
    assert describe_error(error).parts is None


def test_a_large_text_is_not_walked_by_the_letter() -> None:
    """A worker's loop stands still meanwhile."""
    error = ExceptionGroup("all", [ValueError("x" * 200_000, "y" * 10_000)] * 3)
    walked: list[str] = []
    sys.setprofile(lambda frame, event, _: walked.append(f"{event} {frame.f_code.co_name}"))
    try:
        describe_error(error)
    finally:
        sys.setprofile(None)
    assert len(walked) < 5000


class Hostile(Exception):
    """Everything that can be asked of it fails."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __getstate__(self) -> Any:
        raise RuntimeError

    def __reduce__(self) -> Any:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


def test_s69_what_fails_at_everything_is_described_and_comes_back() -> None:
    error = Hostile(Hostile(), 1)
    error.other = Hostile()  # type: ignore[attr-defined]
    info = stored(raised(error, Hostile()))
    assert info.message == "<its message could not be made: RuntimeError>"
    assert info.cause is not None
    assert type(rebuilt(info, unknown)) is Hostile


def test_members_of_groups_are_stored_whole_within_a_number() -> None:
    inner = ExceptionGroup("inner", [raised(ValueError("a", n), KeyError(n)) for n in range(100)])
    info = stored(ExceptionGroup("outer", [OSError(2, "gone"), inner]))
    assert info.parts is not None
    first, second = info.parts.members
    assert (first.type, first.message) == ("FileNotFoundError", "[Errno 2] gone")
    assert second.parts is not None
    assert second.parts.args == ["inner"]
    assert len(second.parts.members) == (members_max - 2) / 2
    assert second.parts.members[0].cause is not None
    assert len(encode(info)) < limits.payload_bytes_max / 2


def test_groups_within_groups_end() -> None:
    error: Exception = ValueError("bottom")
    for _ in range(100):
        error = ExceptionGroup("x" * 10_000, [error] * 10)
    assert len(encode(stored(error))) < limits.payload_bytes_max


def test_a_program_that_runs_as_a_script_calls_its_classes_as_others_import_them(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from troth.remote import describe_error, rebuilt\n"
        "class Gone(Exception): ...\n"
        "if __name__ == '__main__':\n"
        "    info = describe_error(Gone('x'))\n"
        "    print(info.type, type(rebuilt(info, ValueError)) is Gone)\n"
    )
    run = subprocess.run(
        [sys.executable, "shop.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout == "shop.Gone True\n"


# --- What comes back ---


class Declined(Exception):
    """Its `__init__` takes what nobody stores."""

    def __init__(self, card: object, *, code: int, hints: list[str]) -> None:
        super().__init__(f"card declined: {code}")
        self.card = card
        self.code = code
        self.hints = hints


class Slotted(Exception):
    __slots__ = ("code", "unset")

    def __init__(self, code: int) -> None:
        self.code = code


@dataclasses.dataclass
class Data(Exception):
    code: int
    where: str = "here"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class OddNew(Exception):
    def __new__(cls, one: int, two: int) -> Self:
        if one + two != 3:
            raise RuntimeError("nobody calls this")
        return super().__new__(cls, one, two)


class Both(KeyError, OSError):
    """Its layout is that of its second base."""


class Renaming(OSError):
    def __init__(self, *args: Any, tries: int) -> None:
        super().__init__(*args)
        self.tries = tries


class Computed(Exception):
    @property
    def code(self) -> int:
        return int(self.args[1])


class Outer:
    class Inner(Exception): ...


def test_an_error_comes_back_as_itself_without_its_init() -> None:
    error = sent(raised(Declined(object(), code=51, hints=["call", "wait"])))
    assert type(error) is Declined
    assert (str(error), error.args, error.code, error.hints) == (
        "card declined: 51",
        ("card declined: 51",),
        51,
        ["call", "wait"],
    )
    assert not hasattr(error, "card")


def state_of(error: BaseException) -> object:
    """Attributes and slots, but for the notes."""
    state: Any = object.__getstate__(error)
    attributes, slots = state if isinstance(state, tuple) else (state, {})
    return {name: each for name, each in (attributes or {}).items() if name != "__notes__"}, slots


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        ValueError(),
        ValueError("x", 1, None, {"a": [True, 1.5]}),
        KeyError("x"),
        KeyError(5),
        OSError("just text"),
        FileNotFoundError(2, "No such file", "a.txt"),
        FileNotFoundError(2, "No such file", "a.txt", None, "b.txt"),
        ConnectionResetError(),
        TimeoutError("late"),
        ImportError("no", name="a", path="b"),
        UnicodeDecodeError("utf-8", b"a\xff\0", 1, 2, "invalid start byte"),
        UnicodeEncodeError("ascii", "a\ud800é\0", 1, 3, "not in range"),
        UnicodeTranslateError("aé", 1, 2, "no"),
        ZeroDivisionError("x"),
        SyntaxError("bad"),
        asyncio.InvalidStateError("x"),
        Slotted(5),
        Data(5),
        Frozen(5),
        OddNew(1, 2),
        Renaming(2, "gone", "f", tries=3),
        Computed("x", 7),
        Outer.Inner("x"),
        ExceptionGroup("two", [ValueError("a"), ExceptionGroup("inner", [Data(1)])]),
        *[
            kind("What happened.", hint="Do so.")
            for kind in (errors.LimitExceeded, errors.IdConflict, errors.InvalidArgument, errors.Unreachable)
        ],
        errors.DatabaseError("No.", code="40P01", detail="d"),
        errors.PromiseTimedOut("order-1"),
        errors.PromiseCanceled("order-1", "why"),
        errors.ValueMismatch("a", "b", "c"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_known_errors_come_back_as_themselves(error: Exception) -> None:
    twin: Any = sent(raised(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    if not isinstance(error, ExceptionGroup):
        assert twin.args == error.args
    assert state_of(twin) == state_of(error)
    for name in ("errno", "filename", "filename2", "name", "path", "start", "object", "reason", "code"):
        assert getattr(twin, name, None) == getattr(error, name, None), name
    # and again, and again
    assert stored(sent(raised(twin))) == stored(twin) == stored(error)


def test_errors_that_sql_made_have_what_their_class_has() -> None:
    error: Any = rebuilt(ErrorInfo("troth.errors.LimitExceeded", "Too many children."), unknown)
    assert isinstance(error, errors.LimitExceeded)
    assert (str(error), error.message, error.detail, error.hint) == ("Too many children.",) * 2 + (None, None)
    assert describe_error(error) == ErrorInfo("troth.errors.LimitExceeded", "Too many children.")


def test_the_builtin_below_two_bases_is_the_one_that_python_lays_it_out_by() -> None:
    assert type(sent(Both(2, "gone"))) is Both


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


def test_arguments_that_could_not_be_stored_leave_the_text() -> None:
    assert sent(ValueError(Opaque())).args == ("<opaque>",)
    assert str(sent(ValueError(Opaque(), 1))) == "(<opaque>, 1)"


def test_a_key_that_could_not_be_stored_is_quoted_once() -> None:
    error = sent(sent(KeyError(("a", 1))))
    assert type(error) is KeyError
    assert str(error) == "('a', 1)" == str(KeyError(("a", 1)))


def test_a_long_undecodable_text_is_left_out_but_not_where() -> None:
    error: Any = sent(UnicodeDecodeError("utf-8", b"\xff" * 1_000_000, 7, 8, "invalid start byte"))
    assert type(error) is UnicodeDecodeError
    assert (error.encoding, error.object, error.reason) == ("utf-8", b"", "invalid start byte")
    assert "position 7" in str(error)


def test_notes_come_back_and_new_ones_go_on() -> None:
    error = ValueError("one\ntwo")
    error.add_note("while shipping\norder 5")
    error.add_note("to nowhere")
    twin = sent(error)
    assert str(twin) == "one\ntwo"
    assert twin.__notes__[:-1] == ["while shipping", "order 5", "to nowhere"]
    twin.add_note("caught")
    third = sent(raised(twin))
    assert third.__notes__[:-1] == ["while shipping", "order 5", "to nowhere", "caught"]
    assert describe_error(third).message == "one\ntwo\nwhile shipping\norder 5\nto nowhere\ncaught"


def test_a_count_of_notes_that_cannot_be_is_none() -> None:
    twin = rebuilt(ErrorInfo("ValueError", "one\ntwo", parts=ErrorParts(notes=-1)), unknown)
    assert str(twin) == "one\ntwo"


def test_a_cause_is_set_whatever_the_class_refuses() -> None:
    with pytest.raises(AttributeError):
        Frozen(1).__cause__ = None
    twin = sent(raised(Frozen(5), OSError("below")))
    assert type(twin) is Frozen
    assert isinstance(twin.__cause__, OSError)


def test_the_name_decides_the_class_even_where_the_arguments_would_make_another() -> None:
    assert type(OSError(2, "gone")) is FileNotFoundError
    error = rebuilt(ErrorInfo("OSError", "x", parts=ErrorParts(args=[2, "gone"])), unknown)
    assert (type(error), error.args) == (OSError, ("x",))


def test_tracebacks_show_where_it_was_raised_first() -> None:
    def first() -> None:
        raise Data(5)

    with pytest.raises(Data) as caught:
        first()
    twin = raised(sent(caught.value))
    text = shown(twin)
    assert "Raised elsewhere:" in text
    assert "raise Data(5)" in text
    assert "test_remote.Data: 5" in text


def hop(error: BaseException, times: int) -> BaseException:
    for _ in range(times):
        error = raised(sent(error))
    return error


@pytest.mark.parametrize("hops", [1, 2, 20])
def test_nothing_grows_from_process_to_process(hops: int) -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise Declined(object(), code=5, hints=[]) from inner
    except Declined as error:
        error.add_note("a note")
        before = stored(error)
        last = hop(error, hops)
    assert stored(last) == before
    assert isinstance(last.__cause__, KeyError)
    assert shown(last).count("Raised elsewhere") == 2


def test_what_happened_on_the_way_is_told_too() -> None:
    twin: Any = sent(Declined(None, code=5, hints=[]))
    twin.code = 6
    again: Any = sent(raised(twin, OSError("since")))
    assert again.code == 6
    assert isinstance(again.__cause__, OSError)
    other = sent(raised(RuntimeError("mine"), twin))
    assert type(other.__cause__) is Declined


def test_chains_are_bounded_over_hops() -> None:
    error: BaseException = ValueError("0")
    for number in range(1, 30):
        error = sent(raised(ValueError(str(number)), error))
    causes = 0
    while error.__cause__ is not None:
        error, causes = error.__cause__, causes + 1
    assert causes == limits.error_causes_max


def test_causes_that_are_unknown_stand_as_stored_errors() -> None:
    info = ErrorInfo(
        "ValueError", "x", cause=ErrorInfo("gone.Gone", "why", cause=ErrorInfo("KeyError", "'k'"))
    )
    error = rebuilt(info, unknown)
    assert isinstance(error.__cause__, StoredError)
    assert (error.__cause__.type, str(error.__cause__)) == ("gone.Gone", "gone.Gone: why")
    assert describe_error(error) == info
    assert describe_error(error.__cause__) == info.cause
    assert rebuilt(info, unknown, within=lambda each: StepError("pay", each)).__cause__.operation == "pay"  # type: ignore[union-attr]


# Groups


def group(*members: ErrorInfo) -> ErrorInfo:
    message = f"two ({len(members)} sub-exceptions)"
    return ErrorInfo("ExceptionGroup", message, parts=ErrorParts(args=["two"], members=list(members)))


def test_groups_come_back_with_their_members() -> None:
    cause = raised(ValueError("a"), OSError("below"))
    error: Any = sent(raised(ExceptionGroup("two", [cause, Data(5)])))
    assert isinstance(error, ExceptionGroup)
    assert str(error) == "two (2 sub-exceptions)"
    assert [type(each) for each in error.exceptions] == [ValueError, Data]
    assert isinstance(error.exceptions[0].__cause__, OSError)
    assert stored(hop(error, 5)) == stored(error)


def test_what_a_member_brings_from_elsewhere_is_cut_to_a_members_size() -> None:
    big = ErrorInfo(
        "A", "m" * 5000, traceback="t" * 5000, parts=ErrorParts(args=["a" * 5000], attributes={"n": 1})
    )
    info = describe_error(ExceptionGroup("one", [StoredError("x", big)]))
    assert info.parts is not None
    (member,) = info.parts.members
    assert member.parts == ErrorParts()
    assert len(encode(member)) < 4_000
    assert describe_error(StoredError("x", big)) == big


def test_unknown_members_stand_as_what_the_caller_likes() -> None:
    info = group(ErrorInfo("ValueError", "a"), ErrorInfo("gone.Gone", "b"), ErrorInfo("SystemExit", "1"))
    error: Any = rebuilt(info, unknown)
    assert [type(each) for each in error.exceptions] == [ValueError, StoredError, StoredError]
    error = rebuilt(info, unknown, lambda each: StepError("pay", each))
    assert [type(each) for each in error.exceptions] == [ValueError, StepError, StepError]


def test_what_except_star_leaves_over_is_told_as_it_is() -> None:
    error = sent(raised(ExceptionGroup("two", [ValueError("a"), KeyError("b")])))

    def without_values() -> None:
        try:
            raise error
        except* ValueError:
            pass

    with pytest.raises(ExceptionGroup) as caught:
        without_values()
    left = stored(caught.value)
    assert left.message == "two (1 sub-exception)"
    assert left.parts is not None
    assert [each.type for each in left.parts.members] == ["KeyError"]
    assert left.data["exceptions"] == [{"type": "KeyError", "message": "'b'"}]


def test_a_group_of_what_ends_processes_is_no_exception() -> None:
    assert type(sent(BaseExceptionGroup("x", [SystemExit(1)]))) is Unknown


def test_a_group_whose_members_are_not_stored_is_unknown() -> None:
    assert type(rebuilt(ErrorInfo("ExceptionGroup", "x"), unknown)) is Unknown


# What does not come back


class Control(BaseException): ...


class Exits(SystemExit): ...


@pytest.mark.parametrize(
    "error",
    [
        Control("x"),
        Exits(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(1),
        StopAsyncIteration(),
        StepError("pay", ErrorInfo("A", "b")),
        PromiseRejected("a", ErrorInfo("A", "b")),
    ],
    ids=lambda each: type(each).__name__,
)
def test_s71_control_flow_and_wrappers_do_not_come_back(error: BaseException) -> None:
    assert type(sent(error)) is Unknown


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "Rejected",
        "canceled",
        "print",
        "object",
        "ValueError.args",
        "nowhere.to.be.Found",
        "troth.errors",
        "troth.errors.Gone",
        "troth.errors.TrothError.__init__",
        "json.decoder",
        "tests.engine.test_remote.sent",
        "tests.engine.test_remote.f.<locals>.E",
        "tests.engine.test_remote.ALIAS_OF_NO_CLASS",
        "tests/engine/test_remote.Data",
        "..errors.TrothError",
        "os.system",
        "class.Error",
        "…",
        "builtins.int",
    ],
)
def test_names_of_nothing_that_can_be_raised_are_unknown(name: str) -> None:
    assert type(rebuilt(ErrorInfo(name, "x"), unknown)) is Unknown


ALIAS_OF_NO_CLASS = ValueError("x")


def test_a_local_class_is_unknown() -> None:
    class Local(Exception): ...

    assert type(sent(Local())) is Unknown


def test_pydantics_own_errors_are_unknown_but_told() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    assert type(sent(caught.value)) is Unknown
    assert "valid integer" in stored(caught.value).message


@pytest.fixture
def shop() -> Iterator[Any]:
    """A module that can be changed, as deploys do."""
    module = types.ModuleType("shop_of_tests")
    sys.modules[module.__name__] = module
    known_class.cache_clear()
    yield module
    del sys.modules[module.__name__]
    known_class.cache_clear()


def test_a_class_that_was_removed_or_became_something_else(shop: Any) -> None:
    exec("class Gone(Exception): ...", vars(shop))
    info = stored(shop.Gone("x"))
    assert type(rebuilt(info, unknown)) is shop.Gone
    for now in (None, lambda: None, "Gone", int, SystemExit, ALIAS_OF_NO_CLASS):
        shop.Gone = now
        known_class.cache_clear()
        assert type(rebuilt(info, unknown)) is Unknown
    shop.Gone = ValueError  # an alias left behind for old journals
    known_class.cache_clear()
    assert type(rebuilt(info, unknown)) is ValueError
    assert describe_error(rebuilt(info, unknown)) == info


def test_a_class_that_changed_since_still_comes_back(shop: Any) -> None:
    exec("class Odd(Exception): ...", vars(shop))
    error = shop.Odd("x")
    error.code = 5
    info = stored(error)
    source = """
class Odd(OSError):
    __slots__ = ("tries",)
    def __init__(self, code, text): raise RuntimeError
    def __new__(cls, code, text): raise RuntimeError
    def __setattr__(self, name, value): raise RuntimeError
    @property
    def code(self): return "computed"
"""
    exec(source, vars(shop))
    known_class.cache_clear()
    twin: Any = rebuilt(info, unknown)
    assert type(twin) is shop.Odd
    assert (str(twin), twin.code) == ("x", "computed")


def test_classes_come_back_whatever_was_imported_before(tmp_path: Path) -> None:
    package = tmp_path / "late"
    package.mkdir()
    (package / "__init__.py").write_text("class Parent(Exception): ...\n")
    (package / "errors.py").write_text("from late import Parent\nclass Late(Parent): ...\n")
    (package / "broken.py").write_text("class Lost(Exception): ...\nraise SystemExit(3)\n")
    program = """
import sys
from troth.model import ErrorInfo
from troth.remote import rebuilt
assert not [name for name in sys.modules if name.startswith("late")]
for name in ("late.errors.Late", "late.Parent", "late.errors.Parent", "late.broken.Lost", "late.errors.Late.x"):
    print(type(rebuilt(ErrorInfo(name, "x"), RuntimeError)).__name__)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["Late", "Parent", "Parent", "RuntimeError", "RuntimeError"]


@given(
    st.builds(
        ErrorInfo,
        st.sampled_from(
            ["ValueError", "KeyError", "OSError", "UnicodeDecodeError", "ExceptionGroup", type_name(Data)]
        ),
        st.text(),
        parts=st.none()
        | st.builds(
            ErrorParts,
            st.none() | st.lists(st.none() | st.integers() | st.text()),
            st.dictionaries(
                st.sampled_from(["code", "__notes__", "__class__", "args", "errno", "__cause__"]), st.text()
            ),
            st.integers(-3, 10**12),
            st.lists(st.builds(ErrorInfo, st.sampled_from(["KeyError", "x.Y"]), st.text())),
        ),
    )
)
def test_whatever_is_written_by_hand_gives_an_exception_that_can_be_described(info: ErrorInfo) -> None:
    error = rebuilt(info, unknown)
    assert isinstance(error, Exception)
    if type(error) is not Unknown:
        assert type_name(type(error)) == info.type
        shown(error)
        stored(error)


def test_errors_that_came_back_can_be_copied_and_pickled() -> None:
    error = raised(sent(Data(5)))
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is Data
        assert stored(twin).type == type_name(Data)


def test_a_note_copied_to_another_error_does_not_make_it_that_one() -> None:
    other = OSError("mine")
    other.__notes__ = sent(ValueError("theirs")).__notes__
    assert (describe_error(other).type, describe_error(other).message) == ("OSError", "mine")
    assert text_of(sent(other)) == "mine"
