"""JSON shapes that the read API's answers share: times, amounts, cursors, and the parameters of lists and filters."""

import base64
import binascii
from datetime import UTC, date, datetime, time, tzinfo
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from domain.errors import Invalid, invalid
from domain.period import parse_timezone
from projections.reads.usage import DIMENSIONS, Dimension

Format = Literal["json", "csv", "ndjson"]

Limit = Annotated[int, Field(ge=1, le=1000)]

Many = Annotated[list[str], Field(default_factory=list)]
"""A parameter that may be repeated, or hold several values with commas: see `listed`."""


class Params(BaseModel):
    """Query parameters: unknown ones are refused by name."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)


class Span(Params):
    """[`from`, `to`), times in RFC 3339; a time without offset, or a date, is meant in `timezone`."""

    from_: str | None = Field(None, alias="from")
    to: str | None = None
    timezone: str = "UTC"

    def zone(self) -> str:
        """Raises `Invalid`."""
        return parse_timezone(self.timezone).key

    def moments(self) -> tuple[datetime | None, datetime | None]:
        """Raises `Invalid`."""
        zone = ZoneInfo(self.zone())
        since = None if self.from_ is None else parse_moment(self.from_, "from", zone)
        until = None if self.to is None else parse_moment(self.to, "to", zone)
        return since, until


class Only(Span):
    """Keeps what has one of the values named; several with commas, or the parameter repeated."""

    project: Many
    user: Many
    key: Many
    model: Many
    backend: Many
    outcome: Many

    def only(self) -> dict[Dimension, tuple[str, ...]]:
        wanted = {name: listed(getattr(self, name)) for name in DIMENSIONS}
        return {name: values for name, values in wanted.items() if values}


def listed(values: list[str]) -> tuple[str, ...]:
    """Values given repeatedly or with commas, each once."""
    return tuple(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))


def parse_moment(text: str, field: str, zone: tzinfo = UTC) -> datetime:
    """The moment of a time or date, UTC. Raises `Invalid` naming `field`."""
    try:
        if len(text) == 10:
            moment = datetime.combine(date.fromisoformat(text), time())
        else:
            unescaped = text.replace(" ", "+") if "T" in text else text  # a plus sign means a space in a URL
            moment = datetime.fromisoformat(unescaped)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        if not 1970 <= moment.year < 2200:
            raise ValueError(text)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(field, f"must be a time such as 2026-11-15T00:00:00Z; got {text!r:.40}") from None


def rfc3339(moment: datetime | None) -> str | None:
    """``2026-11-15T09:30:00.123456Z``, without a fraction where there is none."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def cursor_of(text: str) -> str:
    """An opaque cursor that says `text`."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def bad_cursor(field: str = "cursor") -> Invalid:
    """What is raised for a cursor that is none of ours."""
    return invalid(field, "must be a next_cursor that a list answered")


def told_by(cursor: str, field: str = "cursor") -> str:
    """What a cursor says. Raises `Invalid` naming `field`."""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise bad_cursor(field) from None
