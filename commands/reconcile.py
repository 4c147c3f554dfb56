"""Reconciliation: a backend's own record of what it served ends what is unconfirmed.

An unconfirmed attempt that the record has is completed at the price frozen in its admission; one that the record lacks
was not served. So the record must be complete for the backend it is of, and of a moment when the backend was no longer at any
of them: where that is not sure, the moment is named (`as_of`), and what may have been under way then is left. What is not
unconfirmed is not touched.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from commands.fact_writer import FactWriter
from commands.ports import Balances
from domain import price_list
from domain.envelope import decode
from domain.errors import NotFound, ViewBehind, invalid
from domain.facts import RequestAdmitted, RequestCompleted, RequestFailed, Usage, identity_of, only_backend
from domain.ids import PLATFORM
from domain.pricing import Price, cost_of
from domain.registry import decode_event
from domain.token_report import usage_told

_POLL_SECONDS = 0.05
_PATIENCE = 400
"""Looks at the view before giving up: 20 s."""

MOST_TOKENS = 1_000_000_000
"""Of a class in one request: more is no count of tokens."""


class Served(Struct, frozen=True):
    """One request as its backend recorded it: the attempt id it was sent as ``x-request-id``, and what it used."""

    request_id: str
    usage: Usage


_TOKENS = {
    "prompt_tokens": "prompt",
    "completion_tokens": "completion",
    "cached_tokens": "cached",
    "cache_write_tokens": "written",
    "audio_input_tokens": "audio",
    "image_input_tokens": "image",
    "reasoning_tokens": "reasoning",
    "audio_output_tokens": "spoken",
}
"""Fields of a record that count tokens, by the name that `usage_told` knows them by."""

FIELDS = ("request_id", *_TOKENS)
"""What is looked at in a record."""


class Reconciled(Struct, frozen=True):
    """How many unconfirmed attempts were completed, how many proved not served, and how many are left because the record
    may not be their backend's, or be older than their end."""

    completed: int
    not_served: int
    left: int = 0


class Prices(Protocol):
    """What reconciliation asks of the view of the control topic."""

    def state(self, kind: str, org: str, name: str) -> Any: ...


@dataclass(slots=True)
class Reconciliation:
    balances: Balances
    writer: FactWriter
    prices: Prices
    ends: Callable[[], Sequence[int]]
    """The next offset of each facts partition, now."""

    async def run(
        self, record: Sequence[Served], backends: Collection[str], as_of: datetime | None = None
    ) -> Reconciled:
        """Appends a late confirmation for every unconfirmed attempt of `backends`, all of which the record is of; empty: of the
        backends whose attempts the record has, or of the only one there is. An attempt that may have gone to one of several
        is left unless all of them are among these, or the record has it. `as_of`: when the record was complete; what it
        lacks and had not reached its deadline then is left. None: the backend was at nothing any more. Raises `ViewBehind`
        if what is unconfirmed is not known up to now."""
        served = {entry.request_id: entry for entry in record}
        await self._caught_up()
        waiting = await asyncio.to_thread(self.balances.unconfirmed)
        admissions: list[tuple[int, RequestAdmitted]] = [(w.partition, decode_event(decode(w.body))) for w in waiting]
        concerned = set(backends) or _backends(admissions, served)
        completed = failed = left = 0
        for partition, admission in admissions:
            entry = served.get(admission.attempt)
            if not concerned.intersection(_places(admission)) or (
                entry is None and not concerned.issuperset(_places(admission))
            ):
                left += 1
                continue
            if entry is None and as_of is not None and admission.deadline > as_of:
                left += 1
                continue
            where = next(iter(concerned)) if len(concerned) == 1 else only_backend(admission)
            fact = self._failed(admission, where) if entry is None else self._completed(admission, where, entry)
            body = self.writer.body(fact, admission.org, admission.request, "reconcile")
            await self.writer.append_until_acknowledged(partition, body)
            completed += entry is not None
            failed += entry is None
        return Reconciled(completed, failed, left)

    async def _caught_up(self) -> None:
        ends = list(self.ends())
        for _ in range(_PATIENCE):
            marks = await asyncio.to_thread(self.balances.watermarks)
            if all(marks.get(partition, 0) >= end for partition, end in enumerate(ends)):
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise ViewBehind("the balances have not caught up with the log; try again")

    def _completed(self, admission: RequestAdmitted, backend: str | None, entry: Served) -> RequestCompleted:
        price = self._price(admission)
        cost = 0 if price is None else cost_of(price, entry.usage)
        return RequestCompleted(
            **identity_of(admission),
            usage=entry.usage,
            cost=cost,
            backend=backend,
            overrun=price is not None and cost > admission.hold,
            source="reconcile",
        )

    def _failed(self, admission: RequestAdmitted, backend: str | None) -> RequestFailed:
        return RequestFailed(**identity_of(admission), reason="not_served", backend=backend)

    def _price(self, admission: RequestAdmitted) -> Price | None:
        if admission.price is None:
            return None
        model, _, number = admission.price.rpartition("@")
        prices: price_list.PriceList | None = self.prices.state(price_list.KIND, PLATFORM, model)
        if prices is None:
            raise NotFound(f"price {admission.price} is not in this view")
        return price_list.price_of(model, prices.history[int(number) - 1])


def _places(admission: RequestAdmitted) -> Sequence[str]:
    """Where an attempt may have gone."""
    return (*(() if admission.backend is None else (admission.backend,)), *admission.others)


def _backends(admissions: Sequence[tuple[int, RequestAdmitted]], served: Mapping[str, Served]) -> set[str]:
    """The backends that a record is of, by the attempts that it has: those of which it is known where they went."""
    places = [(admission.attempt, _places(admission)) for _, admission in admissions]
    every = {place for _, some in places for place in some}
    known = {some[0] for attempt, some in places if attempt in served and len(some) == 1}
    return known or (every if len(every) == 1 else set())


def read_served(lines: Sequence[Mapping[str, Any]]) -> list[Served]:
    """A backend's record as it came: each needs ``request_id``, and ``prompt_tokens`` and ``completion_tokens`` either
    beside it or inside ``usage``. Lines without a request id are not ours. Raises `Invalid` naming the line."""
    found = []
    for number, line in enumerate(lines, 1):
        request_id = line.get("request_id")
        if request_id is None:
            continue
        usage = line.get("usage")
        figures = usage if isinstance(usage, Mapping) else line
        tokens = {_TOKENS[name]: figures[name] for name in _TOKENS if name in figures}
        if not isinstance(request_id, str) or "prompt" not in tokens:
            raise invalid(f"records[{number}]", "needs request_id and prompt_tokens")
        if not all(type(n) is int and 0 <= n <= MOST_TOKENS for n in tokens.values()):
            raise invalid(f"records[{number}]", f"needs token counts that are whole numbers from 0 to {MOST_TOKENS}")
        told = usage_told(**{"completion": 0, **tokens})
        if told is None:
            raise invalid(
                f"records[{number}]",
                "needs what was cached, written to a cache, sound or picture within prompt_tokens, and what was reasoning or"
                " sound within completion_tokens",
            )
        found.append(Served(request_id, told))
    return found
