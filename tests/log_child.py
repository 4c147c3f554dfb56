"""A process that appends numbered facts to a SQLite log for as long as it lives, and says which were acknowledged.

``python -m tests.log_child PATH SYNC FROM``: each line of stdout is ``partition offset number``, written after the
acknowledgement. Facts are many bytes long, so that a torn commit would show.
"""

import asyncio
import os
import sys
from pathlib import Path

from infra.adapters.sqlite_log import SqliteLog

PARTITIONS = 3
WRITERS = 8


def body(number: int) -> bytes:
    """The fact with this number."""
    return b"%d " % number + b"x" * (number % 700)


async def run(path: Path, synchronous: str, first: int) -> None:
    log = SqliteLog(path, "full" if synchronous == "full" else "normal")

    async def write(number: int) -> None:
        while True:
            partition = number % PARTITIONS
            offset = await log.append(partition, body(number))
            os.write(1, b"%d %d %d\n" % (partition, offset, number))
            number += WRITERS

    await asyncio.gather(*(write(first + writer) for writer in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
