"""The `openai` package for Python."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import openai
from checks import BROKE_KEY, KEY, LIMITED_KEY, URL, WEATHER, raised, run
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(api_key=KEY, base_url=f"{URL}/v1")
ASK = [{"role": "user", "content": "how are you"}]
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": WEATHER}}
FORCED = {"type": "function", "function": {"name": "weather"}}


class Person(BaseModel):
    name: str
    age: int


def chat() -> None:
    answer = client.chat.completions.create(model="m", messages=ASK, max_tokens=5)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 5


def stream() -> None:
    chunks = list(client.chat.completions.create(model="m", messages=ASK, max_tokens=5, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip()
    assert all(chunk.usage is None for chunk in chunks)
    options = {"include_usage": True}
    *_, last = client.chat.completions.create(
        model="m", messages=ASK, max_tokens=5, stream=True, stream_options=options
    )
    assert last.usage.completion_tokens == 5


def tools() -> None:
    answer = client.chat.completions.create(model="m", messages=ASK, tools=[TOOL], tool_choice=FORCED, max_tokens=50)
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    said = answer.choices[0].message.model_dump(exclude_none=True)
    after = client.chat.completions.create(model="m", messages=[*ASK, said, result], tools=[TOOL], max_tokens=5)
    assert after.choices[0].message.content
    streamed = client.chat.completions.create(
        model="m", messages=ASK, tools=[TOOL], tool_choice=FORCED, max_tokens=50, stream=True
    )
    calls = [part for chunk in streamed for choice in chunk.choices for part in choice.delta.tool_calls or ()]
    assert calls[0].function.name == "weather"


def structured() -> None:
    answer = client.chat.completions.parse(model="m", messages=ASK, response_format=Person, max_tokens=100)
    assert isinstance(answer.choices[0].message.parsed, Person)


def completions() -> None:
    answer = client.completions.create(model="m", prompt="how are you", max_tokens=5)
    assert answer.usage.completion_tokens == 5
    assert "".join(c.choices[0].text for c in client.completions.create(model="m", prompt="hi", stream=True)).strip()


def embeddings() -> None:
    answer = client.embeddings.create(model="m", input=["how are you", "fine"])
    assert len(answer.data) == 2
    assert answer.data[0].embedding
    assert answer.usage.prompt_tokens


def responses() -> None:
    answer = client.responses.create(model="m", input="how are you", max_output_tokens=16)
    assert answer.output_text
    assert answer.usage.output_tokens
    events = list(client.responses.create(model="m", input="hi", max_output_tokens=16, stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.usage.output_tokens


def models() -> None:
    assert "m" in [model.id for model in client.models.list()]
    assert client.models.retrieve("m").id == "m"


def timeout() -> None:
    impatient = client.with_options(timeout=0.5, max_retries=0)
    raised(openai.APITimeoutError, lambda: impatient.chat.completions.create(model="sleepy", messages=ASK))


def errors() -> None:
    missing = raised(openai.NotFoundError, lambda: client.chat.completions.create(model="none", messages=ASK))
    assert missing.code == "model_not_found"
    bad = raised(openai.BadRequestError, lambda: client.chat.completions.create(model="m", messages=ASK, max_tokens=-1))
    assert bad.param == "max_tokens"
    stranger = OpenAI(api_key="th_sk_nobody", base_url=f"{URL}/v1")
    raised(openai.AuthenticationError, lambda: stranger.chat.completions.create(model="m", messages=ASK))


def no_retry_402() -> None:
    broke = OpenAI(api_key=BROKE_KEY, base_url=f"{URL}/v1")
    refused = raised(openai.APIStatusError, lambda: broke.chat.completions.create(model="m", messages=ASK))
    assert (refused.status_code, refused.code) == (402, "insufficient_quota")


def no_retry_409() -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    client.chat.completions.create(model="m", messages=ASK, max_tokens=5, extra_headers=key)
    twice = raised(
        openai.ConflictError,
        lambda: client.chat.completions.create(model="m", messages=ASK, max_tokens=5, extra_headers=key),
    )
    assert twice.code == "duplicate_request"


def retry_429() -> None:
    limited = OpenAI(api_key=LIMITED_KEY, base_url=f"{URL}/v1")
    held = limited.chat.completions.create(model="slow", messages=ASK, max_tokens=30, stream=True)
    next(iter(held))
    with ThreadPoolExecutor() as threads:
        second = threads.submit(limited.chat.completions.create, model="m", messages=ASK, max_tokens=5)
        for _ in held:
            continue
        assert second.result().choices[0].message.content


run(
    chat=chat, stream=stream, tools=tools, structured=structured, completions=completions, embeddings=embeddings,
    responses=responses, models=models, timeout=timeout, errors=errors, no_retry_402=no_retry_402,
    no_retry_409=no_retry_409, retry_429=retry_429,
)  # fmt: skip
