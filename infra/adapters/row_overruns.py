"""Reports models of which a completion cost more than its hold, as far along the facts as a watermark in rows remembers.

It is fed by an engine as views are, and has no rows of its own: taking a batch in is reporting its overruns. The watermark moves
only after that, so the end of a process loses no report; one that was made twice must be harmless.
"""

from collections.abc import Callable, Sequence

from domain.facts import RequestCompleted
from infra.adapters.row_views import Database
from projections.ports import FACTS, Event, Span

NAME = "overruns"


class Overruns:
    """`RowView`. `report` raises `Unavailable`: the batch comes again then."""

    name = NAME
    topic = FACTS

    def __init__(self, report: Callable[[RequestCompleted], None]) -> None:
        self._report = report

    def tables(self, version: int) -> Sequence[str]:  # noqa: ARG002  # part of the protocol
        """See `RowView`: none."""
        return ()

    def schema(self, version: int) -> str:  # noqa: ARG002  # part of the protocol
        """See `RowView`: none."""
        return ""

    def apply(self, db: Database, version: int, span: Span, held_back: frozenset[str]) -> None:  # noqa: ARG002  # part of the protocol
        """See `RowView`."""
        self._look(span.events)

    def replay(self, db: Database, version: int, event: Event) -> None:  # noqa: ARG002  # part of the protocol
        """See `RowView`."""
        self._look([event])

    def rows(self, version: int) -> Sequence[str]:  # noqa: ARG002  # part of the protocol
        """See `RowView`: none."""
        return ()

    def _look(self, events: Sequence[Event]) -> None:
        """Of each model the first: one report says all."""
        facts = [event.value for event in events]
        overruns = [fact for fact in facts if isinstance(fact, RequestCompleted) and fact.overrun]
        for fact in {fact.model: fact for fact in reversed(overruns)}.values():
            self._report(fact)
