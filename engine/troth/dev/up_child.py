"""Becomes another program that ends with the process that started it, even if that one was killed.

    python up_child.py PARENT COMMAND...

Run as a script, since it must start at once: it imports nothing of ours. Only Linux can promise it; elsewhere the
program is started all the same, and outlives a parent that got SIGKILL.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Ask the kernel for SIGTERM at the parent's death, then become the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 — no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
