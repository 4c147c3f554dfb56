"""P3, one number: every way to ask what was spent answers the same, to the nano-dollar, and it is what the log says."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from domain.facts import Usage
from infra.adapters.secrets import InstallationSecrets
from projections.ports import FACTS, LogReader, Record
from projections.reads.usage import DIMENSIONS
from tests.bookkeeping import NOW, SECRET, ZONES, Spent, make_books, make_folder
from tests.read_house import ReadHouse, open_house

COLUMNS = (
    "id,attempt,time,org,project,user,key,model,backend,outcome,code,"
    "input_tokens,output_tokens,cost_usd,estimated,latency_ms"
)
"""Public format."""

Key = tuple[Any, ...]
Figures = tuple[int, ...]
"""requests, denied, failed, input, output, cost, estimated."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadHouse]:
    folder = make_folder(tmp_path_factory.mktemp("books") / "data")
    with open_house(folder, make_books(InstallationSecrets(SECRET))) as made:
        yield made


# -- what is true


def figures(spent: Spent) -> Figures:
    usage = spent.usage
    return (
        int(spent.outcome in ("completed", "unconfirmed")),
        spent.count if spent.outcome == "denied" else 0,
        int(spent.outcome == "failed"),
        usage.all_input,
        usage.all_output,
        spent.cost,
        spent.cost if spent.outcome == "unconfirmed" else 0,
    )


def added_up(spent: Iterable[Spent], key: Callable[[Spent], Key]) -> dict[Key, Figures]:
    sums: dict[Key, Figures] = {}
    for one in spent:
        before = sums.get(key(one), (0,) * 7)
        sums[key(one)] = tuple(a + b for a, b in zip(before, figures(one), strict=True))
    return sums


def by(groups: tuple[str, ...]) -> Callable[[Spent], Key]:
    return lambda spent: tuple(getattr(spent, name) for name in groups)


def nano(usd: str | Decimal) -> int:
    value = Decimal(usd) * 1_000_000_000
    assert value == value.to_integral_value()
    return int(value)


def shown(row: dict[str, Any]) -> Figures:
    return (
        int(row["requests"]),
        int(row["denied"]),
        int(row["failed"]),
        int(row["input_tokens"]),
        int(row["output_tokens"]),
        nano(row["cost_usd"]),
        nano(row["estimated_usd"]),
    )


def local_start(time: datetime, zone: str, bucket: str) -> datetime:
    """Where the bucket of `time` begins on the wall clock of `zone`: in these zones no midnight is skipped."""
    local = time.astimezone(ZoneInfo(zone))
    match bucket:
        case "minute":
            start = local.replace(second=0, microsecond=0)
        case "hour":
            start = local.replace(minute=0, second=0, microsecond=0)
        case "day":
            start = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        case _:
            start = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    return start.astimezone(UTC)


# -- the ways to ask


async def rows_of(house: ReadHouse, org: str, **query: str) -> list[dict[str, Any]]:
    asked = "&".join(f"{name.rstrip('_')}={value}" for name, value in query.items())
    doc = await house.get(f"/read/v1/orgs/{org}/usage?{asked}")
    return list(doc["data"])


async def test_every_grouping_adds_up_to_the_log(house: ReadHouse) -> None:
    """All 64 subsets of the dimensions, for each organization."""
    for org in ("acme", "globex"):
        for size in range(len(DIMENSIONS) + 1):
            for groups in combinations(DIMENSIONS, size):
                rows = await rows_of(house, org, bucket="all", group_by=",".join(groups))
                found = {tuple(row[name] for name in groups): shown(row) for row in rows}
                assert len(found) == len(rows)
                assert found == added_up(house.books.of(org), by(groups))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("bucket", ["minute", "hour", "day", "month"])
@pytest.mark.parametrize("group", ["", "project", "outcome"])
async def test_buckets_follow_the_wall_clock_of_the_zone(house: ReadHouse, zone: str, bucket: str, group: str) -> None:
    """Around midnights and clock changes every request is in the bucket that its local time is in."""
    rows = await rows_of(house, "acme", bucket=bucket, timezone=zone, **({"group_by": group} if group else {}))
    found = {(row["start"], *([row[group]] if group else [])): shown(row) for row in rows}

    def key(spent: Spent) -> Key:
        start = local_start(spent.time, zone, bucket).isoformat().replace("+00:00", "Z")
        return (start, *([getattr(spent, group)] if group else []))

    assert found == added_up(house.books.of("acme"), key)
    assert all(row["start"] < row["end"] for row in rows)


