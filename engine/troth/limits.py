"""Every limit of Troth, by name, with its unit.

The SQL functions hold the same numbers (`sql/internal/limits.sql`); a test compares the two. A limit is checked before
anything is written, and its error names the value, the limit and what to do. This file knows nothing else.
"""

from typing import Final

# Payloads: one argument list, value or error, as JSON text.
payload_bytes_max: Final = 1024 * 1024
payload_depth_max: Final = 100
"""Lists and objects inside each other; a bare number has depth 0, `[]` has depth 1."""

version_max: Final = 2_147_483_647

# Names. An ID given to `start` leaves room for what the workflow will name below it.
id_start_length_max: Final = 128
id_length_max: Final = 255
name_length_max: Final = 100

# What a promise may carry beside its payloads.
tags_max: Final = 32
tag_length_max: Final = 200
title_length_max: Final = 200
reason_length_max: Final = 1000

# Time: delays, timeouts and sleeps.
timeout_days_max: Final = 36_500

# Sets that travel in one call.
batch_items_max: Final = 10_000
search_limit_max: Final = 1_000

# One workflow.
attempts_max: Final = 5
journal_entries_max: Final = 100_000
children_max: Final = 10_000
family_members_max: Final = 100_000
waits_per_promise_max: Final = 10_000

# What is stored of an exception.
error_message_bytes_max: Final = 10 * 1024
error_traceback_bytes_max: Final = 20 * 1024
error_type_length_max: Final = 200
error_causes_max: Final = 5
error_member_bytes_max: Final = 1024
"""The message of one member of an exception group."""
error_frames_max: Final = 50

# What this process remembers of types that it has decoded.
decoders_cached_max: Final = 1_024

# How much of a value an error message shows.
excerpt_length_max: Final = 100
