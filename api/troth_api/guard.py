"""Who may ask, and what may be sent: a web page must not settle a promise on somebody's loopback.

- The Host must be a name that is served here; otherwise a page could point a name of its own at this machine and then
  speak to it as its own site.
- A browser says in Origin which site a request comes from; only this one may.
- A body is JSON and says so: what a plain form can send is refused.

Bodies are measured while they arrive (Litestar's `request_max_body_size`); nothing beyond the limit is kept.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from troth_api.problems import Problem

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARD: Final = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 — what one may bind to, not what we do
_DEFAULT_PORT: Final = {"http": 80, "https": 443}


class Guard(ASGIMiddleware):
    """Refuses what is not meant for this server. `host` is what it is bound to, `names` are further names of it."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, host: str, names: tuple[str, ...]) -> None:
        self._names = LOOPBACK | {_bare(host)} | {_bare(name) for name in names}
        # Bound to every address, it is reached by any of them: no name can be pointed at a literal address.
        self._literals = host in WILDCARD
        self._every = "*" in names

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Check, and go on."""
        headers = Headers.from_scope(scope)
        host = headers.get("host", "")
        self._check_host(host)
        _check_origin(headers.get("origin"), host)
        if scope["type"] == ScopeType.HTTP and scope["method"] not in {"GET", "HEAD", "OPTIONS"}:
            _check_content(headers)

        async def send_plainly(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        await next_app(scope, receive, send_plainly)

    def _check_host(self, host: str) -> None:
        name = _bare(host)
        if self._every or name in self._names or (self._literals and _is_address(name)):
            return
        raise Problem(
            403,
            "Host not served",
            f"The request is addressed to {host[:200]!r}, which is not a name of this server.",
            hint="Name it with --allow-host or TROTH_HOSTS, or use the address that the server was bound to.",
        )


def _check_origin(origin: str | None, host: str) -> None:
    if origin is None:
        return
    scheme, colon, _ = origin.partition("://")
    ours = _authority(f"{scheme}://{host}")
    if colon and ours is not None and _authority(origin) == ours:
        return
    raise Problem(
        403,
        "Foreign origin",
        f"The request comes from a page of {origin[:200]!r}, and pages of other sites may not ask.",
        hint="Ask from a page of this server, or from a program that is no browser.",
    )


def _check_content(headers: Headers) -> None:
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if kind.strip().lower() == "application/json" and charset in {"", "charset=utf-8"}:
        if headers.get("content-encoding", "identity").lower() == "identity":
            return
        raise Problem(
            415,
            "Unsupported media type",
            "The body is compressed.",
            hint="Send it as it is, without Content-Encoding.",
        )
    given = headers.get("content-type", "")[:100]
    raise Problem(
        415,
        "Unsupported media type",
        f"The body's type is {given!r}; expected application/json, in UTF-8.",
        hint="With curl, use --json.",
    )


def _bare(host: str) -> str:
    """A name without its port, in small letters: of `[::1]:8000`, `::1`."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _authority(url: str) -> tuple[str, int | None] | None:
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port or _DEFAULT_PORT.get(parts.scheme)) if parts.hostname else None
    except ValueError:
        return None
