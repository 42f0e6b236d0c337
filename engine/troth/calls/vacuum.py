"""What workers say to Postgres that is no call of a function of ours, for no function can VACUUM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from troth.calls.call import Call, Style, T, nothing

MayVacuum: TypeAlias = Literal["now", "later", "never"]

# Who may is Postgres' own rule. The locks are those that VACUUM's own does not go together with.
_MAY_VACUUM: Final = """select case
    when exists (
      select from pg_catalog.pg_class c where c.oid = any (tables) and not (
        pg_catalog.pg_has_role(c.relowner, 'USAGE') or pg_catalog.pg_has_role(d.datdba, 'USAGE')
        or case when pg_catalog.current_setting('server_version_num')::integer >= 170000
                then pg_catalog.has_table_privilege(c.oid, 'MAINTAIN') else false end)) then 'never'
    when exists (
      select from pg_catalog.pg_locks l where l.locktype = 'relation' and l.database = d.oid and l.relation = any (tables)
         and l.mode not in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock', 'SIReadLock')) then 'later'
    when (select sum(pg_catalog.pg_stat_get_dead_tuples(t)) from pg_catalog.unnest(tables) t) < {dead_rows} then 'later'
    else 'now' end
  from pg_catalog.pg_database d, (select array['{schema}.task', '{schema}.wait']::regclass[]::oid[] as tables) of_ours
 where d.datname = pg_catalog.current_database()"""

# Not in parallel: on what is small it costs more than it brings. Not skip_locked: where two workers look in the same instant, the
# second one would warn in the server's log; so it waits for the first, and finds nothing left.
_VACUUM: Final = "vacuum (parallel 0) {schema}.task, {schema}.wait"


@dataclass(frozen=True, slots=True)
class _Statement(Call[T]):
    """In place of a call; `{schema}` in it is the namespace's name."""

    statement: str = ""

    def text(self, schema: str, style: Style) -> str:
        del style
        return self.statement.replace("{schema}", f'"{schema}"')


def may_vacuum(dead_rows: int) -> Call[MayVacuum]:
    """Whether this user may vacuum `task` and `wait`, has so many dead rows to gain, and would meet no vacuum or migration."""
    asked = _MAY_VACUUM.replace("{dead_rows}", str(dead_rows))
    return _Statement("may_vacuum", (), lambda rows: rows[0][0], statement=asked)


def vacuum() -> Call[None]:
    """Vacuum `task` and `wait`, whose rows come and go."""
    return _Statement("vacuum", (), nothing, statement=_VACUUM)
