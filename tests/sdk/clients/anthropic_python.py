"""The `anthropic` package for Python."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import anthropic
from anthropic import Anthropic
from checks import BROKE_KEY, KEY, LIMITED_KEY, URL, WEATHER, raised, run

client = Anthropic(api_key=KEY, base_url=URL)
ASK = [{"role": "user", "content": "how are you"}]
TOOL = {"name": "weather", "description": "The weather", "input_schema": WEATHER}


def _messages(model: str) -> None:
    answer = client.messages.create(model=model, max_tokens=5, messages=ASK, system="be kind")
    assert answer.content[0].text
    assert answer.usage.output_tokens == 5


def messages() -> None:
    _messages("claude")
    _messages("m")  # a backend that speaks OpenAI's protocol


def _stream(model: str) -> None:
    with client.messages.stream(model=model, max_tokens=5, messages=ASK) as held:
        assert "".join(held.text_stream).strip()
        assert held.get_final_message().usage.output_tokens == 5


def stream() -> None:
    _stream("claude")
    _stream("m")


def _tools(model: str) -> None:
    choice = {"type": "tool", "name": "weather"}
    answer = client.messages.create(model=model, max_tokens=50, messages=ASK, tools=[TOOL], tool_choice=choice)
    call = next(block for block in answer.content if block.type == "tool_use")
    assert call.name == "weather"
    said = {"role": "assistant", "content": [block.model_dump() for block in answer.content]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]}
    after = client.messages.create(model=model, max_tokens=5, messages=[*ASK, said, result], tools=[TOOL])
    assert after.content


def tools() -> None:
    _tools("claude")
    _tools("m")


def count_tokens() -> None:
    assert client.messages.count_tokens(model="claude", messages=ASK).input_tokens


def timeout() -> None:
    impatient = client.with_options(timeout=0.5, max_retries=0)
    raised(anthropic.APITimeoutError, lambda: impatient.messages.create(model="sleepy", max_tokens=5, messages=ASK))


def errors() -> None:
    raised(anthropic.NotFoundError, lambda: client.messages.create(model="none", max_tokens=5, messages=ASK))
    raised(anthropic.BadRequestError, lambda: client.messages.create(model="m", max_tokens=-1, messages=ASK))
    stranger = Anthropic(api_key="th_sk_nobody", base_url=URL)
    raised(anthropic.AuthenticationError, lambda: stranger.messages.create(model="m", max_tokens=5, messages=ASK))


def no_retry_402() -> None:
    broke = Anthropic(api_key=BROKE_KEY, base_url=URL)
    refused = raised(
        anthropic.APIStatusError, lambda: broke.messages.create(model="claude", max_tokens=5, messages=ASK)
    )
    assert refused.status_code == 402
    assert refused.body["error"]["code"] == "insufficient_quota"


def no_retry_409() -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    client.messages.create(model="claude", max_tokens=5, messages=ASK, extra_headers=key)
    raised(
        anthropic.ConflictError,
        lambda: client.messages.create(model="claude", max_tokens=5, messages=ASK, extra_headers=key),
    )


def retry_429() -> None:
    limited = Anthropic(api_key=LIMITED_KEY, base_url=URL)
    held = limited.messages.create(model="slow", messages=ASK, max_tokens=30, stream=True)
    events = iter(held)
    next(events)
    with ThreadPoolExecutor() as threads:
        second = threads.submit(limited.messages.create, model="claude", messages=ASK, max_tokens=5)
        for _ in events:
            continue
        assert second.result().content


run(
    stream=stream, tools=tools, messages=messages, count_tokens=count_tokens, timeout=timeout, errors=errors,
    no_retry_402=no_retry_402, no_retry_409=no_retry_409, retry_429=retry_429,
)  # fmt: skip
