"""The tests of the embedded read API, on the distributed one: every total."""

from collections.abc import Iterator

import pytest

from infra.adapters.secrets import InstallationSecrets
from infra.stack import Stack
from tests.bookkeeping import SECRET, make_books
from tests.integration.test_totals_agree import *  # noqa: F403  # each of its tests, on the house below
from tests.read_house import ReadHouse
from tests.reads_distributed.read_house import open_distributed_house


@pytest.fixture(scope="module")  # type: ignore[no-redef]
def house(stack: Stack) -> Iterator[ReadHouse]:
    stack.up()
    with open_distributed_house(stack, make_books(InstallationSecrets(SECRET))) as made:
        yield made
