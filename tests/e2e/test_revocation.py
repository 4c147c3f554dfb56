"""P5: once a command that takes something away has answered, no request that begins after it succeeds."""

import asyncio
import time

import pytest

from tests.backend import Backend
from tests.lab import Key, Lab
from tests.pressure import pressure

AFTER = 200
"""Requests that begin after the command's answer, at least."""


async def set_up(lab: Lab) -> tuple[Backend, Key]:
    """An org whose key belongs to a user, under a budget that lasts."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    await lab.org("acme")
    await lab.budget("acme", "cap", "1000")
    user = await lab.admin("POST", "/orgs/acme/users", {"email": "ann@example.com", "role": "member"})
    await lab.admin("POST", f"/orgs/acme/users/{user['id']}/accept")
    return fake, await lab.key("acme", "main", user=user["id"])


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/orgs/acme/keys/{key}/revoke", 401, "invalid_api_key"),
        ("/orgs/acme/suspend", 403, "organization_suspended"),
        ("/orgs/acme/projects/main/suspend", 403, "project_suspended"),
        ("/orgs/acme/users/{user}/suspend", 403, "user_suspended"),
        ("/backends/fake/kill", 503, "no_backend"),
    ],
)
async def test_no_request_that_begins_after_the_answer_succeeds(lab: Lab, path: str, status: int, code: str) -> None:
    """Under load, the command answers; every request begun from then on is refused with its code and reaches no backend."""
    fake, key = await set_up(lab)
    user = (await lab.admin("GET", "/orgs/acme/users"))["data"][0]["id"]
    async with pressure(lab, key, "m") as load:
        await load.of(200, 50)
        await lab.admin("POST", path.format(key=key.id, user=user))
        answered = time.monotonic()
        await load.more(AFTER)
    after = load.begun_after(answered)
    assert len(after) >= AFTER // 2
    assert {(answer.status, answer.code) for answer in after} == {(status, code)}
    assert not load.cuts
    assert not {answer.id for answer in after} & set(fake.ids)


async def test_a_lowered_limit_holds_from_its_answer_on(lab: Lab) -> None:
    """Under load, a limit is lowered below what is used: nothing that begins after the answer is admitted."""
    fake, key = await set_up(lab)
    async with pressure(lab, key, "m") as load:
        await load.of(200, 50)
        await lab.admin("PATCH", "/orgs/acme/budgets/cap", {"limit_usd": "0.000000001"})
        answered = time.monotonic()
        await load.more(AFTER)
    after = load.begun_after(answered)
    assert {(answer.status, answer.code) for answer in after} <= {(402, "insufficient_quota"), (429, "budget_busy")}
    assert 402 in {answer.status for answer in after}
    assert not {answer.id for answer in after} & set(fake.ids)


async def test_what_was_taken_away_can_be_given_back(lab: Lab) -> None:
    """Reinstated and restored, requests are served again."""
    _, key = await set_up(lab)
    for taken, given in (
        ("/orgs/acme/suspend", "/orgs/acme/reinstate"),
        ("/orgs/acme/projects/main/suspend", "/orgs/acme/projects/main/reinstate"),
        ("/backends/fake/kill", "/backends/fake/restore"),
    ):
        await lab.admin("POST", taken)
        assert (await lab.chat(key, "m")).status != 200
        await lab.admin("POST", given)
        assert (await lab.chat(key, "m")).status == 200


async def test_a_stream_under_way_ends_by_itself_and_is_paid_for(lab: Lab) -> None:
    """A key revoked while its stream runs: the stream comes to its end, and its cost is on the books."""
    fake, key = await set_up(lab)
    gate = fake.gates["m"] = asyncio.Event()
    stream = await lab.stream(key, "m", max_tokens=3)
    first = await stream.piece()
    await lab.admin("POST", f"/orgs/acme/keys/{key.id}/revoke")
    gate.set()
    rest = []
    while piece := await stream.piece():
        rest.append(piece)
    assert first.startswith(b"data: ")
    assert rest[-1].endswith(b"data: [DONE]\n\n")
    assert fake.served == {stream.headers["x-request-id"]: (3, 3)}
