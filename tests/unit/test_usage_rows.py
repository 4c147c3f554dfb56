"""Rows of usage: the one that wins is what the fold says, in any log the protocol allows, in any batching."""

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.facts import RequestDenied
from domain.fold import Books, State
from domain.ids import partition_of
from projections.decoding import decode
from projections.usage import RequestRow, project
from tests.factgen import Traffic, batches

OUTCOMES = {
    State.OPEN: {"open"},
    State.UNCONFIRMED: {"unconfirmed"},
    State.DONE: {"completed"},
    State.VOID: {"void", "failed"},
    State.WRITTEN_OFF: {"written_off"},
}


def winners(traffic: Traffic, size: int) -> dict[tuple[str, int], RequestRow]:
    """What a replacing table holds after the log came in batches of `size`."""
    best: dict[tuple[str, int], RequestRow] = {}
    epochs: dict[int, int] = {}
    for batch in batches(traffic.log.all(), size):
        rows = project([decode(record) for record in batch], epochs)
        epochs = rows.epochs
        for row in rows.requests:
            key = (row.attempt, row.kind)
            if key not in best or row.version > best[key].version:
                best[key] = row
    return best


@settings(deadline=None)
@given(seed=st.integers(0, 100_000), size=st.integers(1, 80))
def test_the_winning_row_is_what_the_fold_says(seed: int, size: int) -> None:
    """Outcome by outcome and cost by cost: an attempt's row equals its state, and buckets sum up to the rows."""
    traffic = Traffic(seed).run(40, plain=0.2)
    books: dict[int, Books] = {}
    for partition, _, fact in traffic.facts:
        books.setdefault(partition, Books()).apply(fact)
    rows = winners(traffic, size)
    attempts = {id: row for (id, kind), row in rows.items() if kind == 0}
    states = {id: known.state for book in books.values() for id, known in book.attempts.items()}
    assert attempts.keys() == states.keys()
    assert all(row.outcome in OUTCOMES[states[id]] for id, row in attempts.items())
    for org in traffic.orgs:
        bucket = books[partition_of(org)].buckets.get((org, "cap", "1/lifetime"))
        mine = [row for row in attempts.values() if row.org == org]
        assert sum(row.cost for row in mine) == (bucket.consumed if bucket else 0)
        assert sum(row.hold for row in mine if row.outcome == "open") == (bucket.held if bucket else 0)
        assert sum(row.cost for row in mine if row.outcome == "unconfirmed") == (bucket.estimated if bucket else 0)


def test_refusals_are_rows_of_their_own() -> None:
    """A refusal is counted once, with all requests it stands for, though it was appended twice."""
    traffic = Traffic(4).run(200, plain=0.2)
    refused = {fact.request: fact.count for _, _, fact in traffic.facts if isinstance(fact, RequestDenied)}
    rows = {id: row for (id, kind), row in winners(traffic, 50).items() if kind == 1}
    assert {id: row.count for id, row in rows.items()} == refused
    assert {row.outcome for row in rows.values()} == {"denied"}
    assert {row.code for row in rows.values()} == {"insufficient_quota"}


def test_every_record_is_kept_as_it_was_stored() -> None:
    """The table of facts has each record's bytes, under its request."""
    traffic = Traffic(4).run(60, plain=0.2)
    records = traffic.log.all()
    facts = project([decode(record) for record in records], {}).facts
    assert [(fact.partition, fact.offset, fact.body) for fact in facts] == [
        (record.partition, record.offset, record.value) for record in records
    ]
    assert {fact.request for fact in facts} == {""} | {id for (id, _) in winners(traffic, 50)}
