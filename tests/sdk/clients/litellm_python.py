"""LiteLLM as a client."""

import litellm
from checks import BROKE_KEY, KEY, URL, WEATHER, raised, run

ASK = [{"role": "user", "content": "how are you"}]
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": WEATHER}}
OPENAI = {"model": "openai/m", "api_base": f"{URL}/v1", "api_key": KEY}
CLAUDE = {"model": "anthropic/claude", "api_base": URL, "api_key": KEY}


def chat() -> None:
    answer = litellm.completion(**OPENAI, messages=ASK, max_tokens=5)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 5


def stream() -> None:
    chunks = litellm.completion(**OPENAI, messages=ASK, max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip()


def tools() -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    for to in (OPENAI, CLAUDE):
        answer = litellm.completion(**to, messages=ASK, max_tokens=50, tools=[TOOL], tool_choice=choice)
        assert answer.choices[0].message.tool_calls[0].function.name == "weather"


def embeddings() -> None:
    assert len(litellm.embedding(**OPENAI, input=["one", "two"]).data) == 2


def responses() -> None:
    assert litellm.responses(**OPENAI, input="how are you", max_output_tokens=16).output


def messages() -> None:
    assert litellm.completion(**CLAUDE, messages=ASK, max_tokens=5).choices[0].message.content
    chunks = litellm.completion(**CLAUDE, messages=ASK, max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip()


def errors() -> None:
    raised(litellm.NotFoundError, lambda: litellm.completion(**{**OPENAI, "model": "openai/none"}, messages=ASK))


def no_retry_402() -> None:
    raised(litellm.exceptions.APIError, lambda: litellm.completion(**{**OPENAI, "api_key": BROKE_KEY}, messages=ASK))


run(
    chat=chat, stream=stream, tools=tools, embeddings=embeddings, responses=responses, messages=messages, errors=errors,
    no_retry_402=no_retry_402,
)  # fmt: skip
