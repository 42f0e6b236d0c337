"""One worker process for the works, until SIGTERM: `python -m bench.worker DSN`."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from bench.works import WORKFLOWS
from troth import Troth, Worker


async def main(dsn: str) -> None:
    async with Troth(dsn) as troth:
        worker = Worker(troth, WORKFLOWS)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
