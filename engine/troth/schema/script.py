"""The SQL around the tables and the functions: what a migration says to Postgres, phase by phase.

`migrate` executes these texts one by one, `offline_sql` prints the same ones in the same order, so what a DBA applies
with psql is what a program would have applied. Whatever depends on what is already there is therefore asked in SQL,
inside DO blocks. Nothing here knows how the tables are made (`revisions`) or who is connected (`apply`).

Ours to replace or drop are the functions and views of the schema whose comment begins with the tag. A function counts
as loaded now if this transaction wrote its row: `age` of its xmin is then not positive, inside savepoints too.
`create or replace` keeps the identity of what has an unchanged signature, so that calls which run meanwhile, and plans
that workers have prepared, find it where it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, LiteralString

from psycopg import sql

from troth.schema.files import SqlFile
from troth.schema.names import (
    ADVISORY_LOCK_KEY,
    AUDIENCES,
    TAG,
    VERSION_TABLE,
    Audience,
    audience_role,
    owner_role,
)

# Above every wait that a healthy application makes, below what its users bear: a migration that stands behind
# somebody's forgotten transaction makes everybody else stand behind the migration.
LOCK_TIMEOUT_SECONDS: Final = 30

_ROUTINES: Final[LiteralString] = """(
    select oid, xmin, proname, proowner, proacl, format('routine %s', oid::regprocedure) as object
      from pg_catalog.pg_proc
     where pronamespace = {name}::regnamespace and obj_description(oid, 'pg_proc') like {tag} || '%'
    ) routine"""
_VIEWS: Final[LiteralString] = """(
    select oid, relname, relowner, relacl, oid::regclass as object
      from pg_catalog.pg_class
     where relnamespace = {name}::regnamespace and relkind = 'v'
       and obj_description(oid, 'pg_class') like {tag} || '%'
    ) view"""


@dataclass(frozen=True)
class Roles:
    """Who owns the namespace and who may execute what. `owner` None: whoever migrates. `made`: create those."""

    owner: str | None = None
    audiences: Mapping[Audience, str] = field(default_factory=dict[Audience, str])
    made: bool = False

    @classmethod
    def standard(cls, schema: str) -> "Roles":
        """The four NOLOGIN roles that a migration makes for itself."""
        audiences: dict[Audience, str] = {each: audience_role(schema, each) for each in AUDIENCES}
        return cls(owner_role(schema), audiences, made=True)

    @property
    def users(self) -> list[str]:
        """The roles that something is granted to."""
        return sorted(set(self.audiences.values()))

    @property
    def all(self) -> list[str]:
        """Every role, in the one order in which all migrations of a cluster make them."""
        return sorted({*self.users, *([self.owner] if self.owner else [])})


def lock() -> str:
    """The very first statement: whatever is looked at later is looked at by one migration at a time."""
    return _fill("select pg_catalog.pg_advisory_xact_lock({key})", key=ADVISORY_LOCK_KEY)


def settings(schema: str) -> str:
    """Bodies are checked by tests, not at load (functions call each other); the path is the one that entries pin."""
    return _fill(
        """set local lock_timeout = {lock_timeout};
set local check_function_bodies = off;
set local client_min_messages = warning;
set local search_path = {schema}, pg_temp""",
        lock_timeout=f"{LOCK_TIMEOUT_SECONDS}s",
        schema=sql.Identifier(schema),
    )


def make_roles(roles: Roles) -> str:
    """Roles belong to the cluster: a migration of another database may be making the same ones at this moment."""
    return _fill(
        """do $troth$
declare
  v_role text;
begin
  foreach v_role in array {roles}::text[] loop
    for v_try in 1 .. 5 loop
      exit when exists (select from pg_catalog.pg_roles where rolname = v_role);
      begin
        execute format('create role %I nologin', v_role);
      exception when duplicate_object or unique_violation or internal_error then null;
      end;
    end loop;
  end loop;
  for v_try in 1 .. 5 loop
    exit when pg_catalog.pg_has_role({owner}, case when current_setting('server_version_num')::int >= 160000
                                                   then 'SET' else 'MEMBER' end);
    begin
      execute format('grant %I to current_user', {owner});
    exception when unique_violation or internal_error then null;
    end;
  end loop;
