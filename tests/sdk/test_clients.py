"""Unmodified clients against the product: every check is well, in both modes, and the documented table says so."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.http1 import Http
from tests.sdk.environments import ALL, Client, versions
from tests.sdk.table import checks_of, table, written

NOT_OURS = ("OPENAI_", "ANTHROPIC_", "TOLLHOUSE_", "PYTHON")
LEFT_ALONE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
"""What keeps a client from asking the world for things."""


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("client", ALL, ids=lambda client: client.script.partition(".")[0])
async def test_every_check_is_well(offered: dict[str, str], environments: Path, client: Client) -> None:
    """A client does what it does with the provider. It sends a request that a budget or a key refused (402, 409) once, and one
    that was told to wait (429) again."""
    before = {status: await _answered(offered, status) for status in ("402", "409", "429")}
    ended = await _ended(client, environments, offered)
    well = {name for name, how in ended.items() if how == "ok"}
    assert well == checks_of(client), {name: how for name, how in ended.items() if how != "ok"}
    more = {status: await _answered(offered, status) - count for status, count in before.items()}
    assert more["402"] == ("no_retry_402" in ended)
    assert more["409"] == ("no_retry_409" in ended)
    assert bool(more["429"]) == ("retry_429" in ended)


def test_the_documented_table_is_what_was_seen() -> None:
    """`docs/clients.md` names every client at its version, and each of its checks: what is not so fails above."""
    assert written() == table(versions())


async def _ended(client: Client, environments: Path, given: dict[str, str]) -> dict[str, str]:
    """How each check of a client ended: ``ok``, or why not."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    process = await asyncio.create_subprocess_exec(
        *client.command(environments),
        env=inherited | LEFT_ALONE | given,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-3000:]
    found = [line.partition(" ") for line in out.decode().splitlines() if line.startswith(("ok ", "failed "))]
    assert found, err.decode()[-3000:]
    return {rest.partition(":")[0]: "ok" if how == "ok" else rest for how, _, rest in found}


async def _answered(given: dict[str, str], status: str) -> int:
    """How many requests the router has answered so."""
    http = Http(given["URL"])
    text = (await http.call("GET", "/metrics")).body.decode()
    await http.close()
    lines = [line for line in text.splitlines() if line.startswith("tollhouse_http_requests_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if f'status="{status}"' in line)
