"""The wrong patterns, each put into our own functions: ways to write SQL that read well and lose, double or wedge.

Each was measured before it was forbidden; here it shows that the orders tried find it. An edit whose old text is no longer there
fails loudly: then the function has changed, and the pattern has to be put in where it now would stand.
"""

from __future__ import annotations

from dataclasses import dataclass

Edit = tuple[str, str, str]
"""A function, the text that stands in it once, and what stands there instead."""


@dataclass(frozen=True)
class Pattern:
    """One way to do it wrong, and the pair that shows it."""

    name: str
    pair: str
    edits: tuple[Edit, ...]


LOCKED = "(select id from promise where id = any (p_ids) order by id for no key update) l"
LOCK_PROMISES = f"v_held := array(select l.id from {LOCKED});"
LOCK_PROMISE = "select * into v_promise from promise where id = p_id for no key update;"
LOOK_FOR_WAITS = "v_tasks := p_id || array(select task from wait where promise = p_id);"
RECORDED = (
    "(select c.seq from checkpoint c where c.task = o.task and c.operation = o.operation) is null",
    "(select w.kind from wait w where w.task = o.task and w.operation = o.operation) is null",
)

PATTERNS = (
    Pattern(
        "looks and locks in one statement",
        "settle x subscribe and suspend",
        (
            ("_lock_deciding", LOCK_PROMISE, ""),
            (
                "_lock_deciding",
                LOOK_FOR_WAITS,
                f"""with held as materialized (
                     select id from promise where id = p_id for no key update
                   ), looked as (select task from wait where promise in (select id from held))
                   select p_id || array(select task from looked) into v_tasks;
                   perform set_config('races.looked', array_to_string(v_tasks, ' '), true);
                   {LOCK_PROMISE}""",
            ),
            (
                "_settle_latent",
                "delete from wait where promise = v_promise.id returning",
                """delete from wait where promise = v_promise.id
                      and task = any (string_to_array(current_setting('races.looked'), ' ')) returning""",
            ),
        ),
    ),
    Pattern(
        "looks at a promise without a lock",
        "settle x subscribe and suspend",
        (("_lock_promises", "order by id for no key update skip locked", "order by id"),),
    ),
    Pattern(
        "settles by an old snapshot",
        "old snapshot x subscribe and suspend",
        (("_check_isolation", "<> 'read committed'", "= 'read uncommitted'"),),
    ),
    Pattern(
        "reads the fence without a lock",
        "late step x another holder",
        (("commit_step", "where id = p_task for no key update skip locked", "where id = p_task"),),
    ),
    Pattern(
        "sweeps by an earlier read",
        "suspend x dead worker",
        (
            ("_bury_workers", "order by t.id for no key update skip locked) l);", "order by t.id) l);"),
            (
                "_bury_workers",
                "and (select w.died_at from worker w where w.id = t.worker) is not null",
                "",
            ),
        ),
    ),
    Pattern(
        "locks a batch in the caller's order",
        "batch x batch",
        (
            (
                "settle_many",
                "array(select distinct i.value ->> 'id' from",
                "array(select i.value ->> 'id' from",
            ),
            (
                "_lock_settling",
                LOCK_PROMISES,
                """for n in 1 .. cardinality(p_ids) loop
                     perform 1 from promise where id = p_ids[n] for no key update;
                   end loop;
                   v_held := p_ids;""",
            ),
        ),
    ),
    Pattern(
        "takes a share lock first",
        "batch x batch",
        (
            (
                "_lock_settling",
                LOCK_PROMISES,
                f"perform 1 from promise where id = any (p_ids) order by id for share; {LOCK_PROMISES}",
            ),
        ),
    ),
    Pattern(
        "claims by a subquery with a limit",
        "claim x settle",
        (
            (
                "claim",
                "t.kept_by = p_worker then t.kept_by end\n   where t.id = any (v_ids);",
                """t.kept_by = p_worker then t.kept_by end
                    where t.id in (select s.id from task s where s.state = 'ready' and s.queue = t.queue
                                    limit p_limit for no key update skip locked);""",
            ),
        ),
    ),
    Pattern(
        "starts a child without the parent's lock",
        "child x cancel by force",
        (("_lock_turns", "order by id for no key update skip locked", "order by id"),),
    ),
    Pattern(
        "waits for a row in a worker's call",
        "settle x suspend",
        (("_lock_turns", "order by id for no key update skip locked", "order by id for no key update"),),
    ),
    Pattern(
        "reads the journal before the lock",
        "claim x settle",
        (
            (
                "claim",
                "v_now timestamptz := _clock();",
                """v_now timestamptz := _clock();
                   v_early constant jsonb := (
                     select jsonb_object_agg(t.id, _entries(t.id, 0, 1000)) from task t where t.state = 'ready');""",
            ),
            (
                "claim",
                "_entries(t.id, case when t.kept_by is null then 0 else t.asked end, p_entries)",
                "coalesce(v_early -> t.id, '[]')",
            ),
        ),
    ),
    Pattern(
        "makes again what is recorded",
        "call x the same call again",
        tuple(
            (function, text, "true")
            for function in ("_create_operations", "_make_promises")
            for text in RECORDED
        ),
    ),
    Pattern(
        "deletes without saying the guard again",
        "purge x purge and start",
        (
            (
                "purge",
                "select l.kept into v_kept from _look_over(v_families, v_before, v_held) l;",
                "v_kept := '{}';",
            ),
            ("purge", " and state <> 'pending' and settled_at < v_before", ""),
        ),
    ),
    Pattern(
        "reads the clock before the lock",
        "settle x later turn",
        (
            (
                "_lock_deciding",
                LOCK_PROMISE,
                f"perform set_config('races.now', _clock()::text, true); {LOCK_PROMISE}",
            ),
            (
                "_decide",
                "v_now constant timestamptz := _clock();",
                "v_now constant timestamptz := current_setting('races.now')::timestamptz;",
            ),
        ),
    ),
)
