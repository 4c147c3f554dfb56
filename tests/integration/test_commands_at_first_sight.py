"""Commands are decided on what their process knows of the streams, which may be of the past: nobody can tell by what comes of
them."""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.handling import RACES, Changes, Commands, Reply, Request
from commands.rules import change, open_organization
from domain import budget, organization
from domain.budget import AdjustBudget, Scope, SetBudget
from domain.envelope import decode
from domain.errors import Conflict, NotFound, VersionConflict
from domain.organization import CreateOrganization
from domain.period import Period
from domain.registry import decode_event
from infra.adapters.secrets import InstallationSecrets
from infra.adapters.sqlite_journal import SQLiteJournal
from projections.keyring import Keyring
from projections.ports import Record
from tests.admin_house import NOON, SECRET, Clock

TERMS = SetBudget(scope=Scope(kind="org"), limit=1000, period=Period(kind="lifetime", timezone="UTC"), at=NOON)


@dataclass
class Process:
    """A process with a view of its own on a journal that it shares: `look` brings the view up to date, or part of the way."""

    journal: SQLiteJournal
    keyring: Keyring = field(default_factory=Keyring)
    commands: Commands | None = None
    on_loop: int = 0
    """Runs of plans on the event loop."""

    def look(self, events: int = 10_000) -> None:
        for stored in self.journal.after(self.keyring.position, events):
            at = self.keyring.offset
            self.keyring.apply([Record(0, at, stored.body, stored.position, self.keyring.position)])

    async def adjust(self, amount: int, **request: Any) -> int:
        """The sum of all adjustments, this one included."""

        def plan(changes: Changes) -> Reply:
            self.on_loop += threading.current_thread() is threading.main_thread()
            state = change(changes, "acme", budget.KIND, "cap", AdjustBudget(amount=amount, reason=""))
            return Reply(str(state.adjustments).encode(), version=changes.version("acme", budget.KIND, "cap"))

        return int(await self.carry_out(plan, fingerprint=str(amount), **request))

    async def carry_out(self, plan: Any, **request: Any) -> bytes:
        async def forwarded(position: int) -> None:
            pass

        if self.commands is None:
            self.commands = Commands(self.journal, Clock(), InstallationSecrets(SECRET), forwarded, self.keyring)
        return (await self.commands.execute(Request("admin", **request), plan)).body


def begun(changes: Changes) -> Reply:
    """An organization with a budget."""
    changes.apply("acme", organization.KIND, "acme", CreateOrganization(name="Acme", timezone="UTC"))
    changes.apply("acme", budget.KIND, "cap", TERMS)
    return Reply(b"made")


def adjustments(journal: SQLiteJournal) -> list[tuple[int, int]]:
    """Amount and sum of each adjustment, in order."""
    events = [decode_event(decode(body)) for body in journal.load("acme/budget/cap")]
    return [(event.amount, event.adjustments) for event in events if isinstance(event, budget.BudgetAdjusted)]


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Process]:
    journal = SQLiteJournal(tmp_path / "journal.db", SECRET, Clock(), "normal")
    process = Process(journal)
    await process.carry_out(begun)
    yield process
    journal.close()


@pytest.fixture
def there(here: Process) -> Process:
    return Process(here.journal)


