"""The public face: every name that `import troth` offers is there and says what it is."""

from __future__ import annotations

import inspect

import troth


def _says_what_it_is(name: str) -> bool:
    value = getattr(troth, name)
    if not (inspect.isclass(value) or callable(value)):
        return True  # a constant or an alias has no docstring of its own
    text: str | None = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    # A dataclass without a docstring is given its own signature as one.
    return bool(text and text.strip()) and not (text or "").startswith(f"{name}(")


def test_every_public_name_is_there() -> None:
    assert troth.__all__
    assert [name for name in troth.__all__ if not hasattr(troth, name)] == []
    assert len(troth.__all__) == len(set(troth.__all__))


def test_every_public_name_has_a_docstring() -> None:
    assert [name for name in troth.__all__ if not _says_what_it_is(name)] == []


def test_every_public_method_has_a_docstring() -> None:
    silent = [
        f"{name}.{member}"
        for name in troth.__all__
        if inspect.isclass(value := getattr(troth, name)) and value.__module__.startswith("troth")
        for member, function in vars(value).items()
        if not member.startswith("_") and inspect.isfunction(function) and not function.__doc__
    ]
    assert silent == []
