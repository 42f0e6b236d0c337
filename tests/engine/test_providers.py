"""What steps are given: made once, at the first use; shared; closed in reverse order, whatever else fails."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from troth import providers as providers_module
from troth.errors import InvalidArgument, ProviderFailed
from troth.providers import Providers, provided
from troth.registry import step

HERE = Path(__file__).parent

story: list[str] = []


@pytest.fixture(autouse=True)
def _new_story() -> None:
    story.clear()


class Pool:
    """What is provided here; as an object it could be entered, but nobody should."""

    def __init__(self, name: str = "pool") -> None:
        self.name = name
        self.thread = threading.current_thread()
        story.append(f"made {name}")

    async def __aenter__(self) -> None:
        raise AssertionError("entered")

    async def __aexit__(self, *error: object) -> None: ...


async def yields() -> AsyncIterator[Pool]:
    yield Pool()
    story.append("closed pool")


def yields_plainly() -> Iterator[Pool]:
    yield Pool()
    story.append("closed pool")


@asynccontextmanager
async def below_async() -> AsyncGenerator[Pool, None]:
    yield Pool()
    story.append("closed pool")


@contextmanager
def below_plain() -> Generator[Pool, None, None]:
    yield Pool()
    story.append("closed pool")


async def returns() -> Pool:
    return Pool()


def returns_plainly() -> Pool:
    return Pool()


def returns_awaitable() -> asyncio.Future[Pool]:
    return asyncio.ensure_future(returns())


def taking(factory: Callable[..., Any]) -> Callable[..., Any]:
    async def charge(order: str, pool: Any = provided(factory)) -> Any:
        return order, pool

    return charge


CLOSED = [yields, yields_plainly, below_async, below_plain]
LEFT = [returns, returns_plainly, functools.partial(returns), Pool]


@pytest.mark.parametrize("factory", CLOSED + LEFT, ids=lambda each: getattr(each, "__name__", "partial"))
async def test_a_thing_is_made_at_its_first_use_and_shared(factory: Callable[..., Any]) -> None:
    providers = Providers()
    charge, ship = taking(factory), taking(factory)
    assert story == []
    first = await providers.arguments(charge, ("a",), {})
    assert list(first) == ["pool"]
    assert isinstance(first["pool"], Pool)
    assert await providers.arguments(ship, (), {"order": "b"}) == first
    assert await charge("a", **first) == ("a", first["pool"])
    assert story == ["made pool"]
    await providers.close()
    assert story == (["made pool", "closed pool"] if factory in CLOSED else ["made pool"])


@pytest.mark.parametrize("factory", [yields_plainly, below_plain, returns_plainly, Pool])
async def test_what_is_not_async_runs_in_a_thread(factory: Callable[..., Any]) -> None:
    with ThreadPoolExecutor(1, "ours") as threads:
        providers = Providers(threads=threads)
        made = (await providers.arguments(taking(factory), (), {}))["pool"]
        assert made.thread.name.startswith("ours")
        await providers.close()


@pytest.mark.parametrize("factory", [yields, below_async, returns])
async def test_what_is_async_runs_in_the_loop(factory: Callable[..., Any]) -> None:
    providers = Providers()
    assert (await providers.arguments(taking(factory), (), {}))["pool"].thread is threading.current_thread()
    await providers.close()


async def test_a_lock_is_not_taken() -> None:
    providers = Providers()
    lock = (await providers.arguments(taking(asyncio.Lock), (), {}))["pool"]
    assert not lock.locked()
    await providers.close()


# Which parameters


def many(
    a: int, b: Any = provided(returns), /, c: int = 1, *rest: int
) -> None: ...  # its b cannot be given by name


def several(
    a: Any = provided(returns), b: int = 1, *rest: int, c: Any = provided(yields), **more: Any
) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "added"),
    [
        ((), {}, {"a", "c"}),
        ((1,), {}, {"c"}),
        ((1, 2, 3, 4), {}, {"c"}),
        ((), {"a": None}, {"c"}),
        ((None,), {"c": None}, set()),
        ((), {"b": 2, "more": 3}, {"a", "c"}),
    ],
)
async def test_only_what_is_not_given_is_made(
    args: tuple[Any, ...], kwargs: dict[str, Any], added: set[str]
) -> None:
    providers = Providers()
    extra = await providers.arguments(several, args, kwargs)
    assert set(extra) == added
    inspect.signature(several).bind(*args, **kwargs, **extra)
    assert len(story) == len(added)
    await providers.close()


async def test_functions_of_any_kind() -> None:
    class Till:
        def charge(self, order: str, pool: Any = provided(returns)) -> None: ...

    till = Till()
    providers = Providers()
    calls: list[tuple[Callable[..., Any], tuple[Any, ...], set[str]]] = [
        (step(taking(returns)), ("a",), {"pool"}),
        (functools.partial(taking(returns), "a"), (), {"pool"}),
        (functools.partial(taking(returns), pool=1), ("a",), set()),
        (till.charge, ("a",), {"pool"}),
        (till.charge, ("a", 1), set()),
        (functools.wraps(several)(lambda *a, **k: None), (), {"a", "c"}),
        (len, ([],), set()),
        (dict.fromkeys, ([],), set()),
        (print, (), set()),
        (type, (1,), set()),
    ]
    for fn, args, added in calls:
        assert set(await providers.arguments(fn, args, {})) == added, fn
    assert story == ["made pool"] * 2
    await providers.close()


async def test_a_provided_parameter_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"Parameter 'b' of .*many is provided.* '/'"):
        await Providers().arguments(many, (1,), {})


async def test_a_function_is_inspected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = Providers()
    charge = taking(returns)
    before = await providers.arguments(charge, (), {})
    monkeypatch.setattr(inspect, "signature", None)
    assert await providers.arguments(charge, (), {}) == before
    assert await providers.arguments(charge, (), {"pool": 1}) == {}


# Factories of factories


async def settings() -> AsyncIterator[dict[str, int]]:
    story.append("made settings")
    yield {"size": 3}
    story.append("closed settings")


async def sized(settings: dict[str, int] = provided(settings)) -> AsyncIterator[Pool]:
    yield Pool(f"pool of {settings['size']}")
    story.append("closed pool")


def client(pool: Pool = provided(sized), settings: dict[str, int] = provided(settings)) -> Iterator[str]:
    yield f"client of {pool.name}"
    story.append("closed client")


async def test_factories_are_given_theirs_and_closed_before_them() -> None:
    providers = Providers()
    assert await providers.arguments(taking(client), (), {}) == {"pool": "client of pool of 3"}
    await providers.close()
    assert story == ["made settings", "made pool of 3", "closed client", "closed pool", "closed settings"]


def circular(a: Any) -> Any:
    return a


async def one(other: Any = None) -> None: ...
async def two(other: Any = provided(one)) -> None: ...


async def test_circles_are_named() -> None:
    providers = Providers({one: three})
    with pytest.raises(InvalidArgument, match=r"circle: \S+two → \S+three → \S+two\. Let one do without"):
        await asyncio.wait_for(providers.arguments(taking(two), (), {}), 60)
    with pytest.raises(InvalidArgument, match="circle"):
        await asyncio.wait_for(providers.arguments(taking(two), (), {}), 60)
    await providers.close()


async def three(other: Any = provided(two)) -> None: ...


# At once


async def test_concurrent_first_uses_share_one_making() -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[Pool]:
        await gate.wait()
        yield Pool()

    providers = Providers()
    asking = [asyncio.create_task(providers.arguments(taking(slow), (), {})) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    made = await asyncio.gather(*asking[1:])
    assert story == ["made pool"]
    assert len({id(each["pool"]) for each in made}) == 1
    await providers.close()


async def test_a_thing_outlives_the_step_that_came_first() -> None:
    seen = contextvars.ContextVar("seen", default="nothing")

    async def looks() -> AsyncIterator[str]:
        async with asyncio.TaskGroup() as group:  # must be left in the task that entered it
            beat = group.create_task(asyncio.Event().wait())
            yield seen.get()
            beat.cancel()

    async def first() -> Any:
        seen.set("the first step")
        async with asyncio.timeout(60):
            return await providers.arguments(taking(looks), (), {})

    providers = Providers()
    assert await asyncio.create_task(first()) == {"pool": "nothing"}
    with capture_logs() as logs:
        await providers.close()
    assert logs == []


# Failures


async def test_a_failed_making_names_the_factory_and_is_tried_again() -> None:
    failures = [OSError("refused"), SystemExit(3), StopIteration(1), asyncio.CancelledError()]
    reasons = [
        "OSError: refused",
        "RuntimeError: it ended with SystemExit",
        "RuntimeError: it raised StopIteration",
        "RuntimeError: it ended with CancelledError",
    ]

    def flaky() -> Pool:
        if failures:
            raise failures.pop(0)
        return Pool()

    providers = Providers()
    for reason in reasons:
        asking = [providers.arguments(taking(flaky), (), {}) for _ in range(2)]
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*asking, return_exceptions=True)
        for told in answers:
            assert isinstance(told, ProviderFailed)
            assert str(told).startswith(f"The provider {__name__}.")
            assert str(told).endswith(f"flaky failed: {reason}")
            assert told.__cause__ is not None
            assert str(pickle.loads(pickle.dumps(told))) == str(told)
    assert (await providers.arguments(taking(flaky), (), {}))["pool"].name == "pool"
    assert story == ["made pool"]
    await providers.close()


@pytest.mark.parametrize("below", [asynccontextmanager, lambda it: it], ids=["below", "plain"])
async def test_a_generator_that_yields_nothing_is_told(below: Any) -> None:
    async def nothing() -> AsyncIterator[Pool]:
        if story:
            yield Pool()

    with pytest.raises(ProviderFailed, match="RuntimeError: generator didn't yield"):
        await Providers().arguments(taking(below(nothing)), (), {})


async def test_a_failure_below_is_told_with_both() -> None:
    async def broken() -> None:
        raise OSError("refused")

    with pytest.raises(
        ProviderFailed, match=r"sized failed: ProviderFailed: .*broken failed: OSError: refused"
    ) as caught:
        await Providers({settings: broken}).arguments(taking(sized), (), {})
    assert caught.value.provider.endswith("sized")


async def eventually(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not happened():  # noqa: ASYNC110 — of what nobody sets an event for
            await asyncio.sleep(0)


async def test_one_that_ends_by_itself_is_told_and_made_anew() -> None:
    async def dies() -> AsyncIterator[Pool]:
        async def background() -> None:
            await fail.wait()
            raise OSError("connection lost")

        async with asyncio.TaskGroup() as group:
            group.create_task(background())
            yield Pool()

    fail = asyncio.Event()
    providers = Providers()
    first = await providers.arguments(taking(dies), (), {})
    with capture_logs() as logs:
        fail.set()
        await eventually(lambda: logs)
    assert [each["event"] for each in logs] == ["a provider failed while it was in use"]
    fail.clear()
    assert await providers.arguments(taking(dies), (), {}) != first
    closing = asyncio.create_task(providers.close())
    await asyncio.sleep(0)
    fail.set()  # or it would wait for its background
    with capture_logs() as logs:
        await closing
    assert story == ["made pool"] * 2


# The end


async def test_an_error_in_closing_is_logged_and_hides_no_other() -> None:
    def failing(name: str, error: BaseException) -> Callable[..., Any]:
        async def make() -> AsyncIterator[str]:
            yield name
            story.append(name)
            raise error

        return make

    providers = Providers()
    for each in ("a", "b", "c"):
        await providers.arguments(taking(failing(each, OSError(each))), (), {})
    await providers.arguments(taking(failing("d", SystemExit(1))), (), {})
    with capture_logs() as logs:
        await providers.close()
    assert story == ["d", "c", "b", "a"]
    assert [str(each["exc_info"]) for each in logs] == ["1", "c", "b", "a"]
    assert {each["event"] for each in logs} == {"a provider failed when it was closed"}
    await providers.close()
    assert len(story) == 4


async def test_what_does_not_close_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs() -> AsyncIterator[None]:
        yield None
        try:
            await asyncio.Event().wait()
        finally:
            story.append("given up")

    monkeypatch.setattr(providers_module, "CLOSE_S_MAX", 0.01)
    providers = Providers()
    await providers.arguments(taking(yields), (), {})
    await providers.arguments(taking(hangs), (), {})
    with capture_logs() as logs:
        await providers.close()
    assert [each["event"] for each in logs] == ["a provider did not close in time"]
    assert logs[0]["provider"].endswith("hangs")
    assert story == ["made pool", "given up", "closed pool"]


async def test_what_is_being_made_at_the_end_is_given_up() -> None:
    async def slow() -> AsyncIterator[None]:
        story.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            story.append("ended")
        yield None

    providers = Providers()
    asking = asyncio.create_task(providers.arguments(taking(slow), (), {}))
    await eventually(lambda: story)
    async with asyncio.timeout(60):
        await providers.close()
    assert story == ["begun", "ended"]
    with pytest.raises(ProviderFailed):
        await asking


async def test_after_the_end_nothing_is_made() -> None:
    providers = Providers()
    await providers.arguments(taking(yields), (), {})
    await providers.close()
    for factory in (yields, returns):
        with pytest.raises(ProviderFailed, match="its worker is ending"):
            await providers.arguments(taking(factory), (), {})
    assert story == ["made pool", "closed pool"]


# Other ones instead


async def test_a_replacement_is_used_wherever_the_factory_was() -> None:
    providers = Providers({settings: lambda: {"size": 7}, yields: returns})
    assert (await providers.arguments(taking(sized), (), {}))["pool"].name == "pool of 7"
    replaced = await providers.arguments(taking(yields), (), {})
    assert await providers.arguments(taking(returns), (), {}) == replaced
    await providers.close()
    assert story == ["made pool of 7", "made pool", "closed pool"]


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (5, "5 is none; write `lambda: it`"),
        (None, "None is none"),
        (Unhashable(), "hash"),
        (several, None),
        (circular, "its a; give them defaults"),
        (lambda *rest, a, **more: 1, "its a; "),
    ],
)
def test_what_makes_nothing_is_refused_where_it_is_written(factory: Any, said: str | None) -> None:
    if said is None:
        provided(factory)
        return
    with pytest.raises(InvalidArgument, match=re.escape(said)):
        provided(factory)
    with pytest.raises(InvalidArgument, match=re.escape(said)):
        Providers({yields: factory})


# Without a worker


async def test_a_step_can_be_called_directly_with_the_argument() -> None:
    charge = step(taking(yields))
    assert await charge("a", pool=5) == ("a", 5)
    assert story == []


@pytest.mark.parametrize(
    "use",
    [
        lambda it: it.fetch("select 1"),
        lambda it: it(),
        lambda it: it["a"],
        bool,
        list,
        lambda it: "a" in it,
        len,
        lambda it: setattr(it, "size", 5),
        lambda it: it.__enter__(),
        lambda it: asyncio.run(_awaited(it)),
        lambda it: asyncio.run(_entered(it)),
    ],
)
def test_using_the_default_itself_names_the_provider(use: Callable[[Any], Any]) -> None:
    default = inspect.signature(taking(yields)).parameters["pool"].default
    assert repr(default) == f"provided({__name__}.yields)"
    with pytest.raises(InvalidArgument, match=r"This is provided\(\S+\.yields\), .*passes the argument"):
        use(default)


async def _awaited(it: Any) -> None:
    await it


async def _entered(it: Any) -> None:
    async with it:
        pass


def test_machinery_may_look_at_the_default() -> None:
    charge = taking(yields)
    assert "pool: 'Any' = provided(" in str(inspect.signature(charge))
    assert not hasattr(provided(yields), "__wrapped__")


# Types


REVEALED = [
    "Pool",
    "Pool",
    "int",
    "int",
    "Pool",
    "int",
    "Pool",
    "list[str]",
    "Semaphore",
    "Pool",
    "dict[str, Any]",
]


def checked(checker: str, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", checker, *options, str(HERE / "typing" / name)],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )


def test_mypy_infers_what_is_provided() -> None:
    run = checked("mypy", "providers_types.py", "--strict")
    found = re.findall(r'type is "(.*)"', run.stdout)
    assert [re.sub(r"^[\w.]+\.", "", name) for name in found] == REVEALED
    assert run.returncode == 0, run.stdout


def test_pyright_infers_what_is_provided() -> None:
    run = checked("pyright", "providers_types.py", "--pythonpath", sys.executable)
    assert re.findall(r'Type of "provided.*" is "(.*)"', run.stdout) == REVEALED[:-1]
    assert run.returncode == 0, run.stdout


def test_mypy_refuses_misuse() -> None:
    run = checked("mypy", "providers_misuse.py", "--strict")
    assert run.returncode == 0, run.stdout
