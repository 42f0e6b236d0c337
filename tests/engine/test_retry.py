"""When a step is tried again, and after how long: exact at the bounds, whatever the numbers, and never by mistake."""

import doctest
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from troth import limits, retry
from troth.errors import InvalidArgument
from troth.retry import ATTEMPTS_MAX, LONGEST, Retry


def seconds(*numbers: float) -> list[timedelta]:
    return [timedelta(seconds=number) for number in numbers]


def test_the_example_runs() -> None:
    ran = doctest.testmod(retry)
    assert ran.attempted >= 4
    assert ran.failed == 0


def test_what_it_is_unless_told_otherwise() -> None:
    usual = Retry()
    assert (usual.attempts, usual.first, usual.factor, usual.longest) == (
        5,
        timedelta(seconds=1),
        2.0,
        LONGEST,
    )
    assert (usual.jitter, usual.fatal, usual.when) == (0.1, (), None)
    assert usual == Retry(attempts=5, first=1)
    assert hash(usual) == hash(Retry(first=1.0))
    with pytest.raises(AttributeError):
        usual.attempts = 6  # type: ignore[misc]


# Delays


def test_waits_grow_to_the_longest() -> None:
    waits = Retry(first=1, factor=2, longest=5, jitter=0)
    assert [waits.delay(failed, 0.9) for failed in range(1, 6)] == seconds(1, 2, 4, 5, 5)


def test_a_factor_of_one_never_grows() -> None:
    assert Retry(first=3, factor=1, jitter=0).delay(10**6, 0) == timedelta(seconds=3)


def test_no_wait_stays_none() -> None:
    assert Retry(first=0).delay(10**6, 0.5) == timedelta(0)


def test_a_longer_first_wait_moves_the_longest() -> None:
    assert Retry(first=timedelta(hours=1)).longest == timedelta(hours=1)
    assert Retry(first=timedelta(hours=1), jitter=0).delay(7, 0) == timedelta(hours=1)


@pytest.mark.parametrize(
    "attempt",
    [1024, 1025, 10**6, ATTEMPTS_MAX, 10**400],
    ids=["1024", "1025", "a million", "all", "beyond floats"],
)
@pytest.mark.parametrize("factor", [1, 1.0000001, 2, 1e300])
def test_no_attempt_is_too_late(attempt: int, factor: float) -> None:
    waits = Retry(attempts=None, first=1, factor=factor, longest=timedelta(days=365), jitter=0)
    by_hand = timedelta(
        seconds=min(math.exp(min((min(attempt, 10**18) - 1) * math.log(factor), 50)), 365 * 86_400)
    )
    assert abs(waits.delay(attempt, 0) - by_hand) <= timedelta(milliseconds=1)


def test_chance_takes_away_up_to_the_jitter() -> None:
    waits = Retry(first=10, jitter=0.5)
    assert waits.delay(1, 0) == timedelta(seconds=10)
    assert waits.delay(1, 0.5) == timedelta(seconds=7.5)
    assert waits.delay(1, math.nextafter(1, 0)) == timedelta(seconds=5)
    assert Retry(first=10, jitter=1).delay(1, math.nextafter(1, 0)) == timedelta(0)


@given(
    st.integers(1, 2**40),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1e6),
    st.floats(1, 1e300),
    st.floats(0, 1),
)
def test_every_wait_is_within_its_bounds(
    attempt: int, chance: float, first: float, factor: float, jitter: float
) -> None:
    longest = timedelta(days=20)
    waits = Retry(first=first, factor=factor, longest=longest, jitter=jitter)
    whole = Retry(first=first, factor=factor, longest=longest, jitter=0).delay(attempt, 0)
    rounding = timedelta(microseconds=1)
    assert whole * (1 - jitter) - rounding <= waits.delay(attempt, chance) <= whole <= longest
    assert (
        waits.first
        <= whole
        <= Retry(first=first, factor=factor, longest=longest, jitter=0).delay(attempt + 1, 0)
    )


@pytest.mark.parametrize(("attempt", "chance"), [(0, 0.5), (-1, 0.5), (1, 1.0), (1, -0.1), (1, math.nan)])
def test_a_delay_of_nothing_that_can_be_is_refused(attempt: int, chance: float) -> None:
    with pytest.raises(InvalidArgument):
        Retry().delay(attempt, chance)


# Whether at all


