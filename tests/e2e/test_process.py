"""The process: its ready line and health, a drained end, nothing left behind, and no secret where none belongs."""

import asyncio
import json
import os
import signal
import stat
import sys

import pytest

from tests.backend import Backend
from tests.http1 import Cut, Http
from tests.lab import Key, Lab
from tests.waiting import eventually, until

PROMPT, WORD, CREDENTIAL = "xylophoneprompt", "marimbaword", "glockenspielcredential"


async def test_it_says_when_it_is_ready_and_how_it_is(lab: Lab) -> None:
    """One ready line with its URL; alive, ready and measured on the same port; logs are JSON lines."""
    assert [line for line in lab.product.said if line.startswith("ready ")] == [f"ready {lab.url}"]
    healthy, ready, metrics = [await lab.http.call("GET", path) for path in ("/healthz", "/readyz", "/metrics")]
    assert (healthy.status, ready.status, metrics.status) == (200, 200, 200)
    assert ready.json()["reasons"] == []
    assert metrics.headers["content-type"].startswith("text/plain")
    assert b"# TYPE tollhouse_http_requests_total counter" in metrics.body
    assert await lab.product.stop() == 0
    for line in lab.product.log.read_text().splitlines():
        assert {"time", "level", "message"} <= set(json.loads(line))


async def test_the_first_admin_key_is_printed_once_and_kept_private(lab: Lab) -> None:
    """It is on stdout of the first start only; admin.key and secret belong to their owner alone."""
    assert [line for line in lab.product.said if lab.admin_key in line]
    for name in ("admin.key", "secret"):
        assert stat.S_IMODE((lab.data / name).stat().st_mode) == 0o600
    first = lab.admin_key
    assert await lab.product.stop() == 0
    await lab.start()
    assert lab.admin_key == first
    assert lab.product.said == [f"ready {lab.url}"]
    assert (await lab.command("GET", "/orgs")).status == 200


