"""Every stored event type: its shape, its current schema, how older schemas become it, and which fold it belongs to.

Type names are stored format and never a Python path. An event stored under an older schema is upcast as plain JSON
values, one step per version, and only then given its type.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import msgspec
from msgspec import Raw, Struct

from domain import (
    admin_key,
    backend,
    budget,
    gate_epoch,
    model,
    organization,
    price_list,
    project,
    service_key,
    user,
    write_off,
)
from domain.envelope import StoredEnvelope
from domain.errors import UndecodableEvent
from domain.facts import FACTS

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns an event's data of one schema into the next."""


class State(Protocol):
    """What every aggregate's state can say of itself."""

    @property
    def removed(self) -> bool:
        """Gone for everybody but the history."""


_AGGREGATES: Mapping[Any, type[Struct]] = {
    organization: organization.Organization,
    project: project.Project,
    user: user.User,
    service_key: service_key.ServiceKey,
    admin_key: admin_key.AdminKey,
    budget: budget.Budget,
    backend: backend.Backend,
    model: model.Model,
    price_list: price_list.PriceList,
    gate_epoch: gate_epoch.GateEpoch,
    write_off: write_off.WriteOff,
}

STATES: Mapping[str, type[Struct]] = {module.KIND: state for module, state in _AGGREGATES.items()}
"""The state of each kind of stream."""

CONTROL: Mapping[str, type[Struct]] = {event.__name__: event for module in _AGGREGATES for event in module.EVENTS}
"""Control event types by stored name."""

SCHEMAS: Mapping[str, int] = dict.fromkeys((*CONTROL, *FACTS), 1)
"""The current schema of every type."""

UPCASTERS: Mapping[tuple[str, int], Upcaster] = {}
"""By (type, schema it starts from): one step up."""

_EVOLVE: Mapping[str, Callable[[Any, Any], Any]] = {module.KIND: module.evolve for module in _AGGREGATES}

_DECIDE: Mapping[str, Callable[[Any, Any], Sequence[Struct]]] = {module.KIND: module.decide for module in _AGGREGATES}

KINDS: Iterable[str] = _EVOLVE.keys()
"""Every kind of stream."""


class Codec:
    """Decodes the events of some types. Keeps one decoder per type."""

    def __init__(
        self,
        types: Mapping[str, type[Struct]],
        schemas: Mapping[str, int],
        upcasters: Mapping[tuple[str, int], Upcaster],
    ) -> None:
        self._types = types
        self._schemas = schemas
        self._upcasters = upcasters
        self._decoders = {name: msgspec.json.Decoder(shape) for name, shape in types.items()}

    def decode(self, envelope: StoredEnvelope) -> Any:
        """The event in `envelope`, in its current shape. Raises `UndecodableEvent`: unknown type or schema, bad data."""
        name = envelope.type
        current = self._schemas.get(name)
        if current is None or not isinstance(envelope.data, Raw):
            raise UndecodableEvent(f"event {envelope.id}: unknown type {name!r} or no data")
        try:
            if envelope.schema == current:
                return self._decoders[name].decode(envelope.data)
            return self._upcast(envelope, current)
        except msgspec.MsgspecError as error:
            raise UndecodableEvent(f"event {envelope.id} is no {name} of schema {envelope.schema}: {error}") from error

    def _upcast(self, envelope: StoredEnvelope, current: int) -> Any:
        data = msgspec.json.decode(cast(Raw, envelope.data))
        for schema in range(envelope.schema, current):
            step = self._upcasters.get((envelope.type, schema))
            if step is None:
                raise UndecodableEvent(f"event {envelope.id}: nothing upcasts {envelope.type} from schema {schema}")
            data = step(data)
        if envelope.schema > current:
            raise UndecodableEvent(
                f"event {envelope.id}: {envelope.type} schema {envelope.schema} is newer than {current}"
            )
        return msgspec.convert(data, self._types[envelope.type])


decode_event = Codec({**CONTROL, **FACTS}, SCHEMAS, UPCASTERS).decode
"""The event of a `StoredEnvelope`, control event or fact, in its current shape. Raises `UndecodableEvent`."""


def evolve_stream(kind: str, state: Any, event: Any) -> Any:
    """The state (None: none yet) of a stream of `kind` after `event`. Raises `UndecodableEvent` for an unknown kind."""
    evolve = _EVOLVE.get(kind)
    if evolve is None:
        raise UndecodableEvent(f"no stream has the kind {kind!r}")
    return evolve(state, event)


def decide_stream(kind: str, command: Any, state: Any) -> Sequence[Struct]:
    """The events of a command to a stream of `kind`. Raises what the aggregate's `decide` raises."""
    return _DECIDE[kind](command, state)


def is_removed(state: State | None) -> bool:
    """Whether there is nothing (any more) to show."""
    return state is None or state.removed
