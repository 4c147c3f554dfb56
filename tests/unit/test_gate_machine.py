"""P1 and P2 attacked at the core: the real gate, fold, admission, outcomes, keeper, settler and opening, driven through
interleavings of several requests, crashes, lost gates, repeated, late and lost appends, limits that change, days that end.

`tests.gate_laws` has the invariants, `tests.gate_world` the world; both machines run the same code as the product.
One rule picks among everything that can happen now: hypothesis switches rules off at random, and with a rule per step
most runs would lack one that a request needs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from domain.fold import State
from domain.period import Period
from tests.gate_laws import Laws, bring_to_rest
from tests.gate_parts import LIFETIME, Sent
from tests.gate_world import GateWorld

REQUESTS, MISHAPS = 7, 5
PERIODS = (LIFETIME, Period(kind="rolling", days=2), Period(kind="day"), Period(kind="rolling", days=3))
SHORT, DAY = (0.8, 2.1, 4.5, 11.0, 3601.0), 86400.0
FATES = ("unacknowledged", "twice", "delayed", "lost")

Step = tuple[str, Callable[[], object]]


@dataclass(frozen=True)
class Move:
    """What happens next: `which` of the steps of its kind, and the figures that the step may need."""

    kind: str
    which: int
    key: str
    bound: int
    cap: int | None
    amount: int
    share: float


_KINDS = ("ordinary",) * 6 + ("wrong", "seen to")
_CAPS = (2, 1, 3, None)


def _move(drawn: bytes) -> Move:
    """One draw makes a move: a draw for each of its fields would cost more than all that the move does."""
    kind, which, key, bound, cap, amount, share = drawn
    return Move(
        kind=_KINDS[kind % len(_KINDS)],
        which=which,
        key=("narrow", "wide")[key % 2],
        bound=bound % 2,
        cap=_CAPS[cap % len(_CAPS)],
        amount=1 + amount % 7,
        share=share / 255,
    )


MOVES = st.binary(min_size=7, max_size=7).map(_move)


class GateMachine(RuleBasedStateMachine):
    """What embedded and distributed mode share."""

    embedded: ClassVar[bool]
    examples: ClassVar[int] = 0
    world: GateWorld
    laws: Laws
    mishaps: int

    @initialize(period=st.sampled_from(PERIODS), cap=st.integers(3, 5), second=st.integers(2, 4))
    def start(self, period: Period, cap: int, second: int) -> None:
        type(self).examples += 1
        self.world = GateWorld(embedded=self.embedded, second=period, limits=(cap, second))
        self.laws, self.mishaps = Laws(self.world), 0
        while not self.world.is_open():
            self.world.advance(1.0)
            for _, log in self.world.busy():
                self.world.arrive(log)

    @invariant()
    def laws_hold(self) -> None:
        if hasattr(self, "laws"):
            self.laws.check()

    def teardown(self) -> None:
        if not hasattr(self, "laws"):
            return
        try:
            bring_to_rest(self.world, self.laws.check)
            self.laws.check_rest()
        finally:
            self.world.end()

    # -- the rule

    @rule(move=MOVES)
    def something_happens(self, move: Move) -> None:
        match move.kind:
            case "wrong" if self.mishaps < MISHAPS:
                self.mishaps += 1
                steps = self._wrong(move)
            case "seen to":
                steps = self._seen_to(move)
            case _:
                steps = self._ordinary(move)
        what, step = steps[move.which % len(steps)]
        note(f"  {what}")
        step()

    # -- what can happen now

    def _ordinary(self, move: Move) -> list[Step]:
        world = self.world
        steps: list[Step] = [("a moment passes", partial(world.advance, 0.06))]
        if len(world.sent) < REQUESTS:
            steps += [
                (f"a request comes to {name}", partial(world.submit, name, move.key, move.bound, move.cap))
                for name in world.gateways
            ]
        steps += [(f"append of {name} arrives", partial(world.arrive, log)) for name, log in world.busy()]
        steps += [
            (f"{sent.id} is served", partial(world.serve, sent, min(move.amount, sent.hold)))
            for sent in self._waiting()
        ]
        if world.unsettled():
            steps.append(("the gate settles", partial(world.settle, move.amount)))
        if not world.opening.done():
            steps += [("3 s pass", partial(world.advance, 3.0))] * 2
        elif not world.is_open():
            steps.append(("the gate is opened", world.open))
        return steps

    def _wrong(self, move: Move) -> list[Step]:
        world = self.world
        steps: list[Step] = [(f"{seconds} s pass", partial(world.advance, seconds)) for seconds in SHORT]
        if world.periods["second"] is not LIFETIME:
            steps += [("a day passes", partial(world.advance, DAY))] * 6
        steps += [
            (f"append of {n} is {fate}", partial(world.arrive, log, fate)) for n, log in world.busy() for fate in FATES
        ]
        for sent in self._waiting():
            steps.append((f"{sent.id} is served and its answer cut", partial(world.serve, sent, 1, broken=True)))
            steps.append((f"{sent.id} reaches no backend", partial(world.spare, sent)))
        steps += [(f"{a} is called unconfirmed", partial(world.end_early, a)) for a in self._of(State.OPEN)]
        if world.unsettled():
            steps.append(("the settler misses facts", partial(world.settle, move.amount, heard=False)))
        behind = (
            f"facts from {move.which % 3} on are settled again",
            partial(world.settle_again, move.which % 3, move.amount),
        )
        return [*steps, behind]

    def _seen_to(self, move: Move) -> list[Step]:
        world = self.world
        steps: list[Step] = [("a keeper's round", world.tick), ("a keeper's round after 5 s", self._round_after_5_s)]
        steps.append((f"the views have {move.share:.0%} of the log", partial(setattr, world, "views", move.share)))
        steps += [
            (f"limit of {budget}: {move.amount}", partial(world.set_limit, budget, move.amount))
            for budget in world.limits
        ]
        steps += [("a late append arrives", partial(world.stray, number)) for number in range(len(world.strays))]
        unconfirmed = self._of(State.UNCONFIRMED)
        steps += [
            (f"write-off of {attempt} ordered", partial(world.order_write_off, attempt)) for attempt in unconfirmed
        ]
        if unconfirmed:
            steps.append(("a backend hands in its record", world.reconcile))
        return steps

    def _round_after_5_s(self) -> None:
        self.world.advance(5.0)
        self.world.tick()

    def _waiting(self) -> list[Sent]:
        return [sent for sent in self.world.sent if sent.dispatched and sent.cost is None and not sent.spared]

    def _of(self, state: State) -> list[str]:
        return [attempt for attempt, known in self.laws.books.attempts.items() if known.state is state]


class Embedded(GateMachine):
    """One process: its death is the gate's."""

    embedded = True

    def _wrong(self, move: Move) -> list[Step]:
        killed = ("kill -9", partial(self.world.kill, "core", move.amount - 1))
        return [*super()._wrong(move), killed, killed, killed]


