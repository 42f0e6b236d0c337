"""Workflows and steps by name: what a decorator makes of a function, and where a worker finds it again.

A `Workflow` is a function with a name and a version, and the knowledge of how a call of it becomes JSON and comes
back: `bind` on the side of whoever starts it, `arguments` on the side of the worker that runs it. What a caller
passes is stored under the parameters' names wherever Python allows it, so that one call has one form. Calling the
object calls the function, so that a workflow can be tested as what it is.

This file knows nothing of the context (the first parameter of a workflow, whatever its type), of promises or of
Postgres.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Concatenate, Final, Generic, NoReturn, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from troth import codec, limits
from troth.errors import InvalidArgument, NotRegistered, ValueMismatch
from troth.retry import Retry

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
WorkflowFunction = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]

POSITIONALS: Final = "*"
"""The key beside keywords under which arguments stand that have no keyword."""
_POSITIONALS_FIRST: Final = b'{"*":'


@dataclass(frozen=True, eq=False)
class Workflow(Generic[P, T_co]):
    """A durable function: what `@workflow` makes of an `async def (ctx, ...)`.

    `queue` is where its tasks go unless a start says otherwise, `timeout` how long a run of it may take in all.
    """

    fn: WorkflowFunction[P, T_co]
    name: str
    version: int = 1
    queue: str | None = None
    timeout: timedelta | None = None
    signature: inspect.Signature = field(init=False, repr=False, compare=False)
    """The parameters that a caller gives: without the context."""

    def __post_init__(self) -> None:
        check_name(self.name, "workflow")
        if self.queue is not None:
            check_name(self.queue, "queue")
        _check_version(self.name, self.version)
        _check_timeout(self.name, self.timeout)
        object.__setattr__(self, "signature", _without_context(self.fn, self.name))
        self.__dict__.update(_appearance(self.fn))

    def __call__(self, ctx: Any, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]:
        return self.fn(ctx, *args, **kwargs)

    @property
    def key(self) -> tuple[str, int]:
        """What a registry finds it by."""
        return self.name, self.version

    @functools.cached_property
    def result_type(self) -> Any:
        """The type of what it returns; Any where it does not say."""
        return result_type(self.fn)

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """A call of it as one JSON object: keywords, and under `*` what cannot be one. No defaults are filled in.

        Raises `InvalidArgument` when the function could not be called so.
        """
        if not args and self._readers is not None and self._required <= kwargs.keys() <= self._names:
            return dict(kwargs)
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArgument(
                f"Workflow {self.name!r} cannot be called so: {error}. It takes {self.signature}."
            ) from None
        positionals, keywords = _split(bound)
        return named_arguments(positionals, keywords)

    def arguments(self, raw: codec.Json) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Stored arguments as the function takes them: each decoded as the type that its parameter declares.

        Takes an object of keywords, such an object with positionals under `*`, or an array of positionals.
        Raises `ValueMismatch`, naming the parameter.
        """
        if (read := self._read_at_once(raw)) is not None:
            return read
        what = f"The argument list of workflow {self.name!r}"
        positionals, keywords = _raw_arguments(raw, what)
        try:
            bound = self.signature.bind(*positionals, **keywords)
        except TypeError as error:
            raise ValueMismatch(what, str(self.signature), codec.excerpt(raw), str(error)) from None
        for name, value in bound.arguments.items():
            bound.arguments[name] = self._decoded(name, value)
        return bound.args, bound.kwargs

    def _read_at_once(self, raw: codec.Json) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments, where all are keywords, or all are positional, and fit. None where a closer look is needed."""
        readers = self._readers
        if readers is None or raw is None:
            return None
        text = raw.encode() if isinstance(raw, str) else bytes(raw)
        try:
            in_row = text.startswith(_POSITIONALS_FIRST)
            read = readers[1].decode(text).row if in_row else readers[0].decode(text)
        except Exception:  # noqa: BLE001 — whatever it is: the closer look says what is wrong with which parameter
            return None
        positionals: list[Any] = []
        keywords: dict[str, Any] = {}
        in_a_row = True
        for (name, only_keyword), value in zip(self._kinds, msgspec.structs.astuple(read), strict=False):
            if value is msgspec.UNSET:
                in_a_row = False
            elif in_a_row and not only_keyword:
                positionals.append(value)
            else:
                in_a_row = False
                keywords[name] = value
        return tuple(positionals), keywords

    @functools.cached_property
    def _kinds(self) -> list[tuple[str, bool]]:
        return [(each.name, each.kind is each.KEYWORD_ONLY) for each in self.signature.parameters.values()]

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.signature.parameters)

    @functools.cached_property
    def _required(self) -> frozenset[str]:
        return frozenset(
            each.name for each in self.signature.parameters.values() if each.default is each.empty
        )

    @functools.cached_property
    def _readers(self) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]] | None:
        """Read an object of keywords, and one of positionals, as a whole: a third of binding and reading one by one."""
        parameters = self.signature.parameters.values()
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        if any(each.kind not in by_name for each in parameters):
            return None
        try:
            types = self._parameter_types
            fields: list[tuple[str, Any, Any]] = [
                (
                    each.name,
                    types.get(each.name, Any),
                    msgspec.NODEFAULT if each.default is each.empty else msgspec.UNSET,
                )
                for each in parameters
            ]
            named = msgspec.defstruct(self.name, fields, kw_only=True, forbid_unknown_fields=True)
            in_row = [
                one for one, (_, only_keyword) in zip(fields, self._kinds, strict=True) if not only_keyword
            ]
            row = msgspec.defstruct(self.name, in_row, array_like=True, forbid_unknown_fields=True)
            # a keyword that has to be given is missing beside positionals: no row fits then
            fits = (
                row
                if all(default is msgspec.UNSET for *_, default in fields[len(in_row) :])
                else msgspec.UnsetType
            )
            renamed = {"row": POSITIONALS}
            positional = msgspec.defstruct(
                self.name, [("row", fits)], rename=renamed, forbid_unknown_fields=True
            )
            return codec.reader(named), codec.reader(positional)
        except Exception:  # noqa: BLE001 — one by one it is, and what is wrong with a type is said then
            return None

    def _decoded(self, name: str, value: Any) -> Any:
        wanted = self._parameter_types.get(name, Any)
        what = f"Argument {name!r} of workflow {self.name!r}"
        match self.signature.parameters[name].kind:
            case inspect.Parameter.VAR_POSITIONAL:
                return tuple(codec.decode(each, wanted, what) for each in value)
            case inspect.Parameter.VAR_KEYWORD:
                return {key: codec.decode(each, wanted, f"{what} ({key!r})") for key, each in value.items()}
            case _:
                return codec.decode(value, wanted, what)

    @functools.cached_property
    def _parameter_types(self) -> dict[str, Any]:
        return _resolved(self.fn, tuple(self.signature.parameters))


class WorkflowDecorator(Protocol):
    """What `@workflow(...)` returns."""

    def __call__(self, fn: WorkflowFunction[P, T], /) -> Workflow[P, T]: ...


@overload
def workflow(fn: WorkflowFunction[P, T], /) -> Workflow[P, T]: ...
@overload
def workflow(
    *, name: str | None = None, version: int = 1, queue: str | None = None, timeout: timedelta | None = None
) -> WorkflowDecorator: ...
def workflow(
    fn: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    queue: str | None = None,
    timeout: timedelta | None = None,
) -> Workflow[..., Any] | WorkflowDecorator:
    """Make a workflow of an `async def` whose first parameter is the context.

    `name` is what it is started and stored by (its own name, unless given); `version` pins running workflows to
    the code they began with; `queue` and `timeout` are what a start takes unless it says otherwise.
    Raises `InvalidArgument` when the function or a name cannot be used.
    """

    def decorate(fn: WorkflowFunction[P, T], /) -> Workflow[P, T]:
        if not inspect.isfunction(fn) or not inspect.iscoroutinefunction(fn):
            raise InvalidArgument(
                f"A workflow is an `async def` function, and {_described(fn)} is not;"
                " write `async def name(ctx, ...)` below @workflow."
            )
        return Workflow(fn, name if name is not None else fn.__name__, version, queue, timeout)

    return decorate if fn is None else decorate(fn)


@dataclass(frozen=True, eq=False)
class Step(Generic[P, R]):
    """A leaf function with the name under which its outcomes are recorded. Calling it calls the function.

    `retry` says whether and when it is tried again, `timeout` how long one attempt may take; `ctx.options` overrides both.
    """

    fn: Callable[P, R]
    name: str
    retry: Retry | None = None
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "step")
        _check_timeout(self.name, self.timeout, "step")
        self.__dict__.update(_appearance(self.fn))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)


class StepDecorator(Protocol):
    """What `@step(...)` returns."""

    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *, name: str | None = None, retry: Retry | None = None, timeout: timedelta | None = None
) -> StepDecorator: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | None = None,
) -> Step[..., Any] | StepDecorator:
    """Give a step function, async or not, its defaults. Any function can be a step without it.

        @step(retry=Retry(attempts=5, fatal=(CardDeclined,)), timeout=timedelta(seconds=30))
        async def charge(order: str) -> str: ...

    Raises `InvalidArgument` when the name or the timeout cannot be.
    """

    def decorate(fn: Callable[P, R], /) -> Step[P, R]:
        return Step(fn, name if name is not None else step_name(fn), retry, timeout)

    return decorate if fn is None else decorate(fn)


def step_name(fn: Callable[..., Any]) -> str:
    """The name that a function runs under as a step: the decorator's, or its own.

    Raises `InvalidArgument` for what has no name that says anything: lambdas, partials, callable objects.
    """
    if isinstance(fn, Step):
        return cast("Step[..., Any]", fn).name
    name = getattr(fn, "__name__", None)
    if isinstance(name, str) and _NAME.fullmatch(name):
        return check_name(name, "step")
    raise InvalidArgument(
        f"A step needs a name to be recorded under, and {_described(fn)} has none;"
        " give it one: ctx.options(name=...) or @step(name=...)."
    )


def result_type(fn: Callable[..., Any]) -> Any:
    """What a function's outcome is decoded as: its return annotation, without the awaitable around it."""
    declared = _resolved(fn, ("return",)).get("return", Any)
    origin = typing.get_origin(declared) or declared
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        return (typing.get_args(declared) or (Any,))[-1]
    return declared


