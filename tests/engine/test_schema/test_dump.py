"""The whole schema as the catalog has it, committed, so that every change shows what it really did.

After a change that is meant: `TROTH_WRITE_SCHEMA_DUMP=1 python -m pytest tests/engine/test_schema/test_dump.py`, and
read the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.engine.test_schema.conftest import catalog
from troth.schema import migrate

DUMP = Path(__file__).parent / "schema_dump.txt"


def test_the_schema_is_the_one_committed(database: str, schema: str) -> None:
    migrate(database, schema)
    # The hash over all functions changes with every comment in them: it is not what this file is for.
    found = re.sub(r"functions [0-9a-f]{32}", "functions HASH", catalog(database, schema))

    if os.environ.get("TROTH_WRITE_SCHEMA_DUMP"):
        DUMP.write_text(found)
    assert found == DUMP.read_text()
