"""An HTTP client of an application in this process."""

from __future__ import annotations

from typing import Any, cast

import httpx
from litestar import Litestar

ORIGIN = "http://localhost:8000"


def asking(app: Litestar) -> httpx.AsyncClient:
    """Asks the application directly; what it raises comes out."""
    # Litestar's own types of ASGI messages are narrower than those of the client
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=cast("Any", app)), base_url=ORIGIN)
