"""The limits of the HTTP face, by name, with their units. Those of payloads and names are `troth.limits`."""

from typing import Final

from troth import limits

wait_seconds_max: Final = 60
"""How long one request may wait for a result; ask again to wait longer."""

body_bytes_max: Final = limits.payload_bytes_max + 64 * 1024
"""A request's body: one payload, and room for what stands around it."""

body_depth_max: Final = limits.payload_depth_max + 1
"""Lists and objects inside each other in a body: one payload, inside the object of the request."""

page_items_default: Final = 50
page_items_max: Final = limits.search_limit_max

gathered_starts_max: Final = 100
"""How many starts share a call."""

gathered_bytes_max: Final = limits.payload_bytes_max
"""What they may say together; one by itself may say as much as ever."""

gather_seconds_max: Final = 0.01
"""How long starts gather behind a call that is under way; then they go beside it."""

ready_seconds_max: Final = 5.0
"""How long `/readyz` waits for Postgres to answer."""

shutdown_seconds_max: Final = 10
"""How long a process that was told to end waits for its requests."""
