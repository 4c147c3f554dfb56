"""Looks after backends beside all requests: asks those that have a way to be asked for their health, and sets aside those that do
so much worse than the others of their tier.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from commands.backend_states import BackendStates
from domain.errors import UpstreamFailed
from domain.outliers import outliers
from domain.scope import PublishedModel, Target, Tier

CHECK_SECONDS = 5.0
"""A backend that does not answer within this is ill."""

ILL_AFTER = 2
"""Checks in a row that were not answered well."""

ASIDE_SECONDS = 30.0
"""So long a backend is left alone that does worse than its tier."""

_VERSION = {"anthropic": b"anthropic-version: 2023-06-01\r\n"}
"""What a protocol wants to be told with every request."""

_AT_ONCE = 8


class Models(Protocol):
    """What the watch asks of the view of the control topic."""

    version: int

    def models(self) -> Sequence[PublishedModel]: ...


class Checked(Protocol):
    """Asks a backend something that costs nothing."""

    async def status(self, url: str, path: str, headers: bytes, timeout: float) -> int:
        """The status of a GET; its body is nobody's business. Raises `UpstreamFailed`."""


@dataclass(slots=True)
class BackendWatch:
    """`tick` is one round; run it about once a second. `head`: the header lines that every request of a target has."""

    states: BackendStates
    view: Models
    upstream: Checked
    head: Callable[[Target], bytes]
    _version: int = -1
    _targets: Sequence[Target] = ()
    _tiers: Sequence[Tier] = ()
    _due: dict[str, float] = field(default_factory=dict)
    _ill: dict[str, int] = field(default_factory=dict)

    async def tick(self) -> None:
        if self._version != self.view.version:
            self._version = self.view.version
            models = self.view.models()
            self._tiers = [tier for model in models for tier in model.tiers if len(tier.targets) > 1]
            self._targets = _one_of_each(target for model in models for target in model.targets)
        now = self.states.now()
        self._set_aside(now)
        due = [target for target in self._targets if self._is_due(target, now)]
        for start in range(0, len(due), _AT_ONCE):
            await asyncio.gather(*(self._check(target) for target in due[start : start + _AT_ONCE]))

    def _set_aside(self, now: float) -> None:
        for tier in self._tiers:
            states = {target.backend: self.states.of(target) for target in tier.targets}
            for name in outliers({name: state.circuit.tally(now) for name, state in states.items()}):
                states[name].set_aside(now + ASIDE_SECONDS)

    def _is_due(self, target: Target, now: float) -> bool:
        terms = target.terms
        if terms.health_path is None:
            self.states.of(target).healthy = True
            return False
        if self._due.get(target.backend, now) > now:
            return False
        self._due[target.backend] = now + terms.health_seconds
        return True

    async def _check(self, target: Target) -> None:
        state, path = self.states.of(target), target.terms.health_path
        assert path is not None
        try:
            head = self.head(target) + _VERSION.get(target.protocol, b"")
            status = await self.upstream.status(target.url, path, head, CHECK_SECONDS)
        except UpstreamFailed:
            status = 0
        if 200 <= status < 300:
            self._ill.pop(target.backend, None)
            state.healthy = True
            state.circuit.probed(self.states.now())
            return
        bad = self._ill[target.backend] = self._ill.get(target.backend, 0) + 1
        state.healthy = bad < ILL_AFTER


def _one_of_each(targets: Iterable[Target]) -> Sequence[Target]:
    return list({target.backend: target for target in targets}.values())
