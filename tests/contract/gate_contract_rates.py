"""What every gate must do about rate limits, concurrency and Idempotency-Keys."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.gate import Granted, RateClaim, Refused
from domain.fold import Attempt, Books, State
from tests.contract.gate_contract import Gates, few
from tests.contract.gate_house import NOON, books_of, cap, day, fact, rate

WINDOW = 60.0

# Quarters of a second add up exactly. Just short of a window, a whole one and just beyond are where a limit breaks.
waits = (st.integers(0, 160) | st.sampled_from((239, 240, 241))).map(lambda quarters: quarters / 4)


class RateContract(Gates):
    """Inherit it as `Test…`."""

    @few
    @given(limit=st.integers(1, 12), asked=st.lists(st.tuples(waits, st.integers(1, 6)), max_size=25))
    async def test_no_window_of_sixty_seconds_holds_more_than_the_limit(
        self, limit: int, asked: list[tuple[float, int]]
    ) -> None:
        """Wherever the window is laid; and what fits into the window that ends now is never refused."""
        let_in: list[tuple[float, int]] = []
        async with self.house() as house:
            now = 0.0
            for wait, tokens in asked:
                now += wait
                house.clock.advance(wait)
                used = sum(amount for at, amount in let_in if at > now - WINDOW)
                answer = await house.ask(None, rates=(rate("tokens", limit),), tokens=tokens)
                assert isinstance(answer, Granted) is (used + tokens <= limit)
                if isinstance(answer, Granted):
                    let_in.append((now, tokens))
            for at, _ in let_in:
                assert sum(amount for other, amount in let_in if at <= other < at + WINDOW) <= limit

    @pytest.mark.parametrize(("kind", "tokens"), [("tokens", 4), ("requests", 0)])
    async def test_a_window_ends_to_the_moment(self, kind: str, tokens: int) -> None:
        """What was admitted counts for sixty seconds: a quarter of a second less is too early, sixty are enough."""
        async with self.house() as house:
            full = (rate(kind, tokens or 1),)
            await house.hold("first", rates=full, tokens=tokens)
            house.clock.advance(WINDOW - 0.25)
            assert (await house.refuse(rates=full, tokens=tokens)).retry_after == 0.25
            house.clock.advance(0.25)
            await house.hold("next", rates=full, tokens=tokens)

    @few
    @given(asked=st.lists(st.tuples(waits, st.integers(1, 5)), min_size=1, max_size=12))
    async def test_who_waits_as_long_as_told_is_let_in(self, asked: list[tuple[float, int]]) -> None:
        """`retry_after` of a rate limit is neither a guess nor an excuse, also where more than one is in the way."""
        limits = (rate("tokens", 7), rate("requests", 3))
        async with self.house() as house:
            for wait, tokens in asked:
                house.clock.advance(wait)
                answer = await house.ask(None, rates=limits, tokens=tokens)
                if isinstance(answer, Refused):
                    assert answer.code == "rate_limit_exceeded"
                    assert answer.retry_after is not None and 0 < answer.retry_after <= WINDOW
                    house.clock.advance(answer.retry_after)
                    answer = await house.ask(None, rates=limits, tokens=tokens)
                assert isinstance(answer, Granted)

    @pytest.mark.parametrize("sharer", [None, "key_1"])
    async def test_of_several_limits_the_one_that_keeps_longest_is_named(self, sharer: str | None) -> None:
        """Whoever comes back when the first has room again would be refused by the other."""
        few, much = RateClaim("few", "requests", 1), RateClaim("much", "tokens", 10, sharer)
        async with self.house() as house:
            await house.hold("early", rates=(few,))
            house.clock.advance(20)
            await house.hold("late", rates=(much,), tokens=10)
            house.clock.advance(20)
            for limits in ((few, much), (much, few)):
                refused = await house.refuse(rates=limits, tokens=5)
                assert (refused.code, refused.rate, refused.retry_after) == ("rate_limit_exceeded", much, 40.0)
            house.clock.advance(40)
            await house.hold("then", rates=(few, much), tokens=5)

    async def test_rates_are_told_on_every_answer(self) -> None:
        """What remains, and the seconds until the limit is whole again; what was refused is not counted."""
        async with self.house() as house:
            tokens = rate("tokens", 10)
            granted = await house.hold("first", rates=(tokens,), tokens=4)
            assert granted.rates == ((tokens, 6, WINDOW),)
            house.clock.advance(20)
            refused = await house.refuse(rates=(tokens,), tokens=7)
            assert (refused.code, refused.rate, refused.rates) == ("rate_limit_exceeded", tokens, ((tokens, 6, 40.0),))
            assert refused.retry_after == 40.0
            granted = await house.hold("second", rates=(tokens,), tokens=6)
            assert granted.rates == ((tokens, 0, WINDOW),)
            refused = await house.refuse(cap(1, budget="small"), rates=(rate("requests", 5),))
            assert refused.code == "insufficient_quota"
            assert refused.rates[0][1] == 5

    @pytest.mark.parametrize(
        ("kind", "limit", "tokens"), [("tokens", 7, 8), ("tokens", 0, 1), ("requests", 0, 0), ("concurrent", 0, 0)]
    )
    async def test_what_is_above_a_whole_limit_is_not_told_to_wait(self, kind: str, limit: int, tokens: int) -> None:
        """It can never pass, so there is no `retry_after`; that limit is named, also behind one that is only full for now."""
        async with self.house() as house:
            full, never = RateClaim("other", "requests", 1), rate(kind, limit)
            await house.hold("first", rates=(full,))
            refused = await house.refuse(rates=(full, never), tokens=tokens)
            assert (refused.code, refused.rate, refused.retry_after) == ("rate_limit_exceeded", never, None)
            assert [remains for _, remains, _ in refused.rates] == [0, limit]

    @pytest.mark.parametrize(
        ("end", "counted"),
        [("capture", 2), ("Completed", 2), ("Failed", 0), ("Voided", 0), ("Unconfirmed", 6), ("more", 8)],
    )
    async def test_tokens_are_those_that_a_request_was_of(self, end: str, counted: int) -> None:
        """Known at its end, by capture or by settling; until then, and where nobody knows, what was asked for."""
        ten = (rate("tokens", 10),)
        async with self.house() as house:
            await house.hold("req", rates=ten, tokens=6)
            house.clock.advance(1)
            await house.hold("other", rates=ten, tokens=1)
            if end != "Voided":
                await house.settle(fact("Admitted", "req"))
            if end in ("capture", "more"):
                house.gate.capture(0, "req", 4, 2 if end == "capture" else 8)
                await house.settle(fact("Completed", "req", 4, 7))
            else:
                await house.settle(fact(end, "req", 4, 2))
            assert (await house.refuse(rates=ten, tokens=11)).rates[0][1] == 10 - counted - 1
            house.clock.advance(WINDOW - 1)
            assert (await house.refuse(rates=ten, tokens=11)).rates[0][1] == 9

    @pytest.mark.parametrize("kind", ["requests", "tokens"])
    async def test_requests_of_one_moment_leave_the_window_with_the_last(self, kind: str) -> None:
        """Never with the first, however the gate counts them together."""
        two = (rate(kind, 2),)
        async with self.house() as house:
            house.clock.advance(0.02)
            await house.hold("first", rates=two, tokens=1)
            house.clock.advance(0.06)
            await house.hold("second", rates=two, tokens=1)
            house.clock.advance(WINDOW - 0.03)
            await house.refuse(rates=two, tokens=1)
            house.clock.advance(0.03)
            assert (await house.hold("third", rates=two, tokens=1)).rates[0][1] == 1

    async def test_requests_of_one_moment_are_corrected_each_by_itself(self) -> None:
        """However the gate counts them together."""
        ten = (rate("tokens", 10),)
        async with self.house() as house:
            for name in ("first", "second", "third"):
                await house.hold(name, rates=ten, tokens=3)
            house.gate.capture(0, "second", 4, 1)
            assert (await house.refuse(rates=ten, tokens=4)).rates[0][1] == 3
            house.gate.capture(0, "first", 4, 0)
            house.gate.capture(0, "third", 4, 2)
            assert (await house.refuse(rates=ten, tokens=8)).rates[0][1] == 7

    async def test_what_has_left_the_window_corrects_nothing(self) -> None:
        """A request that took longer than a minute leaves the next minute alone, also where its key was forgotten meanwhile."""
        ten = (rate("tokens", 10),)
        async with self.house() as house:
            await house.hold("long", rates=ten, tokens=6)
            house.clock.advance(WINDOW + 1)
            await house.settle(fact("GateOpened"))
            await house.hold("next", rates=ten, tokens=6)
            house.gate.capture(0, "long", 4, 1)
            assert (await house.refuse(rates=ten, tokens=5)).rates[0][1] == 4

    async def test_a_budgets_limit_is_forgotten_with_its_last_bucket(self) -> None:
        """An hour after it: what was shown last of a budget that nobody uses takes no room. Of one in use it counts for ever."""
        async with self.house() as house:
            await house.hold("first", day(100, version=2, until=NOON))
            await house.settle(fact("Failed", "first"))
            house.clock.advance(1800)
            later = day(0, version=1, until=NOON + timedelta(hours=2), bucket="1.2026-11-24")
            assert (await house.refuse(later, base=1000)).seen[0].limit_version == 2
            house.clock.advance(2 * 3600)
            await house.settle(fact("GateOpened"))
            assert (await house.refuse(later, base=1000)).seen[0].limit_version == 2
            house.clock.advance(3600)
            await house.settle(fact("GateOpened"))
            assert (await house.refuse(later, base=1000)).seen[0].limit_version == 1

    async def test_what_a_budget_refuses_uses_up_no_rate(self) -> None:
        """And what a rate limit refuses holds no money."""
        async with self.house() as house:
            once = rate("requests", 1)
            await house.refuse(cap(1, budget="small"), rates=(once,))
            await house.hold("first", rates=(once,))
            assert (await house.refuse(cap(), rates=(once,))).code == "rate_limit_exceeded"
            assert await house.balance() == (0, 10)

    async def test_admitting_again_uses_up_no_rate(self) -> None:
        """Nor a second slot."""
        async with self.house() as house:
            limits = (rate("requests", 2), rate("concurrent", 2))
            for _ in range(4):
                await house.hold("first", rates=limits)
            await house.hold("second", rates=limits)

    @pytest.mark.parametrize("end", ["capture", "Completed", "Failed", "Unconfirmed"])
    async def test_a_slot_is_free_once_its_request_ended(self, end: str) -> None:
        """By capture or by settling, once even if both come; not by the admission being logged."""
        async with self.house() as house:
            two = (rate("concurrent", 2),)
            await house.hold("first", rates=two)
            await house.hold("other", rates=two)
            await house.settle(fact("Admitted", "first"))
            refused = await house.refuse(rates=two)
            assert (refused.code, refused.rate) == ("rate_limit_exceeded", two[0])
            assert refused.retry_after is not None and refused.retry_after > 0
            if end == "capture":
                house.gate.capture(0, "first", 4)
                await house.settle(fact("Completed", "first", 4))
            else:
                await house.settle(fact(end, "first"))
                house.gate.capture(0, "first", 0)
                await house.settle(fact("Completed", "first", 4))
            await house.hold("next", rates=two)
            await house.refuse(rates=two)

    async def test_a_voided_hold_frees_its_slot(self) -> None:
        """A gateway that died before its admission was logged does not take a slot for ever."""
        async with self.house() as house:
            await house.hold("first", rates=(rate("concurrent", 1),))
            await house.settle(fact("Voided", "first"))
            await house.hold("next", rates=(rate("concurrent", 1),))

    # -- Idempotency-Keys

    @pytest.mark.parametrize(
        ("facts", "outcome"),
        [
            ((), "open"),
            (("Admitted",), "open"),
            (("Admitted", "Unconfirmed"), "unconfirmed"),
            (("Admitted", "Completed"), "completed"),
            (("Admitted", "Failed"), "failed"),
            (("Voided",), "void"),
            (("Admitted", "Unconfirmed", "WrittenOff"), "written_off"),
        ],
    )
    async def test_a_key_that_was_used_answers_with_the_first_request(
        self, facts: tuple[str, ...], outcome: str
    ) -> None:
        """Who it was and what became of it; nothing is held."""
        async with self.house() as house:
            await house.hold("first", once="k")
            await house.settle(*(fact(type, "first", 4) for type in facts))
            balance = await house.balance()
            refused = await house.refuse(once="k")
            assert (refused.code, refused.first, refused.outcome) == ("duplicate_request", "first", outcome)
            assert await house.balance() == balance
            await house.hold("other", once="another")

    async def test_a_refused_request_uses_up_no_key(self) -> None:
        """The key is free for the try that gets through."""
        async with self.house() as house:
            await house.refuse(cap(1, budget="small"), once="k")
            await house.hold("second", once="k")

    async def test_admitting_again_is_no_duplicate_of_itself(self) -> None:
        """The same attempt gets its grant, key or not."""
        async with self.house() as house:
            first = await house.hold("first", once="k")
            assert await house.hold("first", once="k") == first

    @pytest.mark.parametrize(
        ("state", "later", "outcome"),
        [
            (State.OPEN, None, "open"),
            (State.OPEN, "Completed", "completed"),
            (State.UNCONFIRMED, "WrittenOff", "written_off"),
            (State.DONE, None, "completed"),
            (State.VOID, None, "failed"),
        ],
    )
    async def test_keys_survive_opening_anew(self, state: State, later: str | None, outcome: str) -> None:
        """They come from the books, and follow what becomes of their request."""
        async with self.house() as house:
            books = books_of(("first", state, 10))
            books.once["k"] = ("first", NOON)
            await house.open(books)
            if later:
                await house.settle(fact(later, "first", 4))
            refused = await house.refuse(once="k")
            assert (refused.code, refused.first, refused.outcome) == ("duplicate_request", "first", outcome)

    async def test_a_key_is_forgotten_after_a_day(self) -> None:
        """24 hours from its request on, and not before."""
        async with self.house() as house:
            await house.open(Books(attempts={"a": Attempt(State.DONE, NOON)}, once={"k": ("a", NOON)}))
            house.clock.now = NOON + timedelta(hours=24)
            await house.settle(fact("GateOpened"))
            assert (await house.refuse(once="k")).first == "a"
            house.clock.advance(120)
            await house.settle(fact("GateOpened"))
            await house.hold("b", once="k")
