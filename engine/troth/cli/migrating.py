"""`troth migrate`: bring a namespace to the tables and functions of this release, compare it, or print how."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from troth.cli.exits import Exit
from troth.cli.output import emit, note, say
from troth.cli.session import Asked, Session
from troth.errors import InvalidArgument


def migrate(
    *,
    sql: bool = False,
    check: bool = False,
    roles: Annotated[bool, Parameter(negative="--no-roles")] = True,
    grant: Annotated[str | None, Parameter(metavar="AUDIENCE=ROLE,...")] = None,
    start: Annotated[str | None, Parameter(name="--from", metavar="REVISION")] = None,
    session: Asked,
) -> int:
    """Make the namespace, or bring it to this release: in one transaction, beside running workers.

    :param sql: Print it for psql instead, for an empty database or one at the revision --from.
    :param check: Only compare: 0 if nothing is to be done, 5 otherwise.
    :param roles: Make the four roles where this user may; --no-roles makes none.
    :param grant: Grant to existing roles instead, such as client=app,worker=app,admin=ops.
    :param start: With --sql, the revision that the namespace is at.
    """
    if sql and check:
        raise InvalidArgument("--sql and --check exclude each other.", hint="Give one of them.")
    if start is not None and not sql:
        raise InvalidArgument(
            "--from belongs to --sql.", hint="Without --sql the database says where it stands."
        )
    grants = _grants(grant)
    if sql:
        return _print_sql(session, roles=roles, grants=grants, start=start)
    return _check(session) if check else _migrate(session, roles=roles, grants=grants)


def _grants(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    grants: dict[str, str] = {}
    for part in text.split(","):
        audience, sign, role = part.strip().partition("=")
        if not sign:
            raise InvalidArgument(
                f"{part!r:.100} is no grant.", hint="Write --grant client=ROLE,worker=ROLE."
            )
        grants[audience] = role
    return grants


def _print_sql(session: Session, *, roles: bool, grants: dict[str, str] | None, start: str | None) -> int:
    from troth.schema import offline_sql

    text = offline_sql(session.schema, roles=roles, grants=grants, start=start)
    if session.json:
        emit({"schema": session.schema, "sql": text})
    else:
        sys.stdout.write(text)
    return Exit.OK


def _check(session: Session) -> int:
    from troth.schema import check

    state = check(session.dsn(), session.schema)
    if session.json:
        document = {"schema": state.schema, "state": state.kind, "revision": state.revision}
        emit({**document, "expected": state.expected, "message": state.sentence})
    elif state.kind == "current":
        say(state.sentence)
    else:
        note(f"troth: {state.sentence}")
    return Exit.OK if state.kind == "current" else Exit.SCHEMA


def _migrate(session: Session, *, roles: bool, grants: dict[str, str] | None) -> int:
    from troth.schema import migrate

    report = migrate(session.dsn(), session.schema, roles="auto" if roles else False, grants=grants)
    if session.json:
        emit(report)
        return Exit.OK
    before = "new, at" if report.revision_before is None else "at"
    if report.revision_before not in (None, report.revision):
        before = f"brought from revision {report.revision_before} to"
    given = ", ".join(f"{audience} {role}" for audience, role in report.roles.items()) or "none"
    say(
        f'The schema "{report.schema}" is {before} revision {report.revision}, with {report.functions} functions; '
        f"owner {report.owner}, roles: {given}."
    )
    for sentence in report.skipped:
        note(f"  left out: {sentence}")
    return Exit.OK
