"""What changes a promise from outside: `start`, `resolve`, `reject`, `cancel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from troth.cli.exits import Exit, exit_of_decision
from troth.cli.output import emit, note, outcome_of, say
from troth.cli.session import Asked, Session
from troth.cli.values import Duration, read_arguments, read_json, read_tags, read_value
from troth.errors import IdConflict, InvalidArgument
from troth.model import ErrorInfo, PromiseInfo, Settlement, Started

if TYPE_CHECKING:
    from troth.client import SyncTroth


def start(
    workflow: str,
    id: str,
    /,
    *arguments: str,
    queue: str | None = None,
    delay: Duration | None = None,
    timeout: Duration | None = None,
    priority: int | None = None,
    tag: Annotated[tuple[str, ...], Parameter(name=("--tag", "-t"), show_default=False)] = (),
    wait: Duration | None = None,
    on_conflict: Literal["error", "attach"] = "error",
    session: Asked,
) -> int:
    """Start a workflow under an ID of yours, or attach to the one that the ID names.

    An argument is name=value, where the value is JSON if it is valid JSON and otherwise the text itself: order=order-42
    is a string, n=3 a number, n='"3"' the string 3. name:=JSON takes nothing but JSON. Or all arguments are one JSON
    object, or one array of positional ones.

    :param workflow: Its name.
    :param id: 1 to 128 letters, digits and -._:@!$&'()*+,;=
    :param arguments: name=value, name:=JSON, or one JSON object or array.
    :param queue: The queue, if not that of the workflow.
    :param delay: Begin so much later.
    :param timeout: End it if it has not ended by itself within this time.
    :param priority: Lower goes first; 0 unless given.
    :param tag: key=value, to find it by; can be given often.
    :param wait: Wait so long for its end; then 0 means that it was resolved, 1 anything else.
    :param on_conflict: What to do if the ID is another workflow's: an error, or attach to it all the same.
    """
    positionals, named = read_arguments(arguments)
    with session.client() as client:
        chosen = client.options(
            queue=queue,
            delay=delay,
            timeout=timeout,
            priority=priority,
            tags=read_tags(tag),
            on_conflict=on_conflict,
        )
        started = _started(chosen, id, workflow, positionals, named)
        if not session.json:
            _warn_of_a_stranger(started, session)
        if wait is None:
            _show_started(started, started, json=session.json)
            return Exit.OK
        promise = client.wait(id, wait)
    _show_started(started, promise, json=session.json)
    return Exit.OK if promise.state == "resolved" else Exit.FAILED


def _started(
    client: SyncTroth, id: str, workflow: str, positionals: tuple[Any, ...], named: dict[str, Any]
) -> Started:
    try:
        started = client.start(id, workflow, *positionals, **named).started
    except IdConflict as conflict:
        conflict.hint = "Start under another ID, or attach to what is there with --on-conflict attach."
        raise
    assert started is not None
    return started


def _warn_of_a_stranger(started: Started, session: Session) -> None:
    """Say so if nobody will run it: a name that was mistyped looks just like a workflow that takes its time."""
    from troth.cli.checks import stranger

    function, queue = started.function, started.queue
    if started.answer != "created" or function is None or queue is None:
        return
    if stranger(session.dsn(), session.schema, function, queue):
        note(
            f"No living worker knows {function} in queue {queue}: {started.id} waits until one does. "
            "Start one with `troth worker FILE`; if the name is mistyped, "
            f"`troth cancel {started.id}` and start it under another ID."
        )


def _show_started(started: Started, promise: PromiseInfo, *, json: bool) -> None:
    if json:
        emit({"answer": started.answer, "promise": promise if promise is not started else _plain(started)})
        return
    done = "was created" if started.answer == "created" else "was there already and is attached to"
    say(f"{promise.id} {done}: {outcome_of(promise, whole=True)}")


def _plain(started: Started) -> PromiseInfo:
    return PromiseInfo(**{name: getattr(started, name) for name in PromiseInfo.__struct_fields__})


def resolve(
    id: str,
    given: str | None = None,
    /,
    *,
    value: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    session: Asked,
) -> int:
    """Resolve a latent promise.

    The value is JSON if it is valid JSON, and otherwise the text itself. Without one it is null. The same value once
    more is a success; another one is a conflict that shows the winner.

    :param id: The promise, such as order-42~approval.
    :param given: The value.
    :param value: The same as an option; --value - reads it from standard input.
    """
    if given is not None and value is not None:
        raise InvalidArgument("The value is given twice.", hint="Give it after the ID, or as --value.")
    text = value if value is not None else given
    decoded = None if text is None else read_value(text)
    with session.client() as client:
        return _show_decision(id, client.resolve(id, decoded), json=session.json)


def reject(
    id: str,
    /,
    *,
    message: Annotated[str, Parameter(name=("--message", "-m"))] = "",
    type: str = "Rejected",
    data: str | None = None,
    session: Asked,
) -> int:
    """Reject a latent promise; the code that awaits it raises PromiseRejected.

    :param id: The promise.
    :param message: Why, for people.
    :param type: What kind of error it is, for programs.
    :param data: More about it, as JSON.
    """
    found = None if data is None else read_json(data)
    if data is not None and found is None:
        raise InvalidArgument(
            f"The data are no JSON: {data!r:.100}.", hint="""Write --data '{"key": "value"}'."""
        )
    with session.client() as client:
        settled = client.reject(id, ErrorInfo(type, message, data=found))
        return _show_decision(id, settled, json=session.json)


def cancel(
    id: str,
    /,
    *,
    reason: Annotated[str | None, Parameter(name=("--reason", "-m"))] = None,
    force: bool = False,
    session: Asked,
) -> int:
    """Cancel a promise, or ask a running workflow to end.

    :param id: The promise or workflow.
    :param reason: Why, for people.
    :param force: End the workflow at once, whatever it does: its code is not asked, and nothing of its clean-up runs.
    """
    with session.client() as client:
        return _show_decision(id, client.cancel(id, reason, force=force), json=session.json)


def _show_decision(id: str, settlement: Settlement, *, json: bool) -> int:
    code = exit_of_decision(settlement.answer)
    if json:
        emit(settlement)
    elif code == Exit.OK:
        say(_sentence(id, settlement))
    else:
        note(f"troth: {_sentence(id, settlement)}")
    return code


def _sentence(id: str, settlement: Settlement) -> str:
    stands = "" if settlement.promise is None else outcome_of(settlement.promise, whole=True)
    match settlement.answer:
        case "settled":
            return f"{id} is {stands}"
        case "already":
            return f"{id} was settled so already: {stands}"
        case "conflict":
            return f"{id} was settled before, and stays so: {stands}"
        case "requested":
            return f"{id} was told to cancel; it ends when its code has cleaned up"
        case "not_latent":
            return f"{id} is a workflow, which settles itself; `troth cancel {id}` asks it to end"
        case "unknown":
            return f"No promise has the ID {id!r}; look for it with `troth list`"
