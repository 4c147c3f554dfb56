"""Bad input gets a clear error that names the field or setting, and changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.backend import Backend
from tests.http1 import Answer, Http
from tests.lab import Key, Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
BUDGETS = "/orgs/acme/budgets"
MESSAGES = [{"role": "user", "content": "how are you"}]
BUDGET: dict[str, Any] = {"scope": {"kind": "org"}, "limit_usd": "100", "period": "day", "mode": "hard"}
TOO_LARGE = 33 * 1024 * 1024


class House:
    """A product with one org, one key, one budget and one model, shared by the tests here: none of them changes anything."""

    def __init__(self, lab: Lab, fake: Backend, key: Key) -> None:
        self.lab, self.fake, self.key = lab, fake, key
        self._renamed = 0

    async def position(self) -> int:
        """The journal's position after one harmless command (one event)."""
        self._renamed += 1
        answer = await self.lab.command("PATCH", "/orgs/acme", {"name": f"Acme {self._renamed}"})
        return int(answer.headers["x-tollhouse-position"].removeprefix("j"))

    async def ask(self, body: Any, secret: str | None = None, path: str = CHAT) -> Answer:
        headers = {"authorization": f"Bearer {secret or self.key.secret}"}
        return await self.lab.http.call("POST", path, body, headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[House]:
    async with Lab() as lab:
        fake = await lab.fake()
        await lab.model("m", fake.url)
        key = (await lab.org("acme"))["main"]
        await lab.budget("acme", "cap", "100")
        yield House(lab, fake, key)


@pytest_asyncio.fixture(loop_scope="module")
async def house(running: House) -> AsyncIterator[House]:
    """The house; afterwards nothing has reached the backend or the journal."""
    before = await running.position()
    yield running
    assert await running.position() == before + 1
    assert not running.fake.received


# -- the router


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"", "invalid_json", None),
        (b'{"model": "m", "messages": [}', "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        ([], "invalid_value", None),
        ({"messages": MESSAGES}, "missing_model", "model"),
        ({"model": 5, "messages": MESSAGES}, "invalid_value", "model"),
        ({"model": "m"}, "invalid_value", "messages"),
        ({"model": "m", "messages": []}, "invalid_value", "messages"),
        ({"model": "m", "messages": "hello"}, "invalid_value", "messages"),
        ({"model": "m", "messages": [{"content": "no role"}]}, "invalid_value", "messages"),
        ({"model": "m", "messages": MESSAGES, "max_tokens": "ten"}, "invalid_value", "max_tokens"),
        ({"model": "m", "messages": MESSAGES, "max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"model": "m", "messages": MESSAGES, "max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"model": "m", "messages": MESSAGES, "max_completion_tokens": 1e30}, "invalid_value", "max_completion_tokens"),
        ({"model": "m", "messages": MESSAGES, "n": 0}, "invalid_value", "n"),
        ({"model": "m", "messages": MESSAGES, "stream": "yes"}, "invalid_value", "stream"),
        ({"model": "m", "messages": MESSAGES, "stream": True, "stream_options": 1}, "invalid_value", "stream_options"),
    ],
)
async def test_a_bad_request_names_its_field(house: House, body: Any, code: str, param: str | None) -> None:
    """400 with the code, the field as `param`, and an OpenAI error object; nothing is dispatched."""
    answer = await house.ask(body)
    assert (answer.status, answer.code) == (400, code)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["message"]
    assert answer.id.startswith("req_")


async def test_a_body_over_the_limit_is_413_on_every_face(house: House) -> None:
    """33 MiB: 413 request_too_large from the router and from the command API; the server goes on."""
    huge = b'{"model": "m", "messages": [{"role": "user", "content": "' + b"x" * TOO_LARGE + b'"}]}'
    from_router = await house.ask(huge)
    from_commands = await house.lab.command("POST", "/orgs", huge)
    assert (from_router.status, from_router.code) == (413, "request_too_large")
    assert (from_commands.status, from_commands.code) == (413, "request_too_large")
    assert (await house.lab.http.call("GET", "/readyz")).status == 200


async def test_a_body_of_unstated_length_over_the_limit_is_413(house: House) -> None:
    """The limit counts bytes, not promises: a chunked body is cut off as soon as it is too large."""
    host, _, port = house.lab.listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {house.key.secret}\r\ntransfer-encoding: chunked"
    writer.write(f"{head}\r\n\r\n".encode())

    async def send() -> None:
        chunk = b"x" * (1 << 20)
        for _ in range(TOO_LARGE >> 20):
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()

    sending = asyncio.create_task(send())
    status = (await reader.readuntil(b"\r\n")).split()[1]
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    assert status == b"413"


