"""The World view: how long each model of an organization took to answer, request by request, for the last day of the log.

The template of a projection of your own: a row for what an event says, and what makes a row of an event. Pure; the engine sees
to order, repetition and watermarks, the store to tables and transactions. Like every view it is a function of the log alone:
of the facts about an attempt the first completion counts, and a row is forgotten by the time of later facts, never by a clock.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

from domain.facts import RequestCompleted
from projections.ports import Event, Poisoned

NAME = "world"
"""Stored format: it is part of table names."""

KEPT = timedelta(hours=24)
"""How long an answer is kept. As long as a repeated fact about it can matter (`docs/protocol.md`)."""


class Answer(Struct, frozen=True):
    """One request that a model answered. `time` is when it was admitted, `latency_us` what it took, in microseconds."""

    org: str
    attempt: str
    model: str
    time: datetime
    latency_us: int


class ModelPace(Struct, frozen=True):
    """A model's answers in a span of time; milliseconds."""

    model: str
    requests: int
    mean_ms: float
    slowest_ms: float


class Paces(Protocol):
    """What the World service asks of its view. Synchronous; raises `Unavailable`."""

    def slowest(self, org: str, since: datetime, limit: int) -> Sequence[ModelPace]:
        """The models of an organization that were slowest on average since then, the slowest first."""


def answers(events: Iterable[Event]) -> Iterator[Answer]:
    """The answers that `events` tell of. Raises `Poisoned` for an event that is not what its type says."""
    for event in events:
        fact = event.value
        if not isinstance(fact, RequestCompleted) or fact.source != "gateway":
            continue  # a reconciled completion says what was used, not how long it took
        try:
            yield Answer(fact.org, fact.attempt, fact.model, fact.accounted_at, round(fact.latency_ms * 1000))
        except (TypeError, ValueError, OverflowError) as error:
            raise Poisoned(event, error) from error