async def test_a_day_of_a_clock_change_is_as_long_as_it_was(house: ReadHouse) -> None:
    """25 hours in New York on the first of November, and its last hour is in it."""
    rows = await rows_of(house, "acme", bucket="day", timezone="America/New_York")
    [day] = [row for row in rows if row["start"] == "2026-11-01T04:00:00Z"]
    assert day["end"] == "2026-11-02T05:00:00Z"


async def test_times_are_of_what_was_served(house: ReadHouse) -> None:
    """Percentiles are values that were measured; where nothing was, null."""
    rows = await rows_of(house, "acme", bucket="all", group_by="outcome")
    for row in rows:
        measured = row["outcome"] == "completed"
        for name in ("latency_ms", "first_token_ms"):
            values = [row[name][p] for p in ("p50", "p95", "p99")]
            if measured:
                assert values == sorted(values)
                assert values[0] > 0
            else:
                assert values == [None] * 3


@pytest.mark.parametrize("zone", ZONES)
async def test_from_and_to_cut_exactly(house: ReadHouse, zone: str) -> None:
    """The beginning is in, the end is not; a time without offset is meant in the zone."""
    local = datetime(2026, 10, 28, tzinfo=ZoneInfo(zone))
    end = datetime(2026, 11, 3, tzinfo=ZoneInfo(zone))
    query = {"from_": "2026-10-28", "to": "2026-11-03T00:00:00", "timezone": zone, "bucket": "all"}
    [row] = await rows_of(house, "acme", **query)
    inside = [spent for spent in house.books.of("acme") if local <= spent.time < end]
    assert {(): shown(row)} == added_up(inside, lambda _: ())
    assert (datetime.fromisoformat(row["start"]), datetime.fromisoformat(row["end"])) == (local, end)


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_exported_requests_are_all_of_them_with_the_same_figures(house: ReadHouse, form: str) -> None:
    """Row by row: outcome, tokens, cost; and nothing in a spreadsheet can run."""
    text = (await house.call("GET", f"/read/v1/orgs/acme/requests?format={form}")).text
    rows = (
        list(csv.DictReader(io.StringIO(text))) if form == "csv" else [json.loads(line) for line in text.splitlines()]
    )
    found = {
        r["attempt"]: (r["outcome"], int(r["input_tokens"]), int(r["output_tokens"]), nano(r["cost_usd"])) for r in rows
    }
    true = {s.id: (s.outcome, figures(s)[3], figures(s)[4], s.cost) for s in house.books.of("acme")}
    assert found == true
    assert len(rows) == len(true)
    if form == "csv":
        assert text.splitlines()[0] == COLUMNS
        assert {row["model"] for row in rows} == {"small", "large", "'=cmd|' /C calc'!A0"}


async def test_pages_of_requests_are_the_export(house: ReadHouse) -> None:
    """Each row once, in the same order, however small the pages."""
    text = (await house.call("GET", "/read/v1/orgs/acme/requests?format=ndjson")).text
    seen: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await house.get(f"/read/v1/orgs/acme/requests?limit=37{cursor and f'&cursor={cursor}'}")
        seen += page["data"]
        cursor = page["next_cursor"]
    assert seen == [json.loads(line) for line in text.splitlines()]


