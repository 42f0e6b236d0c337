"""What the README shows is what lies beside it."""

from __future__ import annotations

import re
from pathlib import Path

HOME = Path(__file__).parents[2]


def test_the_program_on_its_first_screen_is_the_example() -> None:
    (shown,) = re.findall(
        r"```python\n# approval\.py[^\n]*\n(.*?)```", (HOME / "README.md").read_text(), re.DOTALL
    )
    program = (HOME / "examples" / "approval.py").read_text()
    assert shown.split() == program[program.index("from datetime") :].split()
