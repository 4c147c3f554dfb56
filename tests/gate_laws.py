"""What must hold of a `GateWorld`, as `docs/protocol.md` promises it. Checked after every step, and once nothing moves.

rule  the gate never counts less than the log
I1    at every log prefix consumed + held is within the limit that the last admission was decided on; so is what was
      dispatched, at what it cost or can still cost
I2    what was answered is completed on the books; at rest what was served is completed or unconfirmed
I3    what is booked is what was served, or an unconfirmed hold; the gate agrees with the fold at its watermark
I4    at rest nothing is held but by unconfirmed requests
"""

from collections.abc import Callable, Iterable
from datetime import timedelta

from domain.fold import Books, BucketKey, State
from domain.period import window
from tests.gate_parts import ORG, Sent
from tests.gate_world import GateWorld, at_once

_ROUNDS = 60


class Laws:
    """Follows one world. `check` after every step; `check_rest` once `bring_to_rest` has ended everything."""

    def __init__(self, world: GateWorld) -> None:
        self.world = world
        self.books = Books()
        self._prefixes: list[dict[BucketKey, tuple[int, int]]] = [{}]
        self._judged: set[str] = set()
        self._hold: dict[str, tuple[int, tuple[BucketKey, ...]]] = {}

    # -- after every step

    def check(self) -> None:
        records = self.world.topic.records[0]
        for record in records[len(self._prefixes) - 1 :]:
            self._take_in(self.world.balances.fact(record.value))
            self._logged_within_limits()
            self._booked_is_served()
            self._prefixes.append({key: (b.consumed, b.held) for key, b in self.books.buckets.items()})
        self._taken_on_what_was_known()
        self._dispatched_within_limits()
        self._answered_is_done()
        if self.world.is_open():
            self._gate_counts_no_less()
            self._gate_agrees_with_the_fold()
        assert not self.world.loop.errors, self.world.loop.errors
        if self.world.opening.done() and not self.world.opening.cancelled():
            self.world.opening.result()

    def _take_in(self, fact: object) -> None:
        attempt = getattr(fact, "attempt", "")
        if self.books.apply(fact) is State.OPEN:  # type: ignore[arg-type]  # decoded facts are of any type
            known = self.books.attempts[attempt]
            self._hold[attempt] = known.hold, known.buckets

    def _logged_within_limits(self) -> None:
        counted = [a for a, known in self.books.attempts.items() if known.state is not State.VOID]
        for budget, names, limit in self._windows(counted):
            buckets = [self.books.buckets.get((ORG, budget, name)) for name in names]
            total = sum(bucket.consumed + bucket.held for bucket in buckets if bucket is not None)
            assert total <= limit, f"I1 log: {budget} counts {total} of {limit}"

    def _taken_on_what_was_known(self) -> None:
        for sent in self.world.sent:
            if (taken := self.world.holds.get(sent.id)) is None or sent.id in self._judged:
                continue
            self._judged.add(sent.id)
            for budget, names in taken.windows.items():
                assert taken.limits[budget][1] >= sent.shown[budget][1], f"{sent.id} was decided on an old limit"
                now = window(self.world.periods[budget], taken.accounted_at)
                assert names == tuple(f"1.{name}" for name in now.buckets), f"{sent.id} is in another period: {names}"

    def _dispatched_within_limits(self) -> None:
        exposed = {sent.id: sent.exposure for sent in self.world.sent if self._state(sent) is not State.WRITTEN_OFF}
        for budget, names, limit in self._windows([a for a, amount in exposed.items() if amount]):
            total = sum(amount for a, amount in exposed.items() if self._bucket(a, budget) in names)
            assert total <= limit, f"I1 true: dispatched {total} of {limit} in {budget}"

    def _windows(self, attempts: Iterable[str]) -> Iterable[tuple[str, tuple[str, ...], int]]:
        """Per budget and window: the limit that the last of `attempts` in it was decided on."""
        last: dict[tuple[str, tuple[str, ...]], tuple[int, int]] = {}
        for attempt in attempts:
            if (taken := self.world.holds.get(attempt)) is None:
                continue
            for key in taken.windows.items():
                last[key] = max(last.get(key, (-1, 0)), (taken.order, taken.limits[key[0]][0]))
        return [(budget, names, limit) for (budget, names), (_, limit) in last.items()]

    def _bucket(self, attempt: str, budget: str) -> str:
        taken = self.world.holds.get(attempt)
        return taken.windows[budget][-1] if taken and budget in taken.windows else ""

    def _answered_is_done(self) -> None:
        for sent in self.world.sent:
            if sent.answered and not self._written_off(sent):
                assert self._state(sent) is State.DONE, f"I2: {sent.id} answered, {self._state(sent)} on the books"

    def _booked_is_served(self) -> None:
        cost = {sent.id: sent.cost or 0 for sent in self.world.sent}
        expected: dict[BucketKey, list[int]] = {key: [0, 0] for key in self.books.buckets}
        for attempt, (hold, buckets) in self._hold.items():
            state = self.books.attempts[attempt].state
            consumed = {State.DONE: cost.get(attempt, 0), State.UNCONFIRMED: hold}.get(state, 0)
            for key in buckets:
                expected[key][0] += consumed
                expected[key][1] += hold if state is State.OPEN else 0
        for key, bucket in self.books.buckets.items():
            assert [bucket.consumed, bucket.held] == expected[key], (
                f"I3: {key} booked {bucket.consumed} and {bucket.held} held, served and held were {expected[key]}"
            )

    # -- the gate

    def _gate_counts_no_less(self) -> None:
        for key in self._current():
            bucket = self.books.buckets[key]
            consumed, held = self._seen(key)
            total = bucket.consumed + bucket.held
            assert consumed + held >= total, f"rule: the gate counts {consumed} + {held} of {key}, the log {total}"

    def _gate_agrees_with_the_fold(self) -> None:
        watermark = at_once(self.world.gate.watermark(0))
        assert watermark is not None
        for key in self._current():
            found, _ = self._seen(key)
            consumed, _ = self._prefixes[watermark].get(key, (0, 0))
            captured = self._captured_since(key)
            assert consumed - captured <= found <= consumed, f"I3: gate {found}, fold {consumed} of {key}"

    def _captured_since(self, key: BucketKey) -> int:
        """At most this much of an unconfirmed hold may be captured whose completion the gate has not settled yet."""
        alive = (process.wire.captured for process in self.world.processes.values())
        captured = self.world.captured.union(*alive)
        return sum(hold for a, (hold, buckets) in self._hold.items() if key in buckets and a in captured)

    def _seen(self, key: BucketKey) -> tuple[int, int]:
        """(consumed, held) of a bucket in the gate."""
        _, budget, name = key
        view = self.world.probe(budget, name)
        assert view is not None, "the gate is closed"
        return view.consumed, view.held

    def _current(self) -> list[BucketKey]:
        """The buckets that a gate must know: it forgets one that left its last window an hour ago and holds nothing."""
        horizon = self.world.crank.now() - timedelta(hours=1)
        return [
            key
            for key, bucket in self.books.buckets.items()
            if bucket.until is None or bucket.until >= horizon or bucket.held or bucket.estimated
        ]

    # -- at rest

    def check_rest(self) -> None:
        """Nothing moves any more."""
        self.check()
        for attempt, known in self.books.attempts.items():
            assert known.state is not State.OPEN, f"{attempt} is open at rest"
        for sent in self.world.sent:
            state = self._state(sent)
            if sent.cost is not None and not self._written_off(sent):
                assert state in (State.DONE, State.UNCONFIRMED), f"I2: {sent.id} was served, {state} on the books"
                lives = not sent.dead and not sent.broken
                assert not (lives and state is State.UNCONFIRMED), f"I2: {sent.id} unconfirmed, but its gateway lives"
            if sent.refused and not sent.dead and not self._written_off(sent):
                assert state in (None, State.VOID), f"I2: {sent.id} was never sent, {state} on the books"
            assert sent.answered or sent.dead or sent.refused or sent.broken or sent.spared, f"{sent.id} hangs"
        for key in self._current():
            consumed = self.books.buckets[key].consumed
            assert self._seen(key) == (consumed, 0), f"I4: {key} is {self._seen(key)}, the books say {consumed}"
        assert not at_once(self.world.gate.expired(self.world.crank.now())), "I4: unlogged holds at rest"

    def _written_off(self, sent: Sent) -> bool:
        return sent.id in self.world.orders.given and self._state(sent) is State.WRITTEN_OFF

    def _state(self, sent: Sent) -> State | None:
        known = self.books.attempts.get(sent.id)
        return None if known is None else known.state


def bring_to_rest(world: GateWorld, check: Callable[[], None]) -> None:
    """Ends everything: what lives goes on to its end, what is dead is ended by the keeper, what is in flight arrives."""
    world.strays.clear()
    world.views = 1.0
    for process in world.processes.values():
        process.cut_off = False
    unchanged = 0
    for _ in range(_ROUNDS):
        before = len(world.topic.records[0])
        if not world.is_open() and world.opening.done():
            world.open()
        for sent in world.sent:
            if sent.dispatched and not sent.backend.done():
                world.serve(sent, sent.hold)
        world.tick()
        while busy := world.busy():
            world.arrive(busy[0][1])
        world.settle(1000)
        check()
        world.advance(6.0)
        unchanged = unchanged + 1 if len(world.topic.records[0]) == before and world.is_open() else 0
        if unchanged == 3:  # longer than any deadline
            break
    else:
        raise AssertionError(f"still moving after {_ROUNDS} rounds")
    world.settler.committed(0, len(world.topic.records[0]), [])
    world.loop.settle()
