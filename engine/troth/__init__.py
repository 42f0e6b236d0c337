"""Troth: durable workflows in Python with nothing but Postgres.

A workflow is an ordinary `async def`. It may wait for a person for months, the process that runs it may die at any instruction,
and it goes on exactly where it was.

Each name is loaded when it is first asked for: a client that starts or decides need not wait for what only workers load, nor a
test run for a plugin that it does not use.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from troth.client import Handle, SyncHandle, SyncTroth, Troth
    from troth.codec import Codec
    from troth.context import Child, Context, Promise, StepInfo, step_info
    from troth.errors import (
        DatabaseError,
        Diverged,
        IdConflict,
        InvalidArgument,
        InvalidId,
        InvalidPayload,
        IsolationLevel,
        LimitExceeded,
        NotRegistered,
        PayloadTooDeep,
        PayloadTooLarge,
        PromiseCanceled,
        PromiseRejected,
        PromiseTimedOut,
        ProviderFailed,
        ResultPending,
        SchemaMismatch,
        StepAbandoned,
        StepError,
        TrothError,
        UndecodablePayload,
        UnknownPromise,
        Unreachable,
        ValueMismatch,
        WorkerDead,
        WorkflowMisuse,
        WrongState,
    )
    from troth.model import ErrorInfo, JournalEntry, PromiseInfo, Settlement, TaskInfo
    from troth.providers import provided
    from troth.registry import Step, Workflow, step, workflow
    from troth.retry import Retry
    from troth.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "Child",
    "Codec",
    "Context",
    "DatabaseError",
    "Diverged",
    "ErrorInfo",
    "Handle",
    "IdConflict",
    "InvalidArgument",
    "InvalidId",
    "InvalidPayload",
    "IsolationLevel",
    "JournalEntry",
    "LimitExceeded",
    "NotRegistered",
    "PayloadTooDeep",
    "PayloadTooLarge",
    "Promise",
    "PromiseCanceled",
    "PromiseInfo",
    "PromiseRejected",
    "PromiseTimedOut",
    "ProviderFailed",
    "ResultPending",
    "Retry",
    "SchemaMismatch",
    "Settlement",
    "Step",
    "StepAbandoned",
    "StepError",
    "StepInfo",
    "SyncHandle",
    "SyncTroth",
    "TaskInfo",
    "Troth",
    "TrothError",
    "UndecodablePayload",
    "UnknownPromise",
    "Unreachable",
    "ValueMismatch",
    "Worker",
    "WorkerDead",
    "Workflow",
    "WorkflowMisuse",
    "WrongState",
    "provided",
    "step",
    "step_info",
    "workflow",
]

_HOMES: Final = {
    "Handle": "troth.client",
    "SyncHandle": "troth.client",
    "SyncTroth": "troth.client",
    "Troth": "troth.client",
    "Codec": "troth.codec",
    "Child": "troth.context",
    "Context": "troth.context",
    "Promise": "troth.context",
    "StepInfo": "troth.context",
    "step_info": "troth.context",
    "DatabaseError": "troth.errors",
    "Diverged": "troth.errors",
    "IdConflict": "troth.errors",
    "InvalidArgument": "troth.errors",
    "InvalidId": "troth.errors",
    "InvalidPayload": "troth.errors",
    "IsolationLevel": "troth.errors",
    "LimitExceeded": "troth.errors",
    "NotRegistered": "troth.errors",
    "PayloadTooDeep": "troth.errors",
    "PayloadTooLarge": "troth.errors",
    "PromiseCanceled": "troth.errors",
    "PromiseRejected": "troth.errors",
    "PromiseTimedOut": "troth.errors",
    "ProviderFailed": "troth.errors",
    "ResultPending": "troth.errors",
    "SchemaMismatch": "troth.errors",
    "StepAbandoned": "troth.errors",
    "StepError": "troth.errors",
    "TrothError": "troth.errors",
    "UndecodablePayload": "troth.errors",
    "UnknownPromise": "troth.errors",
    "Unreachable": "troth.errors",
    "ValueMismatch": "troth.errors",
    "WorkerDead": "troth.errors",
    "WorkflowMisuse": "troth.errors",
    "WrongState": "troth.errors",
    "ErrorInfo": "troth.model",
    "JournalEntry": "troth.model",
    "PromiseInfo": "troth.model",
    "Settlement": "troth.model",
    "TaskInfo": "troth.model",
    "provided": "troth.providers",
    "Step": "troth.registry",
    "Workflow": "troth.registry",
    "step": "troth.registry",
    "workflow": "troth.registry",
    "Retry": "troth.retry",
    "Worker": "troth.worker",
}
"""The module that each name is in."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
