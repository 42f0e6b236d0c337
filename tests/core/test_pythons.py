"""The core on every Python that is installed: its whole suite, and random programs that must do the same on all of them.

Another Python needs nothing installed: pytest is borrowed from this one (it is Python all through), and where msgspec is
missing a few lines stand in for it, of which the core uses nothing but frozen structs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.core.simulation.runs import fingerprint
from troth import core

ROOT = Path(__file__).parents[2]
ENGINE = Path(core.__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHERS = [version for version in VERSIONS if version != HERE]
BORROWED = (
    "pytest",
    "py",
    "_pytest",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
)

STRUCT = """
import dataclasses

class Struct:
    def __init_subclass__(cls, frozen=False, eq=True):
        super().__init_subclass__()
        dataclasses.dataclass(frozen=frozen, eq=eq)(cls)
"""

SETTINGS = """
[pytest]
filterwarnings = error
pythonpath = {root}
"""


@cache
def interpreter(version: str) -> str | None:
    """The CPython of this version on the PATH, or among those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"versions/{version}*/bin/python3"))]
    asked = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        if candidate is not None:
            said = subprocess.run([candidate, "-c", asked], capture_output=True, text=True, check=False)
            if said.stdout.split() == ["cpython", version]:
                return candidate
    return None


def run(version: str, where: Path, *arguments: str) -> str:
    """What that Python prints; skips where there is none."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    for name in BORROWED:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            (where / source.name).symlink_to(source)
    (where / "troth").mkdir()
    (where / "troth" / "__init__.py").write_text(f"__path__ = [{str(ENGINE)!r}]\n")
    has = subprocess.run([python, "-c", "import msgspec"], capture_output=True, check=False)
    if has.returncode:
        (where / "msgspec.py").write_text(STRUCT)
    (where / "settings.ini").write_text(SETTINGS.format(root=ROOT))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))},
        "PYTHONPATH": os.pathsep.join([str(where), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "TROTH_TEST_SIMULATIONS": "400",
    }
    said = subprocess.run(
        [python, *arguments], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, f"on Python {version}:\n{said.stdout}{said.stderr}"
    return said.stdout


@pytest.mark.parametrize("version", OTHERS)
def test_the_core_passes_its_suite_on(version: str, tmp_path: Path) -> None:
    options = (
        "-q",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
    )
    settings = (
        "-c",
        str(tmp_path / "settings.ini"),
        "--rootdir",
        str(ROOT),
        f"--basetemp={tmp_path / 'tmp'}",
    )
    leaving = f"--ignore={Path(__file__)}"
    said = run(version, tmp_path, "-m", "pytest", *options, *settings, leaving, str(Path(__file__).parent))
    assert " passed" in said


SEEDS = 600
"""Not all: a request to cancel that meets a failure in a TaskGroup goes another way since Python 3.13."""


@cache
def here() -> list[int]:
    return [fingerprint(seed) for seed in range(SEEDS)]


@pytest.mark.parametrize("version", OTHERS)
def test_random_programs_do_the_same_on(version: str, tmp_path: Path) -> None:
    """A journal that one Python wrote is replayed alike by another: names, order of effects, sets of tasks."""
    script = (
        "import json; from tests.core.simulation.runs import fingerprint;"
        f"print(json.dumps([fingerprint(seed) for seed in range({SEEDS})]))"
    )
    theirs = json.loads(run(version, tmp_path, "-c", script))
    different = [seed for seed, (one, other) in enumerate(zip(here(), theirs, strict=True)) if one != other]
    assert not different, f"Python {version} differs from {HERE} at the seeds {different}"
