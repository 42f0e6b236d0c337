"""The clients of a namespace: start workflows, settle promises, look at both.

`Troth` is for asyncio (asyncpg), `SyncTroth` has the same verbs, blocking (psycopg). `options` gives a client with other options
for the calls made through it, in particular `connection=`: then a call is part of the caller's own transaction, on whichever
driver that is.
"""

from troth.client.asynchronous import Handle, Troth
from troth.client.blocking import SyncHandle, SyncTroth
from troth.client.verbs import Options

__all__ = ["Handle", "Options", "SyncHandle", "SyncTroth", "Troth"]
