"""Workflows from a module or a file: what `troth worker approval.py:approve_order,other` means.

A file is imported as `python approval.py` would find its neighbours: its directory comes first on the path. Whatever
its code raises while it is imported becomes one sentence that names the line.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from troth.errors import InvalidArgument, NotRegistered, TrothError
from troth.registry import Registry, Workflow


def load_workflows(targets: Iterable[str]) -> list[Workflow[..., Any]]:
    """The workflows of all targets. Raises `InvalidArgument` or `NotRegistered`, saying which target and where."""
    found: dict[int, Workflow[..., Any]] = {}
    for target in targets:
        source, names = parted(target)
        module = load_module(source)
        known = Registry([module])
        for workflow in known.values() if not names else _named(module, known, names):
            found[id(workflow)] = workflow
    return list(found.values())


def parted(target: str) -> tuple[str, list[str]]:
    """A target as module or file, and the names behind its colon."""
    source, _, names = target.partition(":")
    return source, [name.strip() for name in names.split(",") if name.strip()]


def _named(module: ModuleType, known: Registry, names: list[str]) -> Iterable[Workflow[..., Any]]:
    for name in names:
        attribute = getattr(module, name, None)
        if isinstance(attribute, Workflow):
            yield cast("Workflow[..., Any]", attribute)
        elif versions := [workflow for workflow in known.values() if workflow.name == name]:
            yield from versions
        else:
            raise NotRegistered(name, {workflow.name for workflow in known.values()})


def check_target(target: str) -> None:
    """Raise `InvalidArgument` if a file is not there or no Python, without running it."""
    source, _ = parted(target)
    if not _is_file(source):
        return
    path = _existing(source)
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise _failed(source, error) from error


def load_module(source: str) -> ModuleType:
    """Import a module by its name, or a file by its path."""
    try:
        if _is_file(source):
            return _load_file(_existing(source))
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(source)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        if isinstance(error, InvalidArgument) and error.__traceback__ and not _frames(error):
            raise
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, source):
            raise InvalidArgument(
                f"There is no module {source!r}.",
                hint="Give a file such as approval.py, or run the command where the module can be imported.",
            ) from error
        raise _failed(source, error) from error


def _is_file(source: str) -> bool:
    return source.endswith(".py") or "/" in source


def _existing(source: str) -> Path:
    path = Path(source)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise InvalidArgument(f"The file {source!r} {what}.", hint="Give the file that holds your workflows.")
    return path.resolve()


def _load_file(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent))
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names or not name.isidentifier():
        name = f"workflows_of_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _is_part(name: str | None, source: str) -> bool:
    return name is not None and (source == name or source.startswith(f"{name}."))


def _failed(source: str, error: BaseException) -> InvalidArgument:
    if isinstance(error, SyntaxError):
        place = f"{_short(error.filename) or source}:{error.lineno or '?'}"
        return InvalidArgument(f"{place}: {error.msg}.", hint="Mend the syntax there.")
    frames = _frames(error)
    place = f"{_short(frames[-1].filename)}:{frames[-1].lineno}" if frames else source
    if isinstance(error, TrothError):
        return InvalidArgument(f"{place}: {error.message}", hint=error.hint)
    said = " ".join(str(error).split())[:500]
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return InvalidArgument(
        f"{source} cannot be imported; {place} raised {what.rstrip('.')}.",
        hint="Mend it; the whole traceback is shown with --traceback.",
    )


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Where the error came through, in code that is neither ours nor Python's import machinery."""
    ours = str(Path(__file__).resolve().parents[1])
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<frozen "))
        and Path(frame.filename).parent.name != "importlib"
    ]


def _short(filename: str | None) -> str | None:
    if filename is None:
        return None
    path, here = Path(filename), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename
