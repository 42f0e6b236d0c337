"""What a namespace has kept of its workflows, as far as running their code again needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

from troth import calls
from troth.client import Troth
from troth.model import JournalEntry, PromiseInfo, Record

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Recorded:
    """One workflow: what its code was given, what it was told, and what became of it. Payloads are as they are stored."""

    record: Record
    journal: tuple[JournalEntry, ...]
    promise: PromiseInfo | None = None
    """How it stands; None where only its code is of interest."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        """How it is called in reports: its ID and its function."""
        return f"{self.record.id} ({self.record.function})"


async def recorded(client: Troth, connection: Connection[Any]) -> list[Recorded]:
    """All workflows of the namespace that have ever run, in the order of their IDs."""
    ids = connection.execute("select id from promise where function is not null order by id").fetchall()
    found: list[Recorded] = []
    for (id,) in ids:
        record = await client.pool.run(calls.record(id))
        if record is not None:
            journal = await _journal(client, id, record.last_seq)
            found.append(Recorded(record, tuple(journal), await client.get(id)))
    return found


async def _journal(client: Troth, id: str, last_seq: int) -> list[JournalEntry]:
    entries: list[JournalEntry] = []
    while len(entries) < last_seq:
        page = await client.journal(id, from_seq=len(entries) + 1, limit=_PAGE)
        if not page:
            break
        entries += page
    return entries[:last_seq]
