"""Every stream of the corpus on its way through the product, to callers of its own protocol and of the other one: the books say
what the stream said. What the backend said to have broken, without what it used, is unconfirmed, with its whole hold."""

from dataclasses import replace
from typing import Any

import pytest

from api.router.errors import RouterError
from api.router.faces.chat import ChatFace
from api.router.faces.completions import CompletionsFace
from api.router.faces.face import Face
from api.router.faces.messages import MessagesFace
from api.router.faces.responses import ResponsesFace
from domain.facts import RequestCompleted, RequestUnconfirmed, Usage
from tests.golden.corpus import expected, names
from tests.golden.corpus import stream as recorded
from tests.unit.forward_house import MODEL, TARGET, House, stream

CEILING = 200_000
MESSAGES = [{"role": "user", "content": "hi"}]
ASKED: dict[str, tuple[Face, dict[str, Any]]] = {
    "chat": (ChatFace(), {"messages": MESSAGES}),
    "completions": (CompletionsFace(), {"prompt": "hi"}),
    "responses": (ResponsesFace(), {"input": "hi"}),
    "messages": (MessagesFace(), {"messages": MESSAGES, "max_tokens": 1000}),
}
WAYS = (
    ("chat", "openai", "chat"),
    ("chat", "openai", "chat_as_messages"),
    ("chat", "anthropic", "messages"),
    ("completions", "openai", "completions"),
    ("responses", "openai", "responses"),
    ("messages", "anthropic", "messages"),
    ("messages", "openai", "chat_as_messages"),
)


@pytest.mark.parametrize(
    ("asked", "protocol", "folder", "name"),
    [(*way, name) for way in WAYS for name in names(way[2])],
)
async def test_the_books_say_what_the_stream_said(asked: str, protocol: str, folder: str, name: str) -> None:
    """Usage of every class, or an estimate that is called one; not a token more or less, and its cost."""
    house, wanted = House(), expected(folder)[name]
    house.published = replace(MODEL, targets=(replace(TARGET, protocol=protocol),), context_tokens=CEILING)
    house.answer = stream(recorded(folder, name))
    face, fields = ASKED[asked]
    try:
        await house.ask(face, {"model": "m", "stream": True, **fields}, grant=1000, hold=10**6)
    except RouterError:
        assert wanted.get("failed"), "only a stream that broke before its first byte is an error"
    fact = house.fact()
    if wanted.get("failed") and not (wanted["done"] and wanted["usage"]):
        assert isinstance(fact, RequestUnconfirmed)
        return
    assert isinstance(fact, RequestCompleted)
    assert fact.estimated is (wanted["usage"] is None)
    if wanted["usage"] is not None:
        assert (fact.usage, fact.cost) == (Usage(**wanted["usage"]), sum(wanted["usage"].values()))
