"""P1 and P2 attacked at the core: the real gate, fold, admission, outcomes, keeper, settler and opening, driven through
interleavings of several requests, crashes, lost gates, repeated, late and lost appends, limits that change, days that end.

`tests.gate_laws` has the invariants, `tests.gate_world` the world; both machines run the same code as the product.
"""

from collections.abc import Callable
from typing import ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from domain.fold import State
from domain.period import Period
from tests.gate_laws import Laws, bring_to_rest
from tests.gate_parts import LIFETIME, Sent
from tests.gate_world import GateWorld

T = TypeVar("T")

REQUESTS = 8
PERIODS = (LIFETIME, Period(kind="day"), Period(kind="rolling", days=2), Period(kind="every", seconds=3600))
FATES = ("once", "once", "once", "once", "unacknowledged", "twice", "delayed", "lost")
STEPS = (0.06, 0.3, 1.0, 2.1, 4.5, 11.0, 3600.0, 86400.0)

_any = st.integers(0, 10**6)


def pick(number: int, of: list[T]) -> T:
    return of[number % len(of)]


class GateMachine(RuleBasedStateMachine):
    """The rules that embedded and distributed mode share. A rule that finds nothing to do does nothing."""

    embedded: ClassVar[bool]
    examples: ClassVar[int] = 0
    world: GateWorld
    laws: Laws

    @initialize(period=st.sampled_from(PERIODS), cap=st.integers(3, 5), second=st.integers(2, 4))
    def start(self, period: Period, cap: int, second: int) -> None:
        type(self).examples += 1
        self.world = GateWorld(embedded=self.embedded, second=period, limits=(cap, second))
        self.laws = Laws(self.world)
        for _ in range(4):
            self.world.advance(1.0)
            for log in self.world.busy():
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

    # -- requests

    @precondition(lambda self: len(self.world.sent) < REQUESTS)
    @rule(who=_any, key=st.sampled_from(["narrow", "wide"]), bound=st.integers(0, 1), cap=st.sampled_from([2, 1, 3, None]))
    def a_request_comes(self, who: int, key: str, bound: int, cap: int | None) -> None:
        self.world.submit(pick(who, self.world.gateways), key, bound, cap)

    @precondition(lambda self: self.unserved())
    @rule(which=_any, cost=st.integers(1, 4), broken=st.sampled_from([False, False, False, True]))
    def a_backend_serves(self, which: int, cost: int, broken: bool) -> None:
        sent = pick(which, self.unserved())
        self.world.serve(sent, min(cost, sent.hold), broken=broken)

    @precondition(lambda self: self.unserved())
    @rule(which=_any)
    def a_backend_is_not_there(self, which: int) -> None:
        self.world.spare(pick(which, self.unserved()))

    def unserved(self) -> list[Sent]:
        return [sent for sent in self.world.sent if sent.dispatched and sent.cost is None and not sent.spared]

    # -- the log

    @precondition(lambda self: self.world.busy())
    @rule(which=_any, fate=st.sampled_from(FATES))
    def an_append_ends(self, which: int, fate: str) -> None:
        self.world.arrive(pick(which, self.world.busy()), fate)

    @precondition(lambda self: self.world.busy())
    @rule(which=_any)
    def everything_in_flight_of_one_process_arrives(self, which: int) -> None:
        log = pick(which, self.world.busy())
        while log.flight:
            self.world.arrive(log)

    @precondition(lambda self: self.world.strays)
    @rule(which=_any)
    def a_late_append_arrives(self, which: int) -> None:
        self.world.stray(which % len(self.world.strays))

    # -- time, views, limits

    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(share=st.floats(0, 1))
    def the_views_are_there(self, share: float) -> None:
        self.world.views = share

    @rule(budget=st.sampled_from(["cap", "second"]), limit=st.integers(1, 7))
    def a_limit_changes(self, budget: str, limit: int) -> None:
        self.world.set_limit(budget, limit)

    @rule(count=st.integers(1, 4), heard=st.sampled_from([True, True, False]))
    def the_gate_settles(self, count: int, heard: bool) -> None:
        self.world.settle(count, heard=heard)

    # -- keeper and admins

    @rule()
    def a_keeper_makes_its_round(self) -> None:
        self.world.tick()

    @precondition(lambda self: self.of(State.OPEN))
    @rule(which=_any)
    def an_attempt_is_called_unconfirmed_early(self, which: int) -> None:
        self.world.end_early(pick(which, self.of(State.OPEN)))

    @precondition(lambda self: self.of(State.UNCONFIRMED))
    @rule(which=_any)
    def a_write_off_is_ordered(self, which: int) -> None:
        self.world.order_write_off(pick(which, self.of(State.UNCONFIRMED)))

    @precondition(lambda self: self.of(State.UNCONFIRMED))
    @rule()
    def a_backend_hands_in_its_record(self) -> None:
        self.world.reconcile()

    def of(self, state: State) -> list[str]:
        return [attempt for attempt, known in self.laws.books.attempts.items() if known.state is state]


class Embedded(GateMachine):
    """One process: its death is the gate's."""

    embedded = True

    @rule(landed=st.integers(0, 3))
    def the_process_is_killed(self, landed: int) -> None:
        self.world.kill("core", landed)


class Distributed(GateMachine):
    """Two gateways on one gate, and a keeper of its own: each can die, be cut off, or stay behind alone."""

    embedded = False

    @rule(who=_any, landed=st.integers(0, 3))
    def a_gateway_is_killed(self, who: int, landed: int) -> None:
        self.world.kill(pick(who, self.world.gateways), landed)

    @rule(who=_any, cut=st.booleans())
    def a_gateway_is_cut_off_from_the_control_topic(self, who: int, cut: bool) -> None:
        self.world.processes[pick(who, self.world.gateways)].cut_off = cut

    @rule(left_behind=st.booleans())
    def the_gate_is_lost(self, left_behind: bool) -> None:
        self.world.lose_gate(left_behind=left_behind)

    @rule()
    def a_replica_of_the_gate_stops_following(self) -> None:
        self.world.copy_gate()

    @precondition(lambda self: self.world.replica is not None)
    @rule()
    def the_stale_replica_is_promoted(self) -> None:
        self.world.promote_replica()

    @precondition(lambda self: not self.world.is_open() and self.world.opening.done())
    @rule()
    def the_gate_is_opened(self) -> None:
        self.world.open()


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
    attack(machine, 150, 30, record_property)


@pytest.mark.full
@pytest.mark.parametrize("machine", [Embedded, Distributed])
def test_no_interleaving_breaks_a_promise_in_the_long_run(
    machine: type[GateMachine], record_property: Callable[[str, object], None]
) -> None:
    """The same, with many more and longer runs."""
    attack(machine, 6000, 60, record_property)
