"""Callers of one protocol before backends of the other: unmodified clients, and the books."""

import json
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.exact import cost
from tests.golden.corpus import stream
from tests.lab import PRICE, Lab
from tests.recorded import Recorded
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")

ASKED: list[Any] = [{"role": "user", "content": "how are you"}]
FUNCTION = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "fine"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 11, "output_tokens": 7},
}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "gpt",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
}


async def costs(lab: Lab, org: str) -> list[int]:
    """Of every request, once all have ended; none is an estimate."""
    rows = await eventually(lambda: lab.rows(org), lambda rows: bool(rows) and all(r.outcome != "open" for r in rows))
    assert not any(row.estimated for row in rows)
    return [row.cost for row in rows]


async def test_the_openai_client_chats_with_an_anthropic_backend(
    lab: Lab, org: str, chats: AsyncOpenAI, behind: Recorded
) -> None:
    """The backend is asked in its own protocol, with its own credential; its usage is on the books."""
    behind.says(json.dumps(MESSAGE).encode())
    answer = await chats.chat.completions.create(model="claude", messages=ASKED, max_completion_tokens=50)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("fine", "stop")
    assert behind.last.path == "/v1/messages"
    assert behind.last.headers["x-api-key"] == "sk-ant-1"
    assert behind.last.headers["anthropic-version"] == "2023-06-01"
    turns = [{"role": "user", "content": [{"type": "text", "text": "how are you"}]}]
    assert behind.last.body == {"model": "claude", "max_tokens": 50, "messages": turns}
    assert await costs(lab, org) == [cost(PRICE, 11, 7)]


async def test_the_openai_client_streams_tools_from_an_anthropic_backend(
    lab: Lab, org: str, chats: AsyncOpenAI, behind: Recorded
) -> None:
    """Calls made in parallel arrive in their chunks, and usage in the last one, for the caller asked."""
    behind.says(stream("messages", "tools_in_parallel"), streams=True)
    tools: list[Any] = [{"type": "function", "function": FUNCTION}]
    options: Any = {"include_usage": True}
    async with chats.chat.completions.stream(
        model="claude", messages=ASKED, tools=tools, stream_options=options
    ) as heard:
        await heard.until_done()
        answer = heard.current_completion_snapshot
    calls = [call for call in answer.choices[0].message.tool_calls or () if call.type == "function"]
    cities = [json.loads(call.function.arguments) for call in calls]
    assert cities == [{"city": "Paris"}, {"city": "Oslo"}, {"zone": "CET"}]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (612, 131)
    assert behind.last.body["max_tokens"] == 256  # the model's default: the protocol wants one
    assert await costs(lab, org) == [cost(PRICE, 612, 131)]


async def test_the_anthropic_client_writes_to_an_openai_backend(
    lab: Lab, org: str, writes: AsyncAnthropic, behind: Recorded
) -> None:
    """The backend is asked in its own protocol, with its own credential; its usage is on the books."""
    behind.says(json.dumps(COMPLETION).encode())
    message = await writes.messages.create(model="gpt", max_tokens=50, system="be kind", messages=ASKED)
    assert message.content[0].type == "text"
    assert (message.content[0].text, message.stop_reason) == ("fine", "end_turn")
    assert behind.last.path == "/v1/chat/completions"
    assert behind.last.headers["authorization"] == "Bearer sk-1"
    assert not [name for name in behind.last.headers if name.startswith(("anthropic", "x-api-key"))]
    said = [{"role": "system", "content": "be kind"}, *ASKED]
    assert behind.last.body == {"model": "gpt", "max_completion_tokens": 50, "messages": said}
    assert await costs(lab, org) == [cost(PRICE, 11, 7)]


