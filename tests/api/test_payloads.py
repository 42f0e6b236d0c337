"""What is sent is stored and shown as it was, or refused before anything changes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.acting import Acting
from tests.api.problems import problem
from troth import Troth
from troth import limits as payload_limits
from troth_api import limits

JSON = {"content-type": "application/json"}


async def resolved_with(api: httpx.AsyncClient, value: str | bytes) -> httpx.Response:
    text = value if isinstance(value, bytes) else value.encode(errors="surrogatepass")
    return await api.post("/promises/p/resolve", content=b'{"value": ' + text + b"}", headers=JSON)


@pytest.mark.parametrize(
    "value",
    [
        "null",
        "true",
        "0",
        "-1",
        "0.0",
        "1.0",
        "1.10",
        "9007199254740993",
        "123456789012345678901234567890123456789012345678901234567890",
        "0.1000000000000000000000000000000000000001",
        "3.14159265358979323846264338327950288",
        '"2026-02-30T10:00:00+05:30"',
        '"\\\\u0000"',
        '"\\ud83d\\ude00 \\u00e9 \\n \\\\ \\" /"',
        '"😀 مرحبا"',
        '""',
        "[]",
        "{}",
        '{"": {"a b": [null, {"c": "<script>"}]}}',
        "[" * 100 + "]" * 100,
        "9" * 5000,
    ],
)
async def test_s65_a_value_comes_back_as_it_was_sent(api: httpx.AsyncClient, value: str) -> None:
    await api.post("/promises", json={"id": "p"})
    answer = await resolved_with(api, value)
    assert answer.status_code == 200, answer.text
    for text in (answer.text, (await api.get("/promises/p")).text):
        assert exactly(text)["value"] == exactly(value)


def exactly(text: str) -> Any:
    """JSON with its numbers as they are written."""
    return json.loads(
        text, parse_float=lambda number: f"number {number}", parse_int=lambda number: f"number {number}"
    )


@pytest.mark.parametrize(
    ("value", "same"), [("1e3", "1000"), ("1.5E-3", "0.0015"), ("1e400", "1" + "0" * 400)]
)
async def test_a_number_with_an_exponent_comes_back_with_all_its_digits(
    api: httpx.AsyncClient, value: str, same: str
) -> None:
    await api.post("/promises", json={"id": "p"})
    assert exactly((await resolved_with(api, value)).text)["value"] == f"number {same}"
    assert (await resolved_with(api, value)).json()["answer"] == "already"


UNSTORABLE: list[str | bytes] = [
    '"\\u0000"',
    '"a\\\\\\u0000"',
    '{"\\u0000": 1}',
    '"\\ud800"',
    '"\\udc00"',
    '"\\ud800\\ud800"',
    '{"\\ud800": 1}',
    b'"\xff"',
    b'"\xc3\x28"',
    b'"\xed\xa0\x80"',
    b"\x00",
    b'"\x00"',
    b'"\n"',
    "NaN",
    "Infinity",
    "-Infinity",
    "-0",
    "-0.0",
    "-0e5",
    '{"a": 1, "a": 2}',
    '[{"a": {"b": 1, "c": 2, "b": 1}}]',
    "01",
    "1.",
    ".5",
    "0x10",
    "'a'",
    "[1,]",
    "{a: 1}",
    "",
    "1} {",
    "undefined",
]


async def test_a_refusal_says_what_is_wrong(api: httpx.AsyncClient, subtests: pytest.Subtests) -> None:
    for value, fault in {
        '"\\u0000"': "NUL",
        '"\\ud800"': "half a surrogate pair",
        "NaN": "NaN",
        "-0.0": "-0.0, whose sign",
        '{"a": 1, "a": 2}': "'a' twice",
        "[1,]": "not JSON",
    }.items():
        with subtests.test(value=value):
            document = problem(await resolved_with(api, value), 400, "invalid_payload")
            assert fault in document["detail"]
            assert document["instance"] == "/promises/p/resolve"


async def test_s64_what_cannot_be_stored_is_refused_and_nothing_changes(
    api: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for value in UNSTORABLE:
        with subtests.test(value=value):
            await api.post("/promises", json={"id": "p"})
            answer = await resolved_with(api, value)
            problem(answer, 400, "invalid_payload")
            for path, name in (("/workflows/approve", "args"), ("/promises", "default")):
                text = value if isinstance(value, bytes) else value.encode()
                body = b'{"id": "other", "timeout": 60, "' + name.encode() + b'": [' + text + b"]}"
                if text:
                    problem(await api.post(path, content=body, headers=JSON), 400, "invalid_payload")
            document = (await api.get("/promises/p")).json()
            assert (document["state"], document["value"]) == ("pending", None)
            assert (await api.get("/promises/other")).status_code == 404


@pytest.mark.parametrize("deep", [101, 10_000, 500_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
async def test_s67_a_value_that_is_too_deep_is_refused(
    api: httpx.AsyncClient, deep: int, opening: str, closing: str
) -> None:
    if len(opening) * deep > limits.body_bytes_max / 2:
        deep = 150_000
    await api.post("/promises", json={"id": "p"})
    answer = await resolved_with(api, opening * deep + "1" + closing * deep)
    problem(answer, 400, "payload_too_deep")
    assert (await api.get("/promises/p")).json()["state"] == "pending"


async def test_brackets_in_strings_are_not_depth(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "p"})
    value = ["[" * 500 + '\\"{' * 500]
    assert (await api.post("/promises/p/resolve", json={"value": value})).json()["value"] == value


async def test_s66_a_payload_and_a_body_have_limits(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "p"})
    most = payload_limits.payload_bytes_max
    document = problem(await resolved_with(api, '"' + "a" * (most - 1) + '"'), 413, "payload_too_large")
    assert f"as JSON; at most {most} are stored" in document["detail"]
    assert document["hint"]
    problem(await resolved_with(api, '"' + "a" * limits.body_bytes_max + '"'), 413, "payload_too_large")
    assert (await api.get("/promises/p")).json()["state"] == "pending"
    fits = '"' + "a" * (most - 1000) + '"'
    answer = await resolved_with(api, fits)
    assert (answer.status_code, answer.json()["value"]) == (200, json.loads(fits))


async def test_a_short_text_that_stands_for_endless_digits_is_refused(
    api: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for value in ["[" + ",".join(["1e130000"] * 100) + "]", "1e999999999999999999999999", "[1e-1200000]"]:
        with subtests.test(value=value):
            await api.post("/promises", json={"id": "p"})
            problem(await resolved_with(api, value), 413, "payload_too_large")


async def test_a_value_that_a_codec_sealed_is_shown_as_it_is_stored(
    api: httpx.AsyncClient, db: psycopg.Connection[Any]
) -> None:
    await api.post("/promises", json={"id": "p"})
    db.execute("select resolve('p', '\"c2VhbGVk\"', '{\"codec\": \"zip\"}', '\\x01')")
    document = (await api.get("/promises/p")).json()
    assert (document["value"], document["headers"]) == ("c2VhbGVk", {"codec": "zip"})


async def test_a_wrong_value_does_no_more_harm_than_a_wrong_value(
    api: httpx.AsyncClient, troth: Troth
) -> None:
    await api.post("/promises", json={"id": "p"})
    assert (await api.post("/promises/p/resolve", json={"value": "yes"})).status_code == 200
    with pytest.raises(Exception, match="'p' does not fit: expected bool"):
        await troth.handle("p", bool).result()


async def test_a_result_of_a_workflow_is_shown_digit_by_digit(api: httpx.AsyncClient, acting: Acting) -> None:
    await api.post(
        "/workflows/approve", content='{"id": "o", "args": [12345678901234567890.10, 1e2]}', headers=JSON
    )
    assert '"args":[12345678901234567890.10, 100]' in (await api.get("/promises/o")).text
    acting.run("approve", value=2**80)
    assert f'"value":{2**80}' in (await api.get("/promises/o")).text


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON;charset=UTF-8", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/msgpack", 415),
        ("", 415),
        (None, 415),
    ],
)
async def test_only_what_says_that_it_is_json_is_read(
    api: httpx.AsyncClient, content_type: str | None, status: int
) -> None:
    await api.post("/promises", json={"id": "p"})
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await api.post("/promises/p/resolve", content=b'{"value": 1}', headers=headers)
    if status == 200:
        assert answer.status_code == 200
    else:
        problem(answer, 415, "unsupported_media_type")
        assert (await api.get("/promises/p")).json()["state"] == "pending"


async def test_a_compressed_body_is_refused(api: httpx.AsyncClient) -> None:
    answer = await api.post("/promises", content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"})
    problem(answer, 415, "unsupported_media_type")


async def test_texts_have_limits(api: httpx.AsyncClient) -> None:
    await api.post("/promises", json={"id": "p"})
    problem(await api.post("/promises/p/cancel", json={"reason": "x" * 1001}), 413, "payload_too_large")
    problem(await api.post("/promises", json={"id": "q", "title": "x" * 201}), 413, "payload_too_large")