async def test_sigterm_drains_what_is_under_way_and_exits_0(lab: Lab) -> None:
    """A plain request and a stream under way come to their whole end; new ones are not taken; nothing runs on."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    gate = fake.gates["m"] = asyncio.Event()
    plain = asyncio.create_task(lab.chat(key, "m", max_tokens=3))
    stream = await lab.stream(key, "m", max_tokens=3)
    await until(lambda: len(fake.received) == 2, "both are dispatched")
    lab.product.terminate()

    async def refused() -> bool:
        async with Http(lab.url) as newcomer:
            try:
                return (await newcomer.call("GET", "/healthz")).status >= 500
            except Cut:
                return True

    assert await eventually(refused, lambda gone: gone)
    with pytest.raises(TimeoutError):
        await lab.product.main_ended(2)
    gate.set()
    assert (await stream.rest()).endswith(b"data: [DONE]\n\n")
    assert (await plain).status == 200
    assert await lab.product.ended() == 0
    assert not lab.product.living()
    await lab.start()
    rows = await eventually(lambda: lab.rows("acme"), lambda rows: len(rows) == 2)
    assert {(row.id, row.outcome) for row in rows} == {(id, "completed") for id in fake.served}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_who_outlasts_the_drain_is_told_so(lab: Lab, path: str) -> None:
    """503 `not_ready` in the shape of his protocol, with the id under which the books have the request: nobody knows what it
    cost, so its whole hold counts. A body that is still on its way gets the same, and nothing is held for it."""
    fake = await lab.fake()
    key = await _short_drain(lab, fake)
    head = {"authorization": f"Bearer {key.secret}"}
    asked = {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "how are you"}]}
    sent = asyncio.create_task(lab.http.call("POST", path, asked, head))
    await until(lambda: len(fake.received) == 1, "it is dispatched")
    late = asyncio.create_task(lab.http.call("POST", path, b"{", {**head, "content-length": "9"}))
    await eventually(lambda: lab.metric("tollhouse_requests_under_way"), lambda places: places == 2)
    lab.product.terminate()
    for answer in await asyncio.gather(sent, late):
        assert (answer.status, answer.json()["error"]["code"]) == (503, "not_ready"), answer.body
        assert (answer.json().get("type") == "error") == (path == "/v1/messages")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.id.startswith("req_")
    assert await lab.product.ended() == 0
    await lab.start()
    (row,) = await eventually(lambda: lab.rows("acme"), lambda rows: len(rows) == 1)
    assert (row.id, row.outcome, row.code, row.estimated) == ((await sent).id, "unconfirmed", "not_ready", True)
    balance = await lab.balance("acme", "cap")
    assert (balance.held, balance.consumed) == (0, row.cost)
    assert balance.consumed > 0


async def test_a_stream_that_outlasts_the_drain_is_charged_for_what_was_seen(lab: Lab) -> None:
    """Its caller sees it break; the books have it as abandoned, and nothing of it is held any more."""
    fake = await lab.fake()
    key = await _short_drain(lab, fake)
    stream = await lab.stream(key, "m", max_tokens=3)
    assert await stream.piece()
    lab.product.terminate()
    with pytest.raises(Cut):
        await stream.rest()
    assert await lab.product.ended() == 0
    await lab.start()
    (row,) = await eventually(lambda: lab.rows("acme"), lambda rows: len(rows) == 1)
    assert (row.id, row.outcome, row.estimated) == (stream.headers["x-request-id"], "completed", True)
    balance = await lab.balance("acme", "cap")
    assert (balance.held, balance.consumed) == (0, row.cost)


async def _short_drain(lab: Lab, fake: Backend) -> Key:
    """Starts the product anew as one that waits for less than it does; its model `m` never comes to the end of an answer."""
    assert await lab.product.stop() == 0
    shorter = "import cli.http_server; cli.http_server.DRAIN_SECONDS = 0.5; from cli.main import main; main()"
    lab.product.command[:1] = [sys.executable, "-c", shorter]
    await lab.start()
    fake.gates["m"] = asyncio.Event()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "100")
    return key


async def test_sigterm_ends_those_who_follow_the_events(lab: Lab) -> None:
    """What never ends by itself ends whole when the drain begins, and holds nobody up; a stream of a model still comes to its own
    end."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    head = {"authorization": f"Bearer {lab.admin_key}", "accept": "text/event-stream"}
    gate = fake.gates["m"] = asyncio.Event()
    stream = await lab.stream(key, "m", max_tokens=3)
    following = [
        await lab.http.open("GET", path, headers=head) for path in ("/admin/v1/events", "/read/v1/orgs/acme/events")
    ]
    assert all([await opened.piece() for opened in following])  # a sign of life, or what its view did not have yet
    lab.product.terminate()
    for opened in following:
        while await opened.piece():
            pass
    gate.set()
    assert (await stream.rest()).endswith(b"data: [DONE]\n\n")
    assert await lab.product.ended() == 0


async def test_the_interrupt_of_a_terminal_ends_it_too(lab: Lab) -> None:
    """SIGINT to the whole group, as Ctrl-C sends it: exit 0, nothing left."""
    os.killpg(lab.product.pid, signal.SIGINT)
    assert await lab.product.ended() == 0


async def test_its_children_end_with_it_also_by_kill_9(lab: Lab) -> None:
    """kill -9 of the main process alone: the views process ends by itself, and the folder can be opened again."""
    await until(lambda: len(lab.product.living()) == 2, "main process and views process")
    await lab.product.kill_main()
    await until(lambda: not lab.product.living(), "the views process ended")
    await lab.start()
    assert (await lab.http.call("GET", "/readyz")).status == 200


async def test_a_views_process_that_dies_is_started_again(lab: Lab) -> None:
    """Reads come back by themselves; the router does not notice."""
    fake = await lab.fake()
    await lab.model("m", fake.url)
    key = (await lab.org("acme"))["main"]
    await lab.budget("acme", "cap", "100")
    await lab.balance("acme", "cap")
    (views,) = [pid for pid in lab.product.living() if pid != lab.product.pid]
    os.kill(views, signal.SIGKILL)
    answer = await lab.chat(key, "m", max_tokens=3)
    assert answer.status == 200
    position = answer.headers["x-tollhouse-position"]
    assert (await lab.balance("acme", "cap", position)).consumed > 0
    assert views not in lab.product.living()


