"""Back from what was stored to an exception.

`rebuilt` imports the module that an error names. Give it what workers stored, never what an outsider wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from troth.errors import StoredError
from troth.model import ErrorInfo, ErrorParts
from troth.remote.classes import builtin_below, known_class
from troth.remote.notes import Remote, text_and_notes
from troth.remote.parts import arguments_of, set_attribute, usual_attributes


def _stand_in(error: ErrorInfo) -> Exception:
    return StoredError(f"{error.type}: {error.message}", error)


def rebuilt(
    error: ErrorInfo,
    otherwise: Callable[[], BaseException],
    within: Callable[[ErrorInfo], Exception] = _stand_in,
) -> BaseException:
    """The exception that was stored, as its own class if that is known here and derives from Exception, else `otherwise()`.

    `within` makes what stands for an unknown class among the causes and the members of a group; a `StoredError` unless
    given. Wrappers of stored errors (`StepError`, `PromiseRejected`) do not come back as themselves: whoever raises wraps.
    """
    made = _made(error, within)
    return otherwise() if made is None else made


def _made(error: ErrorInfo, within: Callable[[ErrorInfo], Exception]) -> Exception | None:
    cls = known_class(error.type)
    if cls is None:
        return None
    try:
        return _filled(cls, error, within)
    except Exception:  # noqa: BLE001 — classes can be odd in endless ways, and the stored error tells it all
        return None


def _filled(cls: type[Exception], error: ErrorInfo, within: Callable[[ErrorInfo], Exception]) -> Exception:
    parts = error.parts or ErrorParts()
    text, notes = text_and_notes(error)
    only_text: tuple[Any, ...] = (_Quoteless(text) if issubclass(cls, KeyError) else text,) if text else ()
    if issubclass(cls, BaseExceptionGroup):
        members = [_made(each, within) or within(each) for each in parts.members]
        made = _instance(cls, (parts.args[0] if parts.args else text, members))
    else:
        made = _of_arguments(cls, parts.args, only_text)
    for name, value in {**usual_attributes(cls, text), **parts.attributes}.items():
        set_attribute(made, name, value)
    if error.cause is not None:
        # past whatever the class does when it is set: frozen dataclasses refuse
        object.__setattr__(made, "__cause__", _made(error.cause, within) or within(error.cause))
    made.__dict__["__notes__"] = [*notes, Remote.of(error, text)]
    return made


def _of_arguments(cls: type[Exception], args: list[Any] | None, only_text: tuple[Any, ...]) -> Exception:
    try:
        return _instance(cls, only_text if args is None else arguments_of(cls, args))
    except Exception:  # noqa: BLE001 — the builtin takes other arguments than are known; then it has but its text
        made = builtin_below(cls).__new__(cls)
        object.__setattr__(made, "args", only_text)
        return _checked(made, cls)


def _instance(cls: type[Exception], args: tuple[Any, ...]) -> Exception:
    """An instance with these arguments, made by the builtin class below: no code of the class itself runs."""
    builtin = builtin_below(cls)
    made = builtin.__new__(cls, *args)
    builtin.__init__(made, *args)
    return _checked(made, cls)


def _checked(made: BaseException, cls: type[Exception]) -> Exception:
    # OSError makes a subclass of itself of some arguments
    if type(made) is not cls:
        raise TypeError(f"these arguments make a {type(made).__name__} and no {cls.__name__}")
    return made


class _Quoteless(str):
    """The text of a KeyError whose key could not be stored: a KeyError shows its argument by `repr`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