class Registry(Mapping[tuple[str, int], Workflow[..., Any]]):
    """The workflows that a process knows, by name and version."""

    def __init__(self, workflows: Iterable[Workflow[..., Any] | types.ModuleType]) -> None:
        """Take workflows, and modules for all the workflows in them. Two of one name and version are refused."""
        self._known: dict[tuple[str, int], Workflow[..., Any]] = {}
        for each in workflows:
            for found in _workflows_in(each):
                self._add(found)

    def _add(self, found: Workflow[..., Any]) -> None:
        there = self._known.setdefault(found.key, found)
        if there is not found:
            raise InvalidArgument(
                f"Two workflows are called {found.name!r} in version {found.version}: {_where(there.fn)} and"
                f" {_where(found.fn)}. Give one another name= or version=."
            )

    def __getitem__(self, key: tuple[str, int]) -> Workflow[..., Any]:
        return self._known[key]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, name: str, version: int | None = None) -> Workflow[..., Any]:
        """The workflow of this name and version, or its newest version. Raises `NotRegistered`."""
        versions = [known for (each, known) in self._known if each == name]
        wanted = max(versions, default=None) if version is None else version
        if wanted is None or (name, wanted) not in self._known:
            asked = name if version is None else f"{name}@{version}"
            raise NotRegistered(asked, {f"{each}@{known}" for each, known in self._known})
        return self._known[name, wanted]


