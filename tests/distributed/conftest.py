"""One installation for all tests of this folder: each has processes of its own, on organizations and models of its own."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from infra.stack import Stack
from tests.distributed.house import SECRET, House, Installation
from tests.lab import TOLLHOUSE, _clean_environ


def bootstrapped(environ: dict[str, str], folder: Path) -> str:
    """What `tollhouse bootstrap` prints."""
    command, env = [TOLLHOUSE, "bootstrap"], _clean_environ() | environ
    ran = subprocess.run(command, env=env, cwd=folder, check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def installed_on(stack: Stack, folder: Path) -> Installation:
    """A new installation on the servers of `stack`."""
    environ = stack.environment | {"TOLLHOUSE_SECRET": SECRET}
    return Installation(environ, bootstrapped(environ, folder).splitlines()[-1].removeprefix("admin key "))


@pytest.fixture(scope="session")
def installation(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return installed_on(stack, tmp_path_factory.mktemp("bootstrap"))


@pytest_asyncio.fixture
async def house(installation: Installation) -> AsyncIterator[House]:
    """An installation without processes yet."""
    async with House(installation) as made:
        yield made
