"""The official `anthropic` client, unmodified, as an application uses it, before a backend that speaks the same protocol."""

from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam, ToolParam

from tests.exact import cost, nano
from tests.golden.corpus import stream
from tests.lab import PRICE, Lab, Row
from tests.recorded import Recorded
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")

MESSAGES: list[MessageParam] = [{"role": "user", "content": "how are you"}]
TOOL: ToolParam = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def booked(lab: Lab, org: str) -> Row:
    """The one request, once the books have its end."""
    (row,) = await eventually(lambda: lab.rows(org), lambda rows: [row.outcome for row in rows] not in ([], ["open"]))
    return row


async def test_it_gets_a_message_and_our_headers(lab: Lab, writes: AsyncAnthropic) -> None:
    """From the product's own backend: content, usage, cost, and our id where this client looks for one."""
    hello = await lab.hello()
    await lab.model("h", hello.url.removesuffix("/v1"), backend="hello", protocol="anthropic")
    raw = await writes.messages.with_raw_response.create(model="h", max_tokens=5, system="be kind", messages=MESSAGES)
    answer = await raw.parse()
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "ok ok ok ok ok "
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 5)
    assert nano(raw.headers["x-tollhouse-cost-usd"]) == cost(PRICE, 5, 5)
    assert answer._request_id == raw.headers["x-request-id"]
    assert [row["request_id"] for row in hello.served()] == [answer._request_id]


async def test_it_streams_a_message_as_the_backend_sent_it(
    lab: Lab, org: str, writes: AsyncAnthropic, behind: Recorded
) -> None:
    """Thinking and text arrive in their blocks; the books have the usage of every class."""
    behind.says(stream("messages", "thinking"), streams=True)
    async with writes.messages.stream(model="claude", max_tokens=9000, messages=MESSAGES) as told:
        message = await told.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[1].type == "text"
    assert message.content[1].text == "The greatest common divisor is **21**."
    assert message.stop_reason == "end_turn"
    row = await booked(lab, org)
    assert (row.outcome, row.estimated, row.cost) == ("completed", False, cost(PRICE, 58, 212))


async def test_the_backend_gets_its_credential_and_the_protocols_headers(
    writes: AsyncAnthropic, behind: Recorded
) -> None:
    """The caller's key stays here; its version and betas go along."""
    behind.says(stream("messages", "text"), streams=True)
    betas = {"anthropic-beta": "interleaved-thinking-2025-05-14"}
    async with writes.messages.stream(model="claude", max_tokens=9, messages=MESSAGES, extra_headers=betas) as told:
        assert await told.get_final_text() == "Hello!"
    head = behind.last.headers
    assert (behind.last.path, head["x-api-key"]) == ("/v1/messages", "sk-ant-1")
    assert head["anthropic-beta"] == "interleaved-thinking-2025-05-14"
    assert head["anthropic-version"] == writes.default_headers["anthropic-version"]
    assert head["x-request-id"].startswith("req_")
    assert "authorization" not in head


async def test_it_gets_tools_called_in_parallel(writes: AsyncAnthropic, behind: Recorded) -> None:
    """Each with its own input."""
    behind.says(stream("messages", "tools_in_parallel"), streams=True)
    async with writes.messages.stream(model="claude", max_tokens=500, messages=MESSAGES, tools=[TOOL]) as told:
        message = await told.get_final_message()
    calls = [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"]
    assert calls == [
        ("toolu_01A", "get_weather", {"city": "Paris"}),
        ("toolu_01B", "get_weather", {"city": "Oslo"}),
        ("toolu_01C", "get_time", {"zone": "CET"}),
    ]
    assert message.stop_reason == "tool_use"


async def test_an_error_in_the_middle_is_raised(lab: Lab, org: str, writes: AsyncAnthropic, behind: Recorded) -> None:
    """And what was seen until then is on the books, as an estimate."""
    behind.says(stream("messages", "error_in_the_middle"), streams=True)
    with pytest.raises(anthropic.APIStatusError) as raised:
        async with writes.messages.stream(model="claude", max_tokens=9, messages=MESSAGES) as told:
            await told.get_final_message()
    assert raised.value.type == "overloaded_error"
    row = await booked(lab, org)
    assert row.estimated


async def test_errors_are_the_clients_own(lab: Lab, writes: AsyncAnthropic, behind: Recorded) -> None:
    """Each kind of refusal is raised as the class that the client has for it, with our code and id in its body."""
    with pytest.raises(anthropic.NotFoundError) as missing:
        await writes.messages.create(model="none", max_tokens=5, messages=MESSAGES)
    assert missing.value.type == "not_found_error"
    assert isinstance(missing.value.body, dict)
    assert missing.value.body["error"]["code"] == "model_not_found"
    assert missing.value.body["request_id"] == missing.value.request_id
    with pytest.raises(anthropic.BadRequestError) as bad:
        await writes.messages.create(model="claude", max_tokens=-1, messages=MESSAGES)
    assert isinstance(bad.value.body, dict)
    assert (bad.value.body["error"]["code"], bad.value.body["error"]["param"]) == ("invalid_value", "max_tokens")
    refusal = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"req_a"}'
    behind.says(refusal, status=400)
    with pytest.raises(anthropic.BadRequestError) as passed:
        await writes.messages.create(model="claude", max_tokens=5, messages=MESSAGES)
    assert passed.value.body == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "no"},
        "request_id": "req_a",
    }
    async with AsyncAnthropic(api_key="th_sk_nothing", base_url=lab.url) as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            await stranger.messages.create(model="claude", max_tokens=5, messages=MESSAGES)


