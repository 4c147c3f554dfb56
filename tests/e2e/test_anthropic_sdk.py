"""The official `anthropic` client, unmodified, as an application uses it, before a backend that speaks the same protocol."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam, ToolParam

from tests.exact import cost, nano
from tests.golden.corpus import stream
from tests.lab import PRICE, Key, Lab, Row
from tests.recorded import Recorded, recorded
from tests.waiting import eventually

MESSAGES: list[MessageParam] = [{"role": "user", "content": "how are you"}]
TOOL: ToolParam = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
async def claude(lab: Lab) -> AsyncIterator[Recorded]:
    """The backend of the model ``c``, which answers with recorded streams."""
    async with recorded() as made:
        await lab.model("c", made.url, backend="claude", protocol="anthropic", credential="sk-ant-1")
        yield made


@pytest.fixture
async def key(lab: Lab, claude: Recorded) -> Key:
    return (await lab.org("acme"))["main"]


@pytest.fixture
async def client(lab: Lab, key: Key) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key=key.secret, base_url=lab.url) as made:
        yield made


async def booked(lab: Lab) -> Row:
    """The one request, once the books have its end."""
    (row,) = await eventually(
        lambda: lab.rows("acme"), lambda rows: [row.outcome for row in rows] not in ([], ["open"])
    )
    return row


async def test_it_gets_a_message_and_our_headers(lab: Lab, client: AsyncAnthropic) -> None:
    """From the product's own backend: content, usage, cost, and our id where this client looks for one."""
    hello = await lab.hello()
    await lab.model("h", hello.url.removesuffix("/v1"), backend="hello", protocol="anthropic")
    raw = await client.messages.with_raw_response.create(model="h", max_tokens=5, system="be kind", messages=MESSAGES)
    answer = await raw.parse()
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "ok ok ok ok ok "
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 5)
    assert nano(raw.headers["x-tollhouse-cost-usd"]) == cost(PRICE, 5, 5)
    assert answer._request_id == raw.headers["x-request-id"]
    assert [row["request_id"] for row in hello.served()] == [answer._request_id]


async def test_it_streams_a_message_as_the_backend_sent_it(
    lab: Lab, client: AsyncAnthropic, claude: Recorded, key: Key
) -> None:
    """Thinking and text arrive in their blocks; the books have the usage of every class."""
    claude.says(stream("messages", "thinking"), streams=True)
    async with client.messages.stream(model="c", max_tokens=9000, messages=MESSAGES) as told:
        message = await told.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[1].type == "text"
    assert message.content[1].text == "The greatest common divisor is **21**."
    assert message.stop_reason == "end_turn"
    row = await booked(lab)
    assert (row.outcome, row.estimated, row.cost) == ("completed", False, cost(PRICE, 58, 212))


async def test_the_backend_gets_its_credential_and_the_protocols_headers(
    client: AsyncAnthropic, claude: Recorded
) -> None:
    """The caller's key stays here; its version and betas go along."""
    claude.says(stream("messages", "text"), streams=True)
    betas = {"anthropic-beta": "interleaved-thinking-2025-05-14"}
    async with client.messages.stream(model="c", max_tokens=9, messages=MESSAGES, extra_headers=betas) as told:
        assert await told.get_final_text() == "Hello!"
    head = claude.last.headers
    assert (claude.last.path, head["x-api-key"]) == ("/v1/messages", "sk-ant-1")
    assert head["anthropic-beta"] == "interleaved-thinking-2025-05-14"
    assert head["anthropic-version"] == client.default_headers["anthropic-version"]
    assert head["x-request-id"].startswith("req_")
    assert "authorization" not in head


async def test_it_gets_tools_called_in_parallel(client: AsyncAnthropic, claude: Recorded) -> None:
    """Each with its own input."""
    claude.says(stream("messages", "tools_in_parallel"), streams=True)
    async with client.messages.stream(model="c", max_tokens=500, messages=MESSAGES, tools=[TOOL]) as told:
        message = await told.get_final_message()
    calls = [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"]
    assert calls == [
        ("toolu_01A", "get_weather", {"city": "Paris"}),
        ("toolu_01B", "get_weather", {"city": "Oslo"}),
        ("toolu_01C", "get_time", {"zone": "CET"}),
    ]
    assert message.stop_reason == "tool_use"


async def test_an_error_in_the_middle_is_raised(lab: Lab, client: AsyncAnthropic, claude: Recorded) -> None:
    """And what was seen until then is on the books, as an estimate."""
    claude.says(stream("messages", "error_in_the_middle"), streams=True)
    with pytest.raises(anthropic.APIStatusError) as raised:
        async with client.messages.stream(model="c", max_tokens=9, messages=MESSAGES) as told:
            await told.get_final_message()
    assert raised.value.type == "overloaded_error"
    row = await booked(lab)
    assert row.estimated


async def test_errors_are_the_clients_own(lab: Lab, client: AsyncAnthropic, claude: Recorded) -> None:
    """Each kind of refusal is raised as the class that the client has for it, with our code and id in its body."""
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.messages.create(model="none", max_tokens=5, messages=MESSAGES)
    assert missing.value.type == "not_found_error"
    assert isinstance(missing.value.body, dict)
    assert missing.value.body["error"]["code"] == "model_not_found"
    assert missing.value.body["request_id"] == missing.value.request_id
    with pytest.raises(anthropic.BadRequestError) as bad:
        await client.messages.create(model="c", max_tokens=-1, messages=MESSAGES)
    assert isinstance(bad.value.body, dict)
    assert (bad.value.body["error"]["code"], bad.value.body["error"]["param"]) == ("invalid_value", "max_tokens")
    refusal = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"req_a"}'
    claude.says(refusal, status=400)
    with pytest.raises(anthropic.BadRequestError) as passed:
        await client.messages.create(model="c", max_tokens=5, messages=MESSAGES)
    assert passed.value.body == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "no"},
        "request_id": "req_a",
    }
    async with AsyncAnthropic(api_key="th_sk_nothing", base_url=lab.url) as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            await stranger.messages.create(model="c", max_tokens=5, messages=MESSAGES)


