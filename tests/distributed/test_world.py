"""The World service: a processor, a projection and an endpoint of its own, beside everything else."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.distributed.house import House, unique
from tests.http1 import Answer
from tests.waiting import eventually


async def test_world_tells_the_slowest_models_to_whoever_may_know(house: House) -> None:
    """What the fast and the slow backend took, by organization; nothing to strangers, and nothing about other organizations."""
    await house.begin()
    world = house.make("world")
    house.others.append(world)
    await world.start()
    fast, slow = await house.hello("fast"), await house.hello("slow", "--ttft-ms", "300")
    quick, tardy, org, other = unique("quick"), unique("tardy"), unique("org"), unique("other")
    await house.model(quick, fast.url, backend=unique("fast"))
    await house.model(tardy, slow.url, backend=unique("slow"))
    keys, strangers = await house.org(org), await house.org(other)
    for model, times in ((quick, 3), (tardy, 2)):
        for _ in range(times):
            assert (await house.chat(keys["main"], model, max_tokens=2)).status == 200
    assert (await house.chat(strangers["main"], quick, max_tokens=2)).status == 200

    async def ask(about: str, key: str, query: str = "") -> Answer:
        path = f"/world/v1/orgs/{about}/slowest-models{query}"
        return await world.http.call("GET", path, None, {"authorization": f"Bearer {key}"})

    def complete(answer: Answer) -> bool:
        if answer.status != 200:
            return False
        told = answer.json()
        return bool(told["lag_events"] == 0) and sum(row["requests"] for row in told["data"]) == 5

    began = datetime.now(UTC)
    answered = (await eventually(lambda: ask(org, house.admin_key), complete)).json()
    assert began <= datetime.fromisoformat(answered["since"]) + timedelta(hours=1) <= datetime.now(UTC)
    assert answered["lag_events"] == 0
    rows: list[dict[str, Any]] = answered["data"]
    assert [(row["model"], row["requests"]) for row in rows] == [(tardy, 2), (quick, 3)]
    assert rows[0]["slowest_ms"] >= rows[0]["mean_ms"] >= 300 > rows[1]["mean_ms"]
    assert len((await ask(org, house.admin_key, "?limit=1")).json()["data"]) == 1
    assert (await ask(org, house.admin_key, "?hours=25")).json()["errors"][0]["field"] == "hours"
    assert (await ask(org, keys["main"].secret)).status == 401
    assert (await ask(org, "th_ak_nobody")).status == 401
    viewer = await house.admin("POST", "/admin-keys", {"name": "v", "role": "org-viewer", "org": other})
    assert (await ask(org, viewer["secret"])).status == 404
    assert [row["model"] for row in (await ask(other, viewer["secret"])).json()["data"]] == [quick]
    assert await world.stop() == 0
