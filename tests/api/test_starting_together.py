"""Starts that come at once share a call, and each is answered as if it had been alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from structlog.typing import EventDict

from tests.api.acting import Acting
from tests.api.asking import asking
from tests.api.problems import problem
from tests.api.test_waiting import until
from troth import Troth, calls
from troth_api import create_app, limits
from troth_api.starting import Starts

Ask = Coroutine[Any, Any, httpx.Response]


@pytest.fixture
def sent(troth: Troth, monkeypatch: pytest.MonkeyPatch) -> list[calls.Call[Any]]:
    """The calls that the application makes, in order."""
    made: list[calls.Call[Any]] = []
    run = troth.pool.run

    def noted(call: calls.Call[Any], **options: Any) -> Any:
        made.append(call)
        return run(call, **options)

    monkeypatch.setattr(troth.pool, "run", noted)
    return made


class Gate:
    """Makes starts gather behind one whose ID somebody holds, as long as it is shut."""

    def __init__(self, dsn: str, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self._dsn = dsn
        self._api = api
        self._gates = 0
        self._asked = 0
        start = Starts.start

        async def counted(*arguments: Any, **options: Any) -> Any:
            self._asked += 1
            return await start(*arguments, **options)

        monkeypatch.setattr(Starts, "start", counted)
        monkeypatch.setattr(limits, "gather_seconds_max", 3600)

    @contextmanager
    def held(self, id: str) -> Iterator[None]:
        """Somebody has started it in a transaction that is open; in the end it is rolled back."""
        with psycopg.connect(self._dsn) as session, session.transaction(force_rollback=True):
            session.execute("select troth.start(%s, 'held')", [id])
            yield

    async def gathered(self, *asks: Ask) -> list[asyncio.Task[httpx.Response]]:
        """These requests, which have just gone in one call, in this order."""
        self._gates += 1
        with self.held(f"gate-{self._gates}"):
            gate = await self.going(self._api.post("/workflows/f", json={"id": f"gate-{self._gates}"}))
            going = [await self.going(ask) for ask in asks]
        assert (await gate).status_code == 201
        return going

    async def together(self, *asks: Ask) -> list[httpx.Response]:
        """What these requests are answered when they share a call."""
        return await asyncio.gather(*await self.gathered(*asks))

    async def going(self, ask: Ask) -> asyncio.Task[httpx.Response]:
        """This request, which is by now waiting for its turn or for Postgres."""
        before = self._asked
        task = asyncio.create_task(ask)
        await until(lambda: self._asked > before)
        return task


@pytest.fixture
def gate(dsn: str, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(dsn, api, monkeypatch)


def start(api: httpx.AsyncClient, id: str, wait: float = 0, name: str = "f", **options: Any) -> Ask:
    return sent_as(
        api, name + (f"?wait={wait}" if wait else ""), json.dumps({"id": id, **options}, ensure_ascii=False)
    )


def sent_as(api: httpx.AsyncClient, name: str, text: str) -> Ask:
    return api.post(f"/workflows/{name}", content=text.encode(), headers={"content-type": "application/json"})


def functions(sent: list[calls.Call[Any]]) -> list[str]:
    return [call.function for call in sent]


async def test_a_lone_start_goes_at_once_and_by_itself(
    api: httpx.AsyncClient, sent: list[calls.Call[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "gather_seconds_max", 3600)
    for n in range(3):
        assert (await start(api, f"o{n}")).status_code == 201
    assert functions(sent) == ["start"] * 3


async def test_those_that_come_meanwhile_share_the_next_call_and_see_what_they_made(
    api: httpx.AsyncClient, gate: Gate, sent: list[calls.Call[Any]]
) -> None:
    options: dict[str, Any] = {
        "args": {"x": 1},
        "queue": "mail",
        "delay": 60,
        "timeout": 90.5,
        "priority": -3,
        "tags": {"a": "b"},
    }
    answers = await gate.together(start(api, "o1", **options), start(api, "o2"), start(api, "o3", args=[1]))
    assert functions(sent) == ["start", "start_together"]
    for answer, id in zip(answers, ("o1", "o2", "o3"), strict=True):
        assert (answer.status_code, answer.headers["location"]) == (201, f"/promises/{id}")
        now = (await api.get(f"/promises/{id}")).json()
        assert answer.json() == now | {"answer": "created"}
    alone = (await start(api, "alone", **options)).json()
    instants = {"created_at", "timeout_at"}
    first = answers[0].json()
    assert first.keys() == alone.keys()
    assert {key: first[key] for key in first.keys() - instants} == {
        key: alone[key] for key in alone.keys() - instants
    } | {"id": "o1"}


async def test_rows_are_those_of_a_lone_start(
    api: httpx.AsyncClient, gate: Gate, db: psycopg.Connection[Any]
) -> None:
    options: dict[str, Any] = {
        "queue": "mail",
        "delay": 60,
        "timeout": 90.5,
        "priority": -3,
        "tags": {"a": "b"},
    }
    await start(api, "a", args=[1.50], **options)
    await gate.together(start(api, "b", args=[1.50], **options), start(api, "c"))
    for table, key in (("promise", "id"), ("task", "id"), ("wait", "task")):
        rows = [
            db.execute(
                f"""select to_jsonb(t) - '{{{key},created_at,ready_at,timeout_at,expires_at,fire_at}}'::text[],
                           t.{"fire_at" if table == "wait" else "timeout_at"} -
                             (select created_at from promise where id = %(id)s)
                      from {table} t where {key} = %(id)s""".encode(),
                {"id": id},
            ).fetchall()
            for id in ("a", "b")
        ]
        assert rows[0] == rows[1]
        assert len(rows[0]) == 1


async def test_the_first_to_come_is_the_one_that_starts(api: httpx.AsyncClient, gate: Gate) -> None:
    answers = await gate.together(*(start(api, "same", args=[n // 2]) for n in range(6)))
    assert [answer.status_code for answer in answers] == [201, 200, 409, 409, 409, 409]
    assert answers[1].json() == answers[0].json() | {"answer": "attached"}


async def test_each_is_refused_as_if_it_were_alone(api: httpx.AsyncClient, gate: Gate) -> None:
    await start(api, "there", args=[1])
    await api.post("/promises", json={"id": "latent"})

    def asks(time: int) -> list[Ask]:
        return [
            start(api, "there", args=[2]),
            start(api, "there", args=[2], on_conflict="attach"),
            start(api, "there", args=[1]),
            start(api, "there", name="g", args=[1]),
            start(api, "latent", on_conflict="attach"),
            start(api, "no~id"),
            start(api, "x" * 129),
            start(api, ""),
            start(api, "o", args=3),
            start(api, "o", queue="not a name"),
            start(api, "o", tags={str(n): "x" for n in range(33)}),
            start(api, "o", name="not%20a%20name"),
            sent_as(api, "f", '{"id": "o", "args": [' + ", ".join(["1e120000"] * 9) + "]}"),
            start(api, f"brim-{time}", args={"text": "x" * (1024 * 1024 - 12)}),
        ]

    alone = [await ask for ask in asks(1)]
    together = await gate.together(*asks(2))
    assert [each.status_code for each in together] == [each.status_code for each in alone]
    for one, other in zip(together, alone, strict=True):
        if one.status_code != 201:
            assert (one.content, one.headers) == (other.content, other.headers)
    assert {each.status_code for each in together} == {200, 201, 400, 409, 413}


async def test_an_id_that_somebody_holds_delays_its_own_start_alone(
    api: httpx.AsyncClient,
    gate: Gate,
    db: psycopg.Connection[Any],
    sent: list[calls.Call[Any]],
    logs: list[EventDict],
) -> None:
    with gate.held("held"):
        first, held, last = await gate.gathered(start(api, "a"), start(api, "held"), start(api, "z"))
        async with asyncio.timeout(30):
            assert [(await each).status_code for each in (first, last)] == [201, 201]
        assert not held.done()
        assert db.execute("select id from promise where id in ('a', 'held', 'z') order by id").fetchall() == [
            ("a",),
            ("z",),
        ]
    assert (await held).status_code == 201
    assert functions(sent) == ["start", "start_together", "start", "start", "start"]
    assert logs == []


async def test_what_takes_long_is_overtaken(
    api: httpx.AsyncClient, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "gather_seconds_max", 0.01)
    with gate.held("held"):
        stuck = asyncio.create_task(start(api, "held"))
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(start(api, f"o{n}") for n in range(40)))
        assert {answer.status_code for answer in answers} == {201}
        assert not stuck.done()
    assert (await stuck).status_code == 201


async def test_whoever_goes_away_takes_nobody_along(
    api: httpx.AsyncClient, gate: Gate, db: psycopg.Connection[Any]
) -> None:
    db.execute("alter function start_together set lock_timeout = 0")
    with gate.held("held"):
        gone, waits, stays = await gate.gathered(
            start(api, "held"), start(api, "a", wait=60), start(api, "b")
        )
        blocked = (
            "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        await until(lambda: db.execute(blocked).rowcount > 0)
        for each in (gone, waits):
            each.cancel()
        await asyncio.gather(gone, waits, return_exceptions=True)
    assert (await stays).status_code == 201
    assert db.execute("select count(*) from promise where id in ('a', 'b', 'held')").fetchone() == (3,)


async def test_whoever_goes_before_his_turn_starts_nothing(
    api: httpx.AsyncClient, gate: Gate, db: psycopg.Connection[Any]
) -> None:
    with gate.held("gate"):
        ahead = await gate.going(start(api, "gate"))
        first, gone, last = [await gate.going(start(api, id)) for id in ("a", "gone", "z")]
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    assert [(await each).status_code for each in (ahead, first, last)] == [201] * 3
    assert db.execute("select count(*) from promise where id = 'gone'").fetchone() == (0,)


async def test_a_lone_one_that_goes_away_lets_the_others_go_on(api: httpx.AsyncClient, gate: Gate) -> None:
    with gate.held("held"):
        alone = await gate.going(start(api, "held"))
        behind = await gate.going(start(api, "a"))
        alone.cancel()
        async with asyncio.timeout(30):
            assert (await behind).status_code == 201


async def test_groups_are_bounded_by_number_and_by_size(
    api: httpx.AsyncClient, gate: Gate, sent: list[calls.Call[Any]]
) -> None:
    large = {"text": "\u00e9" * 150_000}
    answers = await gate.together(
        *(start(api, f"o{n}") for n in range(150)), *(start(api, f"large{n}", args=large) for n in range(5))
    )
    assert {answer.status_code for answer in answers} == {201}
    items = [json.loads(str(call.values[0])) for call in sent if call.function == "start_together"]
    assert [each["id"] for group in items for each in group] == [
        *(f"o{n}" for n in range(150)),
        *(f"large{n}" for n in range(5)),
    ]
    # of the large ones, three are 0.9 MB
    assert [len(group) for group in items] == [limits.gathered_starts_max, 50 + 3, 2]


async def test_they_wait_for_their_ends(api: httpx.AsyncClient, gate: Gate, acting: Acting) -> None:
    await start(api, "done")
    assert acting.run("f", value=7) == ["done"]
    done, *waiting, late = await gate.gathered(
        start(api, "done", wait=60),
        start(api, "a", wait=60),
        start(api, "b", wait=60),
        start(api, "a", wait=60),
        start(api, "late", wait=0.1, name="never"),
    )
    assert ((await done).status_code, (await done).json()["value"]) == (200, 7)
    ran: set[str] = set()
    while not ran >= {"a", "b"}:
        ran.update(acting.run("f", value=42))
        await asyncio.sleep(0.02)
    ended = await asyncio.gather(*waiting)
    assert [(each.status_code, each.json()["id"], each.json()["value"]) for each in ended] == [
        (201, "a", 42), (201, "b", 42), (200, "a", 42)
    ]  # fmt: skip
    assert ended[0].headers["location"] == "/promises/a"
    assert (await late).status_code == 202
    assert (await late).json() == (await api.get("/promises/late")).json() | {"answer": "created"}


async def test_a_call_that_is_refused_as_a_whole_is_asked_one_by_one(
    api: httpx.AsyncClient,
    gate: Gate,
    db: psycopg.Connection[Any],
    sent: list[calls.Call[Any]],
    logs: list[EventDict],
) -> None:
    """A schema that knows no such function yet, say; whoever runs the application is told once."""
    db.execute("drop function start_together")
    for id in ("a", "c"):
        answers = await gate.together(start(api, id), start(api, "no~id"), start(api, id + id))
        assert [answer.status_code for answer in answers] == [201, 400, 201]
    assert functions(sent) == ["start", "start_together", "start", "start", "start"] * 2
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "starts could not share a call; each goes by itself")
    ]
    assert "start_together" in logs[0]["error"]


async def test_a_shared_call_that_answers_too_little_is_asked_one_by_one(
    api: httpx.AsyncClient, gate: Gate, db: psycopg.Connection[Any]
) -> None:
    db.execute(
        """create or replace function start_together(p_items jsonb, p_shown text[] default '{}') returns setof jsonb
             language sql as 'select null::jsonb where false'"""
    )
    async with asyncio.timeout(30):
        answers = await gate.together(start(api, "a"), start(api, "b"))
    assert [answer.status_code for answer in answers] == [201, 201]


@pytest.fixture
async def nowhere() -> AsyncIterator[httpx.AsyncClient]:
    """The application of a Postgres that is not there."""
    troth = Troth("postgresql://127.0.0.1:1/none")
    async with asking(create_app(troth)) as client:
        yield client
    await troth.close()


async def test_without_postgres_each_is_told(nowhere: httpx.AsyncClient) -> None:
    alone = await start(nowhere, "o")
    answers = await asyncio.gather(*(start(nowhere, f"o{n}") for n in range(20)))
    for answer in answers:
        problem(answer, 503, "postgres_unreachable")
        assert (answer.content, answer.headers) == (alone.content, alone.headers)
