"""A trace becomes chat requests of its own sizes, and every answer is told apart by status and code."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.load import LoadPlan, loads, summary
from domain.errors import Invalid
from infra.adapters.load_client import Load, LoadClient, LoadResult, Outcome
from infra.adapters.trace_file import TraceRow, chat_body, read_trace
from tests.fake_api import FakeApi

PATH = "/v1/chat/completions"
TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,0,0
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_rows_are_read_with_their_time_after_the_first(tmp_path: Path) -> None:
    """Sizes are at least one token: nobody can ask for less."""
    first, second = read_trace(write(tmp_path, TRACE))
    assert (first, second.context, second.generated) == (TraceRow(0.0, 374, 44), 1, 1)
    assert second.at == pytest.approx(4.314579)


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    """What is behind the limit may even be unreadable."""
    assert len(read_trace(write(tmp_path, TRACE + "nonsense\n"), limit=2)) == 2


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a,b\n1,2\n", "ContextTokens"),
        (TRACE + "yesterday,1,1\n", "line 4"),
        (TRACE + "2023-11-16 18:15:50,x,1\n", "line 4"),
        (TRACE + "2023-11-16 18:15:50,1,-1\n", "line 4"),
        (TRACE + "2023-11-16 18:15:50,1\n", "line 4"),
    ],
)
def test_a_trace_that_is_none_is_refused_by_its_line(tmp_path: Path, text: str, part: str) -> None:
    """The field is `trace`, the message says where."""
    with pytest.raises(Invalid, match=part) as raised:
        read_trace(write(tmp_path, text))
    assert raised.value.errors[0].field == "trace"


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    """No traceback for a wrong path."""
    with pytest.raises(Invalid, match="No such file"):
        read_trace(tmp_path / "none.csv")


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_has_the_rows_own_sizes(stream: bool) -> None:
    """As many words as ContextTokens, exactly GeneratedTokens asked for, usage asked for on streams."""
    body = msgspec.json.decode(chat_body(TraceRow(0.0, 374, 44), 'm "x"', stream))
    assert (body["model"], body["max_completion_tokens"], len(body["messages"][0]["content"].split())) == (
        'm "x"',
        44,
        374,
    )
    assert body.get("stream_options") == ({"include_usage": True} if stream else None)


def test_speed_keys_models_and_streams_are_spread_over_the_rows() -> None:
    """Twice as fast halves the waits; keys and models take turns; a quarter is streamed."""
    rows = [TraceRow(float(n), 1, 1) for n in range(8)]
    plan = LoadPlan(Path(), "http://x", ("a", "b", "c"), ("m", "n"), speed=2.0, stream_share=0.25)
    made = list(loads(plan, rows))
    assert [load.at for load in made] == [n / 2 for n in range(8)]
    assert "".join(load.key for load in made) == "abcabcab"
    assert [load.stream for load in made] == [False, False, False, True] * 2
    assert [msgspec.json.decode(load.body)["model"] for load in made] == ["m", "n"] * 4
    assert {load.at for load in loads(LoadPlan(Path(), "http://x", ("a",)), rows)} == {0.0}


async def one(api: FakeApi, stream: bool = False, **options: Any) -> tuple[Outcome, LoadResult]:
    seen: list[Outcome] = []
    client = LoadClient(api.url, **options)
    result = await client.run([Load(0.0, b"{}", "th_sk_1", stream)], 1, lambda _, outcome: seen.append(outcome))
    return seen[0], result


USAGE = {"usage": {"prompt_tokens": 3, "completion_tokens": 5}}


async def test_a_served_request_has_its_tokens_and_its_id(api: FakeApi) -> None:
    """Usage and x-request-id of the answer; the key goes along as a bearer token."""
    api.on("POST", PATH, USAGE, x_request_id="req_1")
    outcome, result = await one(api)
    assert (outcome.name, outcome.request_id) == ("200", "req_1")
    assert (result.prompt_tokens, result.completion_tokens, len(result.latencies_ms)) == (3, 5, 1)
    assert api.asked[0].headers["authorization"] == "Bearer th_sk_1"


async def test_a_refusal_is_named_by_its_code(api: FakeApi) -> None:
    """Only what was served has a latency and tokens."""
    api.on("POST", PATH, {"error": {"code": "insufficient_quota", "message": "m"}}, 402)
    outcome, result = await one(api)
    assert (outcome.name, result.latencies_ms) == ("402 insufficient_quota", [])
    assert result.outcomes == Counter({"402 insufficient_quota": 1})


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\ndata: [DONE]\n\n', "200"),
        (b'data: {"choices":[]}\n\n', "0 stream_ended_early"),
        (b"", "0 stream_ended_early"),
    ],
)
async def test_a_stream_is_served_once_it_said_done(api: FakeApi, body: bytes, name: str) -> None:
    """Anything less is no whole answer."""
    api.on("POST", PATH, body)
    outcome, _ = await one(api, stream=True)
    assert outcome.name == name
    assert outcome.completion_tokens == (5 if name == "200" else 0)


async def test_what_is_not_json_is_told_apart(api: FakeApi) -> None:
    """A proxy's error page is not an answer of ours."""
    api.on("POST", PATH, b"<html>", 502)
    outcome, _ = await one(api)
    assert outcome.name == "502 unreadable_answer"


