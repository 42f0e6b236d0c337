"""Lets squawk judge the SQL of every migration, as Postgres is given it.

    python tools/squawk_migrations.py

Each revision becomes a file of its own, so that what a later one does to a table that already holds rows is
seen as that. Functions are no migrations: they are replaced whole, and plpgsql_check reads them. The rules
that do not apply here stand in .squawk.toml, with the reason.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory

from troth.schema.names import DEFAULT_SCHEMA
from troth.schema.script import settings

TOP = Path(__file__).resolve().parents[1]


def offline(revision: Script) -> str:
    """What this revision's upgrade sends, or nothing."""
    sent = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": sent}
    )
    with Operations.context(context):
        revision.module.upgrade()
    return sent.getvalue()


def main() -> int:
    squawk = Path(sys.executable).with_name("squawk")
    revisions = sorted(
        ScriptDirectory(str(TOP / "migrations")).walk_revisions(), key=lambda found: found.revision
    )
    with tempfile.TemporaryDirectory(prefix="squawk-") as folder:
        files: list[str] = []
        for revision in revisions:
            sql = offline(revision)
            if not sql.strip():
                print(f"squawk: revision {revision.revision} sends nothing", file=sys.stderr)
                return 1
            file = Path(folder, Path(revision.path).with_suffix(".sql").name)
            # every migrate begins with these
            file.write_text(f"{settings(DEFAULT_SCHEMA)};\n{sql}")
            files.append(file.name)
        if not files:
            print("squawk: no migration found", file=sys.stderr)
            return 1
        command = [str(squawk), "--config", str(TOP / ".squawk.toml"), *files]
        return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
