"""What the proofs share. Each folder here is one way of trying to break the engine (docs/reliability.md names them all).

They are not part of `make test`: `make proof` runs them, bounded for CI; each has a longer target of its own.
"""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many seconds after relief the first order ended, and the last: told, and never judged."""
    told = [
        f"{report.nodeid.rpartition('::')[2]}: {dict(report.user_properties)['seconds']}"
        for report in terminalreporter.getreports("passed")
        if "seconds" in dict(report.user_properties)
    ]
    if told:
        terminalreporter.section("seconds from the relief to the first order's end and the last's")
        for each in sorted(told):
            terminalreporter.write_line(each)