async def test_no_secret_and_no_text_is_where_it_does_not_belong() -> None:
    """Keys, credentials, the installation's secret, prompts and completions are in no log line and in no file of the folder,
    but the admin key and the secret in their own files."""
    async with Lab() as lab:
        fake = await lab.fake()
        fake.word = WORD
        await lab.model("m", fake.url)
        await lab.admin(
            "PUT", "/backends/fake", {"url": fake.url, "protocol": "openai", "credential": f"sk-{CREDENTIAL}"}
        )
        key = (await lab.org("acme"))["main"]
        await lab.budget("acme", "cap", "0.01")
        secrets = [key.secret, *await _secrets(lab, key), *await _traffic(lab, key)]
        assert {request.headers["authorization"] for request in fake.received} == {f"Bearer sk-{CREDENTIAL}"}
        rows = await eventually(lambda: lab.rows("acme"), lambda rows: len(rows) >= 3)
        assert {row.outcome for row in rows} == {"completed", "denied"}
        running = _found(lab, [*secrets, lab.admin_key])
        assert await lab.product.stop() == 0
        assert not running + _found(lab, [*secrets, lab.admin_key])


async def _secrets(lab: Lab, key: Key) -> list[str]:
    """Secrets from every command that answers one, some with a ledger entry, and ones that were only tried."""
    body = {"name": "again", "project": "main"}
    made = await lab.admin("POST", "/orgs/acme/keys", body, idempotency_key="sealed")
    again = await lab.admin("POST", "/orgs/acme/keys", body, idempotency_key="sealed")
    assert made == again
    rotated = await lab.admin("POST", f"/orgs/acme/keys/{made['id']}/rotate", {"grace_seconds": 60})
    admin = await lab.admin("POST", "/admin-keys", {"name": "viewer", "role": "org-viewer", "org": "acme"})
    tried = key.secret[:-1] + ("x" if key.secret[-1] != "x" else "y")
    assert (await lab.chat(Key("", tried), "m")).status == 401
    assert (await lab.command("GET", "/orgs", key=tried)).status == 401
    return [made["secret"], rotated["secret"], admin["secret"], tried]


async def _traffic(lab: Lab, key: Key) -> list[str]:
    """Prompts and answers of requests that were served, streamed, failed, refused and malformed."""
    fake_words = [PROMPT, WORD, CREDENTIAL, "idempotencycanary"]
    assert (await lab.chat(key, "m", PROMPT, max_tokens=3, user=PROMPT)).status == 200
    stream = await lab.stream(key, "m", PROMPT, max_tokens=3, header_idempotency_key="idempotencycanary")
    while await stream.piece():
        pass
    headers = {"authorization": f"Bearer {key.secret}"}
    errors = [
        await lab.chat(key, "m", PROMPT, max_tokens=1_000_000),
        await lab.chat(key, "m", PROMPT, metadata=5, tools=PROMPT),
        await lab.chat(key, "m", PROMPT, max_tokens=PROMPT),
        await lab.http.call("POST", "/v1/chat/completions", f'{{"model": "{PROMPT}'.encode(), headers),
        await lab.chat(Key("", key.secret + "x"), "m", PROMPT),
    ]
    assert [answer.status for answer in errors] == [402, 400, 400, 400, 401]
    for answer in errors:
        told = answer.body.decode() + str(answer.headers)
        assert not [secret for secret in (*fake_words, key.secret) if secret in told], told
    return fake_words


def _found(lab: Lab, secrets: list[str]) -> list[str]:
    """Where a secret is, but for the two files that are there to hold one."""
    installation = (lab.data / "secret").read_text().strip()
    files = [path for path in lab.data.rglob("*") if path.is_file() and path.name not in ("admin.key", "secret")]
    found = []
    for path in [*files, lab.product.log]:
        content = path.read_bytes()
        there = [secret for secret in (*secrets, installation) if secret.encode() in content]
        found += [f"{secret} in {path.relative_to(lab.folder)}" for secret in there]
    return found
