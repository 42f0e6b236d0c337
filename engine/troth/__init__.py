"""Troth: durable workflows in Python with nothing but Postgres.

A workflow is an ordinary `async def`. It may wait for a person for months, the process that runs it may die at any instruction,
and it goes on exactly where it was.
"""

from typing import TYPE_CHECKING, Any

from troth.client import Handle, SyncHandle, SyncTroth, Troth
from troth.codec import Codec
from troth.context import Context, Promise
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
    ResultPending,
    SchemaMismatch,
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
from troth.registry import Step, Workflow, step, workflow

if TYPE_CHECKING:
    from troth.worker import Worker

__version__ = "0.1.0"

__all__ = [
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
    "ResultPending",
    "SchemaMismatch",
    "Settlement",
    "Step",
    "StepError",
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
    "step",
    "workflow",
]


def __getattr__(name: str) -> Any:
    # a client that starts or decides need not wait for what only workers load
    if name == "Worker":
        from troth.worker import Worker

        return Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