async def test_keys_that_are_not_valid_look_all_the_same(house: House) -> None:
    """A key with one character changed, an unknown one, another kind of key and none: 401 with one and the same body."""
    secret = house.key.secret
    wrong = [secret[:place] + ("x" if secret[place] != "x" else "y") + secret[place + 1 :] for place in (6, 20, -1)]
    wrong += [secret + "x", secret[:-1], secret.upper(), "th_sk_", "nonsense", house.lab.admin_key]
    answers = [await house.ask({"model": "m", "messages": MESSAGES}, candidate) for candidate in wrong]
    answers.append(await house.lab.http.call("POST", CHAT, {"model": "m", "messages": MESSAGES}))
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].code == "invalid_api_key"


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/files", "/v1/chat/completions/x", "/v1"])
async def test_an_unknown_path_is_404_and_never_passed_through(house: House, path: str) -> None:
    """Nothing goes upstream unmetered."""
    answer = await house.ask({"model": "m", "messages": MESSAGES}, path=path)
    assert (answer.status, answer.code) == (404, "unknown_url")


# -- the command API


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"limit_usd": "-1"}, "limit_usd"),
        ({"limit_usd": -1}, "limit_usd"),
        ({"limit_usd": "NaN"}, "limit_usd"),
        ({"limit_usd": float("nan")}, "limit_usd"),
        ({"limit_usd": float("inf")}, "limit_usd"),
        ({"limit_usd": "1e30"}, "limit_usd"),
        ({"limit_usd": 1e30}, "limit_usd"),
        ({"limit_usd": 10**30}, "limit_usd"),
        ({"limit_usd": "9000000.000000001"}, "limit_usd"),
        ({"limit_usd": "0.0000000001"}, "limit_usd"),
        ({"limit_usd": 0.5}, "limit_usd"),
        ({"limit_usd": ""}, "limit_usd"),
        ({"limit_usd": None}, "limit_usd"),
        ({"limit_usd": True}, "limit_usd"),
        ({"timezone": "Mars/Olympus_Mons"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"timezone": ""}, "timezone"),
        ({"period": "fortnight"}, "period"),
        ({"period": {"every": "0h"}}, "period"),
        ({"period": {"rolling_days": -1}}, "period"),
        ({"mode": "firm"}, "mode"),
        ({"scope": {"kind": "galaxy"}}, "scope.kind"),
        ({"scope": "org"}, "scope"),
        ({"scope": {"kind": "project"}}, "scope.id"),
        ({"limit": "100"}, "limit"),
        ({"thresholds": [-1]}, "thresholds"),
        ({"models": "m"}, "models"),
    ],
)
async def test_a_bad_budget_names_its_field(house: House, change: dict[str, Any], field: str) -> None:
    """400 invalid_field with the field that is wrong, or unknown; the budget is not there afterwards."""
    answer = await house.lab.command("PUT", f"{BUDGETS}/bad", BUDGET | change)
    assert (answer.status, answer.code) == (400, "invalid_field"), answer.body
    assert [name for name in answer.fields if name == field or name.startswith(f"{field}.")], answer.fields
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await house.lab.command("GET", f"{BUDGETS}/bad")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/orgs", b"{", "body"),
        ("POST", "/orgs", b"", "body"),
        ("POST", "/orgs", [], "body"),
        ("POST", "/orgs", {"name": "No id"}, "id"),
        ("POST", "/orgs", {"id": "Not An Id", "name": "X"}, "id"),
        ("POST", "/orgs", {"id": "x", "name": 5}, "name"),
        ("POST", "/orgs", {"id": "x", "name": "X", "colour": "red"}, "colour"),
        ("POST", "/orgs", {"id": "x", "name": "X", "timezone": "Nowhere/At_All"}, "timezone"),
        ("POST", "/orgs", {"id": "x", "name": "X", "budget_status": 418}, "budget_status"),
        ("POST", "/orgs/acme/keys", {"name": "k", "project": "main", "secret": "mine"}, "secret"),
        ("POST", "/orgs/acme/keys", {"name": "k", "project": "main", "limits": {"concurrent": 0}}, "limits.concurrent"),
        ("POST", "/orgs/acme/keys", {"name": "k", "project": "main", "expires_at": "soon"}, "expires_at"),
        ("POST", "/orgs/acme/users", {"email": "nobody", "role": "member"}, "email"),
        ("PUT", "/backends/b", {"url": "ftp://x", "protocol": "openai"}, "url"),
        ("PUT", "/backends/b", {"url": "http://x", "protocol": "smoke"}, "protocol"),
        ("PUT", "/backends/b", {"url": "http://x", "protocol": "openai", "timeout_seconds": -1}, "timeout_seconds"),
        ("PUT", "/models/x", {"routes": [], "max_output_tokens": 0, "context_tokens": 1}, "max_output_tokens"),
        ("PUT", "/prices/m", {"input_usd": "-1", "output_usd": "1"}, "input_usd"),
        ("PUT", "/prices/m", {"input_usd": "1"}, "output_usd"),
    ],
)
async def test_a_bad_command_names_its_field(house: House, method: str, path: str, body: Any, field: str) -> None:
    """400 invalid_field naming the field; a body that is no JSON is named `body`."""
    answer = await house.lab.command(method, path, body)
    assert (answer.status, answer.code) == (400, "invalid_field"), answer.body
    assert field in answer.fields
    assert all(error["message"] for error in answer.json()["errors"])


