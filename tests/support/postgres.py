"""What the tests take of the Postgres of their run: that of the plugin which users' tests run on (`troth.testing.server`)."""

from __future__ import annotations

from troth.testing.server import Databases, Template, connected

__all__ = ["TABLES", "Databases", "Template", "connected"]

TABLES = (
    "promise",
    "task",
    "checkpoint",
    "wait",
    "attempt",
    "worker",
    "function",
    "closing",
    "schedule",
    "audit",
)
