"""`python -m tests.proof.mutants`: see `tool.py`."""

import sys

from tests.proof.mutants.tool import main

sys.exit(main(sys.argv[1:]))