async def test_the_anthropic_client_streams_tools_from_an_openai_backend(
    lab: Lab, org: str, writes: AsyncAnthropic, behind: Recorded
) -> None:
    """Interleaved calls arrive as blocks one after another."""
    behind.says(stream("chat_as_messages", "tools_interleaved"), streams=True)
    tools: list[Any] = [{"name": "f", "input_schema": FUNCTION["parameters"]}]
    async with writes.messages.stream(model="gpt", max_tokens=500, messages=ASKED, tools=tools) as heard:
        message = await heard.get_final_message()
    used = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    assert used == [("f", {"a": "}"}), ("g", {"b": {"c": 2}}), ("h", {})]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (82, 40)
    assert behind.last.body["stream_options"] == {"include_usage": True}
    assert await costs(lab, org) == [cost(PRICE, 82, 40)]


async def test_what_cannot_be_carried_is_refused_before_anything_is_held(
    lab: Lab, org: str, chats: AsyncOpenAI, writes: AsyncAnthropic, behind: Recorded
) -> None:
    """By name, as each client knows errors; it is on the books as a refusal."""
    with pytest.raises(openai.BadRequestError) as odd:
        await chats.chat.completions.create(model="claude", messages=ASKED, seed=7)
    assert (odd.value.code, odd.value.param) == ("unsupported_parameter", "seed")
    with pytest.raises(anthropic.BadRequestError) as strange:
        await writes.messages.create(model="gpt", max_tokens=5, messages=ASKED, extra_body={"top_k": 3})
    assert isinstance(strange.value.body, dict)
    assert strange.value.body["error"]["code"] == "unsupported_parameter"
    assert strange.value.body["error"]["param"] == "top_k"
    assert not behind.asked
    rows = await eventually(lambda: lab.rows(org), lambda rows: len(rows) == 2)
    assert {(row.outcome, row.code) for row in rows} == {("denied", "unsupported_parameter")}


async def test_a_backend_that_can_is_preferred_to_one_that_cannot(
    lab: Lab, chats: AsyncOpenAI, behind: Recorded
) -> None:
    """A model with backends of both protocols takes what one of them can carry."""
    routes = [
        {"backend": "anthropic", "upstream_model": "claude-up", "weight": 1, "tier": 0},
        {"backend": "openai", "upstream_model": "gpt-up", "weight": 1, "tier": 1},
    ]
    caps = {"max_output_tokens": 256, "context_tokens": 100_000}
    await lab.admin("PUT", "/models/both", {"routes": routes, **caps})
    await lab.admin("PUT", "/prices/both", dict(PRICE))
    behind.says(json.dumps(MESSAGE).encode())
    await chats.chat.completions.create(model="both", messages=ASKED)
    assert (behind.last.path, behind.last.body["model"]) == ("/v1/messages", "claude-up")
    behind.says(json.dumps(COMPLETION).encode())
    await chats.chat.completions.create(model="both", messages=ASKED, seed=7)
    assert (behind.last.path, behind.last.body["model"]) == ("/v1/chat/completions", "gpt-up")


async def test_a_backends_own_errors_are_the_clients_own(
    chats: AsyncOpenAI, writes: AsyncAnthropic, behind: Recorded
) -> None:
    """Its words, in the caller's shape: before an answer, and in the middle of one."""
    behind.says(b'{"type":"error","error":{"type":"invalid_request_error","message":"too long"}}', status=400)
    with pytest.raises(openai.BadRequestError) as bad:
        await chats.chat.completions.create(model="claude", messages=ASKED)
    assert (bad.value.code, "too long" in bad.value.message) == ("invalid_request_error", True)
    behind.says(b'{"error":{"message":"slow down","type":"requests","param":null,"code":"rate"}}', status=429)
    with pytest.raises(anthropic.RateLimitError) as slow:
        await writes.messages.create(model="gpt", max_tokens=5, messages=ASKED)
    assert (slow.value.type, slow.value.api_message) == ("rate_limit_error", "slow down")
    behind.says(stream("messages", "error_in_the_middle"), streams=True)
    with pytest.raises(openai.APIError, match="Overloaded"):
        async for _ in await chats.chat.completions.create(model="claude", messages=ASKED, stream=True):
            pass
    behind.says(stream("chat_as_messages", "error_in_the_middle"), streams=True)
    with pytest.raises(anthropic.APIStatusError, match="The server had an error"):
        async with writes.messages.stream(model="gpt", max_tokens=5, messages=ASKED) as heard:
            await heard.until_done()
