"""The HTTP API under made-up requests one after another, each knowing what the ones before have left behind.

What is sent comes from the OpenAPI document (schemathesis makes it up, in order or not); in the place of IDs stand, most of the
time, those of promises and workflows that are there by now, in every state, since a worker acts in between. No answer is a
server's error, and none is one that the document does not declare.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.acting import Acting
from tests.api.serving import Served, serving

LIVES = int(os.environ.get("TROTH_HOSTILE_LIVES", "80"))
STEPS = 30
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
NAMES = ("f", "g")
IDS = [f"h{number}" for number in range(8)]
OPERATIONS = ("s", "s:2", "p", "2~s")


@pytest.fixture
def served(dsn: str) -> Iterator[Served]:
    with serving("--dsn", dsn) as process:
        yield process


def test_sequences_of_requests_are_answered_as_declared(served: Served, db: psycopg.Connection[Any]) -> None:
    schema = schemathesis.openapi.from_url(f"{served.url}/schema/openapi.json")
    operations = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    acting = Acting(db)
    answered: Counter[tuple[str, int]] = Counter()

    class Life(RuleBasedStateMachine):
        """One sequence. What earlier ones left in the database is there for it too."""

        def __init__(self) -> None:
            super().__init__()
            self.ids = list(IDS)

        @rule(
            data=st.data(),
            operation=st.sampled_from(operations),
            known=st.sampled_from((True, True, True, False)),
        )
        def ask(self, data: st.DataObject, operation: Any, known: bool) -> None:
            case = data.draw(operation.as_strategy())
            if known:
                meant(case, self.ids, data)
            if "wait" in (case.query or {}):
                case.query = {**case.query, "wait": 0}
            response = case.call_and_validate(checks=CHECKS, base_url=served.url)
            answered[f"{operation.method.upper()} {operation.path}", response.status_code] += 1
            document = response.json() if "json" in response.headers["content-type"][0] else None
            if isinstance(document, dict) and isinstance(document.get("id"), str):
                self.ids.append(document["id"])

        @rule(
            name=st.sampled_from(NAMES), then=st.sampled_from(("step", "promise", "finish", "fail", "hold"))
        )
        def act(self, name: str, then: str) -> None:
            self.ids += acted(acting, name, then)

    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=LIVES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert served.process.poll() is None
    assert {operation for operation, _ in answered} == {
        f"{each.method.upper()} {each.path}" for each in operations
    }
    assert {status for _, status in answered} >= {200, 201, 400, 404, 409}, answered


def meant(case: schemathesis.Case[Any], ids: list[str], data: st.DataObject) -> None:
    """Point a request at what is there. What is drawn does not depend on that: only what it stands for does."""
    places: dict[str, Any] = dict(case.path_parameters or {})
    for place in places:
        choices = {"name": NAMES, "operation": OPERATIONS}.get(place, ids)
        places[place] = choices[data.draw(st.integers(0, 999)) % len(choices)]
    case.path_parameters = places
    id = data.draw(st.sampled_from(IDS))
    if isinstance(case.body, dict) and "id" in case.body:
        case.body = {**case.body, "id": id}


def acted(acting: Acting, name: str, then: str) -> list[str]:
    """A worker goes on with all that is ready of a function; the promises that it made."""
    made = []
    for task, (epoch, seen) in acting.claim(name).items():
        if then == "step" and seen == 0:
            acting.step(task, epoch, seen, "s", {"a": [1]})
        elif then == "promise" and seen == 0:
            acting.promise(task, epoch, seen, "p")
            made.append(f"{task}~p")
        elif then == "finish":
            acting.finish(task, epoch, seen, value="done")
        elif then == "fail":
            acting.finish(task, epoch, seen, state="rejected", error={"type": "E", "message": "m"})
    return made
