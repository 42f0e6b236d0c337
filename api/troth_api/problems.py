"""Every refusal as `application/problem+json` (RFC 9457): what was wrong, what was expected, what to do.

An error of Troth brings its title and status; here it is only written down. `type` is `urn:troth:problem:` and the
title in small letters, so that programs can tell problems apart without reading prose. What nobody foresaw is logged
with its traceback, and answered without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import quote

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi import ResponseSpec

from troth.errors import DatabaseError, IdConflict, InvalidArgument, PayloadTooLarge, TrothError
from troth.model import PromiseInfo

MEDIA_TYPE: Final = "application/problem+json"
_TYPE: Final = "urn:troth:problem:"
_log: Final = structlog.stdlib.get_logger("troth_api")


class ProblemDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is answered. `promise` is the one that stands in the way; `sqlstate` is that of the SQL function."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    hint: str | None = None
    sqlstate: str | None = None
    promise: PromiseInfo | None = None


class Problem(Exception):
    """A refusal of the API's own, or one with a promise to show."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        hint: str | None = None,
        promise: PromiseInfo | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.hint = hint
        self.promise = promise


_EVERYWHERE: Final = {
    400: "The ID, a parameter or the body cannot be",
    403: "The request comes from a page of another site, or is addressed to a name that is not served here",
    500: "The API failed; its log says how",
}
_WITH_POSTGRES: Final = {503: "Postgres cannot be reached, or its schema does not fit"}
_WITH_BODY: Final = {
    413: "A payload or the body is too large",
    415: "The body is not JSON, or does not say so",
}


def declared(*, postgres: bool = True, body: bool = False, **own: str) -> dict[int, ResponseSpec]:
    """For the OpenAPI document: the problems that a route may answer; its own as `_404="when it comes"`."""
    whens = (
        _EVERYWHERE
        | (_WITH_POSTGRES if postgres else {})
        | (_WITH_BODY if body else {})
        | {int(name[1:]): when for name, when in own.items()}
    )
    return {
        status: ResponseSpec(
            ProblemDocument, generate_examples=False, description=when, media_type=MEDIA_TYPE
        )
        for status, when in whens.items()
    }


def _answer(
    request: Request[Any, Any, Any],
    status: int,
    title: str,
    detail: str,
    *,
    hint: str | None = None,
    sqlstate: str | None = None,
    promise: PromiseInfo | None = None,
    headers: dict[str, str] | None = None,
) -> Response[ProblemDocument]:
    kind = _TYPE + "_".join(title.lower().split())
    document = ProblemDocument(kind, title, status, detail, _path(request), hint, sqlstate, promise)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {**(headers or {}), "Retry-After": "1"}
    return Response(document, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _of_problem(request: Request[Any, Any, Any], error: Problem) -> Response[ProblemDocument]:
    return _answer(request, error.status, error.title, error.detail, hint=error.hint, promise=error.promise)


def _of_troth(request: Request[Any, Any, Any], error: TrothError) -> Response[ProblemDocument]:
    status, title, sqlstate = error.status, error.title, error.sqlstate
    promise: PromiseInfo | None = None
    if isinstance(error, DatabaseError):
        status, sqlstate = _status_of(error.code), error.code
        title = HTTPStatus(status).phrase if status != error.status else title
    elif isinstance(error, IdConflict) and error.detail:
        promise = msgspec.json.decode(error.detail, type=PromiseInfo)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error(
            "request failed", method=request.method, path=_path(request), status=status, error=str(error)
        )
    return _answer(request, status, title, error.message, hint=error.hint, sqlstate=sqlstate, promise=promise)


def _status_of(sqlstate: str) -> int:
    """Postgres' own errors: data that it cannot hold (22), and what goes away by itself (40, 53, 55, 57)."""
    match sqlstate[:2]:
        case "22":
            return HTTPStatus.BAD_REQUEST
        case "40" | "53" | "55" | "57":
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR


def _of_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[ProblemDocument]:
    status = HTTPStatus(error.status_code)
    match error:
        case RequestEntityTooLarge():
            most = request.route_handler.resolve_request_max_body_size()
            return _of_troth(
                request,
                PayloadTooLarge(
                    f"The body is larger than {most} bytes, and was not read.",
                    hint="Store the data elsewhere and pass a reference to it.",
                ),
            )
        case ValidationException():
            return _of_troth(request, InvalidArgument(_faults(error), hint="/schema shows what is expected."))
        case _:
            detail = f"{request.method} {_path(request)}: {error.detail}"
            return _answer(request, status, status.phrase, detail, headers=error.headers)


def _faults(error: ValidationException) -> str:
    if not isinstance(error.extra, list):
        return error.detail
    faults: list[str] = []
    for fault in cast("list[Mapping[str, str]]", error.extra):
        if fault.get("key") == "data":
            return "The body is empty; expected a JSON object."
        faults.append(f"{fault.get('key')}: {fault.get('message')}")
    return "; ".join(faults) + "."


def _path(request: Request[Any, Any, Any]) -> str:
    """The path as it is written in a URL, whatever was sent in it."""
    return quote(request.scope["path"], safe="/-._~:@!$&'()*+,;=")


def _of_anything(request: Request[Any, Any, Any], error: Exception) -> Response[ProblemDocument]:
    _log.error("request failed", method=request.method, path=_path(request), status=500, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return _answer(
        request,
        status,
        status.phrase,
        "The API failed unexpectedly; its log says how.",
        hint="Report it, with the log.",
    )


HANDLERS: Final[dict[int | type[Exception], Callable[[Any, Any], Response[ProblemDocument]]]] = {
    Problem: _of_problem,
    TrothError: _of_troth,
    HTTPException: _of_http,
    Exception: _of_anything,
}
