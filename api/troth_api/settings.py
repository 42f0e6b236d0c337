"""What an API process is told: by arguments or by the environment, through which its workers hear of it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from troth.errors import InvalidArgument
from troth.schema import DEFAULT_SCHEMA
from troth_api import limits

_PREFIX: Final = "TROTH_"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the namespace is, where to listen, and who may ask.

    `hosts` are further names that requests may be addressed to, beside the loopback's and `host` itself; `*` allows
    every name. `body_bytes_max` is the limit of a request's body.
    """

    dsn: str | None = None
    schema: str = DEFAULT_SCHEMA
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    hosts: tuple[str, ...] = ()
    body_bytes_max: int = limits.body_bytes_max

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read TROTH_DSN, _SCHEMA, _HOST, _PORT, _WORKERS, _HOSTS (with commas between) and _BODY_BYTES_MAX."""
        usual = cls()

        def text(name: str, default: str) -> str:
            return environment.get(_PREFIX + name) or default

        def number(name: str, default: int, least: int, most: int) -> int:
            return _number(text(name, str(default)), _PREFIX + name, least, most)

        return cls(
            dsn=text("DSN", "") or None,
            schema=text("SCHEMA", DEFAULT_SCHEMA),
            host=text("HOST", usual.host),
            port=number("PORT", usual.port, 0, 65535),
            workers=number("WORKERS", usual.workers, 1, 1000),
            hosts=tuple(name.strip() for name in text("HOSTS", "").split(",") if name.strip()),
            body_bytes_max=number("BODY_BYTES_MAX", usual.body_bytes_max, 1024, 2**40),
        )

    def to_environment(self) -> dict[str, str]:
        """What `from_environment` reads back."""
        return {
            **({} if self.dsn is None else {"TROTH_DSN": self.dsn}),
            "TROTH_SCHEMA": self.schema,
            "TROTH_HOST": self.host,
            "TROTH_PORT": str(self.port),
            "TROTH_WORKERS": str(self.workers),
            "TROTH_HOSTS": ",".join(self.hosts),
            "TROTH_BODY_BYTES_MAX": str(self.body_bytes_max),
        }


def _number(text: str, name: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise InvalidArgument(f"{name} is {text!r}, which is not a number from {least} to {most}.")
    return int(text)