async def test_each_class_of_tokens_adds_up_to_the_log(house: ReadHouse) -> None:
    """In our words and in OpenAI's."""
    served = [spent.usage for spent in house.books.of("acme")]
    true = {name: sum(getattr(usage, name) for usage in served) for name in Usage.__struct_fields__}
    assert all(true.values())
    (row,) = await rows_of(house, "acme", bucket="all")
    shown_as = {
        "cached_input_tokens": "cached_input", "cache_write_tokens": "cache_write", "audio_input_tokens": "audio_input",
        "image_input_tokens": "image_input", "reasoning_tokens": "reasoning", "audio_output_tokens": "audio_output",
    }  # fmt: skip
    assert {name: row[name] for name in shown_as} == {name: true[field] for name, field in shown_as.items()}
    completions = [result async for _, result in pages(house, "usage/completions", "UTC", "", limit=31)]
    text = [s.usage for s in house.books.of("acme") if s.endpoint != "embeddings"]
    for name, fields in {
        "input_cached_tokens": ["cached_input"],
        "input_cache_write_tokens": ["cache_write"],
        "input_uncached_tokens": ["input", "audio_input", "image_input"],
        "input_text_tokens": ["input"],
        "input_audio_tokens": ["audio_input"],
        "input_image_tokens": ["image_input"],
        "output_text_tokens": ["output", "reasoning"],
        "output_audio_tokens": ["audio_output"],
    }.items():
        told = sum(result[name] for result in completions)
        assert (name, told) == (name, sum(getattr(usage, field) for usage in text for field in fields))


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_exported_usage_is_the_answer(house: ReadHouse, form: str) -> None:
    """The same rows, whatever the format."""
    path = "/read/v1/orgs/acme/usage?bucket=day&timezone=Asia/Kathmandu&group_by=model,outcome"
    rows = (await house.get(path))["data"]
    text = (await house.call("GET", f"{path}&format={form}")).text
    if form == "ndjson":
        assert [json.loads(line) for line in text.splitlines()] == rows
    else:
        assert [shown(row) for row in csv.DictReader(io.StringIO(text))] == [shown(row) for row in rows]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("kind", ["completions", "embeddings"])
@pytest.mark.parametrize("group", ["", "project_id", "user_id", "api_key_id", "model"])
async def test_the_usage_of_openais_shape_agrees(house: ReadHouse, zone: str, kind: str, group: str) -> None:
    """Per local day and group, over all pages."""
    found: dict[Key, Figures] = {}
    async for start, result in pages(house, f"usage/{kind}", zone, group, limit=5):
        embedding = kind == "embeddings"
        tokens = (result["input_tokens"], 0 if embedding else result["output_tokens"])
        assert (start, result.get(group)) not in found
        found[start, result.get(group)] = (result["num_model_requests"], *tokens)
    embedded = [s for s in house.books.of("acme") if (s.endpoint == "embeddings") == (kind == "embeddings")]
    true = added_up(embedded, lambda s: (stamp(s, zone), dimension(s, group)))
    outputs = 0 if kind == "embeddings" else 1
    assert found == {key: (f[0], f[3], f[4] * outputs) for key, f in true.items() if f[0]}


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("group", ["", "project_id", "api_key_id", "line_item"])
async def test_the_costs_of_openais_shape_agree(house: ReadHouse, zone: str, group: str) -> None:
    """Amounts are exact decimal numbers, per local day and group, over all pages."""
    found = {}
    async for start, result in pages(house, "costs", zone, group, limit=3):
        found[start, result.get(group)] = nano(result["amount"]["value"])
    true = added_up(house.books.of("acme"), lambda s: (stamp(s, zone), dimension(s, group)))
    assert found == {key: f[5] for key, f in true.items() if f[0]}


async def pages(
    house: ReadHouse, path: str, zone: str, group: str, limit: int
) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    start = int((NOW - timedelta(days=20)).timestamp())
    page = ""
    last = 0
    while True:
        query = f"start_time={start}&limit={limit}&timezone={zone}{group and f'&group_by[]={group}'}{page}"
        answer = await house.call("GET", f"/v1/organization/{path}?{query}", openai_organization="acme")
        assert answer.status_code == 200, answer.text
        doc = json.loads(answer.text, parse_float=Decimal)
        for bucket in doc["data"]:
            assert last in (0, bucket["start_time"])  # without a hole
            last = bucket["end_time"]
            for result in bucket["results"]:
                yield bucket["start_time"], result
        if not doc["has_more"]:
            assert last > NOW.timestamp()
            return
        page = f"&page={doc['next_page']}"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def stamp(spent: Spent, zone: str) -> int:
    return int(local_start(spent.time, zone, "day").timestamp())


def dimension(spent: Spent, name: str) -> Any:
    fields = {"project_id": "project", "user_id": "user", "api_key_id": "key", "model": "model", "line_item": "model"}
    return getattr(spent, fields[name]) if name else None


