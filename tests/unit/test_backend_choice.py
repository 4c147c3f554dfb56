"""Which backend takes a request: tiers, weights, circuits and what backends said themselves."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from commands.backend_choice import LONGEST_BUSY, BackendChoice, Claim, name_of
from domain.scope import PublishedModel, Target


def target(backend: str, weight: int = 1, tier: int = 0, protocol: str = "openai", url: str = "") -> Target:
    return Target(backend, url or f"http://{backend}/v1", protocol, None, 30.0, "up", weight, tier)


def model(*targets: Target) -> PublishedModel:
    return PublishedModel("m", targets, max_output_tokens=50, context_tokens=1000, prices=(), bound_exceeded=False)


class House:
    """A choice on a clock and with chances of the test's own: they go round evenly."""

    def __init__(self) -> None:
        self.now = 100.0
        self._chances = self._even()
        self.choice = BackendChoice(lambda: self.now, lambda: next(self._chances))

    def _even(self) -> Iterator[float]:
        while True:
            yield from (number / 100 for number in range(100))

    def claim(self, of: PublishedModel, **asked: object) -> Claim:
        claim = self.choice.claim(of, **asked)  # type: ignore[arg-type]  # as the test says
        assert claim is not None
        return claim

    def spread(self, of: PublishedModel, times: int = 100, end: Callable[[Claim], None] = Claim.served) -> Counter[str]:
        found: Counter[str] = Counter()
        for _ in range(times):
            claim = self.claim(of)
            found[claim.target.backend] += 1
            end(claim)
        return found

    def break_(self, one: Target, *, slow: bool = False) -> None:
        """Its circuit opens."""
        for _ in range(5):
            claim = self.choice.claim(model(one))
            if claim is not None:
                claim.failed(slow=slow)
        assert self.choice.states()[one.backend].circuit.state(self.now) == "open"


@pytest.fixture
def house() -> House:
    return House()


A, B, C = target("a", weight=3), target("b"), target("c", tier=1)


def test_weights_share_the_load_of_the_first_tier(house: House) -> None:
    """Three to one, and nothing for the next tier."""
    assert house.spread(model(A, B, C)) == {"a": 75, "b": 25}


def test_a_weight_of_zero_takes_no_part(house: House) -> None:
    """Neither by chance nor as a last resort."""
    off = target("off", weight=0)
    assert house.spread(model(off, B)) == {"b": 100}
    assert house.choice.claim(model(off)) is None
    assert house.choice.claim(model(off, B), [name_of(B)]) is None


def test_what_was_tried_is_not_chosen_again(house: House) -> None:
    """The rest of its tier first, then the next, then nothing."""
    of = model(A, B, C)
    assert house.claim(of, tried=[name_of(A)]).target is B
    assert house.claim(of, tried=[name_of(A), name_of(B)]).target is C
    assert house.choice.claim(of, [name_of(A), name_of(B), name_of(C)]) is None


def test_a_protocol_that_cannot_carry_the_request_is_passed_over(house: House) -> None:
    """Whatever its tier."""
    other = target("x", protocol="anthropic")
    assert house.claim(model(other, C), barred=["anthropic"]).target is C
    assert house.choice.claim(model(other), (), ["anthropic"]) is None


def test_an_open_circuit_leaves_its_load_to_the_tier_and_then_to_the_next(house: House) -> None:
    """As long as there is another one."""
    of = model(A, B, C)
    house.break_(A)
    assert house.spread(of) == {"b": 100}
    house.break_(B)
    assert house.spread(of) == {"c": 100}


def test_where_all_circuits_are_open_asking_costs_nobody_anything(house: House) -> None:
    """The first tier takes them, if what fails there fails at once."""
    of = model(A, C)
    house.break_(A)
    house.break_(C)
    assert house.claim(of).target is A


def test_nobody_waits_where_the_last_was_waited_for(house: House) -> None:
    """Refused at once, with a word on when to come back; a probe is let through then."""
    house.break_(A, slow=True)
    assert house.choice.claim(model(A)) is None
    assert house.choice.retry_in(model(A)) == 1.0
    house.now += 1.0
    probe = house.claim(model(A))
    assert house.choice.claim(model(A)) is None
    probe.served()
    house.claim(model(A))


def test_a_backend_that_was_repaired_gets_its_share_back_slowly(house: House) -> None:
    """From a tenth to all of it."""
    of = model(target("a"), B)
    house.break_(target("a"))
    house.now += 1.0
    house.claim(of, tried=[name_of(B)]).served()
    first = house.spread(of)["a"]
    house.now += 5.0
    then = house.spread(of)["a"]
    house.now += 5.0
    assert first < 20 < then < 45
    assert abs(house.spread(of)["a"] - 50) <= 1


def test_a_busy_backend_is_passed_over_for_as_long_as_it_says(house: House) -> None:
    """Up to a minute, a second if it does not say; but it is asked where there is no other."""
    of = model(target("a"), C)
    for said, lasts in ((7.0, 7.0), (None, 1.0), (10_000.0, LONGEST_BUSY)):
        house.claim(of).busy(said)
        assert house.claim(of).target is C
        house.now += lasts - 0.1
        assert house.claim(of).target is C
        house.now += 0.2
        assert house.claim(of).target.backend == "a"
    house.claim(model(A)).busy(60.0)
    assert house.claim(model(A)).target is A


def test_a_claim_ends_once(house: House) -> None:
    """What is said of it later does not count."""
    claims = [house.claim(model(A)) for _ in range(9)]
    assert house.choice.states()["a"].in_flight == 9
    for claim in claims:
        claim.served()
        claim.failed()
        claim.released()
    state = house.choice.states()["a"]
    assert (state.in_flight, state.circuit.closed) == (0, True)


def test_at_another_address_it_is_another_backend(house: House) -> None:
    """What was known of the old one says nothing; a claim on that one ends there."""
    old = house.claim(model(A))
    house.break_(A)
    moved = target("a", url="http://elsewhere/v1")
    assert house.claim(model(moved, C)).target is moved
    old.failed()
    assert house.choice.states()["a"].in_flight == 1
