"""The keyring: everything a gateway must know to admit, folded from the control topic into memory.

Guarantees: `fresh` is True only while the view was proved to be as of at most `FRESH` seconds ago; a record that does
not continue the chain changes nothing. Not persisted: a start reads the topic from its beginning.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from domain import backend, budget, gate_epoch, model, organization, price_list, project, service_key, user, write_off
from domain.admin_key import AdminKey
from domain.budget import Scope
from domain.envelope import decode
from domain.ids import PARTITIONS, PLATFORM, partition_of
from domain.limits import UNLIMITED
from domain.registry import decode_event, evolve_stream
from domain.scope import Caller, PublishedModel, ScopedBudget, ScopedLimits, target_of
from projections.ports import Record

FRESH = 0.7
"""Seconds: an older view admits nothing (the revocation bound of 1 s leaves room for the way)."""

LATELY = 1.0
"""Seconds that a view which is no longer fresh may be waited for. One that has been older for longer is refused at once."""

_NEVER = (0, 0)
_GATES = [(gate_epoch.KIND, PLATFORM, str(partition)) for partition in range(PARTITIONS)]


class Keyring:
    """One view of the control topic. Not thread-safe: one event loop feeds and reads it."""

    def __init__(self) -> None:
        self.position = 0
        """Journal position of the last accepted record."""
        self.offset = 0
        """The next offset of the control topic."""
        self.version = 0
        """Grows with every accepted record: what was derived from an older one may be out of date."""
        self.prove: Callable[[], None] = lambda: None
        """Asked by `fresh` when the view has aged: proves it at once where that costs little, so that a process which was
        busy or stood still need not refuse. Must not raise."""
        self._as_of = float("-inf")
        self._awaiting: set[asyncio.Future[None]] = set()
        self._states: dict[tuple[str, str, str], Any] = {}
        self._versions: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        self._admins: dict[str, str] = {}
        self._budgets: dict[str, set[str]] = {}
        self._models: set[str] = set()
        self._write_offs: list[tuple[str, str]] = []
        self._callers: dict[str, Caller | None] = {}
        self._published: dict[str, PublishedModel | None] = {}

    # -- feeding

    def apply(self, records: Sequence[Record]) -> None:
        """Accepts the records that continue the chain. Raises what decoding raises, at every try: a record that cannot be
        taken in is never passed over."""
        self._callers.clear()
        self._published.clear()
        for record in records:
            if record.previous == self.position:
                self._accept(record)
            self.offset = record.offset + 1

    def _accept(self, record: Record) -> None:
        envelope = decode(record.value)
        org, kind, name = envelope.stream.split("/", 2)
        before = self._states.get((kind, org, name))
        after = evolve_stream(kind, before, decode_event(envelope))
        self._states[kind, org, name] = after
        created = self._versions[kind, org, name][1] if before is not None else record.position
        self._versions[kind, org, name] = (envelope.version, created)
        self._index(kind, org, name, before, after)
        self.position = record.position
        self.version += 1

    def proved(self, monotonic: float) -> None:
        """The view holds everything that was in the topic at `monotonic` (this process's clock)."""
        self._as_of = max(self._as_of, monotonic)
        for waiting in self._awaiting:
            if not waiting.done():
                waiting.set_result(None)

    def holds(self, monotonic: float) -> bool:
        """Whether the view was proved to hold everything that was in the topic then."""
        return self._as_of >= monotonic

    def fresh(self, monotonic: float) -> bool:
        if monotonic - self._as_of > FRESH:
            self.prove()
        return monotonic - self._as_of <= FRESH

    async def renewed(self) -> bool:
        """Whether the view is fresh, now or after the next proof of one that lately was: a process that was held up for a moment
        need not refuse whom it can serve in the next."""
        while not self.fresh(time.monotonic()):
            left = FRESH + LATELY - self.age(time.monotonic())
            if left <= 0:
                return False
            proof = asyncio.get_running_loop().create_future()
            self._awaiting.add(proof)
            try:
                await asyncio.wait([proof], timeout=left)
            finally:
                self._awaiting.discard(proof)
        return True

    def age(self, monotonic: float) -> float:
        """Seconds since the view was last proved; infinite before the first time."""
        return monotonic - self._as_of

    # -- asking

    def caller(self, key_hash: str, now: datetime) -> Caller | None:
        """Who a service key's keyed hash stands for; None: unknown, revoked or expired, which callers cannot tell apart."""
        try:
            found = self._callers[key_hash]
        except KeyError:
            found = self._resolve(key_hash)
            if found is not None:  # unknown hashes are not remembered: strangers must not fill the memory
                self._callers[key_hash] = found
        if found is not None and found.valid_until is not None and found.valid_until <= now:
            return None
        return found

    def admin(self, key_hash: str) -> tuple[str, AdminKey] | None:
        """Id and state of the admin key with this keyed hash, unless revoked."""
        name = self._admins.get(key_hash)
        if name is None:
            return None
        state: AdminKey = self._states["admin-key", PLATFORM, name]
        return None if state.revoked else (name, state)

    def model(self, name: str) -> PublishedModel | None:
        """A published model with its usable routes, None if there is none of that name."""
        try:
            return self._published[name]
        except KeyError:
            if name not in self._models:
                return None
            found = self._published[name] = self._publish(name)
            return found

    def models(self) -> list[PublishedModel]:
        """Every published model, by name."""
        return [found for name in sorted(self._models) if (found := self.model(name)) is not None]

    def epoch(self, partition: int) -> int:
        """The gate epoch in force for a facts partition, -1 before the first."""
        state = self._states.get(_GATES[partition])
        return -1 if state is None else int(state.epoch)

    def state(self, kind: str, org: str, name: str) -> Any:
        """The aggregate's state, None if it never was."""
        return self._states.get((kind, org, name))

    def known(self, org: str, kind: str, name: str) -> tuple[Any, int]:
        """The aggregate's state and version, (None, 0) if it never was."""
        found = kind, org, name
        return self._states.get(found), self._versions.get(found, _NEVER)[0]

    def version_of(self, kind: str, org: str, name: str) -> tuple[int, int]:
        """The aggregate's version, and the journal position it was created at. Raises `KeyError`."""
        return self._versions[kind, org, name]

    def names(self) -> list[tuple[str, str, str]]:
        """(kind, org, id) of every aggregate that ever was."""
        return list(self._states)

    def write_offs(self) -> Sequence[tuple[str, str]]:
        """(org, attempt) of every write-off that was ordered, in order."""
        return self._write_offs

    # -- inside

    def _index(self, kind: str, org: str, name: str, before: Any, after: Any) -> None:
        if kind == service_key.KIND:
            for old, _ in before.hashes if before else ():
                self._keys.pop(old, None)
            for new, _ in after.hashes if after else ():
                self._keys[new] = (org, name)
        elif kind == "admin-key" and after is not None:
            self._admins[after.hash] = name
        elif kind == budget.KIND:
            self._budgets.setdefault(org, set()).add(name)
        elif kind == write_off.KIND and before is None:
            self._write_offs.append((org, name))
        elif kind == model.KIND:
            if after is None or after.removed:
                self._models.discard(name)
            else:
                self._models.add(name)

    def _resolve(self, key_hash: str) -> Caller | None:
        found = self._keys.get(key_hash)
        if found is None:
            return None
        org, key = found
        state: service_key.ServiceKey = self._states[service_key.KIND, org, key]
        tenant: organization.Organization | None = self._states.get((organization.KIND, org, org))
        home: project.Project | None = self._states.get((project.KIND, org, state.project))
        if state.revoked or tenant is None or tenant.removed or home is None or home.removed:
            return None
        person: user.User | None = self._states.get((user.KIND, org, state.user)) if state.user else None
        refusal = None
        if tenant.status == "suspended":
            refusal = "organization_suspended"
        elif home.status == "suspended":
            refusal = "project_suspended"
        elif state.user and (person is None or person.suspended or person.removed):
            refusal = "user_suspended"
        ends = [end for hash_, end in state.hashes if hash_ == key_hash and end is not None]
        if state.expires_at is not None:
            ends.append(state.expires_at)
        return Caller(
            org=org,
            project=state.project,
            user=state.user,
            key=key,
            partition=partition_of(org),
            models=None if state.models is None else frozenset(state.models),
            limits=_limits(key, state, person, home, tenant),
            budgets=tuple(self._in_scope(org, state.project, state.user, key)),
            budget_status=tenant.budget_status,
            refusal=refusal,
            valid_until=min(ends, default=None),
            model_limits=tenant.limits.models,
            fallbacks=tenant.fallbacks_by_model,
        )

    def _in_scope(self, org: str, project_id: str, user_id: str | None, key: str) -> list[ScopedBudget]:
        path = {"org": None, "project": project_id, "user": user_id, "key": key}
        found = []
        for name in sorted(self._budgets.get(org, ())):
            state: budget.Budget = self._states[budget.KIND, org, name]
            if state.removed or state.scope.id != path[state.scope.kind]:
                continue
            if state.scope.kind == "user" and user_id is None:
                continue
            found.append(
                ScopedBudget(
                    id=name,
                    scope=state.scope,
                    life=state.life,
                    limit=state.effective_limit,
                    version=state.limit_version,
                    hard=state.mode == "hard",
                    models=None if state.models is None else frozenset(state.models),
                    period=state.period,
                )
            )
        return found

    def _publish(self, name: str) -> PublishedModel | None:
        state: model.Model = self._states[model.KIND, PLATFORM, name]
        prices: price_list.PriceList | None = self._states.get((price_list.KIND, PLATFORM, name))
        targets = []
        for route in state.routes:
            host: backend.Backend | None = self._states.get((backend.KIND, PLATFORM, route.backend))
            if host is not None and host.state == "active":
                targets.append(target_of(route, host.connection))
        targets.sort(key=lambda target: target.tier)
        return PublishedModel(
            name,
            tuple(targets),
            state.max_output_tokens,
            state.context_tokens,
            () if prices is None else price_list.timeline(prices),
            state.bound_exceeded,
            state.balance,
            state.limits,
        )


def _limits(
    key: str,
    state: service_key.ServiceKey,
    person: user.User | None,
    home: project.Project,
    tenant: organization.Organization,
) -> tuple[ScopedLimits, ...]:
    found = [
        ScopedLimits(Scope(kind="key", id=key), state.limits),
        ScopedLimits(Scope(kind="user", id=state.user), UNLIMITED if person is None else person.limits),
        ScopedLimits(Scope(kind="project", id=state.project), home.limits),
        ScopedLimits(Scope(kind="org"), tenant.limits),
    ]
    return tuple(each for each in found if each.limits.in_force())
