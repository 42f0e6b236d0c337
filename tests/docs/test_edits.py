"""The table of safe and unsafe edits in `docs/changing-code.md`: each row is tried."""

from __future__ import annotations

import asyncio
import re
import types
from datetime import timedelta

import pytest

from tests.docs.edits import EDITS, OLD, edited
from tests.docs.pages import HOME
from troth import PromiseInfo
from troth.model import Exported
from troth.testing import Environment
from troth.worker.replaying import replay

HEAD = """
import asyncio
from typing import Any
from troth import Context, Retry, step, workflow
"""


def rows() -> dict[str, str]:
    """What the page says of each edit."""
    text = (HOME / "docs" / "changing-code.md").read_text()
    table = text[text.index("| edit |") :].partition("\n\n")[0]
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)[1:])


WITHOUT_A_WORKER = {"`version=` of the workflow is raised", "the workflow is renamed or deleted"}
"""Not a matter of replay: such code is never run with them (`test_running.py` has one, `tests/engine` all)."""


def code(text: str) -> types.ModuleType:
    module = types.ModuleType("shop")
    exec(compile(HEAD + text, "shop.py", "exec"), vars(module))
    return module


async def recorded(troth_env: Environment, code: types.ModuleType) -> tuple[Exported, PromiseInfo]:
    """A workflow of this code that waits for a person."""
    troth_env.worker([code.pack, code.fulfil])
    await troth_env.start("order-42", code.fulfil, "order-42")
    await troth_env.advance(timedelta(seconds=5))
    await troth_env.run_until_idle()
    assert (await troth_env.client.get("order-42~approval")).pending
    return await troth_env.client.export("order-42"), await troth_env.client.get("order-42")


async def test_each_edit_does_what_the_table_says(troth_env: Environment) -> None:
    told = rows()
    assert set(told) - WITHOUT_A_WORKER == set(EDITS)
    exported, promise = await recorded(troth_env, code(OLD))

    def found(row: str) -> str:
        verdict = replay(code(edited(row)).fulfil, exported.record, exported.journal, promise=promise)
        return {"same": "goes on", "diverged": "halted"}.get(verdict.result, verdict.result)

    # machines run where no asyncio task does
    tried = await asyncio.to_thread(lambda: {row: found(row) for row in EDITS})
    said = {row: re.match(r"goes on|halted", told[row]) for row in EDITS}
    assert {row: what and what[0] for row, what in said.items()} == tried


async def test_an_edit_of_arguments_that_are_not_compared(troth_env: Environment) -> None:
    loose = OLD.replace(
        "ctx.run(charge, order, amount)", "ctx.options(compare=False).run(charge, order, amount)"
    )
    exported, promise = await recorded(troth_env, code(loose))
    changed = code(loose.replace("charge, order, amount)", "charge, order, amount + 1)"))
    verdict = await asyncio.to_thread(
        lambda: replay(changed.fulfil, exported.record, exported.journal, promise=promise)
    )
    assert verdict.result == "same"


@pytest.mark.parametrize("row", EDITS)
def test_an_edit_is_one(row: str) -> None:
    assert edited(row) != OLD
