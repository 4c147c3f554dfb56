"""P4: every view can be thrown away. Rebuilt under load, compared by hash, switched; reads never stop."""

import asyncio
import json
import sqlite3
from typing import Any

from tests.http1 import Cut
from tests.lab import Lab
from tests.pressure import pressure
from tests.waiting import eventually

PROJECTIONS = ("directory", "balances", "usage", "audit")


async def operation(lab: Lab, path: str) -> dict[str, Any]:
    """The end of an operation of the command API."""
    started = await lab.admin("POST", path)

    async def state() -> Any:
        return await lab.admin("GET", f"/operations/{started['operation']}")

    found: dict[str, Any] = await eventually(state, lambda doc: doc["status"] != "running", seconds=120)
    return found


async def test_every_projection_is_rebuilt_under_load_and_reads_never_fail() -> None:
    """Equal hashes at equal watermarks, a new version in place, and every read in between answers 200."""
    async with Lab() as lab:
        hello = await lab.hello()
        await lab.model("m", hello.url)
        key = (await lab.org("acme"))["main"]
        await lab.budget("acme", "cap", "1000")
        failed: list[str] = []
        reads = 0
        over = asyncio.Event()

        async def reader() -> None:
            nonlocal reads
            head = {"authorization": f"Bearer {lab.admin_key}"}
            paths = ("budgets/cap", "usage?bucket=all&group_by=model", "requests?limit=5", "audit")
            while not over.is_set():
                for path in paths:
                    try:
                        answer = await lab.http.call("GET", f"/read/v1/orgs/acme/{path}", None, head)
                    except Cut as cut:
                        failed.append(f"{path}: {cut}")
                        continue
                    reads += 1
                    if answer.status != 200:
                        failed.append(f"{path}: {answer.status} {answer.body.decode()[:200]}")

        async with pressure(lab, key, "m", callers=8) as load:
            await load.of(200, 300)
            await lab.balance("acme", "cap")
            watching = asyncio.create_task(reader())
            for name in PROJECTIONS:
                before = {row["name"]: row for row in (await lab.admin("GET", "/projections"))["data"]}[name]
                done = await operation(lab, f"/projections/{name}/rebuild")
                assert done["status"] == "done", done
                result = done["result"]
                assert result["equal"] is True, result
                assert result["live_hash"] == result["rebuilt_hash"]
                after = {row["name"]: row for row in (await lab.admin("GET", "/projections"))["data"]}[name]
                assert after["version"] > before["version"]
                assert result["events"] > 0
            over.set()
            await watching
        assert not failed, failed[:3]
        assert reads > 20


async def test_a_corrupted_row_is_found() -> None:
    """`replay verify` says which projection differs and exits 6; a rebuild mends it, and verify is content again."""
    async with Lab() as lab:
        hello = await lab.hello()
        await lab.model("m", hello.url)
        key = (await lab.org("acme"))["main"]
        await lab.budget("acme", "cap", "1000")
        answer = await lab.chat(key, "m", max_tokens=20)
        true = await lab.balance("acme", "cap", answer.headers["x-tollhouse-position"])
        code, out, err = await lab.run("replay", "verify", "-o", "json")
        assert (code, json.loads(out)["equal"]) == (0, True), out + err

        with sqlite3.connect(lab.data / "views.db", timeout=30) as views:
            (table,) = views.execute(
                "SELECT name FROM sqlite_master WHERE name LIKE 'balances_buckets_%' ORDER BY name DESC LIMIT 1"
            ).fetchone()
            changed = views.execute(f"UPDATE {table} SET consumed = consumed + 1").rowcount
        views.close()
        assert changed > 0

        code, out, err = await lab.run("replay", "verify", "-o", "json")
        assert code == 6, out + err
        equal = {row["name"]: row["equal"] for row in json.loads(out)["data"]}
        assert equal == {"directory": True, "balances": False, "usage": True, "audit": True}

        code, out, err = await lab.run("replay", "rebuild", "balances", "-o", "json")
        assert code == 6, "a rebuild says that what it replaced was different: " + out + err
        code, out, err = await lab.run("replay", "verify", "-o", "json")
        assert code == 0, out + err
        assert await lab.balance("acme", "cap") == true
