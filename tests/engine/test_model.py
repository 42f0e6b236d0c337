"""Documents are decoded as they come."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from troth.model import (
    JournalEntry,
    Operated,
    PromiseInfo,
    Settlement,
    Started,
    StartedItem,
    TaskInfo,
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
        read('{"answer":"perhaps"}', Operated)


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
