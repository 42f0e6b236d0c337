"""What steps need and nobody passes on: pools, clients, settings. Made once per worker, closed when it ends.

    async def make_pool() -> AsyncIterator[Pool]:
        async with create_pool(DSN) as pool:
            yield pool

    async def charge(order: str, pool: Pool = troth.provided(make_pool)) -> str: ...

A step that is run without its `pool` gets the worker's; a test that calls `charge` directly passes one. What a factory
returns decides what happens. A generator (async or not, also below `@contextmanager` and `@asynccontextmanager`) yields the
thing and goes on when the worker ends. Anything else is the thing itself, awaited if it can be, and nothing is closed: what
could merely be entered, as a lock can, is not.

What is not async runs in a thread, since it may block for long; what needs the event loop is an `async def`. Each thing has
a task of its own, which makes it, waits, and closes it. So task groups and cancel scopes work inside a factory, and a thing
neither dies with the step that happened to come first nor sees its context variables.

This file knows nothing of workers or Postgres.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import types
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar, cast, overload

import structlog

from troth.errors import InvalidArgument, ProviderFailed
from troth.remote import text_of

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Factory: TypeAlias = Callable[..., Any]

CLOSE_S_MAX: Final = 30.0
"""How long one thing may take to close before it is given up and the next one's turn comes."""

_log = structlog.get_logger("troth.providers")


class _AsyncGeneratorContext(Protocol[T_co]):
    """What a function below `@asynccontextmanager` returns; other context managers have no `gen`."""

    @property
    def gen(self) -> object: ...
    async def __aenter__(self) -> T_co: ...


class _GeneratorContext(Protocol[T_co]):
    @property
    def gen(self) -> object: ...
    def __enter__(self) -> T_co: ...


@overload
def provided(factory: Callable[..., _AsyncGeneratorContext[T]], /) -> T: ...
@overload
def provided(factory: Callable[..., _GeneratorContext[T]], /) -> T: ...
@overload
def provided(factory: Callable[..., AsyncIterator[T]], /) -> T: ...
@overload
def provided(factory: Callable[..., Iterator[T]], /) -> T: ...
@overload
def provided(factory: Callable[..., Awaitable[T]], /) -> T: ...
@overload
def provided(factory: Callable[..., T], /) -> T: ...
def provided(factory: Factory, /) -> Any:
    """The default of a step's parameter that the worker fills: with what `factory` yields or returns, made once per worker.

    A factory's own parameters have defaults, which may be `provided(...)` in turn. Tests replace a factory by another one.
    Raises `InvalidArgument` for what cannot be called without arguments.

        async def charge(order: str, pool: Pool = provided(make_pool)) -> str: ...
    """
    return _Marker(_checked(factory))


class Providers:
    """The things that one worker's steps share: each made at its first use, all closed in reverse order by `close`.

    `overrides` names for a factory another one that is used instead of it. What is not async runs in `threads`, those of the
    event loop unless given.
    """

    def __init__(
        self, overrides: Mapping[Factory, Factory] | None = None, *, threads: Executor | None = None
    ) -> None:
        self._overrides = {_checked(old): _checked(new) for old, new in (overrides or {}).items()}
        self._threads = threads
        self._context = contextvars.copy_context()
        self._plans: weakref.WeakKeyDictionary[Factory, tuple[_Need, ...]] = weakref.WeakKeyDictionary()
        self._things: dict[Factory, _Thing] = {}
        """Made or in the making, in the order of their beginnings."""
        self._closed = False

    def fill(self, fn: Factory) -> bool:
        """Whether a function has provided parameters."""
        return bool(self._planned(fn, (fn,)))

    async def arguments(
        self, fn: Factory, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> dict[str, Any]:
        """What to add to the keywords of a call: the things of those provided parameters that it does not give.

        Raises `ProviderFailed` when one cannot be made, `InvalidArgument` when providers need each other in a circle.
        """
        return {
            need.name: await self._get(need.factory)
            for need in self._planned(fn, (fn,))
            if need.name not in kwargs and not (need.position is not None and need.position < len(args))
        }

    async def close(self) -> None:
        """Close what was made, last made first, and end what is being made. What fails there is logged."""
        self._closed = True
        for making in [thing for thing in self._things.values() if not thing.ready.done()]:
            making.task.cancel()
            await asyncio.wait({making.task})
        for factory, thing in sorted(self._things.items(), key=lambda item: -item[1].number):
            thing.closing.set()
            await asyncio.wait({thing.task}, timeout=CLOSE_S_MAX)
            if not thing.task.done():
                thing.task.cancel()
                _log.error("a provider did not close in time", provider=_name(factory), seconds=CLOSE_S_MAX)

    async def _get(self, asked: Factory) -> Any:
        factory = self._overrides.get(asked, asked)
        if self._closed:
            raise ProviderFailed(_name(factory), "its worker is ending")
        thing = self._things.get(factory)
        if thing is None:
            thing = self._things[factory] = _Thing(asyncio.get_running_loop().create_future())
            thing.task = asyncio.create_task(self._live(factory, thing), context=self._context.copy())
        try:
            # whoever asked first may be canceled; the others wait on
            return await asyncio.shield(thing.ready)
        except Exception as error:
            reason = f"{type(error).__qualname__}: {text_of(error)[:1000]}"
            raise ProviderFailed(_name(factory), reason) from error

    async def _live(self, factory: Factory, thing: _Thing) -> None:
        """One thing from its making to its end."""
        try:
            async with self._open(factory, await self.arguments(factory, (), {})) as made:
                thing.number = max(each.number for each in self._things.values()) + 1
                thing.ready.set_result(made)
                await thing.closing.wait()
        except BaseException as error:
            self._failed(factory, thing, error)
            if not isinstance(error, Exception | SystemExit):
                raise
        finally:
            if self._things.get(factory) is thing:
                del self._things[factory]

    def _failed(self, factory: Factory, thing: _Thing, error: BaseException) -> None:
        if not thing.ready.done():
            if not isinstance(error, Exception):  # of the making, not of who waits for it
                error, cause = RuntimeError(f"it ended with {type(error).__qualname__}"), error
                error.__cause__ = cause
            thing.ready.set_exception(error)
        elif not isinstance(error, asyncio.CancelledError):
            when = "when it was closed" if thing.closing.is_set() else "while it was in use"
            _log.error(f"a provider failed {when}", provider=_name(factory), exc_info=error)

    @asynccontextmanager
    async def _open(self, factory: Factory, kwargs: dict[str, Any]) -> AsyncGenerator[Any]:
        call = functools.partial(factory, **kwargs)
        made: Any = call() if _is_quick(factory) else await self._in_thread(call)
        if inspect.isawaitable(made):
            made = await made
        match _generator_context(made):
            case types.AsyncGeneratorType(), context:
                async with context as thing:
                    yield thing
            case types.GeneratorType(), context:
                thing = await self._in_thread(context.__enter__)
                try:
                    yield thing
                finally:
                    await self._in_thread(lambda: context.__exit__(None, None, None))
            case _:
                yield made

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: context.run(_plainly, call))

    def _planned(self, fn: Factory, path: tuple[Factory, ...]) -> tuple[_Need, ...]:
        """What a function needs, once it is sure that nothing below needs itself."""
        try:
            return self._plans[fn]
        except (KeyError, TypeError):
            needs = _needs(fn)
        for need in needs:
            factory = self._overrides.get(need.factory, need.factory)
            if factory in path:
                circle = " → ".join(_name(each) for each in (*path[path.index(factory) :], factory))
                raise InvalidArgument(f"Providers need each other in a circle: {circle}. Let one do without.")
            self._planned(factory, (*path, factory))
        try:
            self._plans[fn] = needs
        except TypeError:  # nothing weak can be held on it, or it cannot be hashed
            return needs
        return needs


