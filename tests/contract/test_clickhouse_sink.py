"""The analytics views in a ClickHouse server, over HTTP, against the contract of sinks; and what happens while it is away."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from domain.errors import Invalid, Unavailable
from infra.adapters.chdb_engine import Analytics
from infra.adapters.clickhouse import open_analytics
from infra.stack.clickhouse import ClickHouse
from infra.stack.ports import choose
from infra.stack.running import Started, kill, send, stop, wait_ready
from infra.stack.server import launch
from tests.contract import test_analytics_sink as in_process


class Server:
    """A ClickHouse of its own, that a test may kill."""

    def __init__(self, folder: Path) -> None:
        self.server = ClickHouse(folder, choose(1)[0], "p@ss/word")
        self.started: Started | None = None

    @property
    def url(self) -> str:
        return self.server.url.replace("p@ss/word", "p%40ss%2Fword")

    def start(self) -> None:
        self.server.prepare()
        self.started = (self.server, launch(self.server))
        wait_ready([self.started], lambda: {self.server.name})

    def kill(self) -> None:
        assert self.started is not None
        kill(*self.started)

    def signal(self, number: int) -> None:
        assert self.started is not None
        send(*self.started, number)


@pytest.fixture(scope="module")
def clickhouse() -> Iterator[Server]:
    with TemporaryDirectory() as folder:
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            assert server.started is not None
            stop([server.started])


@pytest.fixture(scope="module")
def engine_in_process(clickhouse: Server) -> Iterator[Analytics]:
    """In place of the engine in process: the server."""
    analytics = open_analytics(clickhouse.url)
    yield analytics
    analytics.close()


class TestUsage(in_process.TestUsage):
    """Usage in a ClickHouse server."""


class TestAudit(in_process.TestAudit):
    """Audit in a ClickHouse server."""


@pytest.mark.parametrize(
    "named",
    [
        "",
        "chdb:",
        "clickhouse://h/d",
        "http://",
        "http://h:port/d",
        "http://h/d/e",
        "http://h/d?x=1",
        "http://h/1d",
        "h:1",
    ],
)
def test_a_bad_url_names_the_setting(named: str) -> None:
    """It says what is wrong, and never repeats the URL, which may have a password in it."""
    with pytest.raises(Invalid, match="TOLLHOUSE_CLICKHOUSE"):
        open_analytics(named)
    with pytest.raises(Invalid) as refused:
        open_analytics("http://user:secret@host/a b")
    assert "secret" not in str(refused.value)


def test_a_wrong_password_is_unavailable(clickhouse: Server) -> None:
    with pytest.raises(Unavailable, match="516"):
        open_analytics(clickhouse.url.replace("p%40ss", "p"))


def test_a_server_that_was_killed_is_used_again_when_it_is_back(
    clickhouse: Server, engine_in_process: Analytics
) -> None:
    """Meanwhile every question is `Unavailable`; afterwards what was acknowledged is there."""
    engine = engine_in_process
    engine.command("CREATE TABLE kept (n UInt64) ENGINE = MergeTree ORDER BY n")
    engine.command("INSERT INTO kept VALUES (1), (2)")
    clickhouse.kill()
    try:
        for _ in range(3):
            with pytest.raises(Unavailable):
                engine.value("SELECT count() FROM kept")
        with pytest.raises(Unavailable):
            engine.command("INSERT INTO kept VALUES (3)")
        with pytest.raises(Unavailable):
            open_analytics(clickhouse.url)
    finally:
        clickhouse.start()
    assert engine.value("SELECT groupArray(n) FROM kept") == "[1,2]"


def test_an_answer_that_breaks_off_is_no_answer(engine_in_process: Analytics) -> None:
    """A query that fails in the middle of its rows raises; the rows that came are not taken for all there are."""
    sql = "SELECT throwIf(number = 3000000, 'broken') AS n FROM numbers(6000000) SETTINGS max_block_size = 1000"
    with pytest.raises(Unavailable):
        for _ in engine_in_process.stream(dict[str, int], sql):
            pass
