"""Hello as the official `anthropic` client sees it: messages, streams, tools, schemas, counted tokens."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import MessageParam
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


class Day(BaseModel):
    name: Literal["Monday", "Tuesday"]
    hours: list[int]
    rainy: bool
    wind: float | None
    next: "Day | None" = None


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


def test_tools_are_called_in_parallel_until_their_results_come(served: tuple[Anthropic, Path]) -> None:
    """With inputs that fit their schemas; a call is one token."""
    client, journal = served
    plain = client.messages.create(model="c", max_tokens=45, messages=ASKED, tools=[WEATHER, TIME])
    with client.messages.stream(model="c", max_tokens=45, messages=ASKED, tools=[WEATHER, TIME]) as heard:
        streamed = heard.get_final_message()
    for message in (plain, streamed):
        calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
        assert calls == [("get_weather", {"city": "ok", "days": 1}), ("get_time", {})]
        assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 2)
    assert billed(journal) == (3, 2)
    results: Any = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
        for block in plain.content
        if block.type == "tool_use"
    ]
    turns: list[MessageParam] = [*ASKED, plain.to_param(), {"role": "user", "content": results}]
    after = client.messages.create(model="c", max_tokens=4, messages=turns, tools=[WEATHER, TIME])
    assert (after.content[0].type, after.usage.output_tokens) == ("text", 4)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "any"}, ["get_weather", "get_time"]),
        ({"type": "any", "disable_parallel_tool_use": True}, ["get_weather"]),
        ({"type": "tool", "name": "get_time"}, ["get_time"]),
        ({"type": "none"}, []),
    ],
)
def test_the_choice_of_tools_is_heeded(served: tuple[Anthropic, Path], choice: Any, names: list[str]) -> None:
    """Those that may be called are."""
    message = served[0].messages.create(
        model="c", max_tokens=4, messages=ASKED, tools=[WEATHER, TIME], tool_choice=choice
    )
    assert [block.name for block in message.content if block.type == "tool_use"] == names


def test_an_answer_fits_the_schema_asked_for(served: tuple[Anthropic, Path]) -> None:
    """Also where it refers to itself."""
    client, _ = served
    parsed = client.messages.parse(model="c", max_tokens=400, messages=ASKED, output_format=Day)
    assert parsed.parsed_output == Day(name="Monday", hours=[1], rainy=True, wind=1)
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
