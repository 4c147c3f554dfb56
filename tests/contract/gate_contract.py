"""What every gate must do, as `docs/protocol.md` says it. A suite says how its gate is made.

Rates, concurrency and what reopening keeps are in `gate_contract_rates`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.gate import BudgetClaim, Granted, OpenHold, Refused, Settled
from domain.errors import Conflict
from domain.fold import State
from tests.contract.gate_house import LIFETIME, NOON, ORG, Clock, House, WholeGate, books_of, cap, day, fact

few = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
)

AFTER = {  # (state of a hold of 10, fact with cost 4): (consumed, held) afterwards
    ("none", "Admitted"): (0, 0),
    ("none", "Completed"): (0, 0),
    ("none", "Failed"): (0, 0),
    ("none", "Voided"): (0, 0),
    ("none", "WrittenOff"): (0, 0),
    ("none", "Unconfirmed"): (0, 0),
    ("unlogged", "Admitted"): (0, 10),
    ("unlogged", "Failed"): (0, 0),
    ("unlogged", "Voided"): (0, 0),
    ("unlogged", "WrittenOff"): (0, 10),
    ("unlogged", "Unconfirmed"): (0, 10),
    ("unlogged", "Denied"): (0, 10),
    ("logged", "Admitted"): (0, 10),
    ("logged", "Completed"): (4, 0),
    ("logged", "Failed"): (0, 0),
    ("logged", "Voided"): (0, 10),
    ("logged", "WrittenOff"): (0, 10),
    ("logged", "Unconfirmed"): (10, 0),
    ("logged", "GateOpened"): (0, 10),
    ("unconfirmed", "Admitted"): (10, 0),
    ("unconfirmed", "Completed"): (4, 0),
    ("unconfirmed", "Failed"): (0, 0),
    ("unconfirmed", "Voided"): (10, 0),
    ("unconfirmed", "WrittenOff"): (0, 0),
    ("unconfirmed", "Unconfirmed"): (10, 0),
}
PAST = {"none": (), "unlogged": (), "logged": ("Admitted",), "unconfirmed": ("Admitted", "Unconfirmed")}


class Gates(ABC):
    """What a suite over gates inherits."""

    @abstractmethod
    def gate(self, clock: Clock) -> AbstractAsyncContextManager[WholeGate]:
        """A gate of at least two partitions that was never opened."""

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[House]:
        """A gate that was never opened."""
        clock = Clock()
        async with self.gate(clock) as gate:
            yield House(gate, clock, await gate.run())

    @asynccontextmanager
    async def house(self) -> AsyncIterator[House]:
        """An open gate."""
        async with self.closed() as house:
            await house.open()
            yield house


class GateContract(Gates):
    """Inherit it as `Test…`."""

    # -- admitting

    async def test_admitting_again_answers_the_same_grant_and_holds_once(self) -> None:
        """A gateway that lost the answer may ask again."""
        async with self.house() as house:
            first = await house.hold("req", cap(15), want=20, least=1)
            again = await house.ask("req", cap(15), want=20, least=1)
            assert again == first
            assert first.grant == first.hold == 15
            assert await house.balance() == (0, 15)

    async def test_all_budgets_hold_or_none(self) -> None:
        """One budget without room keeps every other untouched, whichever comes first."""
        async with self.house() as house:
            small, large = cap(5, budget="small"), cap(100, budget="large")
            for claims in ((small, large), (large, small)):
                assert (await house.refuse(*claims)).budget == "small"
            assert await house.balance("small") == await house.balance("large") == (0, 0)
            await house.hold("req", large, small, want=5)
            assert await house.balance("small") == await house.balance("large") == (0, 5)

    @few
    @given(
        lefts=st.lists(st.integers(0, 60), min_size=1, max_size=3),
        base=st.integers(0, 20),
        unit=st.integers(0, 5),
        want=st.integers(0, 20),
        exact=st.booleans(),
    )
    async def test_output_is_clamped_to_what_the_tightest_budget_pays_for(
        self, lefts: list[int], base: int, unit: int, want: int, exact: bool
    ) -> None:
        """grant = min(want, (left - base) / unit) over all budgets; below `least` nothing is granted."""
        least = want if exact else min(1, want)
        claims = [cap(left, budget=f"b{number}") for number, left in enumerate(lefts)]
        room = min(lefts) - base
        expected = -1 if room < 0 else want if unit == 0 else min(want, room // unit)
        async with self.house() as house:
            answer = await house.ask("req", *claims, base=base, unit=unit, want=want, least=least)
            if expected < least:
                assert isinstance(answer, Refused)
                assert answer.code == "insufficient_quota"
            else:
                assert isinstance(answer, Granted)
                assert (answer.grant, answer.hold) == (expected, base + unit * expected)
                assert [view.held for view in answer.seen] == [0] * len(lefts)

    async def test_the_grant_tells_the_budgets_as_they_were_before(self) -> None:
        """What a fact freezes: limit and its version, consumed and held without this request."""
        async with self.house() as house:
            await house.open(books_of(("old", State.UNCONFIRMED, 7), consumed=20))
            await house.hold("first", cap(100, 3), want=30)
            (view,) = (await house.hold("second", cap(100, 3), want=5)).seen
            assert (view.budget, view.bucket, view.limit, view.limit_version) == ("cap", LIFETIME, 100, 3)
            assert (view.consumed, view.held, view.mode) == (27, 30, "hard")

    async def test_busy_while_only_holds_are_in_the_way(self) -> None:
        """429, with a time to come back: the money is there once requests in flight end."""
        async with self.house() as house:
            await house.hold("first", want=95)
            refused = await house.refuse(want=10)
            assert (refused.code, refused.budget) == ("budget_busy", "cap")
            assert refused.retry_after is not None and refused.retry_after > 0
            assert (refused.seen[0].consumed, refused.seen[0].held) == (0, 95)

    async def test_exhausted_when_releasing_every_hold_would_not_help(self) -> None:
        """402, and no time to come back."""
        async with self.house() as house:
            await house.open(books_of(consumed=95))
            await house.hold("first", want=5)
            refused = await house.refuse(want=10)
            assert (refused.code, refused.retry_after) == ("insufficient_quota", None)

    async def test_unconfirmed_holds_are_not_in_flight(self) -> None:
        """Nobody will release them by waiting: exhausted, and shown as consumed."""
        async with self.house() as house:
            await house.hold("first", want=95)
            await house.settle(fact("Admitted", "first"), fact("Unconfirmed", "first"))
            assert (await house.refuse(want=10)).code == "insufficient_quota"
            assert await house.balance() == (95, 0)

    async def test_one_exhausted_budget_outweighs_a_busy_one(self) -> None:
        """A client that is told to retry must have a chance."""
        async with self.house() as house:
            busy, empty = cap(10, budget="busy"), cap(5, budget="empty")
            await house.hold("first", busy, want=8)
            for claims in ((busy, empty), (empty, busy)):
                refused = await house.refuse(*claims)
                assert (refused.code, refused.budget) == ("insufficient_quota", "empty")

    async def test_the_highest_limit_version_seen_is_the_limit(self) -> None:
        """A gateway behind the others cannot bring an old limit back; a lowered one stops only what comes."""
        async with self.house() as house:
            await house.hold("first", cap(100, 1), want=60)
            assert (await house.refuse(cap(50, 2), want=1)).seen[0].limit == 50
            assert (await house.refuse(cap(100, 1), want=1)).seen[0].limit_version == 2
            assert (await house.hold("second", cap(200, 3), want=140)).seen[0].limit == 200
            assert await house.balance() == (0, 200)

    async def test_a_soft_budget_counts_and_never_refuses(self) -> None:
        """Beyond its limit too, and it clamps nothing."""
        async with self.house() as house:
            soft = cap(5, hard=False, budget="soft")
            first = await house.hold("first", soft, want=50, least=1)
            assert (first.grant, first.seen[0].mode) == (50, "soft")
            await house.hold("second", soft, cap(10), want=10)
            assert await house.balance("soft") == (0, 60)
            assert (await house.refuse(soft, cap(10), want=1)).budget == "cap"

    async def test_no_budget_in_scope_holds_nothing(self) -> None:
        """And is granted what it wants."""
        async with self.house() as house:
            answer = await house.ask("req", want=10)
            assert isinstance(answer, Granted)
            assert (answer.grant, answer.seen) == (10, ())
            assert (await house.gate.expired(NOON + timedelta(days=1)))[0].attempt == "req"

    async def test_a_rolling_window_sums_its_buckets_and_holds_in_the_last(self) -> None:
        """What was used on other days of the window counts; what was used before it does not."""
        async with self.house() as house:
            days = [f"1.2026-11-{number}" for number in (21, 22, 23, 24)]
            for number, want in ((0, 50), (1, 30), (2, 15)):
                window = tuple(days[max(0, number - 1) : number + 1])
                await house.hold(f"r{number}", BudgetClaim("roll", window, None, 100, 1, True), want=want)
            two = BudgetClaim("roll", tuple(days[1:3]), None, 100, 1, True)
            assert (await house.hold("more", two, want=55)).seen[0].held == 45
            assert (await house.refuse(two, want=1)).code == "budget_busy"
            tomorrow = BudgetClaim("roll", tuple(days[2:4]), None, 100, 1, True)
            assert (await house.hold("next", tomorrow, want=30)).seen[0].held == 70
            assert await house.balance("roll", (days[3],)) == (0, 30)

    async def test_thousands_of_budgets_in_scope_are_each_counted(self) -> None:
        """All of them hold what the request may cost, and what it cost in the end, one and all."""
        async with self.house() as house:
            caps = [cap(1000 + number, budget=f"cap-{number}") for number in range(5001)]
            for attempt, want in (("req_1", 30), ("req_2", 20), ("req_3", 10)):
                granted = await house.hold(attempt, *caps, want=want)
                assert [view.limit for view in granted.seen] == [1000 + number for number in range(5001)]
            house.gate.capture(0, "req_1", 7)
            await house.settle(*(fact("Admitted", f"req_{number}") for number in (1, 2, 3)))
            await house.settle(
                fact("Completed", "req_1", 7), fact("Completed", "req_2", 5), fact("Unconfirmed", "req_3")
            )
            refused = await house.refuse(*(cap(0, -1, budget=claim.budget) for claim in caps), base=10**15)
            assert [(view.budget, view.consumed, view.held) for view in refused.seen] == [
                (claim.budget, 7 + 5 + 10, 0) for claim in caps
            ]

    async def test_budgets_of_the_same_name_belong_to_their_organizations(self) -> None:
        """One organization's holds are nothing to another's."""
        async with self.house() as house:
            await house.hold("first", want=100)
            await house.hold("second", want=100, org="globex")

    # -- what is refused as unavailable

    async def test_a_gate_is_closed_until_it_is_finished(self) -> None:
        """Never begun, begun, finished: only the last admits; settling and watermark likewise."""
        async with self.closed() as house:
            gate = house.gate
            assert (await house.refuse()).code == "gate_unavailable"
            await gate.begin(0, house.run, 0)
            assert (await house.refuse()).code == "gate_unavailable"
            assert await gate.watermark(0) is None
            assert not await gate.settle(0, house.run, 0, 0, ())
            await gate.finish(0, house.run, 0, 7, books_of())
            assert await gate.watermark(0) == 7
            assert isinstance(await house.ask("req", cap()), Granted)

    @pytest.mark.parametrize("wrong", [{"run": "another"}, {"epoch": 0}, {"epoch": 2}, {"partition": 1}])
    async def test_only_its_own_run_epoch_and_open_partitions_are_admitted(self, wrong: dict[str, int]) -> None:
        """A gateway behind, one ahead, and one that talks to another memory."""
        async with self.house() as house:
            refused = await house.refuse(**wrong)
            assert refused.code == "gate_unavailable"
            assert refused.retry_after is not None and refused.retry_after > 0
            assert await house.balance() == (0, 0)

    @pytest.mark.parametrize(("seconds", "admitted"), [(-61, False), (-60, True), (60, True), (61, False)])
    async def test_an_admission_from_another_time_is_refused(self, seconds: int, admitted: bool) -> None:
        """A clock that lags could open a past bucket at zero."""
        async with self.house() as house:
            answer = await house.ask("req", cap(), accounted_at=NOON + timedelta(seconds=seconds))
            assert isinstance(answer, Granted) is admitted
            assert admitted or (isinstance(answer, Refused) and answer.code == "gate_unavailable")

    @pytest.mark.parametrize("epoch", [0, 1])
    async def test_an_epoch_that_is_not_above_cannot_begin(self, epoch: int) -> None:
        """Of two that open the gate, the one that was fenced later wins; the open gate stays as it is."""
        async with self.house() as house:
            await house.hold("req")
            with pytest.raises(Conflict):
                await house.gate.begin(0, house.run, epoch)
            assert await house.balance() == (0, 10)

    async def test_what_was_fenced_meanwhile_cannot_finish(self) -> None:
        """An opening that was overtaken loads nothing."""
        async with self.house() as house:
            await house.gate.begin(0, house.run, 5)
            with pytest.raises(Conflict):
                await house.gate.finish(0, house.run, 4, 9, books_of(consumed=1))
            assert await house.gate.watermark(0) is None

    async def test_partitions_have_nothing_to_do_with_each_other(self) -> None:
        """Opened, held and settled one by one."""
        async with self.house() as house:
            await house.hold("req")
            other = House(house.gate, house.clock, house.run, partition=1)
            await other.open()
            await other.hold("req", want=3)
            assert await house.balance() == (0, 10)
            assert await other.balance() == (0, 3)

    # -- ending holds

    async def test_capture_shrinks_and_never_grows(self) -> None:
        """Twice is once; a cost above the hold is left to settling; what is not held is not captured."""
        async with self.house() as house:
            await house.hold("req")
            for actual, held in ((4, 4), (4, 4), (9, 4), (0, 0)):
                house.gate.capture(0, "req", actual)
                assert await house.balance() == (0, held)
            house.gate.capture(0, "nobody", 3)
            assert await house.balance() == (0, 0)
            await house.settle(fact("Admitted"), fact("Completed", cost=7))
            assert await house.balance() == (7, 0)

    async def test_capture_in_a_newer_epoch_finds_the_restored_hold(self) -> None:
        """A completion that was acknowledged while the gate was opened anew; an unconfirmed hold shrinks too."""
        async with self.house() as house:
            await house.open(books_of(("open", State.OPEN, 10), ("lost", State.UNCONFIRMED, 20)))
            house.gate.capture(0, "open", 4)
            house.gate.capture(0, "lost", 5)
            assert await house.balance() == (5, 4)

    @pytest.mark.parametrize(("state", "type"), sorted(AFTER))
    async def test_settling_follows_its_table(self, state: str, type: str) -> None:
        """Per state of a hold and fact; settled once more, at the next offsets, nothing changes: the log may repeat itself."""
        async with self.house() as house:
            if state != "none":
                await house.hold("req")
            await house.settle(*(fact(before) for before in PAST[state]))
            await house.settle(fact(type, cost=4))
            assert await house.balance() == AFTER[state, type]
            await house.settle(fact(type, cost=4))
            assert await house.balance() == AFTER[state, type]

    async def test_settling_happens_at_its_watermark_only(self) -> None:
        """Behind, ahead, of another run or epoch: False, and nothing is done."""
        async with self.house() as house:
            await house.hold("req")
            facts = [fact("Admitted"), fact("Completed", cost=4)]
            gate, epoch, run = house.gate, house.epoch, house.run
            await house.settle(Settled(""))
            for wrong in (
                (run, epoch, 0),
                (run, epoch, 2),
                ("another", epoch, 1),
                (run, epoch - 1, 1),
                (run, epoch + 1, 1),
            ):
                assert not await gate.settle(0, *wrong, facts)
            assert (await house.balance(), await gate.watermark(0)) == ((0, 10), 1)
            assert await gate.settle(0, run, epoch, 1, facts)
            assert (await house.balance(), await gate.watermark(0)) == ((4, 0), 3)

    async def test_expired_lists_unlogged_holds_and_releases_none(self) -> None:
        """Those admitted before the moment asked about; not what the log knows, whatever became of it."""
        async with self.house() as house:
            await house.open(books_of(("restored", State.OPEN, 5)))
            for attempt in ("logged", "ended", "old"):
                await house.hold(attempt)
            house.clock.advance(5)
            await house.hold("young")
            await house.settle(fact("Admitted", "logged"), fact("Failed", "ended"))
            before = NOON + timedelta(seconds=5)
            assert list(await house.gate.expired(before)) == [OpenHold(0, ORG, "old")]
            assert await house.balance() == (0, 35)
            assert not await house.gate.expired(NOON)

    # -- opening and forgetting

    async def test_opening_takes_over_what_the_books_hold(self) -> None:
        """Open, unconfirmed, done: held, consumed as an estimate, gone. Nothing of what the gate knew before stays."""
        async with self.house() as house:
            await house.hold("forgotten", want=50)
            attempts = (("open", State.OPEN, 10), ("lost", State.UNCONFIRMED, 20), ("done", State.DONE, 5))
            await house.open(books_of(*attempts, consumed=5), watermark=12)
            assert await house.balance() == (25, 10)
            assert not await house.gate.expired(NOON + timedelta(days=1))
            await house.settle(fact("Completed", "open", 4), fact("WrittenOff", "lost"), fact("Completed", "done", 9))
            assert await house.balance() == (9, 0)
            assert await house.gate.watermark(0) == 15

    async def test_a_bucket_out_of_every_window_for_an_hour_is_forgotten(self) -> None:
        """Not before, and not while it holds anything."""
        async with self.house() as house:
            until = NOON + timedelta(minutes=5)
            for attempt, budget in (("a", "day"), ("b", "kept")):
                await house.hold(attempt, day(until=until, budget=budget))
                await house.settle(fact("Admitted", attempt))
            await house.settle(fact("Completed", "a", 4), fact("Unconfirmed", "b"))
            window = ("1.2026-11-23",)
            for minutes, consumed in ((64, 4), (2, 0)):
                house.clock.advance(minutes * 60)
                await house.settle(Settled(""))
                assert await house.balance("day", window) == (consumed, 0)
                assert await house.balance("kept", window) == (10, 0)
            await house.settle(fact("Completed", "b", 3))
            assert await house.balance("kept", window) == (3, 0)
