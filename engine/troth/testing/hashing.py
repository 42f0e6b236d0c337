"""Running workflows' code again in a process where strings hash otherwise.

Python orders a set of strings by their hashes, which differ from process to process unless PYTHONHASHSEED says otherwise. A
workflow that loops over one does the same all day in one process, and something else in the next. So the records go to a process
of their own with another seed, which imports the workflows by their files, runs them through their journals, and answers what
they did, moment by moment. What was hidden by a codec is opened before: that process knows no keys.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from troth.codec import Payloads
from troth.errors import TrothError
from troth.model import JournalEntry, Record
from troth.registry import Registry, Workflow
from troth.testing.failures import ReplayDiffers
from troth.testing.records import Recorded
from troth.testing.replays import Moment, Replays, differing, run_moments
from troth.worker.telling import as_told

PATIENCE_S: Final = 120.0


class Asked(msgspec.Struct):
    """One workflow to be run elsewhere: where its code is, and its record with all payloads plain."""

    module: str
    file: str
    record: Record
    journal: list[JournalEntry]


class Answered(msgspec.Struct):
    """What became of it: its moments, or why there are none."""

    id: str
    moments: list[Moment] = []
    failure: str | None = None
    unfound: str | None = None


async def check_elsewhere(
    traces: Mapping[str, tuple[Recorded, list[Moment]]],
    registry: Registry,
    payloads: Payloads,
    hash_seed: int,
    seen: Replays,
) -> list[str]:
    """What differs in a process with this hash seed from what these workflows did here."""
    asked: list[Asked] = []
    for record, _ in traces.values():
        workflow = registry.find(record.record.function, record.record.version)
        place = place_of(workflow)
        if place is None:
            seen.left_out[record.id] = f"{workflow.fn.__qualname__} cannot be imported by another process"
        else:
            asked.append(_asked(record, *place, payloads))
    if not asked:
        return []
    differences: list[str] = []
    for answer in await _answers(asked, hash_seed):
        record, trace = traces[answer.id]
        if answer.unfound is not None:
            seen.left_out[answer.id] = answer.unfound
            continue
        seen.runs += 1
        differs = answer.failure or differing(record, trace, answer.moments, f"PYTHONHASHSEED={hash_seed}")
        if differs is not None:
            differences.append(differs)
    return differences


def place_of(workflow: Workflow[..., Any]) -> tuple[str, str] | None:
    """Module and file of a workflow's function; None for what is made inside a function."""
    fn = workflow.fn
    code: Any = getattr(fn, "__code__", None)
    if code is None or "<" in fn.__qualname__ or not Path(code.co_filename).is_file():
        return None
    return fn.__module__, code.co_filename


def _asked(record: Recorded, module: str, file: str, payloads: Payloads) -> Asked:
    stored = record.record
    args = msgspec.Raw(payloads.plain(stored.args, stored.args_headers, "The arguments"))
    plain = msgspec.structs.replace(stored, args=args, args_headers=None)
    journal = [as_told(entry, payloads).outcome for entry in record.journal]
    return Asked(module, file, plain, [each for each in journal if isinstance(each, JournalEntry)])


async def _answers(asked: list[Asked], hash_seed: int) -> list[Answered]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from troth.testing.hashing import main; main()",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONHASHSEED": str(hash_seed),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate(msgspec.json.encode(asked))
    except TimeoutError:
        process.kill()
        await process.wait()
        raise ReplayDiffers(f"Under PYTHONHASHSEED={hash_seed} the code does not end.") from None
    if process.returncode != 0:
        raise ReplayDiffers(f"The process with PYTHONHASHSEED={hash_seed} failed:\n{err.decode()[-2000:]}")
    return msgspec.json.decode(out, type=list[Answered])


# --- in the other process ---


def main() -> None:
    """Answer, on the standard output, what is asked on the standard input."""
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Asked])
    out = sys.stdout.buffer
    # what the code prints is nobody's answer
    sys.stdout = sys.stderr
    out.write(msgspec.json.encode([_answered(each) for each in asked]))
    out.flush()


def _answered(asked: Asked) -> Answered:
    record = asked.record
    try:
        workflow = _imported(asked)
    except Exception as error:  # noqa: BLE001 — a test's module may want what only its test run has
        return Answered(record.id, unfound=f"{asked.file} cannot be imported by itself: {error}")
    try:
        moments = run_moments(
            Recorded(record, tuple(asked.journal)), workflow, Payloads(None), None, len(asked.journal)
        )
    except TrothError as error:
        name, seed = f"{record.id} ({record.function})", os.environ.get("PYTHONHASHSEED")
        return Answered(
            record.id, failure=f"{name} does not do the same under PYTHONHASHSEED={seed}.\n  {error}"
        )
    return Answered(record.id, moments)


def _imported(asked: Asked) -> Workflow[..., Any]:
    module = sys.modules.get(asked.module)
    if module is None:
        spec = importlib.util.spec_from_file_location(asked.module, asked.file)
        if spec is None or spec.loader is None:
            raise ImportError(f"no module can be made of {asked.file}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[asked.module] = module
        spec.loader.exec_module(module)
    return Registry([module]).find(asked.record.function, asked.record.version)
