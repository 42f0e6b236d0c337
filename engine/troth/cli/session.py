"""What the global options say: which Postgres, which namespace, and for whom the answer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from troth.schema import checked

if TYPE_CHECKING:
    from troth.client import SyncTroth


@dataclass(frozen=True)
class Session:
    """The global options of one command."""

    given: str | None
    schema: str
    json: bool
    traceback: bool

    def __post_init__(self) -> None:
        checked(self.schema)

    def dsn(self) -> str:
        """The DSN that is meant. Raises `InvalidArgument` where nothing names one, or it cannot be read."""
        from troth.dsn import find_dsn
        from troth.gateway.failures import parse_dsn

        dsn = find_dsn(self.given)
        parse_dsn(dsn)
        return dsn

    def client(self) -> SyncTroth:
        """A client that connects when it is entered."""
        from troth.client import SyncTroth

        return SyncTroth(self.dsn(), schema=self.schema)


Asked: TypeAlias = Annotated[Session, Parameter(parse=False)]
"""The session as a command's own parameter, which no token of the command line fills."""
