"""Rows that are inserted as blocks of the Native format come back as they were."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from infra.adapters.chdb_engine import Analytics, in_process


class Kept(Struct, array_like=True):
    """A field of each kind, into columns that are narrower than what is sent."""

    name: str
    few: Literal["a", "b"]
    body: bytes
    small: int
    large: int
    negative: int
    ratio: float
    yes: bool
    at: datetime


class Found(Kept, array_like=True):
    body: str  # type: ignore[assignment]  # as it is read


_COLUMNS = (
    "name String, few LowCardinality(String), body String, small UInt8, large UInt64, negative Int64, ratio Float64,"
    " yes Bool, at DateTime64(6, 'UTC')"
)
_LARGE = (1 << 63) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_texts = st.one_of(st.text(max_size=200), st.integers(120, 5000).map(lambda n: "é" * n))
_UNTIL_2100 = 4_102_444_800_000_000
_moments = st.builds(
    lambda us, hours: (_EPOCH + timedelta(microseconds=us)).astimezone(timezone(timedelta(hours=hours))),
    st.integers(0, _UNTIL_2100),
    st.integers(-12, 12),
)
_rows = st.builds(
    Kept,
    name=_texts,
    few=st.sampled_from(("a", "b")),
    body=_texts.map(str.encode),
    small=st.integers(0, 255),
    large=st.integers(0, _LARGE),
    negative=st.integers(-_LARGE, _LARGE),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    yes=st.booleans(),
    at=_moments,
)


@pytest.fixture(scope="module")
def analytics() -> Iterator[Analytics]:
    with TemporaryDirectory() as folder:
        engine = in_process(Path(folder) / "analytics")
        yield engine
        engine.close()


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(_rows, min_size=1, max_size=150))
def test_what_was_inserted_is_read(analytics: Analytics, rows: list[Kept]) -> None:
    """Every value of every kind: long and short texts, few and many different ones, the edges of numbers, times of any zone."""
    analytics.command("DROP TABLE IF EXISTS kept SYNC")
    analytics.command(f"CREATE TABLE kept ({_COLUMNS}) ENGINE = Memory")
    analytics.insert("kept", rows)
    found = analytics.query(Found, "SELECT * FROM kept")
    assert [(*_plain(row), row.body) for row in found] == [(*_plain(row), row.body.decode()) for row in rows]


def _plain(row: Kept) -> tuple[object, ...]:
    return row.name, row.few, row.small, row.large, row.negative, row.ratio, row.yes, row.at


def test_a_block_is_inserted_whole_or_not_at_all(analytics: Analytics) -> None:
    """As many rows as a rebuild brings at a time are one part of the table."""
    analytics.command("DROP TABLE IF EXISTS whole SYNC")
    analytics.command("CREATE TABLE whole (number UInt64) ENGINE = MergeTree ORDER BY number")
    analytics.insert("whole", [Number(number) for number in range(100_000)])
    assert analytics.value("SELECT count(), uniqExact(_part) FROM whole") == "100000\t1"


class Number(Struct, array_like=True):
    number: int
