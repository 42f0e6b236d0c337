"""The tables' revisions, run by Alembic: over a connection that is in its transaction, or as text.

The only module that imports Alembic and SQLAlchemy, which cost more to import than a whole `troth get` takes: it is
imported by who migrates, when they do.
"""

import io
import threading
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

# `alembic.op` and `alembic.context` are one pair for the whole process: two threads that migrate two databases would
# each make the other's tables.
_ALEMBIC: Final = threading.Lock()


def upgrade(connection: Connection, schema: str, migrations: Path) -> None:
    """Bring the tables to the newest revision."""
    config = _config(schema, migrations)
    config.attributes["connection"] = connection
    with _ALEMBIC:
        command.upgrade(config, "head")


def render(schema: str, migrations: Path, start: str | None) -> str:
    """The statements that bring the tables from a revision (or from nothing) to the newest one."""
    config = _config(schema, migrations)
    config.output_buffer = text = io.StringIO()
    with _ALEMBIC:
        command.upgrade(config, f"{start or 'base'}:head", sql=True)
    return text.getvalue()


def _config(schema: str, migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["schema"] = schema
    return config
