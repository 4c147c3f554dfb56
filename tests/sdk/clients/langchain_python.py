"""LangChain: `langchain-openai` and `langchain-anthropic`."""

import openai
from checks import BROKE_KEY, KEY, URL, raised, run
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


@tool
def weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


def model(key: str = KEY, **terms: object) -> ChatOpenAI:
    return ChatOpenAI(model="m", api_key=key, base_url=f"{URL}/v1", max_tokens=50, **terms)


def claude() -> ChatAnthropic:
    return ChatAnthropic(model="claude", api_key=KEY, base_url=URL, max_tokens=50)


def chat() -> None:
    answer = model().invoke("how are you")
    assert answer.content
    assert answer.usage_metadata["output_tokens"] == 50


def stream() -> None:
    assert "".join(str(chunk.content) for chunk in model().stream("how are you")).strip()


def tools() -> None:
    for made in (model(), claude()):
        answer = made.bind_tools([weather], tool_choice="weather").invoke("how are you")
        assert answer.tool_calls[0]["name"] == "weather"


def structured() -> None:
    assert isinstance(model().with_structured_output(Person).invoke("how are you"), Person)


def embeddings() -> None:
    made = OpenAIEmbeddings(model="m", api_key=KEY, base_url=f"{URL}/v1", check_embedding_ctx_length=False)
    assert len(made.embed_documents(["one", "two"])) == 2


def responses() -> None:
    assert model(use_responses_api=True).invoke("how are you").content


def messages() -> None:
    assert claude().invoke("how are you").content
    assert "".join(str(chunk.content) for chunk in claude().stream("how are you")).strip()


def no_retry_402() -> None:
    refused = raised(openai.APIStatusError, lambda: model(BROKE_KEY).invoke("how are you"))
    assert refused.status_code == 402


run(
    chat=chat, stream=stream, tools=tools, structured=structured, embeddings=embeddings, responses=responses,
    messages=messages, no_retry_402=no_retry_402,
)  # fmt: skip
