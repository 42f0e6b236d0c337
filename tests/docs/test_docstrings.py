"""The examples in the docstrings of what workflow code is given: each runs, typed, as the body of a workflow.

What they use without defining it stands in `AROUND`, once for all of them.
"""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

import troth
from tests.docs.pages import HOME
from troth import PromiseInfo, step_info
from troth.context import info
from troth.providers import Providers
from troth.testing import Environment

AROUND = """
import asyncio
import troth
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from troth import Child, Context, Promise, Retry, provided, step, workflow

class CardDeclined(Exception): ...
class Pool: ...
@dataclass
class Order:
    id: str
effects: list[Any] = []

async def charge(order: str, amount: int = 1) -> str:
    effects.append((order, amount))
    return f"receipt for {order}"
async def charge_order(order: Order) -> str:
    effects.append(order.id)
    return order.id
async def book(connection: Any, order: str, amount: int) -> int:
    await connection.execute("select 1")
    return amount
async def send_email(promise: str) -> None: effects.append(promise)
async def tell(id: str) -> None: effects.append(id)
def load(page: int) -> None: effects.append(page)
@workflow
async def warehouse(ctx: Context) -> int: return await ctx.promise(int, "count")
@workflow
async def count(ctx: Context, page: int) -> int: return page
@workflow
async def send_invoice(ctx: Context, order: str) -> str: return order
def make_pool() -> Pool: return Pool()
"""

GIVEN = {
    "Context.options": "",
    "Context.run": "order: str = 'order-42'",
    "Context.transaction": "",
    "Context.call": "pages = [1, 2, 3]",
    "Context.start": "order: str = 'order-42'",
    "Context.promise": "",
    "Context.wait": "",
    "Context.sleep": "",
    "Context.now": "",
    "Context.random": "names = ['Ann']",
    "Context.uuid4": "",
    "Context.patched": "",
    "Context.scope": "orders = [Order('a'), Order('b')]; charge = charge_order",
    "Promise": "",
    "Child": "order: str = 'order-42'",
}
"""What the body of a workflow begins with, for each that is to have an example."""

VERBS = {
    f"Context.{name}"
    for name, value in vars(troth.Context).items()
    if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
}


def example(of: str) -> str:
    """The code in a docstring: what is indented in it, after an empty line."""
    first, *rest = of.split(".")
    thing: Any = getattr(troth, first)
    for name in rest:
        thing = inspect.getattr_static(thing, name)
    text = inspect.getdoc(thing) or ""
    found = re.findall(r"(?:^|\n\n)((?: {4}.*(?:\n|$)|\n(?= {4}))+)", text)
    assert found, f"{of} has no example"
    return "\n".join(textwrap.dedent(each) for each in found)


def program() -> str:
    """All examples as one module."""
    parts = [AROUND]
    for of, given in GIVEN.items():
        body = "\n".join(filter(None, [given, example(of).replace("...", "pass")]))
        name = of.replace(".", "_").lower()
        parts.append(f"@workflow\nasync def {name}(ctx: Context) -> None:\n{textwrap.indent(body, '    ')}\n")
    parts.append(example("step").replace("charge(", "charge_carefully("))
    parts.append(example("provided").replace("charge(", "charge_with_pool("))
    steps = "async def load_all() -> None:\n" + textwrap.indent(example("StepInfo.heartbeat"), "    ")
    steps += (
        "\nasync def its_key() -> str:\n"
        + textwrap.indent(example("StepInfo"), "    ")
        + "\n    return key\n"
    )
    return "\n".join([*parts, steps])


def test_every_verb_of_the_context_has_an_example() -> None:
    assert GIVEN.keys() >= VERBS


def test_the_examples_are_typed(tmp_path: Path) -> None:
    (tmp_path / "examples.py").write_text(program())
    off = ("--disable-error-code=empty-body", "--disable-error-code=no-redef")
    command = (sys.executable, "-m", "mypy", "--config-file", str(HOME / "pyproject.toml"), *off)
    said = subprocess.run([*command, str(tmp_path / "examples.py")], cwd=HOME, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("docstrings")
    monkeypatch.setitem(sys.modules, "docstrings", made)
    exec(compile(program(), "docstrings.py", "exec"), vars(made))
    return made


async def test_the_examples_run(troth_env: Environment, module: Any) -> None:
    named = {of: getattr(module, of.replace(".", "_").lower()) for of in GIVEN}
    troth_env.worker([*named.values(), module.count, module.send_invoice, module.warehouse])
    await troth_env.start("warehouse-7", module.warehouse)
    await troth_env.run_until_idle()
    for of, workflow in named.items():
        await troth_env.start(of.replace("Context.", ""), workflow)
    for _ in range(3):
        await troth_env.run_until_idle()
        for latent in await pending(troth_env):
            await troth_env.client.resolve(latent.id, 1 if latent.id.endswith("count") else True)
        await troth_env.advance(31 * 86_400)
    for of in GIVEN:
        promise = await troth_env.client.get(of.replace("Context.", ""))
        assert promise.state == "resolved", f"{of}: {bytes(promise.error).decode()}"
    assert {("order-42", 3), "a", "b"} <= set(module.effects)


async def pending(troth_env: Environment) -> list[PromiseInfo]:
    return await troth_env.client.search(state="pending", latent=True)


async def test_the_examples_of_steps(module: Any) -> None:
    beats: list[object] = []
    running = troth.StepInfo("w", "load", attempt=2, details=97, beat=beats.append, abandoned=lambda: False)
    token = info.CURRENT.set(running)
    try:
        await module.load_all()
        assert await module.its_key() == "w~load"
    finally:
        info.CURRENT.reset(token)
    assert (module.effects, beats) == ([97, 98, 99], [98, 99, 100])
    with pytest.raises(troth.WorkflowMisuse):
        step_info()
    assert (module.charge_carefully.retry.attempts, module.charge_carefully.timeout.seconds) == (5, 30)
    provided = await Providers().arguments(module.charge_with_pool, ("order-42",), {})
    assert isinstance(provided["pool"], module.Pool)


def test_the_example_of_retry() -> None:
    finder = doctest.DocTestFinder(recurse=False)
    (found,) = finder.find(troth.Retry, "Retry")
    assert found.examples
    assert doctest.DocTestRunner().run(found).failed == 0
