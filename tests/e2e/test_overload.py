"""A process that is asked for more than it may have under way sheds the rest early, and goes on with what it has."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.lab import Key, Lab
from tests.waiting import eventually, until

CROWD = 20


@pytest_asyncio.fixture
async def small() -> AsyncIterator[Lab]:
    """A process of two places."""
    async with Lab({"TOLLHOUSE_MAX_INFLIGHT": "2"}) as lab:
        yield lab


async def test_beyond_its_places_a_process_sheds_before_it_reads(small: Lab) -> None:
    """503 `overloaded` in the shape of the caller's protocol, with `Retry-After`, to whoever does not find a place in a moment,
    though their bodies never came. Health is answered, it is counted, nothing of it is on the books, and those who had a place
    get their answers."""
    lab = small
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    fake.gates["m"] = asyncio.Event()
    served = [asyncio.create_task(lab.chat(key, "m")) for _ in range(2)]
    await until(lambda: len(fake.received) == 2, "two requests under way")
    shed = await asyncio.gather(*(lab.chat(key, "m") for _ in range(CROWD)))
    assert {(answer.status, answer.code, answer.headers["retry-after"]) for answer in shed} == {
        (503, "overloaded", "1")
    }
    assert b"503" in (await _head_only(lab, key, "/v1/chat/completions")).splitlines()[0]
    assert b'"type":"error"' in await _head_only(lab, key, "/v1/messages")
    assert (await lab.http.call("GET", "/healthz")).status == 200
    assert await lab.metric("tollhouse_http_requests_total", code="overloaded") == CROWD + 2
    assert await lab.metric("tollhouse_requests_under_way") == await lab.metric("tollhouse_requests_places") == 2
    fake.gates["m"].set()
    assert [answer.status for answer in await asyncio.gather(*served)] == [200, 200]
    after = await eventually(lambda: lab.chat(key, "m"), lambda answer: answer.status == 200)
    assert after.status == 200
    assert await lab.metric("tollhouse_requests_under_way") == 0
    completed = ["completed"] * 3
    rows = await eventually(lambda: lab.rows("acme"), lambda rows: [row.outcome for row in rows] == completed)
    assert [row.outcome for row in rows] == completed


async def _head_only(lab: Lab, key: Key, path: str) -> bytes:
    """What is answered to the head of a request whose body never comes."""
    host, port = lab.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key.secret}\r\n"
        "content-type: application/json\r\ncontent-length: 1000000\r\n\r\n".encode()
    )
    try:
        return await reader.read()  # whole: its head may come by itself
    finally:
        writer.close()