def check_name(name: object, of_what: str) -> str:
    """A name as all names are: 1–100 letters, digits, `_`, `.` and `-`, not digits alone. Raises `InvalidArgument`."""
    if isinstance(name, str) and _NAME.fullmatch(name) and not name.isdigit():
        return name
    raise InvalidArgument(
        f"{name!r:.120} is no name for a {of_what}: use 1 to {limits.name_length_max} letters, digits, '_', '.'"
        " and '-', and not digits alone."
    )


def named_arguments(args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
    """A call as one JSON object where the function is not at hand: keywords, positionals under `*`."""
    if POSITIONALS in kwargs:
        raise InvalidArgument(f"No keyword can be called {POSITIONALS!r}; rename it, or pass a dict.")
    return {POSITIONALS: list(args), **kwargs} if args else dict(kwargs)


_NAME: Final = re.compile(rf"[A-Za-z0-9_.\-]{{1,{limits.name_length_max}}}")


def _check_version(name: str, version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= limits.version_max:
        raise InvalidArgument(
            f"Version {version!r} of workflow {name!r} is not a whole number from 1 to {limits.version_max}."
        )


def _check_timeout(name: str, timeout: object, of_what: str = "workflow") -> None:
    longest = timedelta(days=limits.timeout_days_max)
    if timeout is None or (isinstance(timeout, timedelta) and timedelta(0) < timeout <= longest):
        return
    raise InvalidArgument(
        f"Timeout {timeout!r} of {of_what} {name!r} is not a timedelta above 0 and of at most"
        f" {limits.timeout_days_max} days."
    )


def _without_context(fn: Callable[..., Any], name: str) -> inspect.Signature:
    signature = inspect.signature(fn)
    first, *others = signature.parameters.values() or (None,)
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if first is None or first.kind not in by_position:
        raise InvalidArgument(
            f"Workflow {name!r} has no parameter for the context;"
            f" write `async def {getattr(fn, '__name__', name)}(ctx, ...)`."
        )
    return signature.replace(parameters=others)


def _split(bound: inspect.BoundArguments) -> tuple[tuple[object, ...], dict[str, object]]:
    """What of a call must stay positional, and the rest by keyword.

    Positional-only parameters have no keyword, and what fills `*args` needs all before it positional too.
    """
    parameters = bound.signature.parameters
    filled = [parameters[name] for name in bound.arguments]
    rest = any(
        each.kind is inspect.Parameter.VAR_POSITIONAL and bound.arguments[each.name] for each in filled
    )
    positionals: list[object] = []
    keywords: dict[str, object] = {}
    for each in filled:
        value = bound.arguments[each.name]
        match each.kind:
            case inspect.Parameter.POSITIONAL_ONLY:
                positionals.append(value)
            case inspect.Parameter.VAR_POSITIONAL:
                positionals.extend(value)
            case inspect.Parameter.VAR_KEYWORD:
                keywords.update(value)
            case inspect.Parameter.POSITIONAL_OR_KEYWORD if rest:
                positionals.append(value)
            case _:
                keywords[each.name] = value
    return tuple(positionals), keywords


def _raw_arguments(raw: codec.Json, what: str) -> tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]:
    given = codec.decode(raw, dict[str, msgspec.Raw] | list[msgspec.Raw] | None, what)
    if given is None:
        return [], {}
    if isinstance(given, list):
        return given, {}
    positionals = given.pop(POSITIONALS, None)
    return ([] if positionals is None else codec.decode(positionals, list[msgspec.Raw], what)), given


def _resolved(fn: Callable[..., Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The types that a function declares for these of its parameters (or `return`), and no others.

    The others may name what exists for type checkers only, as the context's type often does.
    """
    target: Any = inspect.unwrap(fn)
    while isinstance(target, functools.partial):
        target = inspect.unwrap(target.func)
    if not inspect.isroutine(target) and not isinstance(target, type):
        target = type(target).__call__
    declared = cast("dict[str, Any]", getattr(target, "__annotations__", {}))
    asked = types.SimpleNamespace(
        __annotations__={name: declared[name] for name in names if name in declared}
    )
    try:
        return typing.get_type_hints(asked, getattr(target, "__globals__", {}), None, include_extras=True)
    except Exception as error:
        raise InvalidArgument(
            f"The annotations of {_described(fn)} cannot be resolved: {error}."
            " Name types that exist in its module when it runs."
        ) from error


def _workflows_in(source: object) -> list[Workflow[..., Any]]:
    if isinstance(source, Workflow):
        return [cast("Workflow[..., Any]", source)]
    if not isinstance(source, types.ModuleType):
        _refuse_source(source)
    found = [cast("Workflow[..., Any]", each) for each in vars(source).values() if isinstance(each, Workflow)]
    if not found:
        raise InvalidArgument(f"Module {source.__name__!r} has no workflows; decorate one with @workflow.")
    return found


def _refuse_source(source: object) -> NoReturn:
    raise InvalidArgument(
        f"A registry takes workflows and modules, and {_described(source)} is neither; decorate it with @workflow."
    )


def _appearance(fn: Callable[..., Any]) -> dict[str, Any]:
    """What makes a decorated function look like itself to `help`, tracebacks and `inspect`."""
    kept: dict[str, Any] = {
        name: getattr(fn, name) for name in functools.WRAPPER_ASSIGNMENTS if hasattr(fn, name)
    }
    return {**kept, "__wrapped__": fn}


def _where(fn: Any) -> str:
    code = getattr(fn, "__code__", None)
    return f"{fn.__qualname__} ({code.co_filename}:{code.co_firstlineno})" if code else repr(fn)


def _described(thing: object) -> str:
    name = getattr(thing, "__qualname__", None)
    return f"{name!r}" if isinstance(name, str) else f"{thing!r:.100}"
