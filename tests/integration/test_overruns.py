"""A model whose bound was wrong is closed, whatever became of the process that saw it, until an admin has looked."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from commands.handling import Changes, Commands, Journaled, Reply, Request
from commands.overruns import Overruns
from commands.ports import Overrun
from domain import model
from domain.errors import Unavailable
from domain.ids import PLATFORM
from domain.model import PublishModel, Route
from infra.adapters.secrets import InstallationSecrets
from infra.adapters.sqlite_journal import SQLiteJournal
from tests.facts import NOON

SECRET = b"s" * 32
ROUTES = (Route(backend="b", upstream_model="m"),)
PUBLISH = PublishModel(routes=ROUTES, max_output_tokens=5, context_tokens=50)


class House:
    """A journal with the published models m and n, and balances that know of the overruns `known`."""

    def __init__(self, journal: SQLiteJournal) -> None:
        self.journal, self.secrets, self.down = journal, InstallationSecrets(SECRET), False
        self.known: list[Overrun] = []
        self.commands = Commands(journal, self.clock, self.secrets, self.acknowledged)
        self.restart()

    def restart(self) -> None:
        self.watch = Overruns(lambda: self, self.commands)  # type: ignore[arg-type,return-value]  # balances in this much

    def overruns(self) -> list[Overrun]:
        if self.down:
            raise Unavailable("the views do not answer")
        return self.known

    def clock(self) -> datetime:
        return NOON

    async def acknowledged(self, position: int) -> None:
        """Every record is forwarded at once."""

    async def publish(self, *names: str) -> None:
        def plan(changes: Changes) -> Reply:
            for name in names:
                changes.apply(PLATFORM, model.KIND, name, PUBLISH)
            return Reply(b"")

        await self.commands.execute(Request("admin"), plan)

    def closed(self) -> list[str]:
        """The models that are closed under hard budgets."""
        changes = Changes(Request("test"), Journaled(self.journal), self.clock, self.secrets)
        states: dict[str, Any] = {name: changes.state(PLATFORM, model.KIND, name) for name in ("m", "n")}
        return [name for name, state in states.items() if state.bound_exceeded]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SQLiteJournal]:
    made = SQLiteJournal(tmp_path / "journal.db", SECRET, lambda: NOON, "normal")
    yield made
    made.close()


def overrun(name: str, attempt: str) -> Overrun:
    return Overrun(name, attempt, attempt, 200, 100)


async def test_an_overrun_nobody_reported_closes_its_model(journal: SQLiteJournal) -> None:
    """Found in the facts, by the first round of whoever starts next."""
    house = House(journal)
    await house.publish("m", "n")
    await house.watch.tick()
    assert house.closed() == []
    house.known = [overrun("m", "req_1")]
    await house.watch.tick()
    assert house.closed() == ["m"]


async def test_what_an_admin_has_looked_at_does_not_come_again(journal: SQLiteJournal) -> None:
    """Not in the next round, nor after a restart; the next overrun does."""
    house = House(journal)
    await house.publish("m", "n")
    house.known = [overrun("m", "req_1"), overrun("n", "req_2")]
    await house.watch.tick()
    await house.publish("m", "n")
    await house.watch.tick()
    house.restart()
    await house.watch.tick()
    assert house.closed() == []
    house.known = [overrun("m", "req_1"), overrun("n", "req_3")]
    await house.watch.tick()
    assert house.closed() == ["n"]


async def test_one_that_came_while_its_model_was_closed_is_covered_by_it(journal: SQLiteJournal) -> None:
    """The admin who publishes it anew has looked at that one too."""
    house = House(journal)
    await house.publish("m", "n")
    house.known = [overrun("m", "req_1")]
    await house.watch.tick()
    house.known = [overrun("m", "req_2")]
    await house.watch.tick()
    await house.publish("m")
    house.restart()
    await house.watch.tick()
    assert house.closed() == []


async def test_a_report_that_fails_comes_in_a_later_round(journal: SQLiteJournal) -> None:
    """Whatever does not answer, nothing counts as reported before it is."""
    house = House(journal)
    await house.publish("m", "n")
    house.known, house.down = [overrun("m", "req_1")], True
    with pytest.raises(Unavailable):
        await house.watch.tick()
    assert house.closed() == []
    house.down = False
    await house.watch.tick()
    assert house.closed() == ["m"]
