"""The command line as a whole: its commands, its global options, and what becomes of an error."""

from __future__ import annotations

import os
import sys
import traceback as tracebacks
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any, Final

from cyclopts import App, CycloptsError, Parameter

from troth.cli.exits import MEANINGS, Exit, exit_of
from troth.cli.output import complain
from troth.cli.session import Session
from troth.errors import TrothError
from troth.schema import DEFAULT_SCHEMA

_COMMANDS: Final = {
    "dev": "troth.cli.developing:dev",
    "migrate": "troth.cli.migrating:migrate",
    "serve": "troth.cli.serving:serve",
    "worker": "troth.cli.working:worker",
    "start": "troth.cli.deciding:start",
    "resolve": "troth.cli.deciding:resolve",
    "reject": "troth.cli.deciding:reject",
    "cancel": "troth.cli.deciding:cancel",
    "get": "troth.cli.looking:get",
    "list": "troth.cli.looking:list_",
    "tree": "troth.cli.looking:tree",
    "journal": "troth.cli.looking:journal",
    "halt": "troth.cli.operating:halt",
    "resume": "troth.cli.operating:resume",
    "settle-step": "troth.cli.operating:settle_step",
    "fork": "troth.cli.operating:fork",
    "export": "troth.cli.journals:export",
    "import": "troth.cli.journals:import_",
    "replay": "troth.cli.replaying:replay",
    "doctor": "troth.cli.doctor:doctor",
}
"""Each command and the function that it is, which is imported when it is called."""

_HELP: Final = """Durable Python workflows with nothing but Postgres.

Which Postgres: --dsn, then TROTH_DSN, then the one that `troth dev` runs for this directory (.troth/, here or above).
An application's DATABASE_URL is never looked at.

Exit codes: {codes}."""


def application(*, listed: bool) -> App:
    """The application that takes the global options and, inside it, the commands.

    `listed`: the commands are to be shown with what they do, so all are imported.
    """
    codes = "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items())
    app = App(
        name="troth",
        help=_HELP.format(codes=codes),
        help_format="markdown",
        version=lambda: metadata.version("troth"),
        default_parameter=Parameter(negative=""),
        result_action="return_value",
    )
    for position, (name, path) in enumerate(_COMMANDS.items()):
        app.command(path, name=name, sort_key=position)
        if listed:
            app[name]

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        dsn: Annotated[str | None, Parameter(help="Which Postgres: a DSN. [env var: TROTH_DSN]")] = None,
        schema: Annotated[
            str, Parameter(help="The schema that holds the namespace.", env_var="TROTH_SCHEMA")
        ] = DEFAULT_SCHEMA,
        json: Annotated[
            bool, Parameter(help="Answer in JSON: one document, or one a line (list, tree, journal).")
        ] = False,
        traceback: Annotated[
            bool, Parameter(help="Show where in the code an error arose.", env_var="TROTH_TRACEBACK")
        ] = False,
    ) -> int:
        command, bound, asked = app.parse_args(tokens, print_error=False, exit_on_error=False)
        try:
            session = Session(dsn, schema, json=json, traceback=traceback)
            given = {"session": session} if "session" in asked else {}
            return _code(command(*bound.args, **bound.kwargs, **given))
        except TrothError as error:
            if traceback:
                tracebacks.print_exc()
            complain(error, json=json, code=exit_of(error))
            return exit_of(error)

    return app.meta


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    meta = application(listed=_COMMANDS.keys().isdisjoint(arguments))
    try:
        command, bound, _ = meta.parse_args(arguments, print_error=False, exit_on_error=False)
        code = _code(command(*bound.args, **bound.kwargs))
        sys.stdout.flush()
    except CycloptsError as error:
        return _misused(error, arguments)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left, which is no error; what Python still holds back must go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:
        if "--traceback" in arguments or os.environ.get("TROTH_TRACEBACK", "0") not in ("", "0"):
            raise
        fault = TrothError(
            f"This should not have happened: {type(error).__name__}: {error}",
            hint="Run the command again with --traceback and report what it says.",
        )
        complain(fault, json="--json" in arguments, code=Exit.FAILED)
        return Exit.FAILED
    return code


def _code(result: Any) -> int:
    """What a command returned as an exit code: those that print help or the version return nothing."""
    return int(result) if isinstance(result, int) else Exit.OK


def _misused(error: CycloptsError, arguments: Sequence[str]) -> int:
    chain = [*(error.command_chain or ())]
    known = chain[:1] if chain and chain[0] in _COMMANDS else []
    fault = TrothError(" ".join(str(error).split()), hint=f"See `{' '.join(['troth', *known, '--help'])}`.")
    complain(fault, json="--json" in arguments, code=Exit.USAGE)
    return Exit.USAGE
