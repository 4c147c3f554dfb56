"""What every gate must do about limits that several keys use together: none can crowd the others out."""

from collections import Counter

import pytest

from commands.gate import Granted, RateClaim, Refused
from tests.contract.gate_contract import Gates
from tests.contract.gate_house import ORG, House, fact
from tests.fairness import jain

MINUTE = 60


def shared(kind: str, limit: int, key: str) -> RateClaim:
    """A limit of the organization, asked for by one of its keys."""
    return RateClaim(f"{ORG}/org/{kind}", kind, limit, key)


class ShareContract(Gates):
    """Inherit it as `Test…`."""

    async def asked(self, house: House, key: str, kind: str, limit: int, attempt: str | None = None) -> bool:
        """Whether a request of `key` is let in."""
        return isinstance(await house.ask(attempt, rates=(shared(kind, limit, key),), tokens=1), Granted)

    async def told(self, house: House, key: str, kind: str, limit: int) -> Refused:
        return await house.refuse(rates=(shared(kind, limit, key),), tokens=1)

    @pytest.mark.parametrize("kind", ["requests", "tokens", "concurrent"])
    async def test_what_nobody_else_asks_for_one_key_may_use(self, kind: str) -> None:
        """All of it, though others asked before: they were not refused."""
        async with self.house() as house:
            assert await self.asked(house, "b", kind, 5)
            assert [await self.asked(house, "a", kind, 5) for _ in range(5)] == [True] * 4 + [False]

    @pytest.mark.parametrize("kind", ["requests", "tokens"])
    async def test_who_was_refused_below_its_share_goes_first(self, kind: str) -> None:
        """When there is room again, those that had more than their share are told when they come below it."""
        async with self.house() as house:
            for _ in range(10):
                assert await self.asked(house, "a", kind, 10)
            house.clock.advance(1)
            assert (await self.told(house, "b", kind, 10)).retry_after == 59
            house.clock.advance(59)
            back = await self.told(house, "a", kind, 10)
            assert (back.code, back.rates[0][1], back.retry_after) == ("rate_limit_exceeded", 10, 6)
            assert [await self.asked(house, "b", kind, 10) for _ in range(5)] == [True] * 5
            house.clock.advance(MINUTE - 1)
            assert [await self.asked(house, "a", kind, 10) for _ in range(5)] == [True] * 5
            assert not await self.asked(house, "a", kind, 10)

    async def test_a_place_that_comes_free_goes_to_who_has_fewer(self) -> None:
        """Three keys share four places; the one that has all of them waits for the other two."""
        async with self.house() as house:
            for number in range(4):
                assert await self.asked(house, "a", "concurrent", 4, f"a{number}")
            assert not await self.asked(house, "b", "concurrent", 4)
            assert not await self.asked(house, "c", "concurrent", 4)
            for number, key in enumerate("bc"):
                house.gate.capture(0, f"a{number}", 1)
                assert not await self.asked(house, "a", "concurrent", 4)
                assert await self.asked(house, key, "concurrent", 4)
            house.gate.capture(0, "a2", 1)
            assert await self.asked(house, "a", "concurrent", 4)

    async def test_more_keys_than_places_are_served_all(self) -> None:
        """A share of less than one is one."""
        async with self.house() as house:
            served: Counter[str] = Counter()
            for turn in range(60):
                for number in range(5):
                    key = f"k{number}"
                    attempt = f"{key}.{turn}"
                    if await self.asked(house, key, "concurrent", 2, attempt):
                        served[key] += 1
                        if turn % 2:
                            await house.settle(fact("Failed", attempt))
                        else:
                            house.gate.capture(0, attempt, 0)
                house.clock.advance(0.25)
            assert len(served) == 5
            assert jain(list(served.values())) > 0.9

    @pytest.mark.parametrize("kind", ["requests", "tokens"])
    async def test_one_that_asks_ten_times_as_much_gets_no_more(self, kind: str) -> None:
        """Once the minute has passed in which it came: the others get what they ask for, up to equal shares; and no minute holds
        more than the limit."""
        limit, others, minutes = 30, 4, 4
        async with self.house() as house:
            served: Counter[str] = Counter()
            let_in: list[float] = []
            for second in range(minutes * MINUTE):
                if second == 2 * MINUTE:
                    served.clear()
                asking = ["greedy"] * 5 + ([f"k{second // 2 % others}"] if second % 2 else [])
                for key in asking:
                    if await self.asked(house, key, kind, limit):
                        served[key] += 1
                        let_in.append(second)
                house.clock.advance(1)
            figures = [served["greedy"], *(served[f"k{number}"] for number in range(others))]
            assert jain(figures) > 0.95, figures
            assert sum(figures) >= 0.9 * 2 * limit
            for began in let_in:
                assert sum(began <= at < began + MINUTE for at in let_in) <= limit

    @pytest.mark.parametrize("kind", ["requests", "tokens"])
    async def test_those_who_want_more_split_what_the_others_leave(self, kind: str) -> None:
        """Who asks for little gets it, and what is left of its share is not left unused."""
        limit, minutes = 60, 6
        async with self.house() as house:
            served: Counter[str] = Counter()
            for second in range(minutes * MINUTE):
                if second == 2 * MINUTE:
                    served.clear()
                for key in ["one", "two", *(["little"] if second % 15 == 0 else [])]:
                    served[key] += await self.asked(house, key, kind, limit)
                house.clock.advance(1)
            asked = 4 * (minutes - 2)
            assert served["little"] >= 0.9 * asked, served
            assert jain([served["one"], served["two"]]) > 0.99, served
            assert sum(served.values()) >= 0.95 * limit * (minutes - 2), served

    async def test_a_share_is_of_the_tokens_that_requests_were_of(self) -> None:
        """Not of what was asked for: who asks for much output and gets little is not held to have used it."""
        async with self.house() as house:
            big = shared("tokens", 100, "a")
            await house.hold("large", rates=(big,), tokens=90)
            await house.refuse(rates=(shared("tokens", 100, "b"),), tokens=20)
            house.gate.capture(0, "large", 1, 10)
            assert await self.asked(house, "a", "tokens", 100)

    async def test_keys_that_nobody_uses_take_no_share(self) -> None:
        """After the minute that follows their last request."""
        async with self.house() as house:
            for number in range(9):
                assert await self.asked(house, f"k{number}", "requests", 10)
            house.clock.advance(2 * MINUTE)
            await house.settle(fact("GateOpened"))
            for _ in range(10):
                assert await self.asked(house, "a", "requests", 10)
            assert not await self.asked(house, "b", "requests", 10)
            house.clock.advance(MINUTE)
            assert not await self.asked(house, "a", "requests", 10)
            assert [await self.asked(house, "b", "requests", 10) for _ in range(5)] == [True] * 5