@pytest.mark.parametrize(("code", "asked"), [("not_ready", 3), ("log_unavailable", 1)])
async def test_what_could_not_be_decided_is_sent_again_where_that_is_wanted(
    api: FakeApi, code: str, asked: int
) -> None:
    """Up to so many times, after Retry-After; what may have been dispatched is not."""
    for _ in range(2):
        api.on("POST", PATH, {"error": {"code": code}}, 503, retry_after="0")
    api.on("POST", PATH, USAGE)
    outcome, result = await one(api, retries=2)
    assert (outcome.status == 200, len(api.asked), result.repeats) == (asked == 3, asked, asked - 1)


async def test_nothing_is_sent_again_unasked(api: FakeApi) -> None:
    """And no more often than wanted."""
    api.on("POST", PATH, {"error": {"code": "not_ready"}}, 503, retry_after="0")
    assert (await one(api))[0].name == "503 not_ready"
    assert (await one(api, retries=1))[0].name == "503 not_ready"
    assert len(api.asked) == 3


async def test_nobody_there_is_an_outcome(api: FakeApi) -> None:
    """The load goes on: each request is counted."""
    api.url = "http://127.0.0.1:1"
    outcome, _ = await one(api)
    assert outcome.name == "0 connection_refused"


async def test_busy_budgets_are_asked_again_only_if_told_to(api: FakeApi) -> None:
    """With retry_busy a 429 budget_busy is repeated; nothing else ever is."""
    busy = {"error": {"code": "budget_busy", "message": "m"}}
    for _ in range(2):
        api.on("POST", PATH, busy, 429, retry_after="0")
    api.on("POST", PATH, {"error": {"code": "rate_limit_exceeded", "message": "m"}}, 429)
    outcome, result = await one(api, retry_busy=True)
    assert (outcome.name, result.repeats, len(api.asked)) == ("429 rate_limit_exceeded", 2, 3)
    api.on("POST", PATH, busy, 429, retry_after="0")


def test_a_url_that_is_none_is_refused() -> None:
    """Before anything is sent."""
    with pytest.raises(Invalid):
        LoadClient("localhost:8080")


def test_the_summary_has_quantiles_and_counts() -> None:
    """Latencies of the served only; outcomes in order."""
    result = LoadResult(seconds=2.0)
    for ms in range(100):
        result.add(Outcome(status=200, latency_ms=float(ms), prompt_tokens=1, completion_tokens=2))
    result.add(Outcome(status=402, code="insufficient_quota", latency_ms=1e9))
    assert summary(result) == {
        "requests": 101,
        "seconds": 2.0,
        "requests_per_second": 50.5,
        "outcomes": {"200": 100, "402 insufficient_quota": 1},
        "repeats": 0,
        "latency_ms": {"p50": 50.0, "p99": 99.0},
        "prompt_tokens": 100,
        "completion_tokens": 200,
    }