@pytest.mark.parametrize("org", ["acme", "globex"])
async def test_balances_agree_with_usage_and_with_the_log(house: ReadHouse, org: str) -> None:
    """Each budget's consumed and estimated are the usage of its window and scope; held is what is open in it."""
    budgets = (await house.get(f"/read/v1/orgs/{org}/budgets"))["data"]
    assert {budget["id"] for budget in budgets} == {"cap", "monthly", "daily", "week"}
    for budget in budgets:
        assert await house.get(f"/read/v1/orgs/{org}/budgets/{budget['id']}") == budget
        query = {"bucket": "all"}
        if budget["period_start"]:
            query |= {"from_": budget["period_start"], "to": budget["period_end"]}
        if budget["scope"]["kind"] == "project":
            query["project"] = budget["scope"]["id"]
        [row] = await rows_of(house, org, **query)
        assert (budget["consumed_usd"], budget["estimated_usd"]) == (row["cost_usd"], row["estimated_usd"])
        inside = [
            s
            for s in house.books.of(org)
            if budget["scope"]["kind"] == "org" or s.project == budget["scope"]["id"]
            if not budget["period_start"] or moment(budget["period_start"]) <= s.time < moment(budget["period_end"])
        ]
        assert nano(budget["consumed_usd"]) == sum(s.cost for s in inside)
        assert nano(budget["held_usd"]) == sum(s.held for s in inside)
        left = nano(budget["limit_usd"]) - nano(budget["consumed_usd"]) - nano(budget["held_usd"])
        assert nano(budget["remaining_usd"]) == left
        assert (budget["as_of"], budget["lag_ms"]) == (NOW.isoformat().replace("+00:00", "Z"), 0)
    cap = next(budget for budget in budgets if budget["id"] == "cap")
    assert nano(cap["consumed_usd"]) > 0
    assert nano(cap["estimated_usd"]) > 0
    assert nano(cap["held_usd"]) > 0


def everything(reader: LogReader, partition: int) -> Iterator[Record]:
    """All records of a partition."""
    offset = 0
    while records := reader.read(partition, offset, 10_000):
        yield from records
        offset = records[-1].offset + 1


async def test_what_the_log_says_by_itself(house: ReadHouse) -> None:
    """The stored bytes, folded here by hand, give the same cost and holds: the books of this test are the log's."""
    reader = house.log.reader(FACTS)
    states: dict[str, tuple[str, str, int]] = {}
    for partition in range(reader.partitions):
        for record in everything(reader, partition):
            event = json.loads(record.value)
            fact, kind = event["data"], event["type"]
            known = states.get(fact.get("attempt", ""), ("", "new", 0))[1]
            if kind == "RequestAdmitted" and known == "new":
                states[fact["attempt"]] = (fact["org"], "open", fact["hold"])
            elif kind == "RequestCompleted" and known in ("open", "unconfirmed"):
                states[fact["attempt"]] = (fact["org"], "completed", fact["cost"])
            elif kind == "RequestUnconfirmed" and known == "open":
                states[fact["attempt"]] = (fact["org"], "unconfirmed", fact["hold"])
            elif kind == "RequestFailed" or (kind == "RequestWrittenOff" and known == "unconfirmed"):
                states[fact["attempt"]] = (fact["org"], "ended", 0)
    reader.close()
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for org, state, amount in states.values():
        sums[org, state] += amount
    for org in ("acme", "globex"):
        cap = await house.get(f"/read/v1/orgs/{org}/budgets/cap")
        assert nano(cap["consumed_usd"]) == sums[org, "completed"] + sums[org, "unconfirmed"]
        assert nano(cap["estimated_usd"]) == sums[org, "unconfirmed"]
        assert nano(cap["held_usd"]) == sums[org, "open"]


async def test_the_past_is_folded_from_the_log(house: ReadHouse) -> None:
    """As of a time between two requests a budget has what was spent until then; as of now it has what the view has."""
    now = await house.get(f"/read/v1/orgs/acme/budgets/cap?as_of={NOW.isoformat().replace('+00:00', 'Z')}")
    live = await house.get("/read/v1/orgs/acme/budgets/cap")
    names = ("consumed_usd", "held_usd", "estimated_usd", "remaining_usd")
    assert [now[name] for name in names] == [live[name] for name in names]
    before = datetime(2026, 10, 28, 12, tzinfo=UTC)
    then = await house.get(f"/read/v1/orgs/acme/budgets/cap?as_of={before.isoformat().replace('+00:00', 'Z')}")
    earlier = [s for s in house.books.of("acme") if s.time <= before]
    assert 0 < nano(then["consumed_usd"]) < nano(live["consumed_usd"])
    settled = [s for s in earlier if s.outcome in ("completed", "unconfirmed")]
    assert nano(then["consumed_usd"]) == sum(s.cost for s in settled)
    assert nano(then["held_usd"]) == sum(s.held for s in earlier)
    assert then["as_of"] == before.isoformat().replace("+00:00", "Z")