async def test_it_does_not_retry_an_exhausted_budget(lab: Lab, client: AsyncAnthropic, claude: Recorded) -> None:
    """402 reaches the application after one request, with the budget that said no; nothing reached the backend."""
    await lab.budget("acme", "cap", "0.000000001")
    with pytest.raises(anthropic.APIStatusError) as refused:
        await client.messages.create(model="c", max_tokens=5, messages=MESSAGES)
    assert (refused.value.status_code, refused.value.type) == (402, "billing_error")
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["error"]["budget"]["id"] == "cap"
    assert await lab.metric("tollhouse_http_requests_total", endpoint="messages") == 1
    assert not claude.asked


async def test_what_has_no_bound_is_refused_under_a_hard_budget(
    lab: Lab, client: AsyncAnthropic, claude: Recorded
) -> None:
    """A server tool and a beta that changes prices: served without a hard budget, named and refused with one."""
    claude.says(stream("messages", "server_tools"), streams=True)
    search = {"type": "web_search_20250305", "name": "web_search"}
    long = {"anthropic-beta": "context-1m-2025-08-07"}
    odd: list[tuple[str, dict[str, Any]]] = [
        ("tools", {"extra_body": {"tools": [search]}}),
        ("anthropic-beta", {"extra_headers": long}),
    ]
    for _, more in odd:
        async with client.messages.stream(model="c", max_tokens=900, messages=MESSAGES, **more) as told:
            await told.get_final_message()
    await lab.budget("acme", "cap", "100")
    for param, more in odd:
        with pytest.raises(anthropic.UnprocessableEntityError) as refused:
            await client.messages.create(model="c", max_tokens=900, messages=MESSAGES, **more)
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["error"]["param"] == param
    assert len(claude.asked) == 2


async def test_tokens_are_counted_by_a_backend_that_can(
    lab: Lab, client: AsyncAnthropic, claude: Recorded, key: Key
) -> None:
    """It is asked, with its credential and its name of the model; nothing is held, and nothing is booked."""
    await lab.budget("acme", "cap", "0.000000001")
    claude.says(b'{"input_tokens":2095}')
    counted = await client.messages.count_tokens(model="c", system="be kind", messages=MESSAGES, tools=[TOOL])
    assert counted.input_tokens == 2095
    assert (claude.last.path, claude.last.headers["x-api-key"]) == ("/v1/messages/count_tokens", "sk-ant-1")
    assert claude.last.body["tools"] == [TOOL]
    assert await lab.rows("acme") == []
    claude.says(b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}', status=400)
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.count_tokens(model="c", messages=MESSAGES)
    claude.says(b"{}", status=500)
    with pytest.raises(anthropic.InternalServerError) as failed:
        await client.with_options(max_retries=0).messages.count_tokens(model="c", messages=MESSAGES)
    assert failed.value.status_code == 502
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.count_tokens(model="none", messages=MESSAGES)


async def test_tokens_are_estimated_where_no_backend_can(lab: Lab, client: AsyncAnthropic) -> None:
    """And the answer says so."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    raw = await client.messages.with_raw_response.count_tokens(model="m", messages=MESSAGES)
    assert raw.headers["x-tollhouse-estimated"] == "true"
    assert 1 <= (await raw.parse()).input_tokens <= 40
    assert not fake.received


async def test_it_lists_and_retrieves_models(client: AsyncAnthropic) -> None:
    """In the shapes of its own protocol, which it names in a header."""
    assert [model.id async for model in client.models.list()] == ["c"]
    assert (await client.models.retrieve("c")).display_name == "c"
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.models.retrieve("none")
    assert missing.value.type == "not_found_error"
