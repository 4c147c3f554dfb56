"""Which backend takes a request: tiers, weights, circuits and what backends said themselves."""

from collections import Counter
from collections.abc import Iterator

import pytest

from commands.backend_choice import BackendChoice, name_of
from commands.backend_states import LONGEST_BUSY, BackendStates, Claim
from domain.backend import USUAL, Terms
from domain.model import Balance
from domain.scope import PublishedModel, Target


def target(
    backend: str, weight: int = 1, tier: int = 0, protocol: str = "openai", url: str = "", **terms: int
) -> Target:
    used = Terms(**terms) if terms else USUAL  # type: ignore[arg-type]  # whole numbers all
    return Target(backend, url or f"http://{backend}/v1", protocol, None, 30.0, "up", weight, tier, used)


def model(*targets: Target, balance: Balance = "weighted") -> PublishedModel:
    return PublishedModel("m", targets, 50, 1000, prices=(), bound_exceeded=False, balance=balance)


class House:
    """A choice on a clock and with chances of the test's own: they go round evenly."""

    def __init__(self) -> None:
        self.now = 100.0
        self._chances = self._even()
        self.states = BackendStates(lambda: self.now)
        self.choice = BackendChoice(self.states, lambda: next(self._chances))

    def _even(self) -> Iterator[float]:
        while True:
            yield from (number / 100 for number in range(100))

    def claim(self, of: PublishedModel, **asked: object) -> Claim:
        claim = self.choice.claim(of, **asked)  # type: ignore[arg-type]  # as the test says
        assert claim is not None
        return claim

    def spread(self, of: PublishedModel, times: int = 100) -> Counter[str]:
        found: Counter[str] = Counter()
        for _ in range(times):
            claim = self.claim(of)
            found[claim.target.backend] += 1
            claim.served(0.1)
        return found

    def break_(self, one: Target, *, slow: bool = False) -> None:
        """Its circuit opens."""
        for _ in range(5):
            claim = self.choice.claim(model(one))
            if claim is not None:
                claim.failed(slow=slow)
        assert self.states.known()[one.backend].circuit.state(self.now) == "open"


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
    """Refused at once; a probe is let through after the pause."""
    house.break_(A, slow=True)
    assert house.choice.claim(model(A)) is None
    house.now += 1.0
    probe = house.claim(model(A))
    assert house.choice.claim(model(A)) is None
    probe.served(0.1)
    house.claim(model(A))


def test_nobody_waits_for_the_end_of_an_answer_that_has_begun(house: House) -> None:
    """Where a long stream is the probe, whoever comes meanwhile is served."""
    house.break_(A, slow=True)
    house.now += 1.0
    probe = house.claim(model(A))
    assert house.choice.claim(model(A)) is None
    probe.answers()
    house.claim(model(A)).served(0.1)
    probe.served(0.1)
    assert house.states.known()["a"].in_flight == 0


def test_a_backend_that_was_repaired_gets_its_share_back_slowly(house: House) -> None:
    """From a tenth to all of it."""
    of = model(target("a"), B)
    house.break_(target("a"))
    house.now += 1.0
    house.claim(of, tried=[name_of(B)]).served(0.1)
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
    assert house.states.known()["a"].in_flight == 9
    for claim in claims:
        claim.served(0.1)
        claim.failed()
        claim.released()
    state = house.states.known()["a"]
    assert (state.in_flight, state.circuit.closed) == (0, True)


def test_at_another_address_it_is_another_backend(house: House) -> None:
    """What was known of the old one says nothing; a claim on that one ends there."""
    old = house.claim(model(A))
    house.break_(A)
    moved = target("a", url="http://elsewhere/v1")
    assert house.claim(model(moved, C)).target is moved
    old.failed()
    assert house.states.known()["a"].in_flight == 1


# -- caps


def test_a_backend_has_no_more_requests_at_a_time_than_it_may(house: House) -> None:
    """The next ones go elsewhere; where there is no other they are refused, and the choice says why."""
    small, of = target("a", max_concurrent=2), model(target("a", max_concurrent=2), C)
    first, second = house.claim(of), house.claim(of)
    assert {first.target.backend, second.target.backend} == {"a"}
    assert house.claim(of).target is C
    assert house.choice.claim(model(small)) is None
    assert house.choice.overloaded(model(small))
    first.served(0.1)
    assert not house.choice.overloaded(model(small))
    assert house.claim(of).target.backend == "a"


def test_a_backend_has_no_more_requests_in_any_minute_than_it_may(house: House) -> None:
    """Whatever became of them; each frees its place a minute later."""
    of = model(target("a", requests_per_minute=3), C)
    for _ in range(3):
        house.claim(of).served(0.1)
        house.now += 10.0
    assert house.claim(of).target is C
    house.now += 29.9
    assert house.claim(of).target is C
    house.now += 0.2
    assert house.claim(of).target.backend == "a"
    assert house.claim(of).target is C


def test_a_full_backend_is_no_last_resort(house: House) -> None:
    """Whatever its circuit says of others."""
    full = target("a", max_concurrent=1)
    house.claim(model(full))
    house.break_(B)
    assert house.claim(model(full, B)).target is B


# -- least loaded


def test_load_goes_to_where_it_waits_least(house: House) -> None:
    """Of equals the one with the fewest requests; of a slow and a fast one the fast one, until it has so many that it is not."""
    of = model(target("fast"), target("slow"), balance="least_loaded")
    for backend, seconds in (("fast", 0.1), ("slow", 0.35)):
        house.states.of(target(backend)).took(seconds, house.now)
    taken = [house.claim(of).target.backend for _ in range(8)]
    assert taken == ["fast", "fast", "fast", "slow", "fast", "fast", "fast", "slow"]


def test_a_weight_counts_as_so_many_backends(house: House) -> None:
    """Twice the weight, twice the load."""
    of = model(target("a", weight=2), B, balance="least_loaded")
    assert Counter(house.claim(of).target.backend for _ in range(9)) == {"a": 6, "b": 3}


def test_what_was_slow_once_is_asked_again_some_time(house: House) -> None:
    """Nobody knows that it still is."""
    of = model(target("fast"), target("slow"), balance="least_loaded")
    for backend, seconds in (("fast", 0.1), ("slow", 5.0)):
        house.states.of(target(backend)).took(seconds, house.now)
    assert house.spread(of, 20) == {"fast": 20}
    for _ in range(20):
        house.now += 10.0
        house.states.of(target("fast")).took(0.1, house.now)
    assert house.spread(of, 1) == {"slow": 1}


# -- sticky


def test_the_same_key_meets_the_same_backend(house: House) -> None:
    """Whatever the chances; different keys spread by weight."""
    of = model(target("a", weight=3), B, target("x"))
    keys = [b"key-%d" % number for number in range(500)]
    first = {key: house.claim(of, sticky=key).target.backend for key in keys}
    assert first == {key: house.claim(of, sticky=key).target.backend for key in keys}
    shares = Counter(first.values())
    assert 250 < shares["a"] < 350
    assert min(shares["b"], shares["x"]) > 60


def test_a_backend_that_goes_takes_only_its_own_keys_along(house: House) -> None:
    """All others stay where they were; when it comes back, so do its own."""
    of, keys = model(target("a"), B, target("x")), [b"key-%d" % number for number in range(200)]
    first = {key: house.claim(of, sticky=key).target.backend for key in keys}
    house.break_(B)
    then = {key: house.claim(of, sticky=key).target.backend for key in keys}
    assert all(then[key] == first[key] for key in keys if first[key] != "b")
    assert {then[key] for key in keys if first[key] == "b"} == {"a", "x"}