end $troth$""",
        roles=roles.all,
        owner=roles.owner or "",
    )


def make_schema(schema: str, roles: Roles) -> str:
    """The schema, its use by the roles, the hand-over of what an earlier owner made; from here on as the owner."""
    made = _on(
        schema,
        """do $troth$
declare
  v_owner name := coalesce({owner}, current_user);
  v_before name;
  v_object text;
begin
  if not exists (select from pg_catalog.pg_namespace where nspname = {name}) then
    execute format('create schema %I authorization %I', {name}, v_owner);
  end if;
  if not pg_catalog.has_schema_privilege(v_owner, {name}, 'CREATE') then
    execute format('grant usage, create on schema %I to %I with grant option', {name}, v_owner);
  end if;
  select pg_catalog.pg_get_userbyid(relowner) into v_before from pg_catalog.pg_class
   where relnamespace = {name}::regnamespace and relname = {version_table};
  if v_before <> v_owner then
    for v_object in
      select format('table %s', oid::regclass) from pg_catalog.pg_class
       where relnamespace = {name}::regnamespace and relkind in ('r', 'p')
         and pg_catalog.pg_get_userbyid(relowner) = v_before
      union all
      select format('view %s', object) from {views}
      union all
      select object from {routines}
    loop
      execute format('alter %s owner to %I', v_object, v_owner);
    end loop;
  end if;
end $troth$""",
        owner=roles.owner,
        version_table=VERSION_TABLE,
    )
    usage = [
        _fill(
            "grant usage on schema {schema} to {user}",
            schema=sql.Identifier(schema),
            user=sql.Identifier(user),
        )
        for user in roles.users
    ]
    become = [_fill("set local role {owner}", owner=sql.Identifier(roles.owner))] if roles.owner else []
    return ";\n".join([made, *usage, *become])


def remember_grants(schema: str, roles: Roles) -> str:
    """Keep, for `restore_grants`, what others were granted on our views and functions: some are about to be dropped."""
    return _on(
        schema,
        """select pg_catalog.set_config('troth.grants', coalesce(jsonb_agg(statement)::text, '[]'), true)
  from (
    select object, acl.* from {routines} cross join aclexplode(proacl) acl where grantee not in (0, proowner)
    union all
    select format('table %s', object), acl.* from {views} cross join aclexplode(relacl) acl where grantee <> relowner
  ) granted
  left join pg_catalog.pg_roles on pg_roles.oid = grantee
  cross join format('grant %s on %s to %s', privilege_type, object, coalesce(quote_ident(rolname), 'public')) statement
 where grantee = 0 or rolname <> all ({ours}::text[])""",
        ours=roles.all,
    )


def drop_views(schema: str) -> str:
    """Before tables change: views stand in the way of many a change. Somebody else's view on ours is not dropped."""
    return _on(
        schema,
        """do $troth$
declare
  v_view text;
begin
  for v_view in select object from {views} loop
    execute format('drop view %s', v_view);
  end loop;
end $troth$""",
    )


def drop_named(schema: str, names: Sequence[str]) -> str:
    """Drop what a file defines anew and Postgres would not replace: another result, other names, other columns."""
    return _on(
        schema,
        """do $troth$
declare
  v_object text;
begin
  for v_object in
    select object from {routines} where proname = any ({names}::text[]) and age(xmin) > 0
    union all
    select format('view %s', object) from {views} where relname = any ({names}::text[])
  loop
    execute format('drop %s', v_object);
  end loop;
end $troth$""",
        names=list(names),
    )


def drop_stale(schema: str, files: Iterable[SqlFile]) -> str:
    """Functions and views of ours that no file defines any more."""
    return _on(
        schema,
        """do $troth$
declare
  v_object text;
begin
  for v_object in
    select format('view %s', object) from {views}
     where relname <> all ({names}::text[]) and pg_catalog.pg_get_userbyid(relowner) = current_user
    union all
    select object from {routines}
     where (proname <> all ({names}::text[]) or age(xmin) > 0)
       and pg_catalog.pg_get_userbyid(proowner) = current_user
  loop
    execute format('drop %s', v_object);
  end loop;
end $troth$""",
        names=[name for file in files for name in file.names],
    )