class _Thing:
    """One provided thing: `ready` brings it, `number` counts those made, `closing` asks for its end."""

    def __init__(self, ready: asyncio.Future[Any]) -> None:
        self.ready = ready
        self.closing = asyncio.Event()
        self.number = 0
        self.task: asyncio.Task[None]


class _Need(NamedTuple):
    """A provided parameter; `position` where it can be given without its name."""

    name: str
    position: int | None
    factory: Factory


def _needs(fn: Factory) -> tuple[_Need, ...]:
    needs: list[_Need] = []
    for position, parameter in enumerate(_parameters(fn)):
        marker: object = parameter.default
        if not isinstance(marker, _Marker):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise InvalidArgument(
                f"Parameter {parameter.name!r} of {_name(fn)} is provided and cannot be given by name; move it behind the '/'."
            )
        by_name_only = parameter.kind is parameter.KEYWORD_ONLY
        needs.append(_Need(parameter.name, None if by_name_only else position, marker.provided_factory))
    return tuple(needs)


def _parameters(fn: Factory) -> Sequence[inspect.Parameter]:
    try:
        return tuple(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # of some builtins nobody knows them
        return ()


def _checked(factory: object) -> Factory:
    if not callable(factory):
        raise InvalidArgument(
            f"A provider is a function that makes something, and {factory!r:.120} is none; write `lambda: it`."
        )
    if getattr(type(factory), "__hash__", None) is None:
        raise InvalidArgument(
            f"A provider is known by its hash, and {_name(factory)} has none; use a function."
        )
    asked = [
        each.name
        for each in _parameters(factory)
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if asked:
        raise InvalidArgument(
            f"Nobody gives the provider {_name(factory)} its {', '.join(asked)}; give them defaults, or provided(...)."
        )
    return factory


def _is_quick(factory: Factory) -> bool:
    """Whether calling it runs none of its code yet."""
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    return any(is_kind(factory) for is_kind in kinds)


def _generator_context(made: object) -> tuple[object, Any]:
    """A generator and the context manager around it, if there is one."""
    match made:
        case types.AsyncGeneratorType():
            steps = cast("AsyncGenerator[Any]", made)
            return steps, asynccontextmanager(lambda: steps)()
        case types.GeneratorType():
            parts = cast("Generator[Any]", made)
            return parts, contextmanager(lambda: parts)()
        case _:
            return getattr(made, "gen", None), made


def _plainly(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StopIteration as error:
        # a future cannot carry StopIteration: it would never be done
        raise RuntimeError("it raised StopIteration") from error


def _name(fn: Factory) -> str:
    name = getattr(fn, "__qualname__", None)
    return f"{fn.__module__}.{name}" if isinstance(name, str) else f"{fn!r:.120}"


class _Marker:
    """Stands in a signature for what will be provided. Whoever uses it as that was called without it."""

    __slots__ = ("provided_factory",)
    provided_factory: Factory

    def __init__(self, factory: Factory) -> None:
        object.__setattr__(self, "provided_factory", factory)

    def __repr__(self) -> str:
        return f"provided({_name(self.provided_factory)})"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # what machinery asks everything for
            raise AttributeError(name)
        self._refuse()

    def _refuse(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise InvalidArgument(
            f"This is {self!r}, the default of a parameter, and not what that makes: a worker fills it in when it runs the"
            " step. Who calls the function directly passes the argument."
        )

    __call__ = __await__ = __aenter__ = __aexit__ = __enter__ = __exit__ = _refuse
    __iter__ = __next__ = __aiter__ = __anext__ = __len__ = __bool__ = __contains__ = _refuse
    __getitem__ = __setitem__ = __delitem__ = __setattr__ = __delattr__ = _refuse
