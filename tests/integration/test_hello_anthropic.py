"""Hello as the official `anthropic` client sees it: messages, streams, tools, schemas, counted tokens."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import Message, MessageParam
from pydantic import BaseModel

from tests.integration.test_hello import hello, lines

ASKED: list[MessageParam] = [{"role": "user", "content": "one two three"}]
WEATHER: Any = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "days"],
    },
}
TIME: Any = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}


class Hour(BaseModel):
    at: int


class Day(BaseModel):
    name: Literal["Monday", "Tuesday"]
    hours: list[int]
    rainy: bool
    wind: float | None
    after: Hour


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Anthropic, Path]]:
    """A client of a Hello with a journal."""
    journal = tmp_path_factory.mktemp("hello") / "journal"
    with hello("--journal", str(journal)) as url, Anthropic(base_url=url, api_key="x", max_retries=0) as client:
        yield client, journal


def billed(journal: Path) -> tuple[int, int]:
    """Of the last request."""
    last = lines(journal)[-1]
    return last["prompt_tokens"], last["completion_tokens"]


def test_a_message_has_as_many_tokens_as_its_cap(served: tuple[Anthropic, Path]) -> None:
    """Plain and streamed alike, in the text, the usage and the journal."""
    client, journal = served
    plain = client.messages.create(model="c", max_tokens=45, system="be kind", messages=ASKED)
    with client.messages.stream(model="c", max_tokens=45, system="be kind", messages=ASKED) as heard:
        streamed = heard.get_final_message()
    for message in (plain, streamed):
        assert message.content[0].type == "text"
        assert len(message.content[0].text.split()) == 45
        assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 45)
        assert message.stop_reason == "max_tokens"
    assert [billed(journal), lines(journal)[-2]["completion_tokens"]] == [(5, 45), 45]


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ({"type": "any"}, [("get_weather", {"city": "ok", "days": 1})]),
        ({"type": "tool", "name": "get_time"}, [("get_time", {})]),
        ({"type": "auto"}, []),
        ({"type": "none"}, []),
    ],
)
def test_the_tool_that_must_be_called_is(served: tuple[Anthropic, Path], choice: Any, called: list[Any]) -> None:
    """With an input that fits its schema, plain and streamed."""
    client, journal = served
    tools = [WEATHER, TIME]
    plain = client.messages.create(model="c", max_tokens=45, messages=ASKED, tools=tools, tool_choice=choice)
    with client.messages.stream(model="c", max_tokens=45, messages=ASKED, tools=tools, tool_choice=choice) as heard:
        streamed = heard.get_final_message()
    answers: list[Message] = [plain, streamed]
    for message in answers:
        assert [(block.name, block.input) for block in message.content if block.type == "tool_use"] == called
        assert message.stop_reason == ("tool_use" if called else "max_tokens")
        assert message.usage.output_tokens == 45
    assert billed(journal) == (3, 45)


def test_an_answer_fits_the_schema_asked_for(served: tuple[Anthropic, Path]) -> None:
    """Also where a part of it is told elsewhere."""
    client, _ = served
    parsed = client.messages.parse(model="c", max_tokens=400, messages=ASKED, output_format=Day)
    assert parsed.parsed_output == Day(name="Monday", hours=[], rainy=True, wind=1, after=Hour(at=1))
    config: Any = {"format": {"type": "json_schema", "schema": WEATHER["input_schema"]}}
    with client.messages.stream(model="c", max_tokens=400, messages=ASKED, output_config=config) as heard:
        assert json.loads(heard.get_final_text()) == {"city": "ok", "days": 1}


def test_tokens_are_counted_and_refusals_are_the_clients_own(served: tuple[Anthropic, Path]) -> None:
    """Neither is in the journal."""
    client, journal = served
    before = len(lines(journal))
    assert client.messages.count_tokens(model="c", system="be kind", messages=ASKED, tools=[TIME]).input_tokens == 5
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(model="c", max_tokens=-1, messages=ASKED)
    assert refused.value.type == "invalid_request_error"
    assert len(lines(journal)) == before