def test_attempts_count_the_first() -> None:
    thrice = Retry(attempts=3)
    assert [thrice.again(OSError(), failed) for failed in (1, 2, 3, 4)] == [True, True, False, False]
    assert not Retry(attempts=1).again(OSError(), 1)
    assert Retry(attempts=None).again(OSError(), ATTEMPTS_MAX)


class Declined(Exception):
    class Hard(Exception): ...


class StolenCard(Declined): ...


@pytest.mark.parametrize(
    "fatal",
    [Declined, (OSError, Declined), "Declined", "tests.engine.test_retry.Declined", ["x.Y", "Declined"]],
)
def test_fatal_errors_are_told_by_class_or_name_with_their_subclasses(fatal: Any) -> None:
    careful = Retry(fatal=fatal)
    assert not careful.again(Declined(), 1)
    assert not careful.again(StolenCard(), 1)
    assert careful.again(ValueError(), 1)
    assert careful.again(Declined.Hard(), 1)


def test_a_fatal_name_may_be_of_a_builtin_or_of_a_class_in_a_class() -> None:
    assert not Retry(fatal="OSError").again(FileNotFoundError(), 1)
    assert not Retry(fatal="Declined.Hard").again(Declined.Hard(), 1)
    assert Retry(fatal="Error").again(OSError(), 1)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_s71_what_ends_a_process_is_never_tried_again(kind: type[BaseException]) -> None:
    assert not Retry(attempts=None, when=lambda _: True).again(kind(), 1)


def test_a_predicate_decides_after_the_rest() -> None:
    asked: list[BaseException] = []

    def when(error: BaseException) -> bool:
        asked.append(error)
        return "busy" in str(error)

    choosy = Retry(attempts=3, fatal=(KeyError,), when=when)
    assert choosy.again(OSError("busy"), 1)
    assert not choosy.again(OSError("gone"), 2)
    assert len(asked) == 2
    assert not choosy.again(OSError("busy"), 3)
    assert not choosy.again(KeyError("busy"), 1)
    assert len(asked) == 2


def test_a_predicate_that_fails_says_no_and_why() -> None:
    def when(error: BaseException) -> bool:
        return bool(1 / 0)

    error = OSError("busy")
    with capture_logs() as logs:
        assert not Retry(when=when).again(error, 1)
    said = "Not tried again: Retry's when= raised ZeroDivisionError."
    assert error.__notes__ == [said]
    assert [(each["event"], each["error"], each["log_level"]) for each in logs] == [
        (said, "OSError", "warning")
    ]


def test_a_predicate_may_fail_on_an_error_that_takes_no_notes() -> None:
    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

        def __str__(self) -> str:
            raise RuntimeError

    with capture_logs():
        assert not Retry(when=lambda _: bool(1 / 0)).again(Frozen(), 1)


# What cannot be


async def later(error: BaseException) -> bool:
    return True


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("attempts", 0),
        ("attempts", -1),
        ("attempts", 2.0),
        ("attempts", True),
        ("attempts", ATTEMPTS_MAX + 1),
        ("attempts", "5"),
        ("first", -1),
        ("first", timedelta(microseconds=-1)),
        ("first", math.nan),
        ("first", math.inf),
        ("first", True),
        ("first", "1"),
        ("first", None),
        ("first", timedelta(days=limits.timeout_days_max, microseconds=1)),
        ("longest", 0.5),
        ("longest", math.inf),
        ("factor", 0.99),
        ("factor", math.nan),
        ("factor", math.inf),
        ("factor", 10**400),
        ("factor", True),
        ("factor", "2"),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("jitter", math.nan),
        ("fatal", 5),
        ("fatal", (5,)),
        ("fatal", (int,)),
        ("fatal", "not a name"),
        ("fatal", ""),
        ("fatal", (OSError(),)),
        ("when", 5),
        ("when", later),
    ],
)
def test_what_cannot_be_is_refused_by_name(argument: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=rf"Retry cannot have .*{argument}="):
        Retry(**{argument: value})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("attempts", ATTEMPTS_MAX),
        ("first", timedelta(days=limits.timeout_days_max)),
        ("longest", 1),
        ("factor", 1),
        ("jitter", 0),
        ("jitter", 1),
        ("fatal", {OSError, "a.B"}),
    ],
)
def test_what_just_can_be(argument: str, value: Any) -> None:
    Retry(**{argument: value})
