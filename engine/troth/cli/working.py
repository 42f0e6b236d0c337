"""`troth worker`: a process that runs workflows until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from troth.cli.exits import Exit
from troth.cli.session import Asked
from troth.cli.values import Duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.client import Troth
    from troth.worker import Worker


COLLECT_EVERY: Final = 50_000
"""New objects after which the garbage collector looks at them."""


def worker(
    target: str,
    /,
    *targets: str,
    queue: Annotated[tuple[str, ...], Parameter(name=("--queue", "-q"), show_default=False)] = (),
    concurrency: int | None = None,
    transactions: int | None = None,
    keep: int | None = None,
    guard: bool = False,
    name: str | None = None,
    grace: Duration = timedelta(seconds=10),
    listen_dsn: str | None = None,
    prepared: Annotated[bool, Parameter(negative="--no-prepared")] = True,
    session: Asked,
) -> int:
    """Run workflows until SIGTERM or Ctrl-C.

    On either it claims nothing more, lets steps end within the grace period and gives back the rest. A second one ends
    it at once; what it held goes to others when its lease is over.

    :param target: A file such as approval.py, or a module; file.py:name,other takes only those of its workflows.
    :param targets: More of them.
    :param queue: The queue to serve, default unless given; can be given often.
    :param concurrency: How many workflows at once.
    :param transactions: How many connections for ctx.transaction.
    :param keep: How many suspended workflows stay in memory, to go on without a replay; 0 for none.
    :param guard: Whether to name lines of workflow code that no replay can repeat (the clock, chance, I/O); it costs time.
    :param name: What the worker is called in lists and logs; the host and process unless given.
    :param grace: How long steps that are under way may take when it is told to stop.
    :param listen_dsn: Where to listen, if the other DSN leads through a pooler.
    :param prepared: Prepare statements by name; --no-prepared behind a pooler in transaction mode.
    """
    from troth.cli.loading import load_workflows

    workflows = load_workflows((target, *targets))
    dsn = session.dsn()
    _configure_log(json=session.json)

    def make(client: Troth) -> Worker:
        from troth.worker import Worker

        given = {"concurrency": concurrency, "transactions": transactions, "keep": keep}
        options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if guard:
            from troth.worker.guard import Guard

            options["watch"] = Guard()
        return Worker(client, workflows, queue or ("default",), grace=grace, name=name, **options)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_work(lambda: _client(dsn, session.schema, listen_dsn, prepared=prepared), make))
    return Exit.OK


def _client(dsn: str, schema: str, listen_dsn: str | None, *, prepared: bool) -> Troth:
    from troth.client import Troth

    return Troth(dsn, schema=schema, listen_dsn=listen_dsn, prepared=prepared)


async def _work(connect: Callable[[], Troth], make: Callable[[Troth], Worker]) -> None:
    loop = asyncio.get_running_loop()
    async with connect() as client:
        worker = make(client)

        def stop(number: signal.Signals) -> None:
            worker.stop()
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(each)
                signal.signal(each, signal.SIG_DFL)
            print(f"troth: {number.name}, stopping", file=sys.stderr, flush=True)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        calm_collector()
        await worker.run()


def calm_collector() -> None:
    """Let the garbage collector look less often, and never again at what was loaded to begin with.

    A worker leaves no circles of its own, yet holds a thousand workflows at once: at Python's usual pace the collector goes
    through all of them again and again, a fifth of the process' time. What it may leave lying are the circles of up to
    `COLLECT_EVERY` objects, some ten megabytes. This process is ours; a program that runs a `Worker` itself decides itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 20, 20)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _configure_log(*, json: bool) -> None:
    """Log to standard error, so that standard output is the user's own; in JSON for machines."""
    import structlog

    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso", utc=True),
            structlog.processors.format_exc_info if json else _as_it_is,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _as_it_is(_: Any, __: str, event: Any) -> Any:
    return event