def tag_and_check(schema: str, files: Iterable[SqlFile]) -> str:
    """Mark what was loaded as ours, and refuse an entry function that would run with its caller's rights or path."""
    return _on(
        schema,
        """do $troth$
declare
  v_made record;
  v_wrong text;
begin
  for v_made in
    select format('routine %s', oid::regprocedure) as object, proname, prosecdef,
           array[format('search_path=%I, pg_temp', {name})] <@ coalesce(proconfig, '{{}}') as pinned,
           coalesce(obj_description(oid, 'pg_proc'), '') as comment
      from pg_catalog.pg_proc
     where pronamespace = {name}::regnamespace and proname = any ({functions}::text[]) and age(xmin) <= 0
    union all
    select format('view %s', oid::regclass), null, null, null, coalesce(obj_description(oid, 'pg_class'), '')
      from pg_catalog.pg_class
     where relnamespace = {name}::regnamespace and relname = any ({views_made}::text[])
  loop
    v_wrong := case
      when starts_with(v_made.proname, '_') and v_made.prosecdef then 'is a helper and must not be security definer'
      when starts_with(v_made.proname, '_') then null
      when not v_made.prosecdef then 'is not security definer'
      when not v_made.pinned then 'does not pin its path by "set search_path from current"' end;
    if v_wrong is not null then
      raise exception using errcode = 'invalid_function_definition', message = v_made.object || ' ' || v_wrong;
    end if;
    if not starts_with(v_made.comment, {tag}) then
      execute format('comment on %s is %L', v_made.object, trim({tag} || ' ' || v_made.comment));
    end if;
  end loop;
end $troth$""",
        functions=[name for file in files if file.kind == "function" for name in file.names],
        views_made=[name for file in files if file.kind == "view" for name in file.names],
    )


def grant(schema: str, files: Iterable[SqlFile], roles: Roles) -> str:
    """EXECUTE for nobody but those a file names, SELECT on views for all roles; tables stay the owner's."""
    return _on(
        schema,
        """do $troth$
declare
  v_statement text;
begin
  for v_statement in
    select format('revoke all on %s from %s', object, revoked)
      from {routines} cross join unnest({revoked}::text[]) revoked
    union all
    select format('grant execute on %s to %I', object, split_part(granted, ' ', 2))
      from {routines} join unnest({granted}::text[]) granted on split_part(granted, ' ', 1) = proname
    union all
    select format('grant select on %s to %I', object, reader)
      from {views} cross join unnest({readers}::text[]) reader
  loop
    execute v_statement;
  end loop;
end $troth$""",
        revoked=["public", *(sql.Identifier(user).as_string(None) for user in roles.users)],
        granted=[
            f"{name} {roles.audiences[audience]}"
            for file in files
            for name in file.entries
            for audience in AUDIENCES
            if audience in file.audiences and audience in roles.audiences
        ],
        readers=roles.users,
    )


def restore_grants() -> str:
    """Grant again what others had, where the object is still there."""
    return """do $troth$
declare
  v_statement text;
begin
  for v_statement in select jsonb_array_elements_text(current_setting('troth.grants')::jsonb) loop
    begin
      execute v_statement;
    exception when undefined_function or undefined_table then null;
    end;
  end loop;
end $troth$"""


def annotate(schema: str, note: str) -> str:
    """What is loaded now, where everybody may read it."""
    return _fill("comment on table {table} is {note}", table=sql.Identifier(schema, VERSION_TABLE), note=note)


Value = str | int | list[str] | sql.Composable | None


def _on(schema: str, template: LiteralString, **values: Value) -> str:
    """A template about one namespace: `{name}` is its name, `{routines}` and `{views}` what is ours in it."""
    routines = sql.SQL(_ROUTINES).format(name=schema, tag=TAG)
    views = sql.SQL(_VIEWS).format(name=schema, tag=TAG)
    return _fill(template, name=schema, tag=TAG, routines=routines, views=views, **values)


def _fill(template: LiteralString, **values: Value) -> str:
    """The template with its values as literals, or as what they are if they come composed."""
    return sql.SQL(template).format(**values).as_string(None)