class Distributed(GateMachine):
    """Two gateways on one gate, and a keeper of its own: each can die, be cut off, or stay behind alone."""

    embedded = False

    def _wrong(self, move: Move) -> list[Step]:
        world, steps = self.world, super()._wrong(move)
        for name in world.gateways:
            process = world.processes[name]
            steps.append((f"kill -9 {name}", partial(world.kill, name, move.amount - 1)))
            steps.append(
                (f"{name} cut off: {not process.cut_off}", partial(setattr, process, "cut_off", not process.cut_off))
            )
            steps.append((f"the gate is lost, the old one answers {name}", partial(world.lose_gate, name)))
        steps += [("the gate is lost", world.lose_gate)] * 4
        if world.opening.done():
            steps.append(("the gate is opened anew", world.open))
        steps += [("a stale replica of the gate is promoted", world.promote_replica)] * 3
        return steps


def attack(machine: type[GateMachine], examples: int, steps: int, told: Callable[[str, object], None]) -> None:
    """Runs a machine and tells how many runs it took."""
    machine.examples = 0
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    told("examples", machine.examples)


@pytest.mark.parametrize("machine", [Embedded, Distributed])
def test_no_interleaving_breaks_a_promise(
    machine: type[GateMachine], record_property: Callable[[str, object], None]
) -> None:
    """Budgets hold, what was answered is booked once, nothing is held in the end: whatever happens, in whatever order."""
    attack(machine, 200, 40, record_property)


@pytest.mark.full
@pytest.mark.parametrize("machine", [Embedded, Distributed])
def test_no_interleaving_breaks_a_promise_in_the_long_run(
    machine: type[GateMachine], record_property: Callable[[str, object], None]
) -> None:
    """The same, with many more and longer runs."""
    attack(machine, 6000, 60, record_property)