async def test_what_is_known_is_decided_at_once(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose streams the process knows asks the journal for nothing: it appends."""
    here.look()
    monkeypatch.setattr(here.journal, "load", lambda stream: pytest.fail("loaded"))
    monkeypatch.setattr(here.journal, "answered", lambda actor, key: pytest.fail("looked up"))
    assert await here.adjust(5, key="k") == 5
    assert here.on_loop == 1


async def test_a_view_of_the_past_costs_a_second_run(here: Process, there: Process) -> None:
    """Another process has changed the same: the command counts on top of that."""
    here.look()
    there.look()
    assert await there.adjust(7) == 7
    assert await here.adjust(5) == 12
    assert adjustments(here.journal) == [(7, 7), (5, 12)]


async def test_a_refusal_is_never_of_the_past(here: Process, there: Process) -> None:
    """What another process has made and answered is there, though this one has not seen it yet."""
    assert await there.adjust(7) == 7
    here.look(1)
    assert await here.adjust(5) == 12
    with pytest.raises(NotFound):
        await here.carry_out(lambda changes: Reply(open_organization(changes, "globex").name.encode()))


async def test_an_if_match_is_held_against_the_journal(here: Process, there: Process) -> None:
    """The version that another process answered matches; the one that this process still knows does not."""
    here.look()
    there.look()
    await there.adjust(7)
    with pytest.raises(VersionConflict):
        await here.adjust(5, if_match=1)
    assert await here.adjust(5, if_match=2) == 12


async def test_nothing_to_change_is_of_now_too(here: Process, there: Process) -> None:
    """A command that this process's view says is so already, and was undone by another one, is carried out."""
    there.look()
    here.look()

    def limited(limit: int) -> Any:
        def plan(changes: Changes) -> Reply:
            terms = SetBudget(scope=TERMS.scope, limit=limit, period=TERMS.period, at=NOON)
            return Reply(str(changes.apply("acme", budget.KIND, "cap", terms).limit).encode())

        return plan

    await there.carry_out(limited(2000))
    assert await here.carry_out(limited(1000)) == b"1000"
    here.look()
    assert here.keyring.state(budget.KIND, "acme", "cap").limit == 1000


async def test_a_used_key_answers_what_it_answered(here: Process, there: Process) -> None:
    """At any process, whatever that knows of the stream; used for something else it is refused."""
    assert await there.adjust(7, key="k") == 7
    for seen in (0, 10):
        here.look(seen)
        assert await here.adjust(7, key="k") == 7
        with pytest.raises(Conflict) as refused:
            await here.adjust(8, key="k")
        assert refused.value.code == "idempotency_key_reused"
    assert adjustments(here.journal) == [(7, 7)]


async def test_others_are_not_asked_on_the_event_loop(here: Process) -> None:
    """A plan that must ask somebody who may take his time waits in a thread."""
    here.look()

    def plan(changes: Changes) -> Reply:
        return Reply(changes.asked(lambda: threading.current_thread().name.encode()))

    assert await here.carry_out(plan) != threading.main_thread().name.encode()


async def test_many_at_once_at_one_stream_all_count(here: Process) -> None:
    """More than may lose a race: they take turns."""
    here.look()
    totals = await asyncio.gather(*(here.adjust(1) for _ in range(RACES * 2)))
    assert sorted(totals) == list(range(1, RACES * 2 + 1))


Step = tuple[int, int, int, int | None, str | None]
STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),  # the process
        st.integers(0, 4),  # how many events it looks at before
        st.integers(1, 9),  # the amount
        st.none() | st.integers(1, 6),  # If-Match
        st.none() | st.sampled_from("ab"),  # Idempotency-Key
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=4))
def test_views_of_the_past_lose_nothing_and_double_nothing(rounds: list[list[Step]]) -> None:
    """Rounds of concurrent commands at two processes that lag behind as they like: each that was answered is in the journal
    once, on top of the one before; each key was carried out once."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_attack(Path(folder), rounds))


async def _attack(folder: Path, rounds: list[list[Step]]) -> None:
    journal = SQLiteJournal(folder / "journal.db", SECRET, Clock(), "normal")
    processes = [Process(journal), Process(journal)]
    await processes[0].carry_out(begun)
    answered: set[int] = set()
    keys: dict[str, set[int]] = {}

    async def carried_out(step: Step) -> None:
        process, look, amount, if_match, key = step
        processes[process].look(look)
        try:
            total = await processes[process].adjust(amount, if_match=if_match, key=key)
        except Conflict:
            return
        if key is not None:
            keys.setdefault(key, set()).add(total)
        answered.add(total)

    for steps in rounds:
        await asyncio.gather(*map(carried_out, steps))
    found, total = adjustments(journal), 0
    for amount, after in found:
        total += amount
        assert after == total
    assert {after for _, after in found} == answered
    assert all(len(totals) == 1 for totals in keys.values())
    journal.close()
