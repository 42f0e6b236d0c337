"""Errors: one class per SQLSTATE, each a clear sentence, each surviving pickle and copy."""

import copy
import inspect
import pickle

import pytest

from troth import errors
from troth.model import ErrorInfo

BOOM = ErrorInfo("app.Boom", "it broke", {"n": 1}, "File x", ErrorInfo("OSError", "disk"))

EXAMPLES = [
    errors.TrothError("Something failed."),
    errors.InvalidId("No.", detail="d", hint="Do so."),
    errors.InvalidArgument("No."),
    errors.PayloadTooLarge("No."),
    errors.PayloadTooDeep("No."),
    errors.InvalidPayload("No."),
    errors.IdConflict("Taken.", detail='{"id":"a"}'),
    errors.UnknownPromise("No."),
    errors.WrongState("No."),
    errors.WorkerDead("No."),
    errors.LimitExceeded("No."),
    errors.SchemaMismatch("No."),
    errors.IsolationLevel("No."),
    errors.DatabaseError("No.", code="40P01"),
    errors.StoredError("No.", BOOM),
    errors.PromiseRejected("order-1", BOOM),
    errors.StepError("order-1~pay", BOOM),
    errors.PromiseCanceled("order-1", "too late"),
    errors.PromiseTimedOut("order-1"),
    errors.ResultPending("order-1", 2.5),
    errors.Unreachable("Postgres at db.example:5432 does not answer."),
    errors.NotRegistered("pay", ["ship", "bill"]),
    errors.ValueMismatch("Promise 'a'", "bool", '"yes"', "Expected `bool`"),
    errors.UndecodablePayload("Promise 'a'", "aes", "none is configured"),
    errors.Diverged("order-1~pay", "step pay", "step ship", "app.py:3"),
    errors.WorkflowMisuse("No."),
    errors.ProviderFailed("shop.make_pool", "no route"),
    errors.StepAbandoned("order-1~pay"),
]

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, errors.TrothError) and each.__module__ == errors.__name__
]


def test_every_class_has_an_example() -> None:
    assert {type(each) for each in EXAMPLES} == set(CLASSES)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_errors_survive_pickle_and_copy(error: errors.TrothError, again) -> None:  # type: ignore[no-untyped-def]
    twin = again(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda each: each.__name__)
def test_every_class_says_when_it_comes(kind: type[errors.TrothError]) -> None:
    assert kind.__doc__
    assert 400 <= kind.status < 600
    assert kind.title
    assert not kind.title.endswith(".")


def test_titles_are_of_one_class_each() -> None:
    titles = [each.title for each in CLASSES if each not in (errors.TrothError, errors.StoredError)]
    assert len(set(titles)) == len(titles)


CONTRACT = {
    "TR001": ("InvalidId", 400),
    "TR002": ("InvalidArgument", 400),
    "TR003": ("PayloadTooLarge", 413),
    "TR004": ("PayloadTooDeep", 400),
    "TR005": ("InvalidPayload", 400),
    "TR010": ("IdConflict", 409),
    "TR011": ("UnknownPromise", 404),
    "TR012": ("WrongState", 409),
    "TR020": ("WorkerDead", 409),
    "TR030": ("LimitExceeded", 429),
    "TR040": ("SchemaMismatch", 503),
    "25001": ("IsolationLevel", 400),
}


def test_sqlstates_are_one_to_one_with_classes() -> None:
    assert {code: (each.__name__, each.status) for code, each in errors.BY_SQLSTATE.items()} == CONTRACT
    own = [each.sqlstate for each in CLASSES if "sqlstate" in vars(each) and each.sqlstate]
    assert sorted(own) == sorted(CONTRACT)


@pytest.mark.parametrize("code", CONTRACT)
def test_from_sqlstate_gives_the_class_with_what_sql_said(code: str) -> None:
    error = errors.from_sqlstate(code, "Something is wrong.", "the detail", "Do so.")
    assert type(error).__name__ == CONTRACT[code][0]
    assert (error.message, error.detail, error.hint) == ("Something is wrong.", "the detail", "Do so.")
    assert str(error) == "Something is wrong. Do so."


def test_a_foreign_sqlstate_is_kept() -> None:
    error = errors.from_sqlstate("40P01", "deadlock detected")
    assert isinstance(error, errors.DatabaseError)
    assert error.code == "40P01"
    assert str(error) == "deadlock detected"


@pytest.mark.parametrize("code", [None, ""])
def test_no_sqlstate_is_an_internal_error(code: str | None) -> None:
    error = errors.from_sqlstate(code, "lost")
    assert isinstance(error, errors.DatabaseError)
    assert error.code == "XX000"


@pytest.mark.parametrize("code", ["3F000", "42883"])
def test_a_database_that_was_never_migrated_says_what_to_do(code: str) -> None:
    error = errors.from_sqlstate(code, "function start(text) does not exist")
    assert isinstance(error, errors.SchemaMismatch)
    assert "troth migrate" in str(error)


def test_the_detail_is_no_part_of_the_message() -> None:
    assert "secret" not in str(errors.IdConflict("Taken.", detail='{"args": "secret"}'))


def test_timeouts_are_builtin_timeouts() -> None:
    assert isinstance(errors.PromiseTimedOut("a"), TimeoutError)
    assert isinstance(errors.ResultPending("a", 1), TimeoutError)
    assert "2.5 s" in str(errors.ResultPending("a", 2.5))


def test_a_rejection_tells_what_was_stored() -> None:
    error = errors.PromiseRejected("order-1", BOOM)
    assert str(error) == "Promise 'order-1' was rejected with app.Boom: it broke"
    assert (error.id, error.type, error.error_message, error.data) == (
        "order-1",
        "app.Boom",
        "it broke",
        {"n": 1},
    )
    assert error.traceback == "File x"
    assert error.cause is not None
    assert error.cause.message == "disk"


def test_a_failed_step_names_its_operation() -> None:
    error = errors.StepError("order-1~pay", BOOM)
    assert error.operation == "order-1~pay"
    assert str(error) == "Step 'order-1~pay' failed with app.Boom: it broke"
    assert isinstance(error, errors.StoredError)


def test_a_cancellation_with_and_without_a_reason() -> None:
    assert str(errors.PromiseCanceled("a", "too late")) == "Promise 'a' was canceled: too late"
    assert str(errors.PromiseCanceled("a")) == "Promise 'a' was canceled."


def test_not_registered_lists_what_is_known_in_order() -> None:
    error = errors.NotRegistered("pay", ["ship@1", "bill@1"])
    assert error.known == ("bill@1", "ship@1")
    assert "bill@1, ship@1" in str(error)
    assert "none is known here" in str(errors.NotRegistered("pay", []))


def test_messages_name_all_that_they_know() -> None:
    mismatch = str(errors.ValueMismatch("Promise 'a'", "bool", '"yes"', "Expected `bool`"))
    assert mismatch.startswith("Promise 'a' does not fit: expected bool, found \"yes\" (Expected `bool`).")
    diverged = str(errors.Diverged("o~pay", "step pay", "step ship", "app.py:3"))
    assert all(part in diverged for part in ("o~pay", "step pay", "step ship", "app.py:3", "ctx.patched"))
    sealed = str(errors.UndecodablePayload("Promise 'a'", "aes", "none is configured"))
    assert all(part in sealed for part in ("Promise 'a'", "'aes'", "none is configured"))