async def test_the_scope_and_period_of_a_budget_are_for_life(house: House) -> None:
    """409 budget_scope_fixed, and the budget is as it was."""
    before = (await house.lab.command("GET", f"{BUDGETS}/cap")).body
    for change in ({"period": "day"}, {"scope": {"kind": "project", "id": "main"}, "period": "lifetime"}):
        answer = await house.lab.command("PUT", f"{BUDGETS}/cap", BUDGET | change)
        assert (answer.status, answer.code) == (409, "budget_scope_fixed"), answer.body
    assert (await house.lab.command("GET", f"{BUDGETS}/cap")).body == before


async def test_without_an_admin_key_there_are_no_commands(house: House) -> None:
    """401 without a key, with a changed one, and with a service key."""
    admin = house.lab.admin_key
    for key in (admin[:-1] + ("x" if admin[-1] != "x" else "y"), house.key.secret, "nonsense"):
        assert (await house.lab.command("POST", "/orgs", {"id": "x", "name": "X"}, key=key)).status == 401
    bare = await house.lab.http.call("POST", "/admin/v1/orgs", {"id": "x", "name": "X"})
    assert (bare.status, bare.code) == (401, "invalid_api_key")


# -- settings and the folder


@pytest.mark.parametrize(
    ("words", "environ", "name"),
    [
        ((), {"TOLLHOUSE_NONSENSE": "1"}, "TOLLHOUSE_NONSENSE"),
        ((), {"TOLLHOUSE_SYNC": "perhaps"}, "TOLLHOUSE_SYNC"),
        ((), {"TOLLHOUSE_SECRET": "short"}, "TOLLHOUSE_SECRET"),
        ((), {"TOLLHOUSE_MAX_BODY": "-1"}, "TOLLHOUSE_MAX_BODY"),
        ((), {"TOLLHOUSE_WORKERS": "2"}, "TOLLHOUSE_WORKERS"),
        (("--listen", "nowhere"), {}, "--listen"),
        (("--nonsense",), {}, "--nonsense"),
    ],
)
async def test_an_unknown_or_impossible_setting_stops_the_start(
    house: House, tmp_path: Path, words: tuple[str, ...], environ: dict[str, str], name: str
) -> None:
    """Exit 2 with the name of the setting, and no folder is made."""
    folder = tmp_path / "never"
    code, out, err = await house.lab.run("serve", "--data", str(folder), *words, environ=environ)
    assert code == 2
    assert name in err
    assert "Traceback" not in err
    assert not out
    assert not folder.exists()


async def test_an_unknown_setting_in_the_file_stops_the_start(house: House, tmp_path: Path) -> None:
    """Exit 2 naming the key of ``tollhouse.toml``."""
    file = house.lab.folder / "tollhouse.toml"
    file.write_text('colour = "red"\n')
    try:
        code, _, err = await house.lab.run("serve", "--data", str(tmp_path / "never"))
    finally:
        file.unlink()
    assert (code, "colour" in err) == (2, True)


async def test_a_second_process_on_the_folder_is_told_so(house: House) -> None:
    """It ends with exit 5 and says which folder is open in which process; the first one goes on serving."""
    code, out, err = await house.lab.run("serve", "--data", str(house.lab.data), "--listen", "127.0.0.1:0")
    assert code == 5
    assert "ready" not in out
    assert str(house.lab.data) in err
    assert str(house.lab.product.pid) in err
    assert "Traceback" not in err
    assert (await house.lab.http.call("GET", "/readyz")).status == 200


async def test_a_port_that_is_taken_is_said_plainly(house: House, tmp_path: Path) -> None:
    """Another server's port: exit 1 with the address, no traceback."""
    code, _, err = await house.lab.run("serve", "--data", str(tmp_path / "data"), "--listen", house.lab.listen)
    assert code == 1
    assert house.lab.listen in err
    assert "Traceback" not in err
    async with Http(house.lab.url) as other:
        assert (await other.call("GET", "/healthz")).status == 200
