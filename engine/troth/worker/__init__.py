"""The worker: claims tasks, runs their code, carries out their steps, and keeps what became of them.

`worker.py` is the life of the process, `runs.py` the workflows in it, `run.py` one of them; `steps.py` calls step functions;
`turns.py` commits the turns of many workflows in one call; `keeper.py` keeps the lease and listens, in a thread of its own.
"""

from troth.worker.worker import Worker

__all__ = ["Worker"]
