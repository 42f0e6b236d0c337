"""Workflows and steps: names, what a call becomes, and what it comes back as."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import re
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth import limits
from troth.codec import encode
from troth.errors import InvalidArgument, NotRegistered, ValueMismatch
from troth.registry import (
    Registry,
    Step,
    Workflow,
    check_name,
    named_arguments,
    result_type,
    step,
    step_name,
    workflow,
)

if TYPE_CHECKING:
    from nowhere import Context  # type: ignore[import-not-found]

HERE = Path(__file__).parent


@dataclasses.dataclass
class Order:
    id: str
    amount: int = 1


@workflow
async def ship(ctx: Context, order: Order, *, fast: bool = False) -> list[Order]:
    """Ship an order."""
    return [order] if fast else []


@workflow(name="ship", version=2, queue="slow", timeout=timedelta(days=3))
async def ship_again(ctx: Context, order: Order) -> None: ...


@workflow
async def all_kinds(
    ctx: Context, first: int, /, second: str = "x", *rest: float, flag: bool = False, **more: Order
) -> str:
    return f"{first}{second}{rest}{flag}{more}"


@workflow
async def untyped(ctx, a, b=2):  # type: ignore[no-untyped-def]
    return a, b


@workflow
async def nothing(ctx: Context) -> None: ...


# What a decorator makes


def test_a_workflow_takes_its_functions_name() -> None:
    assert isinstance(ship, Workflow)
    assert (ship.name, ship.version, ship.queue, ship.timeout) == ("ship", 1, None, None)
    assert ship.key == ("ship", 1)


def test_a_workflow_takes_what_it_is_given() -> None:
    assert (ship_again.name, ship_again.version) == ("ship", 2)
    assert (ship_again.queue, ship_again.timeout) == ("slow", timedelta(days=3))


async def test_calling_a_workflow_calls_its_function() -> None:
    order = Order("a")
    assert await ship(cast(Any, None), order, fast=True) == [order]
    assert await all_kinds(cast(Any, None), 1, "y", 2.0, flag=True) == "1y(2.0,)True{}"


def test_a_workflow_looks_like_its_function() -> None:
    assert ship.__doc__ == "Ship an order."
    assert cast(Any, ship).__name__ == "ship"
    assert cast(Any, ship).__wrapped__ is ship.fn
    assert str(ship.signature) == "(order: 'Order', *, fast: 'bool' = False) -> 'list[Order]'"


def test_a_workflow_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ship.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "fn",
    [
        lambda ctx: None,
        print,
        Order,
        functools.partial(ship.fn),
        5,
        None.__class__,
    ],
)
def test_only_async_functions_are_workflows(fn: Any) -> None:
    with pytest.raises(InvalidArgument, match="`async def`"):
        workflow(fn)


def test_a_plain_function_is_no_workflow() -> None:
    def plain(ctx: object) -> None: ...

    async def generator(ctx: object):  # type: ignore[no-untyped-def]
        yield 1

    for fn in (plain, generator):
        with pytest.raises(InvalidArgument, match=fn.__name__):
            workflow(cast(Any, fn))


def test_a_workflow_needs_a_place_for_the_context() -> None:
    async def none() -> None: ...
    async def keyword(*, ctx: object) -> None: ...
    async def rest(*ctx: object) -> None: ...
    async def mapping(**ctx: object) -> None: ...

    for fn in (none, keyword, rest, mapping):
        with pytest.raises(
            InvalidArgument, match=rf"no parameter for the context; write `async def {fn.__name__}"
        ):
            workflow(cast(Any, fn))


GOOD_NAMES = ["a", "A-b_c.d", "9a", "a" * limits.name_length_max, "-", "..."]
BAD_NAMES = [
    "",
    "a" * (limits.name_length_max + 1),
    "7",
    "42",
    "a~b",
    "a:b",
    "a@1",
    "a!",
    "é",
    "a b",
    "a\n",
    "a/b",
    None,
    5,
]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(name: str) -> None:
    assert check_name(name, "queue") == name
    assert workflow(name=name, queue=name)(ship.fn).name == name
    assert step(name=name)(len).name == name


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="is no name for a queue"):
        check_name(name, "queue")
    if name is not None:
        with pytest.raises(InvalidArgument, match="is no name for a workflow"):
            workflow(name=name)(ship.fn)
        with pytest.raises(InvalidArgument, match="is no name for a queue"):
            workflow(queue=name)(ship.fn)
        with pytest.raises(InvalidArgument, match="is no name for a step"):
            step(name=name)(len)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None, 2**31])
def test_bad_versions(version: Any) -> None:
    with pytest.raises(InvalidArgument, match="whole number from 1"):
        workflow(version=version)(ship.fn)


@pytest.mark.parametrize(
    "timeout",
    [timedelta(0), timedelta(seconds=-1), timedelta(days=limits.timeout_days_max, microseconds=1), 5, "1d"],
)
def test_bad_timeouts(timeout: Any) -> None:
    with pytest.raises(InvalidArgument, match="timedelta above 0"):
        workflow(timeout=timeout)(ship.fn)


def test_the_longest_timeout() -> None:
    longest = timedelta(days=limits.timeout_days_max)
    assert workflow(timeout=longest)(ship.fn).timeout == longest


# What a call becomes


def test_one_call_has_one_form() -> None:
    order = Order("a")
    assert ship.bind((order,), {}) == ship.bind((), {"order": order}) == {"order": order}
    assert ship.bind((order,), {"fast": False}) == {"order": order, "fast": False}


def test_no_defaults_are_filled_in() -> None:
    assert untyped.bind((1,), {}) == {"a": 1}
    assert all_kinds.bind((1,), {}) == {"*": [1]}
    assert nothing.bind((), {}) == {}


@pytest.mark.parametrize(
    ("args", "kwargs", "bound"),
    [
        ((1, "y"), {}, {"*": [1], "second": "y"}),
        ((1,), {"second": "y", "flag": True}, {"*": [1], "second": "y", "flag": True}),
        ((1, "y", 2.0, 3.0), {"flag": True}, {"*": [1, "y", 2.0, 3.0], "flag": True}),
        ((1,), {"x": Order("a")}, {"*": [1], "x": Order("a")}),
        ((1,), {"first": Order("a")}, {"*": [1], "first": Order("a")}),
    ],
)
def test_what_cannot_be_a_keyword_stands_under_the_star(
    args: tuple[object, ...], kwargs: dict[str, object], bound: dict[str, object]
) -> None:
    assert all_kinds.bind(args, kwargs) == bound
    assert all_kinds.arguments(encode(bound)) == _as_called(all_kinds, args, kwargs)


def _as_called(each: Workflow[..., Any], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    called = each.signature.bind(*args, **kwargs)
    return called.args, called.kwargs


@given(
    st.integers(),
    st.lists(st.floats(allow_nan=False, allow_infinity=False).map(lambda each: each + 0.0), max_size=3),
    st.none() | st.text(st.characters(codec="ascii", exclude_characters="\0")),
    st.none() | st.booleans(),
    st.dictionaries(st.sampled_from(["u", "v", "first"]), st.builds(Order, st.sampled_from(["a", "b"]))),
)
def test_any_call_comes_back_as_it_was(
    first: int, rest: list[float], second: str | None, flag: bool | None, more: dict[str, Order]
) -> None:
    args: tuple[Any, ...] = (first, second, *rest) if second is not None else (first,)
    kwargs: dict[str, Any] = dict(more) if flag is None else {**more, "flag": flag}
    came_args, came_kwargs = all_kinds.arguments(encode(all_kinds.bind(args, kwargs)))
    assert (came_args, came_kwargs) == _as_called(all_kinds, args, kwargs)
    assert asyncio.run(_run(all_kinds, came_args, came_kwargs)) == asyncio.run(_run(all_kinds, args, kwargs))


async def _run(each: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # keyword order is not the caller's but the codec's, whose keys are sorted
    return await each(None, *args, **dict(sorted(kwargs.items())))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"order": 1}), ((), {"odrer": 1}), ((1,), {"ctx": 1})],
)
def test_a_call_that_cannot_be_says_the_signature(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgument, match=r"Workflow 'ship' cannot be called so: .* It takes \(order: "):
        ship.bind(args, kwargs)


def test_no_keyword_is_a_star() -> None:
    with pytest.raises(InvalidArgument, match=re.escape("'*'")):
        all_kinds.bind((1,), {"*": Order("a")})


def test_arguments_where_the_function_is_not_at_hand() -> None:
    assert named_arguments((), {"order": "x"}) == {"order": "x"}
    assert named_arguments((1, 2), {"a": 3}) == {"*": [1, 2], "a": 3}
    assert named_arguments((), {}) == {}
    with pytest.raises(InvalidArgument):
        named_arguments((1,), {"*": 1})


# What stored arguments come back as


def test_arguments_are_decoded_as_declared() -> None:
    assert ship.arguments(b'{"order": {"id": "a"}, "fast": true}') == ((Order("a"),), {"fast": True})
    assert ship.arguments(b'[{"id": "a", "amount": 2}]') == ((Order("a", 2),), {})
    assert ship.arguments(b'{"*": [{"id": "a"}], "fast": true}') == ((Order("a"),), {"fast": True})
    assert all_kinds.arguments(b'[1, "b", 1, 2.5]') == ((1, "b", 1.0, 2.5), {})
    assert untyped.arguments(b'{"a": {"x": [1]}}') == (({"x": [1]},), {})
    for none in (None, b"{}", b"[]", b"null", b'{"*": []}'):
        assert nothing.arguments(none) == ((), {})


@workflow
async def must_say(ctx: Context, a: int, b: str = "x", *, fast: bool) -> None: ...


def test_positionals_alone_are_read_like_any_others() -> None:
    assert ship.arguments(b'{"*": [{"id": "a"}]}') == ((Order("a"),), {})
    assert untyped.arguments('{"*": [1]}') == ((1,), {})
    assert untyped.arguments(b'{"*":[1,[2]]}') == ((1, [2]), {})
    assert must_say.arguments(b'{"*": [1], "fast": true}') == ((1,), {"fast": True})
    for misfit in (
        b'{"*": [1]}',
        b'{"*": []}',
        b'{"*": [1, "x", true]}',
        b'{"*": 1}',
        b'{"*": null}',
        b'{"*":',
    ):
        with pytest.raises(ValueMismatch):
            must_say.arguments(misfit)


def test_types_for_checkers_only_do_no_harm_to_the_context() -> None:
    assert "Context" not in globals()
    assert ship.arguments(b'[{"id": "a"}]')


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b'{"order": 5}', "'order'"),
        (b'{"order": {"id": "a"}, "fast": 1}', "'fast'"),
        (b'{"order": {"id": "a"}, "fast": "yes"}', "'fast'"),
    ],
)
def test_a_misfit_names_the_parameter(text: bytes, name: str) -> None:
    with pytest.raises(ValueMismatch, match=rf"Argument {name} of workflow 'ship' does not fit"):
        ship.arguments(text)


def test_a_misfit_in_the_rest_names_it_too() -> None:
    with pytest.raises(ValueMismatch, match="Argument 'rest'"):
        all_kinds.arguments(b'[1, "b", "c"]')
    with pytest.raises(ValueMismatch, match=r"Argument 'more' .*\('u'\)"):
        all_kinds.arguments(b'{"*": [1], "u": 5}')


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[1, 2]",
        b'{"odrer": 1}',
        b'{"order": {"id": "a"}, "more": 1}',
        b"5",
        b'"x"',
        b'{"*": 5}',
        b'{"*": [1], "order": 1}',
    ],
)
def test_arguments_that_the_function_does_not_take(text: bytes) -> None:
    with pytest.raises(ValueMismatch, match="argument list of workflow 'ship'"):
        ship.arguments(text)


def test_an_annotation_that_does_not_resolve_is_told() -> None:
    @workflow
    async def lost(ctx: object, a: Nowhere) -> Nowhere: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(InvalidArgument, match=r"annotations of .*lost.* cannot be resolved: .*Nowhere"):
        lost.arguments(b'{"a": 1}')
    with pytest.raises(InvalidArgument, match="Nowhere"):
        _ = lost.result_type


def test_a_wrapped_function_is_looked_through() -> None:
    def logged(fn: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        @functools.wraps(fn)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            return await fn(*args, **kwargs)

        return inner

    wrapped = workflow(logged(ship.fn))
    assert wrapped.name == "ship"
    assert wrapped.bind((Order("a"),), {}) == {"order": Order("a")}
    assert wrapped.arguments(b'[{"id": "a"}]') == ((Order("a"),), {})
    assert wrapped.result_type == list[Order]


# Results


class Caller:
    def __call__(self, a: int) -> int:
        return a

    async def method(self) -> Order:
        return Order("a")


async def coroutine() -> Order: ...  # type: ignore[empty-body]
def function() -> dict[str, Order]: ...  # type: ignore[empty-body]
def awaitable() -> Awaitable[Order]: ...  # type: ignore[empty-body]
def coroutine_made() -> Coroutine[Any, Any, Order]: ...  # type: ignore[empty-body]
def bare_awaitable() -> Awaitable: ...  # type: ignore[empty-body, type-arg]
def silent(): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("fn", "type_"),
    [
        (coroutine, Order),
        (function, dict[str, Order]),
        (awaitable, Order),
        (coroutine_made, Order),
        (bare_awaitable, Any),
        (silent, Any),
        (lambda: 1, Any),
        (len, Any),
        (ship, list[Order]),
        (nothing, type(None)),
        (untyped, Any),
        (step(function), dict[str, Order]),
        (functools.partial(function), dict[str, Order]),
        (functools.partial(step(function)), dict[str, Order]),
        (Caller(), int),
        (Caller().method, Order),
    ],
)
def test_result_types(fn: Any, type_: Any) -> None:
    assert result_type(fn) == type_


def test_a_workflow_knows_its_result_type() -> None:
    assert ship.result_type == list[Order]
    assert untyped.result_type is Any


# Steps


def test_a_step_takes_its_functions_name_or_another() -> None:
    def charge(amount: int) -> int:
        """Charge."""
        return amount + 1

    plain, named = step(charge), step(name="charge-card")(charge)
    assert isinstance(plain, Step)
    assert (plain.name, named.name) == ("charge", "charge-card")
    assert plain(1) == named(amount=1) == 2
    assert plain.__doc__ == "Charge."
    assert inspect.signature(plain) == inspect.signature(charge)


async def test_an_async_step_stays_async() -> None:
    @step
    async def mail(name: str, retry: int) -> str:
        return name * retry

    assert await mail(name="a", retry=2) == "aa"


def test_step_names() -> None:
    assert step_name(len) == "len"
    assert step_name(Caller().method) == "method"
    assert step_name(step(name="charge-card")(len)) == "charge-card"
    assert step_name(ship.fn) == "ship"


def not_ascii() -> None: ...


not_ascii.__name__ = "café"


@pytest.mark.parametrize("fn", [lambda: 1, functools.partial(len), Caller(), 5, not_ascii])
def test_what_has_no_name_needs_one(fn: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"A step needs a name.*ctx\.options\(name=\.\.\.\)"):
        step_name(fn)
    with pytest.raises(InvalidArgument):
        step(fn)
    if callable(fn):
        assert step(name="named")(fn).name == "named"


# The registry


def module(**members: object) -> types.ModuleType:
    made = types.ModuleType("shop")
    vars(made).update(members)
    return made


def test_a_registry_finds_by_name_and_version() -> None:
    registry = Registry([ship, ship_again, nothing])
    assert registry.find("ship", 1) is ship
    assert registry.find("ship", 2) is ship_again
    assert registry.find("ship") is ship_again
    assert registry["nothing", 1] is nothing
    assert set(registry) == {("ship", 1), ("ship", 2), ("nothing", 1)}
    assert len(registry) == 3
    assert ("ship", 3) not in registry


@pytest.mark.parametrize(("name", "version"), [("shop", None), ("ship", 3), ("nothing", 2)])
def test_what_is_not_registered_is_told(name: str, version: int | None) -> None:
    with pytest.raises(NotRegistered) as caught:
        Registry([ship, ship_again, nothing]).find(name, version)
    assert caught.value.known == ("nothing@1", "ship@1", "ship@2")
    assert caught.value.name == (name if version is None else f"{name}@{version}")


def test_an_empty_registry_is_one() -> None:
    with pytest.raises(NotRegistered, match="none is known here"):
        Registry([]).find("ship")


def test_modules_give_their_workflows() -> None:
    registry = Registry([module(ship=ship, alias=ship, nothing=nothing, other=5), ship])
    assert set(registry) == {("ship", 1), ("nothing", 1)}


def test_a_module_without_workflows_is_a_mistake() -> None:
    with pytest.raises(InvalidArgument, match="'shop' has no workflows"):
        Registry([module(a=1)])


def test_two_of_one_name_and_version_are_refused_with_their_places() -> None:
    twin = workflow(name="ship")(nothing.fn)
    with pytest.raises(
        InvalidArgument, match=r"called 'ship' in version 1: ship \(.*:\d+\) and nothing \(.*:\d+\)"
    ):
        Registry([ship, twin])


@pytest.mark.parametrize("thing", [ship.fn, "ship", 5, None, Workflow])
def test_what_is_no_workflow_is_refused(thing: Any) -> None:
    with pytest.raises(InvalidArgument, match="takes workflows and modules"):
        Registry([thing])


# Types


def mypy(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(HERE / "typing" / name)],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )


def test_type_checkers_infer_workflows_and_steps() -> None:
    run = mypy("registry_types.py")
    assert re.findall(r'Revealed type is "(.*)"', run.stdout) == [
        "str",
        "list[int]",
        "float",
        "bool",
        "troth.registry.Workflow[[order: str, *, count: int =], str]",
        "troth.registry.Workflow[[order: str], list[int]]",
        "troth.registry.Step[[prices: list[float]], float]",
        "troth.registry.Step[[str, name: str], typing.Coroutine[Any, Any, bool]]",
    ]
    assert run.returncode == 0, run.stdout


def test_type_checkers_refuse_misuse() -> None:
    run = mypy("registry_misuse.py")
    assert run.returncode == 0, run.stdout
