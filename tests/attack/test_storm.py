"""Requests by the thousand, made by chance: each answer is HTTP and none is an error of ours, and nothing stays behind.

What must hold of the product afterwards is in `house.settled`.
"""

from collections.abc import AsyncIterator
from functools import cache

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attack.bodies import enumerated, mutated, spoiled
from tests.attack.commands import COMMANDS
from tests.attack.endpoints import ENDPOINTS, Endpoint
from tests.attack.house import FREE, HARD, Target, target
from tests.attack.messages import KINDS, conversations, head, pieces, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@cache
def wrong(endpoint: Endpoint) -> list[bytes]:
    """See `enumerated`."""
    return list(enumerated(endpoint.body))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[Target]:
    async with target() as made:
        yield made


def storm(cases: int) -> settings:
    """So many cases of each kind."""
    return settings(max_examples=cases, suppress_health_check=_QUIET)


async def talk(house: Target, data: st.DataObject) -> None:
    """Requests that are right are answered, each with its own answer, however they are framed, cut and strung together."""
    secret = house.keys[HARD].secret
    messages = data.draw(conversations(secret))
    raw = data.draw(pieces(b"".join(message.data for message in messages)))
    conversation = await house.attack(raw, [message.method for message in messages])
    for message, answer in zip(messages, conversation.answers, strict=False):
        assert (answer.status, answer.whole) == (message.status, True), (message, answer)
        assert message.mark in answer.body.replace(b" ", b""), (message, answer)
    if len(conversation.answers) < len(messages):  # only behind one that said so
        assert conversation.answers and conversation.answers[-1].last
        assert conversation.ended


async def spoil(house: Target, data: st.DataObject) -> None:
    """Requests with bytes taken out or put in: whatever they have become, they are answered or ended, and nobody hangs."""
    messages = data.draw(conversations(house.keys[HARD].secret, KINDS))
    whole = b"".join(message.data for message in messages)
    raw = data.draw(spoiled(whole).flatmap(pieces))
    await house.attack(raw, ["POST"] * 40, leave=True)


async def ask(house: Target, data: st.DataObject) -> None:
    """Bodies that are nearly right are served, or refused by name."""
    key = house.keys[data.draw(st.sampled_from([HARD, FREE]))]
    endpoint = data.draw(st.sampled_from(ENDPOINTS))
    body = data.draw(st.sampled_from(wrong(endpoint)) | mutated(endpoint.body))
    await asked(house, key.secret, endpoint, body)


async def asked(house: Target, secret: str, endpoint: Endpoint, body: bytes) -> None:
    """One body, and a second request on the same connection that must be answered as ever."""
    requests = [post(secret, each, endpoint.path, endpoint.headers) for each in (body, b"{}")]
    conversation = await house.attack([b"".join(requests)], ["POST", "POST"])
    first, second = conversation.answers
    assert first.status in (200, 400, 404, 422), (body[:300], first)
    assert (second.status, second.code) == (400, "missing_model"), (body[:300], second)


async def command(house: Target, data: st.DataObject) -> None:
    """Commands that are nearly right are carried out, or refused by name."""
    await commanded(house, *data.draw(st.sampled_from(COMMANDS).flatmap(_nearly)))


def _nearly(endpoint: Endpoint) -> st.SearchStrategy[tuple[Endpoint, bytes]]:
    return (st.sampled_from(wrong(endpoint)) | mutated(endpoint.body)).map(lambda body: (endpoint, body))


async def commanded(house: Target, endpoint: Endpoint, body: bytes) -> None:
    """One body, and a question on the same connection that must be answered as ever."""
    method, path = endpoint.path.split()
    secret = house.lab.admin_key
    start = head(secret, method, path) + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    probe = head(secret, "GET", "/admin/v1/orgs/attacked") + b"\r\n"
    conversation = await house.attack([start + body + probe], [method, "GET"])
    first, second = conversation.answers
    assert first.status in (200, 201, 400, 404, 409), (endpoint.path, body[:300], first)
    assert second.status == 200, (endpoint.path, body[:300], second)


@given(st.data())
@storm(200)
async def test_requests_that_are_right(house: Target, data: st.DataObject) -> None:
    """See `talk`."""
    await talk(house, data)


@given(st.data())
@storm(600)
async def test_requests_that_are_spoiled(house: Target, data: st.DataObject) -> None:
    """See `spoil`."""
    await spoil(house, data)


@given(st.data())
@storm(700)
async def test_bodies_that_are_nearly_right(house: Target, data: st.DataObject) -> None:
    """See `ask`."""
    await ask(house, data)


@given(st.data())
@storm(200)
async def test_commands_that_are_nearly_right(house: Target, data: st.DataObject) -> None:
    """See `command`."""
    await command(house, data)


@pytest.mark.full
@pytest.mark.parametrize("endpoint", COMMANDS, ids=lambda endpoint: endpoint.path)
async def test_every_field_of_every_command_with_every_wrong_value(house: Target, endpoint: Endpoint) -> None:
    """See `command`."""
    for body in wrong(endpoint):
        await commanded(house, endpoint, body)


@pytest.mark.full
@given(st.data())
@storm(5000)
async def test_many_requests_that_are_right(house: Target, data: st.DataObject) -> None:
    """See `talk`."""
    await talk(house, data)


@pytest.mark.full
@given(st.data())
@storm(8000)
async def test_many_requests_that_are_spoiled(house: Target, data: st.DataObject) -> None:
    """See `spoil`."""
    await spoil(house, data)


@pytest.mark.full
@given(st.data())
@storm(4000)
async def test_many_bodies_that_are_nearly_right(house: Target, data: st.DataObject) -> None:
    """See `ask`."""
    await ask(house, data)


@pytest.mark.full
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
async def test_every_field_of_every_face_with_every_wrong_value(house: Target, endpoint: Endpoint) -> None:
    """Served, or refused by name; a field of a request under a hard budget and of one under none."""
    for number, body in enumerate(wrong(endpoint)):
        await asked(house, house.keys[HARD if number % 2 else FREE].secret, endpoint, body)
