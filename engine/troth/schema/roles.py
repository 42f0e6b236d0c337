"""Which roles a migration uses: those that it makes, those that it is given, or only its own user.

Making roles takes CREATEROLE, and owning as another role takes membership of it. Many a hosted Postgres gives
neither; then the namespace belongs to whoever migrates, and the report says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from psycopg import Connection
from psycopg.rows import dict_row

from troth.errors import InvalidArgument
from troth.schema.names import AUDIENCES, VERSION_TABLE, Audience
from troth.schema.script import Roles

Wanted = bool | Literal["auto"]


@dataclass(frozen=True)
class Choice:
    """The roles of this migration, and sentences about what was left out."""

    roles: Roles
    skipped: tuple[str, ...] = ()


def granted(grants: Mapping[str, str]) -> Roles:
    """The roles that `--grant client=ROLE,worker=ROLE` names; `owner=ROLE` is possible too."""
    for audience, role in grants.items():
        if audience not in (*AUDIENCES, "owner"):
            raise InvalidArgument(
                f"Nothing is granted to {audience!r}: say client=, worker=, admin= or owner=."
            )
        if not role:
            raise InvalidArgument(f"The role for {audience} has no name: write {audience}=ROLE.")
    audiences: dict[Audience, str] = {each: grants[each] for each in AUDIENCES if each in grants}
    return Roles(owner=grants.get("owner"), audiences=audiences)


def choose(
    connection: Connection[Any], schema: str, wanted: Wanted, grants: Mapping[str, str] | None
) -> Choice:
    """Look at what this user may do, and take the most of it that was asked for."""
    if grants:
        return _with_owner(connection, schema, granted(grants))
    if wanted is True:
        return Choice(Roles.standard(schema))
    if wanted is False:
        return _with_owner(connection, schema, Roles(), "roles were not asked for")
    standard = Roles.standard(schema)
    obstacle = _obstacle(connection, schema, standard)
    return _with_owner(connection, schema, Roles(), obstacle) if obstacle else Choice(standard)


def _obstacle(connection: Connection[Any], schema: str, standard: Roles) -> str | None:
    """Why the four standard roles cannot be had, or None."""
    user = _user(connection, schema)
    owner = str(standard.owner)
    existing = connection.execute(
        "select array_agg(rolname::text) from pg_catalog.pg_roles where rolname = any (%s)",
        [list(standard.all)],
    ).fetchone()
    missing = set(standard.all) - set((existing and existing[0]) or ())
    if user["superuser"] or user["owner_before"] == owner:
        return None
    if missing and not user["createrole"]:
        return f"{user['name']} may not create roles"
    if owner not in missing and not _may_become(connection, owner, user):
        return f"{user['name']} is not a member of {owner}"
    return None


def _may_become(connection: Connection[Any], role: str, user: Mapping[str, Any]) -> bool:
    """Whether this user is a member of the role, or can make itself one."""
    if connection.info.server_version < 160000 and user["createrole"]:
        return True
    kinds = "MEMBER" if connection.info.server_version < 160000 else "SET, MEMBER WITH ADMIN OPTION"
    answer = connection.execute("select pg_catalog.pg_has_role(%s, %s)", [role, kinds]).fetchone()
    return bool(answer and answer[0])


def _with_owner(
    connection: Connection[Any], schema: str, roles: Roles, obstacle: str | None = None
) -> Choice:
    """Without an owner role of its own, a namespace stays with whoever owns it, and begins with whoever migrates."""
    user = _user(connection, schema)
    before = cast(str | None, user["owner_before"])
    if roles.owner is None and before not in (None, user["name"]):
        roles = Roles(owner=before, audiences=roles.audiences)
    skipped = [
        f"role {schema}_{audience}: {obstacle}; name an existing role with --grant {audience}=ROLE"
        for audience in AUDIENCES
        if obstacle and audience not in roles.audiences
    ]
    if obstacle:
        skipped.insert(0, f"role {schema}_owner: {obstacle}; {roles.owner or user['name']} owns the schema")
    return Choice(roles, tuple(skipped))


def _user(connection: Connection[Any], schema: str) -> Mapping[str, Any]:
    """Who migrates, what they may do, and who owns what is already there."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """select rolname::text as name, rolsuper as superuser, rolcreaterole as createrole,
                      (select pg_catalog.pg_get_userbyid(c.relowner)::text from pg_catalog.pg_class c
                         join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                        where n.nspname = %s and c.relname = %s) as owner_before
                 from pg_catalog.pg_roles where rolname = current_user""",
            [schema, VERSION_TABLE],
        )
        found = cursor.fetchone()
    assert found is not None
    return found
