"""Given these events, when this command comes, then these events: how the aggregates' tests are written."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from msgspec import Struct, json

from domain.errors import Invalid, TollhouseError


@dataclass(frozen=True)
class Given:
    """An aggregate after some events. Its state must survive JSON, as the directory view stores it."""

    module: ModuleType
    state: Any

    def when(self, command: Struct) -> "When":
        return When(self.module, self.state, command)


@dataclass(frozen=True)
class When:
    module: ModuleType
    state: Any
    command: Struct

    def then(self, *events: Struct) -> Given:
        """Exactly these events; answers the aggregate after them."""
        assert self.module.decide(self.command, self.state) == list(events)
        return Given(self.module, _folded(self.module, self.state, events))

    def then_nothing_happened(self) -> None:
        self.then()

    def then_refused(self, code: str, *fields: str) -> None:
        """The error's code, and the fields it names."""
        with pytest.raises(TollhouseError) as refused:
            self.module.decide(self.command, self.state)
        assert refused.value.code == code
        named = refused.value.errors if isinstance(refused.value, Invalid) else ()
        assert tuple(error.field for error in named) == fields


def given(module: ModuleType, *events: Struct) -> Given:
    """The aggregate of `module` after `events`."""
    return Given(module, _folded(module, None, events))


def _folded(module: ModuleType, state: Any, events: tuple[Struct, ...]) -> Any:
    for event in events:
        state = module.evolve(state, event)
        assert json.decode(json.encode(state), type=type(state)) == state
    return state
