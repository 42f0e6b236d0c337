"""What an operator does: `halt`, `resume`, `settle-step`, `fork`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, assert_never

from cyclopts import Parameter

from troth.cli.exits import Exit, exit_of_operation
from troth.cli.output import emit, note, outcome_of, say
from troth.cli.session import Asked
from troth.cli.values import read_value
from troth.errors import InvalidArgument
from troth.model import Operated, Started

Reason = Annotated[str | None, Parameter(name=("--reason", "-m"))]


def halt(id: str, /, *, reason: Reason = None, session: Asked) -> int:
    """Park a workflow: no worker runs it until `troth resume`.

    :param id: The workflow.
    :param reason: Why, for people.
    """
    with session.client() as client:
        return _show(client.halt(id, reason), lambda operated: _sentence(id, operated), json=session.json)


def resume(id: str, /, *, session: Asked) -> int:
    """Send a halted workflow on, from where it stood.

    :param id: The workflow.
    """
    with session.client() as client:
        return _show(client.resume(id), lambda operated: _sentence(id, operated), json=session.json)


def settle_step(
    id: str,
    operation: str,
    /,
    *,
    value: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    error: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    reason: Reason = None,
    session: Asked,
) -> int:
    """Decide by hand what a step brought: one that will not end, or that must not run.

    The workflow goes on with it as if the step had brought it; what the step itself brings later counts no more. A
    halted workflow stays halted until `troth resume`.

    :param id: The workflow.
    :param operation: The step, as `troth journal` names it: charge, or 2~charge:3 within a branch.
    :param value: Its value: JSON if it is valid JSON, and otherwise the text itself; - reads it from standard input.
    :param error: Or why it failed, in words; the code sees the step fail with that.
    :param reason: Why you decide so, for the audit.
    """
    if (value is None) == (error is None):
        raise InvalidArgument("A step has a value or an error.", hint="Give --value JSON, or --error TEXT.")
    with session.client() as client:
        if value is None:
            settled = client.settle_step(id, operation, error=error, reason=reason)
        else:
            settled = client.settle_step(id, operation, value=read_value(value), reason=reason)
    return _show(settled, lambda operated: _of_step(id, operation, operated), json=session.json)


def fork(
    id: str,
    new_id: str,
    /,
    *,
    before: str | None = None,
    pin: int | None = None,
    reason: Reason = None,
    session: Asked,
) -> int:
    """Run a workflow again under a new ID, from a point of its journal on; the original stays as it is.

    What the original was told before that point is told again as it was, nothing of it runs again; the rest does.

    :param id: The workflow, pending or finished.
    :param new_id: The ID of the new one.
    :param before: The first operation, as `troth journal` names it, that is not copied; without it, all are.
    :param pin: The version of the code that it runs with, if not that of the original.
    :param reason: Why, for the audit.
    """
    with session.client() as client:
        forked = client.fork(id, new_id, before, reason, pin).started
    assert forked is not None
    if session.json:
        emit(forked)
    else:
        say(_of_fork(id, forked))
    return Exit.OK


def _of_fork(id: str, forked: Started) -> str:
    if forked.answer == "attached":
        return f"{forked.id} is that fork of {id} already: {outcome_of(forked, whole=True)}"
    told = forked.task.last_seq if forked.task else 0
    return f"{forked.id} goes on from event {told} of {id} as soon as a worker takes it"


def _show(operated: Operated, sentence: Callable[[Operated], str], *, json: bool) -> int:
    code = exit_of_operation(operated.answer)
    if json:
        emit(operated)
    elif code == Exit.OK:
        say(sentence(operated))
    else:
        note(f"troth: {sentence(operated)}")
    return code


def _of_step(id: str, operation: str, operated: Operated) -> str:
    halted = (
        operated.promise is not None
        and operated.promise.task is not None
        and operated.promise.task.state == "halted"
    )
    match operated.answer:
        case "recorded":
            return f"{operation} of {id} is settled" + (
                f"; `troth resume {id}` sends it on" if halted else ""
            )
        case "already":
            return f"{operation} of {id} was settled so already"
        case "conflict":
            return f"{operation} of {id} has its outcome, which stays: see `troth journal {id}`"
        case "not_a_step":
            return f"{operation} of {id} is no step but something that it waits for: see `troth tree {id}`"
        case _:
            return _sentence(id, operated)


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
        case "recorded" | "conflict" | "not_a_step":  # of a step: said above
            return f"{id}: {operated.answer}"
    assert_never(operated.answer)
