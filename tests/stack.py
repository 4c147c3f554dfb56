"""The real servers under test, in a folder of their own.

A guard process takes them down where the tests cannot, because they were killed.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from domain.errors import NotFound
from infra.stack import Stack

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def fresh_stack(brokers: int = 1) -> Iterator[Stack]:
    """A stack that is up, in a folder of its own; afterwards neither is left. A test that breaks a server calls `up()` again."""
    folder = Path(tempfile.mkdtemp(prefix="tollhouse-stack-"))
    command = [sys.executable, "-m", "tests.stack", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as guard:
        assert guard.stdin is not None
        try:
            with Stack(folder, brokers) as stack:
                try:
                    yield stack
                finally:
                    kill_all(stack)
        finally:
            guard.stdin.close()
    assert guard.returncode == 0


def kill_all(stack: Stack) -> None:
    """SIGKILL to every server that runs: what is thrown away need not end cleanly, and the last of three brokers takes long."""
    for name in stack.names:
        with suppress(NotFound):
            stack.kill(name)


def guard(folder: Path) -> None:
    """Waits until whoever holds the other end of stdin has closed it or is dead, then removes the stack and its folder."""
    sys.stdin.buffer.read()
    Stack(folder).down()
    shutil.rmtree(folder)


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
