"""The page about testing does what it says: its code is taken from it and run as somebody's project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""

pytest_plugins = ["pytester"]


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(pytester: pytest.Pytester, postgres: object, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory with `orders.py` of the page, whose tests run on the server of this run."""
    dsn: str = postgres.dsn  # type: ignore[attr-defined]
    monkeypatch.setenv("TROTH_TEST_DSN", dsn)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    orders, *_ = blocks()
    assert orders.startswith("# orders.py\n")
    # what the page leaves open is what a reader would write there
    orders = orders.replace("amount: int) -> str: ...", "amount: int) -> str:\n    return order")
    pytester.makepyfile(orders=orders)
    pytester.makeini(INI)
    return pytester


def test_the_examples_of_the_page_run(project: pytest.Pytester) -> None:
    _, tests, *more = blocks()
    assert tests.startswith("# test_orders.py\n")
    (crashes,) = (each for each in more if "crash_everywhere" in each)
    plain = more[-1]
    assert "def run_it" in plain
    ran = "def test_without_pytest(tmp_path):\n    run_it(tmp_path)\n"
    project.makepyfile(test_orders=tests + "\n\n" + crashes, test_plain=f"{plain}\n\n{ran}")
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")
    result.assert_outcomes(passed=4)


def test_the_other_snippets_say_what_there_is(project: pytest.Pytester) -> None:
    _, _, *more = blocks()
    marks = next(each for each in more if each.startswith("@pytest.mark.troth"))
    seeds = next(each for each in more if "hash_seed" in each)
    kills = next(each for each in more if "worker.kill()" in each).replace(
        "...", 'await troth_env.start("order-1", approve_order, "order-1")\nawait troth_env.run_until_idle()'
    )
    project.makepyfile(
        "import pytest\nfrom orders import approve_order\n\n"
        f"{marks}async def test_marked(troth_env):\n"
        '    await troth_env.run(approve_order, "order-1")\n'
        f"    {seeds}\n\n"
        "async def test_killed(troth_env):\n" + "".join(f"    {line}\n" for line in kills.splitlines())
    )
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")
    result.assert_outcomes(passed=2)
