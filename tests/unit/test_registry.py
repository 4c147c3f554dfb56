"""The registry: every event type has one name and one fold, and old schemas become the current one step by step."""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Raw, Struct, json

from domain.envelope import StoredEnvelope
from domain.errors import UndecodableEvent
from domain.facts import FACTS
from domain.gate_epoch import GateEpoch, GateFenced
from domain.registry import CONTROL, SCHEMAS, UPCASTERS, Codec, decode_event, evolve_stream, is_removed

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Moved(Struct, frozen=True, kw_only=True):
    """A test's event in its third schema: first {"place"}, then {"city"}, now {"city", "country"}."""

    city: str
    country: str


CODEC = Codec(
    {"Moved": Moved},
    {"Moved": 3},
    {
        ("Moved", 1): lambda data: {"city": data["place"]},
        ("Moved", 2): lambda data: {**data, "country": "unknown"},
    },
)


def stored(type_: str, schema: int, data: Any) -> StoredEnvelope:
    return StoredEnvelope(
        id="evt_1", type=type_, schema=schema, org="_", stream="_/x/y", occurred_at=NOON, data=Raw(json.encode(data))
    )


@pytest.mark.parametrize(
    ("schema", "data", "country"),
    [
        (1, {"place": "Graz"}, "unknown"),
        (2, {"city": "Graz"}, "unknown"),
        (3, {"city": "Graz", "country": "AT"}, "AT"),
    ],
)
def test_old_schemas_are_upcast_one_step_per_version(schema: int, data: dict[str, str], country: str) -> None:
    """Every stored schema is read in the current shape."""
    assert CODEC.decode(stored("Moved", schema, data)) == Moved(city="Graz", country=country)


@pytest.mark.parametrize(
    ("type_", "schema", "data"),
    [
        ("Moved", 4, {"city": "Graz", "country": "AT"}),
        ("Moved", 0, {"place": "Graz"}),
        ("Moved", 3, {"city": "Graz"}),
        ("Moved", 2, {"city": 5}),
        ("Gone", 1, {}),
    ],
)
def test_what_cannot_be_decoded_is_said(type_: str, schema: int, data: dict[str, Any]) -> None:
    """A newer schema, a missing step, bad data, an unknown type: one kind of error, for parking."""
    with pytest.raises(UndecodableEvent):
        CODEC.decode(stored(type_, schema, data))


def test_every_type_has_a_schema_and_every_step_a_type() -> None:
    """No upcaster is missing between 1 and the current schema, and none is left over."""
    assert set(SCHEMAS) == {*CONTROL, *FACTS}
    assert not set(CONTROL) & set(FACTS)
    assert set(UPCASTERS) == {(name, schema) for name, current in SCHEMAS.items() for schema in range(1, current)}


def test_a_stream_is_folded_by_its_kind() -> None:
    """An unknown kind is an error, not silence."""
    event = decode_event(stored("GateFenced", 1, {"partition": 3, "epoch": 7}))
    assert event == GateFenced(partition=3, epoch=7)
    assert evolve_stream("gate", None, event) == GateEpoch(partition=3, epoch=7)
    assert is_removed(None)
    with pytest.raises(UndecodableEvent):
        evolve_stream("dragon", None, event)
