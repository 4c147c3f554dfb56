"""The real servers under test: brought up when a test first asks for them, once per session, and taken down with it.

A guard process takes them down where the session cannot, because it was killed.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.stack import Stack

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def fresh_stack(brokers: int = 1) -> Iterator[Stack]:
    """A stack that is up, in a folder of its own; afterwards neither is left."""
    folder = Path(tempfile.mkdtemp(prefix="tollhouse-stack-"))
    command = [sys.executable, "-m", "tests.stack", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as guard:
        assert guard.stdin is not None
        try:
            with Stack(folder, brokers) as stack:
                yield stack
        finally:
            guard.stdin.close()
    assert guard.returncode == 0


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One broker, PostgreSQL and Redis. A test that breaks one calls `up()` again."""
    with fresh_stack() as made:
        yield made


@pytest.fixture(scope="session")
def stack_of_three() -> Iterator[Stack]:
    """Three brokers, PostgreSQL and Redis. A test that breaks one calls `up()` again."""
    with fresh_stack(brokers=3) as made:
        yield made


def guard(folder: Path) -> None:
    """Waits until whoever holds the other end of stdin has closed it or is dead, then removes the stack and its folder."""
    sys.stdin.buffer.read()
    Stack(folder).down()
    shutil.rmtree(folder)


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
