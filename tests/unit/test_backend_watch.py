"""Looking after backends: checks beside all requests, and those that do worse than their tier."""

from collections.abc import Sequence

import pytest

from commands.backend_choice import BackendChoice
from commands.backend_states import BackendStates
from commands.backend_watch import ASIDE_SECONDS, CHECK_SECONDS, BackendWatch
from domain.backend import Terms
from domain.errors import UpstreamFailed
from domain.outliers import outliers
from domain.scope import PublishedModel, Target
from tests.unit.test_backend_choice import model, target


class House:
    """A watch over the backends of some models, which answer their checks with `answers`, the last one for ever."""

    def __init__(self, *models: PublishedModel, answers: Sequence[int | UpstreamFailed] = (200,)) -> None:
        self.now, self.version = 100.0, 1
        self.published, self.answers = list(models), list(answers)
        self.asked: list[tuple[str, str, bytes, float]] = []
        self.states = BackendStates(lambda: self.now)
        self.watch = BackendWatch(self.states, self, self, lambda target: b"authorization: Bearer x\r\n")

    def models(self) -> Sequence[PublishedModel]:
        return self.published

    async def status(self, url: str, path: str, headers: bytes, timeout: float) -> int:
        self.asked.append((url, path, headers, timeout))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, UpstreamFailed):
            raise answer
        return answer

    async def ticks(self, count: int) -> None:
        for _ in range(count):
            await self.watch.tick()
            self.now += 1.0

    def healthy(self, one: Target) -> bool:
        return self.states.of(one).healthy


def checked(protocol: str = "openai", seconds: float = 3.0) -> Target:
    terms = Terms(health_path="/models", health_seconds=seconds)
    return Target("a", "http://a/v1", protocol, None, 30.0, "up", 1, 0, terms)


async def test_a_backend_is_asked_as_often_as_it_says_and_once_for_all_its_models() -> None:
    """With our credential, for a bounded time; one without a path is not asked at all."""
    house = House(model(checked()), model(checked(), target("b")))
    await house.ticks(7)
    assert house.asked == [("http://a/v1", "/models", b"authorization: Bearer x\r\n", CHECK_SECONDS)] * 3


async def test_a_protocol_gets_the_headers_it_wants() -> None:
    """Anthropic's answers nothing without its version."""
    house = House(model(checked("anthropic")))
    await house.ticks(1)
    assert b"anthropic-version: 2023-06-01\r\n" in house.asked[0][2]


@pytest.mark.parametrize("bad", [500, 401, 301, UpstreamFailed("no", sent=False)], ids=str)
async def test_two_bad_answers_in_a_row_make_it_ill_and_a_good_one_well(bad: int | UpstreamFailed) -> None:
    """One alone does not; an ill one gets requests only where there is no other."""
    one, other = checked(seconds=1.0), target("b", tier=1)
    house = House(model(one, other), answers=(bad, 200, bad, bad, 200))
    choice = BackendChoice(house.states, lambda: 0.0)
    seen = []
    for _ in range(5):
        await house.ticks(1)
        seen.append(house.healthy(one))
        if not seen[-1]:
            claims = choice.claim(model(one, other)), choice.claim(model(one))
            assert [claim and claim.target.backend for claim in claims] == ["b", "a"]
    assert seen == [True, True, True, False, True]


async def test_a_good_answer_ends_a_circuits_pause() -> None:
    """It need not wait for a request to find out."""
    one = checked(seconds=1.0)
    house = House(model(one))
    house.states.of(one).circuit.open(house.now)
    await house.ticks(1)
    assert house.states.of(one).circuit.state(house.now) == "warming"


async def test_a_backend_that_is_asked_no_more_is_well() -> None:
    """What the last check found says nothing for ever."""
    house = House(model(checked(seconds=1.0)), answers=(500,))
    await house.ticks(2)
    assert not house.healthy(checked())
    house.published, house.version = [model(target("a"))], 2
    await house.ticks(1)
    assert house.healthy(target("a"))


# -- outliers


@pytest.mark.parametrize(
    ("tallies", "found"),
    [
        ({"a": (15, 5), "b": (100, 0)}, {"a"}),
        ({"a": (15, 4), "b": (100, 0)}, set()),  # too few to say
        ({"a": (85, 15), "b": (100, 0)}, set()),  # not so much worse
        ({"a": (60, 40), "b": (70, 30)}, set()),  # all do badly
        ({"a": (15, 5)}, set()),
        ({"a": (15, 5), "b": (0, 0)}, {"a"}),
        ({"a": (70, 30), "b": (100, 0), "c": (100, 0)}, {"a"}),
        ({"a": (50, 50), "b": (30, 70), "c": (1000, 0)}, {"b"}),  # at most half, the worst
        ({"a": (50, 50), "b": (30, 70), "c": (1000, 0), "d": (1000, 0)}, {"a", "b"}),
    ],
)
def test_the_worst_of_several_are_found(tallies: dict[str, tuple[int, int]], found: set[str]) -> None:
    """By a share of failures far above that of the others; half of them stay, whatever they do."""
    assert outliers(tallies) == found


async def test_who_does_worse_than_its_tier_is_set_aside_for_a_while() -> None:
    """Though its circuit is closed; alone in a tier it is compared with nobody."""
    a, b = target("a"), target("b")
    house = House(model(a, b), model(target("c")))
    for backend, served, failed in (("a", 30, 10), ("b", 30, 0), ("c", 30, 10)):
        circuit = house.states.of(target(backend)).circuit
        for number in range(served + failed):
            if number % 4 or number >= failed * 4:
                circuit.served(house.now)
            else:
                circuit.failed(house.now)
    await house.ticks(1)
    aside = {name: state.aside_until for name, state in house.states.known().items()}
    assert (aside["a"], aside["b"] < house.now, aside["c"] < house.now) == (100.0 + ASIDE_SECONDS, True, True)
    assert house.states.of(a).circuit.closed
