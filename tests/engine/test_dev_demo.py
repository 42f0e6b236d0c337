"""`make demo`: the whole story passes here too, and fails loudly when a part of it is not so."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.cli import EXAMPLES, environment


def demo(directory: Path) -> subprocess.CompletedProcess[str]:
    # One at a time: two that look for a free port in the same moment may share it, and each would meet the other's order.
    with (Path(tempfile.gettempdir()) / "troth-demo-test.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _demo(directory)


def _demo(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(directory / "demo.py")],
        env=environment(
            None, {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "TROTH_DSN": "postgresql://127.0.0.1:1/x"}
        ),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_tells_the_whole_story() -> None:
    ended = demo(EXAMPLES)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout
    for said in (
        r"CLICK TO DECIDE: http://localhost:8000/promises/order-42~approval",
        r"worker-[12] is killed with SIGKILL",
        r"It is attached to the one that waits",
        r'Result: "order-42: approved"',
        r"Decided → done in \d+\.\d ms",
        r"1  send_email +step +resolved",
        r"2  approval +promise +resolved +true",
        r"The e-mail was sent once",
        r"No process and no file is left",
    ):
        assert re.search(said, ended.stdout), said


def test_an_e_mail_sent_twice_does_not_pass(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "demo.py", tmp_path)
    example = (EXAMPLES / "approval.py").read_text()
    twice = re.sub(r"^( +)(print\(.*\))$", r"\1\2\n\1\2", example, flags=re.MULTILINE)
    assert twice != example
    (tmp_path / "approval.py").write_text(twice)
    ended = demo(tmp_path)
    assert ended.returncode == 1
    assert "it was expected that the e-mail was sent once" in ended.stderr
