"""How Alembic meets a namespace: over the connection of the migration that runs it, or as text for a DBA.

There is no `alembic.ini` and no engine here. `troth.schema.revisions` calls with the schema's name and either a
connection, already in its transaction and with the schema first on its path, or nothing, and takes the SQL as text.
"""

from alembic import context

from troth.schema import VERSION_TABLE

config = context.config
schema = config.attributes["schema"]

if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        version_table=VERSION_TABLE,
        version_table_schema=schema,
    )
else:
    context.configure(
        connection=config.attributes["connection"], version_table=VERSION_TABLE, version_table_schema=schema
    )

# The transaction is the caller's: tables, functions and roles come together or not at all.
context.run_migrations()
