"""The fold, row by row: given what an attempt was, when a fact comes, then it counts this; deliver twice, nothing changes."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.facts import (
    BudgetHold,
    Fact,
    GateOpened,
    RequestAdmitted,
    RequestCompleted,
    RequestDenied,
    RequestFailed,
    RequestUnconfirmed,
    RequestVoided,
    RequestWrittenOff,
    Usage,
)
from domain.fold import Books, State

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOLD, COST, EPOCH = 100, 30, 3
KEYS = (("acme", "cap", "1/lifetime"), ("acme", "daily", "1/2026-11-23"))


def identity(attempt: str = "req_1") -> dict[str, object]:
    return {
        "request": attempt.partition(".")[0],
        "attempt": attempt,
        "org": "acme",
        "project": "p",
        "key": "key_1",
        "model": "m",
        "endpoint": "chat",
        "accounted_at": NOW,
        "hold": HOLD,
    }


def admitted(attempt: str = "req_1", epoch: int = EPOCH, once: str | None = None) -> RequestAdmitted:
    budgets = tuple(
        BudgetHold(
            budget=budget, bucket=bucket, until=None, limit=1000, limit_version=1, mode="hard", consumed=0, held=0
        )
        for _, budget, bucket in KEYS
    )
    deadline = NOW + timedelta(minutes=10)
    return RequestAdmitted(**identity(attempt), epoch=epoch, deadline=deadline, budgets=budgets, once=once)  # type: ignore[arg-type]  # fields spread from one dict


def completed(attempt: str = "req_1", cost: int = COST) -> RequestCompleted:
    return RequestCompleted(**identity(attempt), usage=Usage(input=1, output=2), cost=cost)  # type: ignore[arg-type]  # as above


def failed(attempt: str = "req_1") -> RequestFailed:
    return RequestFailed(**identity(attempt), reason="not_dispatched")  # type: ignore[arg-type]  # as above


def unconfirmed(attempt: str = "req_1") -> RequestUnconfirmed:
    return RequestUnconfirmed(**identity(attempt), reason="deadline")  # type: ignore[arg-type]  # as above


def written_off(attempt: str = "req_1") -> RequestWrittenOff:
    return RequestWrittenOff(**identity(attempt), reason="agreed with the provider")  # type: ignore[arg-type]  # as above


def voided(attempt: str = "req_1") -> RequestVoided:
    return RequestVoided(attempt=attempt, org="acme")


def given_facts(*facts: Fact) -> Books:
    books = Books()
    for fact in (GateOpened(partition=0, epoch=EPOCH), *facts):
        books.apply(fact)
    return books


def counts(books: Books) -> list[tuple[int, int, int]]:
    """(consumed, held, estimated) of each bucket in scope."""
    return [(b.consumed, b.held, b.estimated) for b in (books.buckets[key] for key in KEYS)]


OPEN = (admitted(),)
UNCONFIRMED = (admitted(), unconfirmed())
DONE = (admitted(), completed())
VOID = (admitted(), failed())
WRITTEN_OFF = (admitted(), unconfirmed(), written_off())


@pytest.mark.parametrize(
    ("history", "fact", "state", "count"),
    [
        ((), admitted(), State.OPEN, (0, HOLD, 0)),
        (OPEN, completed(), State.DONE, (COST, 0, 0)),
        (OPEN, unconfirmed(), State.UNCONFIRMED, (HOLD, 0, HOLD)),
        (OPEN, failed(), State.VOID, (0, 0, 0)),
        (UNCONFIRMED, completed(), State.DONE, (COST, 0, 0)),
        (UNCONFIRMED, failed(), State.VOID, (0, 0, 0)),
        (UNCONFIRMED, written_off(), State.WRITTEN_OFF, (0, 0, 0)),
        # the bound was wrong: booked as it is
        (OPEN, completed(cost=HOLD + 7), State.DONE, (HOLD + 7, 0, 0)),
    ],
)
def test_a_row_of_the_table(history: tuple[Fact, ...], fact: Fact, state: State, count: tuple[int, int, int]) -> None:
    """Given the history, when the fact comes, then the attempt is in its next state and counts so in every budget; the
    same fact again changes nothing and is counted as ignored."""
    books = given_facts(*history)
    assert books.apply(fact) is state
    assert books.attempts["req_1"].state is state
    assert counts(books) == [count, count]
    assert books.ignored == 0
    again = deepcopy(books)
    assert again.apply(fact) is None
    assert (again.attempts, again.buckets, again.ignored) == (books.attempts, books.buckets, 1)


@pytest.mark.parametrize(
    "fact", [admitted(epoch=EPOCH - 1), failed(), voided()], ids=["older epoch", "failed", "voided"]
)
def test_an_unseen_attempt_that_holds_nothing_is_void_and_stays_so(fact: Fact) -> None:
    """Then nothing is held, and a late admission under the current epoch, or a completion, changes nothing."""
    books = given_facts()
    assert books.apply(fact) is State.VOID
    for late in (fact, admitted(), completed(), unconfirmed()):
        assert books.apply(late) is None
    assert books.buckets == {}
    assert books.ignored == 4


@pytest.mark.parametrize("fact", [completed(), unconfirmed(), written_off()])
def test_an_unseen_attempt_without_an_admission_is_ignored(fact: Fact) -> None:
    """A completion, an unconfirmed or a write-off of an attempt that is not open touches nothing."""
    books = given_facts()
    assert books.apply(fact) is None
    assert (books.attempts, books.buckets, books.ignored) == ({}, {}, 1)


@pytest.mark.parametrize("fact", [written_off(), voided(), admitted(), admitted(epoch=EPOCH + 1)])
def test_an_open_attempt_ends_only_by_its_own_facts(fact: Fact) -> None:
    """A write-off or a void of an open attempt, or its admission again, is ignored: the hold stays."""
    books = given_facts(*OPEN)
    assert books.apply(fact) is None
    assert counts(books) == [(0, HOLD, 0)] * 2
    assert books.ignored == 1


@pytest.mark.parametrize("fact", [unconfirmed(), voided(), admitted()])
def test_an_unconfirmed_attempt_counts_its_hold_until_something_better_is_known(fact: Fact) -> None:
    """Anything but completed, failed and written off is ignored."""
    books = given_facts(*UNCONFIRMED)
    assert books.apply(fact) is None
    assert counts(books) == [(HOLD, 0, HOLD)] * 2


@pytest.mark.parametrize("history", [DONE, VOID, WRITTEN_OFF], ids=["done", "void", "written off"])
@pytest.mark.parametrize(
    "fact",
    [admitted(), completed(cost=99), failed(), unconfirmed(), written_off(), voided()],
    ids=lambda f: type(f).__name__,
)
def test_an_ended_attempt_never_changes(history: tuple[Fact, ...], fact: Fact) -> None:
    """Whatever comes after the end, the state and every balance stay, and it is counted as ignored."""
    books = given_facts(*history)
    before = deepcopy(books)
    assert books.apply(fact) is None
    assert (books.attempts, books.buckets, books.ignored) == (before.attempts, before.buckets, before.ignored + 1)


def test_a_denial_is_no_attempt() -> None:
    """A refused request holds nothing and is not counted as ignored."""
    books = given_facts()
    denied = RequestDenied(
        request="req_1",
        org="acme",
        project="p",
        key="k",
        endpoint="chat",
        accounted_at=NOW,
        status=402,
        code="c",
        reason="r",
    )
    assert books.apply(denied) is None
    assert books == given_facts()


def test_an_epoch_never_goes_back() -> None:
    """A barrier of an older epoch that comes late does not reopen it."""
    books = given_facts()
    books.apply(GateOpened(partition=0, epoch=EPOCH - 1))
    assert books.epoch == EPOCH
    assert books.apply(admitted()) is State.OPEN


def test_a_new_epoch_leaves_open_holds_and_voids_later_admissions_of_the_old() -> None:
    """What was admitted before the barrier still counts; what comes after it under the old epoch does not."""
    books = given_facts(*OPEN)
    books.apply(GateOpened(partition=0, epoch=EPOCH + 1))
    assert books.apply(admitted("req_2")) is State.VOID
    assert counts(books) == [(0, HOLD, 0)] * 2
    assert books.apply(completed()) is State.DONE


def test_an_admission_remembers_its_idempotency_key() -> None:
    """The keyed hash leads to the first request; a void admission leaves none."""
    books = given_facts(admitted(once="hash"), admitted("req_2", epoch=EPOCH - 1, once="other"))
    assert books.once == {"hash": ("req_1", NOW)}


def test_attempts_of_one_request_count_each_for_itself() -> None:
    """An attempt of unknown outcome and the next one that was served hold and cost separately."""
    books = given_facts(admitted(), admitted("req_1.2"), unconfirmed(), completed("req_1.2"))
    assert counts(books) == [(HOLD + COST, 0, HOLD)] * 2


EVERY_FACT = [
    fact
    for attempt in ("req_1", "req_2", "req_3")
    for fact in (
        admitted(attempt),
        admitted(attempt, epoch=EPOCH + 1),
        completed(attempt),
        failed(attempt),
        unconfirmed(attempt),
        written_off(attempt),
        voided(attempt),
    )
]


@given(st.lists(st.sampled_from([*EVERY_FACT, GateOpened(partition=0, epoch=EPOCH + 1)]), max_size=30))
def test_balances_are_the_sum_over_attempts_in_any_order_of_facts(facts: list[Fact]) -> None:
    """Held is the holds that are open, estimated the unconfirmed ones, consumed those and the costs of the done."""
    books = given_facts(*facts)
    states = [attempt.state for attempt in books.attempts.values()]
    opened, waiting, done = (states.count(s) for s in (State.OPEN, State.UNCONFIRMED, State.DONE))
    if books.buckets:
        assert counts(books) == [(done * COST + waiting * HOLD, opened * HOLD, waiting * HOLD)] * 2
    else:
        assert (opened, waiting, done) == (0, 0, 0)


@given(st.lists(st.sampled_from(EVERY_FACT), max_size=20), st.data())
def test_a_prefix_delivered_again_changes_nothing_after_it_ended(facts: list[Fact], data: st.DataObject) -> None:
    """Appends repeated at a later offset leave attempts that ended, and so their balances, as they are."""
    books = given_facts(*facts)
    ended = {name for name, attempt in books.attempts.items() if attempt.state not in (State.OPEN, State.UNCONFIRMED)}
    repeated = [fact for fact in facts if getattr(fact, "attempt", None) in ended]
    before = deepcopy(books)
    for fact in data.draw(st.permutations(repeated)):
        books.apply(fact)
    assert (books.attempts, books.buckets) == (before.attempts, before.buckets)
