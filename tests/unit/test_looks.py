"""What projections look at in facts is all they need, and no more is read."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import UNSET

from domain.facts import RequestAdmitted, RequestCompleted
from domain.fold import Books
from projections import balances, usage
from projections.decoding import Decode, decode
from projections.looks import decoding_of
from projections.ports import Event, Poisoned, Record
from tests.factgen import Traffic

FACTS = Traffic(5).run(400, plain=0.2).log


def events(how: Decode) -> list[list[Event]]:
    return [[how(record) for record in records] for records in FACTS.records]


def folded(found: Sequence[Sequence[Event]]) -> Any:
    """The books of each partition, and what of admissions and overruns is stored."""
    made = []
    for each in found:
        changes = balances.fold(Books(), None, each)
        admissions = {id: (fact.deadline, body) for id, (fact, body) in changes.admissions.items()}
        overruns = {m: (at, f.request, f.attempt, f.cost, f.hold) for m, (at, f) in changes.overruns.items()}
        made.append((changes.books, changes.newest, changes.attempts, admissions, changes.once, overruns))
    return made


def test_balances_are_those_of_whole_facts() -> None:
    """Every kind of fact, with every field that is not looked at missing, gives the same books."""
    assert folded(events(decoding_of(balances.NAME))) == folded(events(decode))


def test_usage_is_that_of_whole_facts() -> None:
    """Every kind of fact gives the same rows."""
    for narrow, whole in zip(events(decoding_of(usage.NAME)), events(decode), strict=True):
        assert usage.project(narrow, {}) == usage.project(whole, {})


def test_what_is_not_looked_at_is_not_there() -> None:
    """Who forgot to say that he looks at a field gets none, and not a default for it."""
    event = next(e for es in events(decoding_of(balances.NAME)) for e in es if isinstance(e.value, RequestAdmitted))
    assert event.value.project is UNSET
    assert event.value.budgets[0].limit is UNSET
    assert event.envelope.stream is UNSET


def stored(**changed: Any) -> Record:
    """A completion, changed."""
    body = next(r.value for rs in FACTS.records for r in rs if b'"type":"RequestCompleted"' in r.value)
    document = json.loads(body)
    document["data"] |= changed.pop("data", {})
    return Record(3, 17, json.dumps(document | changed, separators=(",", ":")).encode())


def test_a_fact_is_poison_for_those_who_need_what_is_wrong_with_it() -> None:
    """Token counts that are none concern usage; what an attempt cost concerns both."""
    odd, broken = stored(data={"usage": "many"}), stored(data={"cost": "much"})
    assert decoding_of(balances.NAME)(odd).value.cost >= 0
    for name, record in ((usage.NAME, odd), (usage.NAME, broken), (balances.NAME, broken)):
        with pytest.raises(Poisoned, match="RequestCompleted"):
            decoding_of(name)(record)


@pytest.mark.parametrize("projection", [balances.NAME, usage.NAME])
def test_a_later_schema_is_poison(projection: str) -> None:
    """Nothing is taken from a fact whose shape is not known."""
    with pytest.raises(Poisoned, match="newer"):
        decoding_of(projection)(stored(schema=2))


@pytest.mark.parametrize("projection", [balances.NAME, usage.NAME])
def test_the_type_is_the_envelopes_own(projection: str) -> None:
    """A type that stands elsewhere, before the envelope's, is not taken for it."""
    document = json.loads(stored().value)
    turned = {"more": {"type": "RequestDenied"}, **document}
    event = decoding_of(projection)(Record(3, 17, json.dumps(turned, separators=(",", ":")).encode()))
    assert isinstance(event.value, RequestCompleted)
    assert event.envelope.type == "RequestCompleted"
