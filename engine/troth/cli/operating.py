"""What an operator does: `halt` and `resume`."""

from __future__ import annotations

from typing import Annotated, assert_never

from cyclopts import Parameter

from troth.cli.exits import Exit, exit_of_operation
from troth.cli.output import emit, note, outcome_of, say
from troth.cli.session import Asked
from troth.model import Operated


def halt(
    id: str, /, *, reason: Annotated[str | None, Parameter(name=("--reason", "-m"))] = None, session: Asked
) -> int:
    """Park a workflow: no worker runs it until `troth resume`.

    :param id: The workflow.
    :param reason: Why, for people.
    """
    with session.client() as client:
        return _show(id, client.halt(id, reason), json=session.json)


def resume(id: str, /, *, session: Asked) -> int:
    """Send a halted workflow on, from where it stood.

    :param id: The workflow.
    """
    with session.client() as client:
        return _show(id, client.resume(id), json=session.json)


def _show(id: str, operated: Operated, *, json: bool) -> int:
    code = exit_of_operation(operated.answer)
    if json:
        emit(operated)
    elif code == Exit.OK:
        say(_sentence(id, operated))
    else:
        note(f"troth: {_sentence(id, operated)}")
    return code


def _sentence(id: str, operated: Operated) -> str:
    match operated.answer:
        case "halted":
            return f"{id} is halted; `troth resume {id}` sends it on"
        case "resumed":
            return f"{id} goes on as soon as a worker takes it"
        case "already":
            return f"{id} was halted already"
        case "not_halted":
            return f"{id} is not halted"
        case "latent":
            return f"{id} is a latent promise, which nobody runs"
        case "settled":
            stands = "" if operated.promise is None else f": {outcome_of(operated.promise, whole=True)}"
            return f"{id} has ended{stands}"
        case "unknown":
            return f"No promise has the ID {id!r}; look for it with `troth list`"
    assert_never(operated.answer)