async def test_it_does_not_retry_an_exhausted_budget(
    lab: Lab, org: str, writes: AsyncAnthropic, behind: Recorded
) -> None:
    """402 reaches the application after one request, with the budget that said no; nothing reached the backend."""
    await lab.budget(org, "cap", "0.000000001")
    before = await lab.metric("tollhouse_http_requests_total", endpoint="messages")
    with pytest.raises(anthropic.APIStatusError) as refused:
        await writes.messages.create(model="claude", max_tokens=5, messages=MESSAGES)
    assert (refused.value.status_code, refused.value.type) == (402, "billing_error")
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["error"]["budget"]["id"] == "cap"
    assert await lab.metric("tollhouse_http_requests_total", endpoint="messages") == before + 1
    assert not behind.asked


async def test_what_has_no_bound_is_refused_under_a_hard_budget(
    lab: Lab, org: str, writes: AsyncAnthropic, behind: Recorded
) -> None:
    """A server tool and a beta that changes prices: served without a hard budget, named and refused with one."""
    behind.says(stream("messages", "server_tools"), streams=True)
    search = {"type": "web_search_20250305", "name": "web_search"}
    long = {"anthropic-beta": "context-1m-2025-08-07"}
    odd: list[tuple[str, dict[str, Any]]] = [
        ("tools", {"extra_body": {"tools": [search]}}),
        ("anthropic-beta", {"extra_headers": long}),
    ]
    for _, more in odd:
        async with writes.messages.stream(model="claude", max_tokens=900, messages=MESSAGES, **more) as told:
            await told.get_final_message()
    await lab.budget(org, "cap", "100")
    for param, more in odd:
        with pytest.raises(anthropic.UnprocessableEntityError) as refused:
            await writes.messages.create(model="claude", max_tokens=900, messages=MESSAGES, **more)
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["error"]["param"] == param
    assert len(behind.asked) == 2


async def test_tokens_are_counted_by_a_backend_that_can(
    lab: Lab, org: str, writes: AsyncAnthropic, behind: Recorded
) -> None:
    """It is asked, with its credential and its name of the model; nothing is held, and nothing is booked."""
    await lab.budget(org, "cap", "0.000000001")
    behind.says(b'{"input_tokens":2095}')
    counted = await writes.messages.count_tokens(model="claude", system="be kind", messages=MESSAGES, tools=[TOOL])
    assert counted.input_tokens == 2095
    assert (behind.last.path, behind.last.headers["x-api-key"]) == ("/v1/messages/count_tokens", "sk-ant-1")
    assert behind.last.body["tools"] == [TOOL]
    assert await lab.rows(org) == []
    behind.says(b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}', status=400)
    with pytest.raises(anthropic.BadRequestError):
        await writes.messages.count_tokens(model="claude", messages=MESSAGES)
    behind.says(b"{}", status=500)
    with pytest.raises(anthropic.InternalServerError) as failed:
        await writes.with_options(max_retries=0).messages.count_tokens(model="claude", messages=MESSAGES)
    assert failed.value.status_code == 502
    with pytest.raises(anthropic.NotFoundError):
        await writes.messages.count_tokens(model="none", messages=MESSAGES)


async def test_tokens_are_estimated_where_no_backend_can(writes: AsyncAnthropic, behind: Recorded) -> None:
    """And the answer says so."""
    raw = await writes.messages.with_raw_response.count_tokens(model="gpt", messages=MESSAGES)
    assert raw.headers["x-tollhouse-estimated"] == "true"
    assert 1 <= (await raw.parse()).input_tokens <= 40
    assert not behind.asked


async def test_it_lists_and_retrieves_models(writes: AsyncAnthropic) -> None:
    """In the shapes of its own protocol, which it names in a header."""
    assert {"claude", "gpt"} <= {model.id async for model in writes.models.list()}
    assert (await writes.models.retrieve("claude")).display_name == "claude"
    with pytest.raises(anthropic.NotFoundError) as missing:
        await writes.models.retrieve("none")
    assert missing.value.type == "not_found_error"
