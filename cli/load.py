"""``tollhouse load``: replays a trace against a router and says what became of each request."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from cli.progress import Update, progress
from domain.errors import invalid
from infra.adapters.load_client import Load, LoadClient, LoadResult, Outcome
from infra.adapters.trace_file import TraceRow, chat_body, read_trace


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to send: `speed` times as fast as the trace was (0: as fast as possible), `concurrency` requests at most in
    flight, the first `limit` rows, `stream_share` (0 to 1) of them streamed, keys and models taken in turn."""

    trace: Path
    url: str
    keys: Sequence[str]
    models: Sequence[str] = ("hello",)
    speed: float = 0.0
    concurrency: int = 64
    limit: int | None = None
    stream_share: float = 0.0
    retry_busy: bool = False


def replay(plan: LoadPlan) -> LoadResult:
    """Sends the trace, with a progress bar. Raises `Invalid` naming the option that is impossible."""
    _check(plan)
    rows = read_trace(plan.trace, plan.limit)
    with progress("requests") as update:
        return uvloop.run(_run(plan, rows, update))


def loads(plan: LoadPlan, rows: Sequence[TraceRow]) -> Iterator[Load]:
    """The requests of a trace, made one by one as they are sent: bodies of a whole trace would fill the memory."""
    for number, row in enumerate(rows):
        stream = int((number + 1) * plan.stream_share) > int(number * plan.stream_share)
        body = chat_body(row, plan.models[number % len(plan.models)], stream)
        at = row.at / plan.speed if plan.speed else 0.0
        yield Load(at, body, plan.keys[number % len(plan.keys)], stream)


def summary(result: LoadResult) -> dict[str, Any]:
    """The result as one document: latencies in milliseconds, of the served requests."""
    quantiles = {f"p{int(q * 100)}": result.latency_ms(q) for q in (0.5, 0.99)}
    return {
        "requests": result.requests,
        "seconds": round(result.seconds, 3),
        "requests_per_second": round(result.requests / result.seconds, 1) if result.seconds else 0.0,
        "outcomes": dict(sorted(result.outcomes.items())),
        "repeats": result.repeats,
        "latency_ms": {name: None if ms is None else round(ms, 2) for name, ms in quantiles.items()},
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
    }


async def _run(plan: LoadPlan, rows: Sequence[TraceRow], update: Update) -> LoadResult:
    client = LoadClient(plan.url, retry_busy=plan.retry_busy)
    done = 0

    def seen(_load: Load, _outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if done % 100 == 0:
            update(done, len(rows))

    update(0, len(rows))
    return await client.run(loads(plan, rows), plan.concurrency, seen)


def _check(plan: LoadPlan) -> None:
    if not plan.keys:
        raise invalid("--key", "must be given at least once")
    if not plan.models:
        raise invalid("--model", "must be given at least once")
    if not plan.speed >= 0:
        raise invalid("--speed", "must not be negative")
    if not 1 <= plan.concurrency <= 10_000:
        raise invalid("--concurrency", "must be 1 to 10000")
    if plan.limit is not None and plan.limit < 1:
        raise invalid("--limit", "must be at least 1")
    if not 0 <= plan.stream_share <= 1:
        raise invalid("--stream-share", "must be 0 to 1")
