"""Documents are decoded as they come, and exceptions become documents whatever they are like."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth import limits
from troth.codec import encode
from troth.errors import PromiseRejected, StepError
from troth.model import (
    ErrorInfo,
    JournalEntry,
    Operated,
    PromiseInfo,
    Settlement,
    Started,
    StartedItem,
    TaskInfo,
    describe_error,
    text_of,
)


def read(text: str, type_: Any) -> Any:
    return msgspec.json.decode(text, type=type_)


FULL = """{"id": "order-42", "state": "pending", "latent": false, "function": "approve", "version": 2,
 "queue": "default", "args": {"order": "x", "n": 1}, "tags": {"team": "a"}, "title": "Approve", "parent": "p~1",
 "created_at": "2026-11-23T01:55:00.123456+00:00", "timeout_at": "2026-11-30T01:55:00+01:00", "overdue": true,
 "something_newer": [1], "task": {"state": "suspended", "queue": "default", "lane": "approve@2", "attempts": 1,
 "epoch": 3, "worker": null, "last_seq": 7, "priority": -1, "news": true}}"""


def test_a_promise_document_is_decoded_with_raw_payloads() -> None:
    promise = read(FULL, PromiseInfo)
    assert bytes(promise.args) == b'{"order": "x", "n": 1}'
    assert promise.created_at == datetime(2026, 11, 23, 1, 55, 0, 123456, tzinfo=UTC)
    assert promise.timeout_at == datetime(2026, 11, 30, 0, 55, tzinfo=UTC)
    assert promise.tags == {"team": "a"}
    assert promise.overdue
    assert promise.task == TaskInfo("suspended", "default", "approve@2", -1, None, 1, 3, None, None, 7)
    assert promise.pending
    assert not promise.settled


def test_a_stripped_document_has_json_null_for_absent_payloads() -> None:
    promise = read('{"id":"a~b~c","state":"resolved","created_at":"2026-01-01T00:00:00Z"}', PromiseInfo)
    assert bytes(promise.value) == bytes(promise.error) == bytes(promise.args) == b"null"
    assert promise.task is None
    assert promise.settled
    assert not promise.pending
    assert promise.family == "a"


def test_the_family_of_a_root_is_itself() -> None:
    assert read(FULL, PromiseInfo).family == "order-42"


@pytest.mark.parametrize("state", ["resolved", "rejected", "canceled", "timedout"])
def test_every_state_but_pending_is_settled(state: str) -> None:
    promise = read(f'{{"id":"a","state":"{state}","created_at":"2026-01-01T00:00:00Z"}}', PromiseInfo)
    assert (promise.pending, promise.settled) == (False, True)


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        read('{"id":"a","state":"paused","created_at":"2026-01-01T00:00:00Z"}', PromiseInfo)


def test_documents_are_frozen() -> None:
    promise = read(FULL, PromiseInfo)
    with pytest.raises(AttributeError):
        promise.state = "resolved"


def test_started_is_the_promise_and_the_answer() -> None:
    started = read(FULL.replace('{"id"', '{"answer": "attached", "id"', 1), Started)
    assert started.answer == "attached"
    assert started.id == "order-42"
    assert isinstance(started, PromiseInfo)


def test_a_refused_item_of_start_many_needs_no_promise() -> None:
    item = read('{"id":"a/b","answer":"refused","sqlstate":"TR001","message":"no"}', StartedItem)
    assert item == StartedItem("a/b", "refused", "TR001", "no")
    assert read('{"id":"a","answer":"created","state":"pending"}', StartedItem).answer == "created"


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("settled", True),
        ("already", True),
        ("requested", True),
        ("conflict", False),
        ("not_latent", False),
        ("unknown", False),
    ],
)
def test_settlements(answer: str, accepted: bool) -> None:
    settlement = read(f'{{"answer":"{answer}","promise":null}}', Settlement)
    assert settlement.promise is None
    assert settlement.accepted is accepted


def test_operators_answers() -> None:
    assert read(f'{{"answer":"halted","promise":{FULL}}}', Operated).promise.id == "order-42"
    with pytest.raises(msgspec.ValidationError):
        read('{"answer":"conflict"}', Operated)


def test_a_journal_entry_counts_microseconds() -> None:
    entry = read(
        '{"seq":1,"operation":"pay","kind":"step","issued":0,"digest":9223372036854775807,"state":"resolved",'
        '"value":[1, 2],"at":1767225600000001,"epoch":2}',
        JournalEntry,
    )
    assert entry.instant == datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    assert bytes(entry.value) == b"[1, 2]"
    assert entry.digest == 2**63 - 1
    assert entry.promise is None


# S69


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


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001
        return caught


def test_s69_an_exception_is_described() -> None:
    info = describe_error(raised(ValueError("it broke")))
    assert (info.type, info.message, info.data, info.cause) == ("ValueError", "it broke", None, None)
    assert info.traceback is not None
    assert "raise error" in info.traceback
    assert describe_error(Silent()).type.endswith("test_model.Silent")


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
