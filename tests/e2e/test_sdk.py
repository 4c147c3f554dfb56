"""The official `openai` client, unmodified, as an application uses it."""

from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from tests.backend import Backend
from tests.exact import cost, nano
from tests.lab import PRICE, Key, Lab

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "how are you"}]


@pytest.fixture
async def fake(lab: Lab) -> Backend:
    """The backend of the model ``m``."""
    made = await lab.fake()
    await lab.model("m", made.url)
    return made


@pytest.fixture
async def key(lab: Lab, fake: Backend) -> Key:
    return (await lab.org("acme"))["main"]


@pytest.fixture
async def client(lab: Lab, key: Key) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=key.secret, base_url=f"{lab.url}/v1") as made:
        yield made


async def test_it_chats(client: AsyncOpenAI) -> None:
    """A plain completion with its usage, and our headers on the raw answer."""
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, max_tokens=5)
    answer = raw.parse()
    assert answer.choices[0].message.content == "ok ok ok ok ok "
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 5)
    assert nano(raw.headers["x-tollhouse-cost-usd"]) == cost(PRICE, 3, 5)
    assert raw.headers["x-request-id"].startswith("req_")


async def test_it_streams_without_usage(client: AsyncOpenAI, fake: Backend) -> None:
    """Usage is asked for upstream, and hidden from a caller who did not ask: no chunk without a choice, none with usage."""
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=5, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ok ok ok ok ok "
    assert chunks[-1].choices[0].finish_reason == "length"
    assert {chunk.usage for chunk in chunks} == {None}
    assert fake.received[0].body["stream_options"] == {"include_usage": True}


async def test_it_streams_with_usage(client: AsyncOpenAI) -> None:
    """The caller who asked gets exactly one report, in the last chunk, which has no choice."""
    stream = await client.chat.completions.create(
        model="m", messages=MESSAGES, max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    *others, last = chunks
    assert {chunk.usage for chunk in others} == {None}
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 5)


async def test_it_does_not_retry_an_exhausted_budget(lab: Lab, client: AsyncOpenAI, fake: Backend) -> None:
    """402 insufficient_quota reaches the application after one request."""
    await lab.budget("acme", "cap", "0.000000001")
    with pytest.raises(openai.APIStatusError) as refused:
        await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=5)
    assert refused.value.status_code == 402
    assert refused.value.code == "insufficient_quota"
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["budget"]["id"] == "cap"
    assert await lab.metric("tollhouse_http_requests_total", endpoint="chat.completions", status="402") == 1
    assert await lab.metric("tollhouse_http_requests_total", endpoint="chat.completions") == 1
    assert not fake.received


async def test_it_lists_and_retrieves_models(client: AsyncOpenAI) -> None:
    """The models of the router, and a 404 for one that is not there."""
    assert [model.id async for model in client.models.list()] == ["m"]
    assert (await client.models.retrieve("m")).id == "m"
    with pytest.raises(openai.NotFoundError) as missing:
        await client.models.retrieve("none")
    assert missing.value.code == "model_not_found"


async def test_errors_are_the_clients_own(lab: Lab, client: AsyncOpenAI, fake: Backend) -> None:
    """Each kind of refusal is raised as the class that the client has for it, with its code."""
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="none", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=-1)
    assert (bad.value.code, bad.value.param) == ("invalid_value", "max_tokens")
    fake.refusing["m"] = 500
    with pytest.raises(openai.InternalServerError) as failed:
        await client.with_options(max_retries=0).chat.completions.create(model="m", messages=MESSAGES)
    assert failed.value.code == "upstream_error"
    async with AsyncOpenAI(api_key="th_sk_nothing", base_url=f"{lab.url}/v1") as stranger:
        with pytest.raises(openai.AuthenticationError) as unknown:
            await stranger.chat.completions.create(model="m", messages=MESSAGES)
    assert unknown.value.code == "invalid_api_key"
