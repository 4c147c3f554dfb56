"""The main flow with everything that goes wrong in it, on a product that runs, in either mode.

Callers and admins put canaries wherever a secret or a text of theirs belongs. What they are told is kept: errors of the product
itself, what reads answer, and metrics must have none of them.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from tests.attack.wire import converse
from tests.canaries.backend import WAYS, Parrot
from tests.canaries.planted import Canaries
from tests.http1 import Answer, Cut, Http
from tests.lab import Key, Lab
from tests.waiting import eventually

TIMEOUT_SECONDS = 2.0
PROTOCOLS = {"openai": "/v1", "anthropic": ""}
"""And what of the URL is the base of each."""

FACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}], "user": text, "metadata": {"a": text}},
    "/v1/completions": lambda text: {"prompt": text},
    "/v1/embeddings": lambda text: {"input": text},
    "/v1/responses": lambda text: {"input": text, "instructions": text},
    "/v1/messages": lambda text: {"messages": [{"role": "user", "content": text}], "system": text, "max_tokens": 3},
    "/v1/messages/count_tokens": lambda text: {"messages": [{"role": "user", "content": text}]},
}  # fmt: skip


class Flow:
    """`gateway` takes requests at `listen`; `known` returns once it knows every command. `told`: what the product said, by what
    it was asked."""

    def __init__(
        self,
        lab: Lab,
        gateway: Http,
        listen: str,
        parrot: Parrot,
        canaries: Canaries,
        known: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.lab, self.gateway, self.listen, self.parrot, self.canaries = lab, gateway, listen, parrot, canaries
        self.told: list[tuple[str, bytes]] = []
        self.org = ""
        self._known = known
        self._numbers = 0

    async def run(self, org: str) -> None:
        """Everything, for an organization of its own."""
        self.org = org
        await self._backends()
        key, poor = await self._keys()
        if self._known is not None:
            await self._known()
        asking = [partial(self._ask, key, path, way) for path in FACES for way in WAYS]
        await asyncio.gather(*(ask(stream=stream) for ask in asking for stream in (False, True)))
        await self._leave(key)
        await self._wrongly(key, poor)
        await self._admins()
        await eventually(lambda: self.lab.rows(org), lambda rows: all(row.outcome != "open" for row in rows))

    def went_on(self) -> list[str]:
        """What of a caller's headers, keys and address reached a backend: of all that, only the body is for it."""
        assert len(self.parrot.heads) > 100
        theirs = [name for name in self.canaries.texts if name not in ("a backend's credential", "a prompt")]
        found = {name for head in self.parrot.heads for name in self.canaries.found(head)}
        return sorted(name for name in found if name.split(",")[0] in theirs)

    def keep(self, what: str, answer: Answer) -> Answer:
        """Remembers what the product itself said; what a backend said is the caller's own."""
        if answer.status >= 400 and "x-tollhouse-backend" not in answer.headers:
            self.told.append((f"{what}: {answer.status}", answer.body))
        elif answer.status >= 400:
            assert self.canaries.texts["a backend's credential"].encode() not in answer.body
        return answer

    # -- the control plane

    async def _backends(self) -> None:
        """For each way to answer a model, and backends of its own: what one of them does says nothing about the others."""
        credential = self.canaries.plant("a backend's credential", "sk-")
        for way in WAYS:
            routes = []
            for protocol, base in PROTOCOLS.items():
                terms = {"url": self.parrot.url + base, "protocol": protocol, "timeout_seconds": TIMEOUT_SECONDS}
                await self.lab.admin("PUT", f"/backends/{protocol}-{way}", {**terms, "credential": credential})
                routes.append({"backend": f"{protocol}-{way}", "upstream_model": way, "weight": 1, "tier": 0})
            caps = {"max_output_tokens": 256, "context_tokens": 100_000}
            await self.lab.admin("PUT", f"/models/{way}", {"routes": routes, **caps})
            await self.lab.admin("PUT", f"/prices/{way}", {"input_usd": "1", "output_usd": "1"})
        await self.lab.admin("PUT", "/models/openai-only", {"routes": routes[:1], **caps})
        await self.lab.admin("PUT", "/prices/openai-only", {"input_usd": "1", "output_usd": "1"})
        await self._bad_backends(credential)

    async def _bad_backends(self, credential: str) -> None:
        path, terms = "/backends/openai-served", {"url": self.parrot.url, "protocol": "openai"}
        wrong: list[dict[str, Any]] = [
            {"credential": f"{credential} {credential}"},
            {"credential": [credential]},
            {"credential": credential * 200},
            {"password": credential, "credential": credential},
            {"url": f"http://user:{credential}@x", "credential": credential},
            {"protocol": credential},
            {"timeout_seconds": credential},
        ]
        for fields in wrong:
            answer = self.keep("a bad backend", await self.lab.command("PUT", path, {**terms, **fields}))
            assert answer.status == 400, fields
        half = f'{{"credential": "{credential}"'.encode()
        self.keep("half a backend", await self.lab.command("PUT", path, half))

    async def _keys(self) -> tuple[Key, Key]:
        org = self.org
        await self.lab.admin("POST", "/orgs", {"id": org, "name": "Acme"})
        for project in ("rich", "poor"):
            await self.lab.admin("POST", f"/orgs/{org}/projects", {"id": project, "name": project})
        keys = []
        for project in ("rich", "poor"):
            terms = {"name": "k", "project": project}
            made = [await self.lab.admin("POST", f"/orgs/{org}/keys", terms, idempotency_key=project) for _ in "12"]
            assert made[0] == made[1]
            keys.append(Key(made[0]["id"], self.canaries.keep(f"the {project} service key", made[0]["secret"])))
        rotated = await self.lab.admin("POST", f"/orgs/{org}/keys/{keys[0].id}/rotate", {"grace_seconds": 600})
        self.canaries.keep("a rotated service key", rotated["secret"])
        admin = await self.lab.admin("POST", "/admin-keys", {"name": "a", "role": "org-admin", "org": org})
        self.canaries.keep("an admin key", admin["secret"])
        self.canaries.keep("the first admin key", self.lab.admin_key)
        await self.lab.budget(org, "cap", "1000000", "rich")
        await self.lab.budget(org, "poor", "0.000000001", "poor")
        return keys[0], keys[1]

    async def _admins(self) -> None:
        admin = self.canaries.texts["an admin key"]
        for key in (admin, admin + "x", admin[:-1], f"{admin} {admin}"):
            for path in (f"/orgs/{self.org}", "/backends", f"/orgs/{key}", f"/nothing/{key}"):
                self.keep("an admin", await self.lab.command("GET", path, key=key))
        for body in ({"name": admin, "role": admin}, {"id": admin, "name": [admin]}, [admin]):
            self.keep("a bad command", await self.lab.command("POST", "/admin-keys", body))

    # -- the data plane

    async def _ask(self, key: Key, path: str, model: str, *, stream: bool = False) -> None:
        """One request, full of canaries, that the parrot answers in its way; and once more with the same Idempotency-Key."""
        self._numbers += 1
        body = {"model": model, "stream": stream, **FACES[path](self._planted("a prompt"))}
        if path == "/v1/embeddings" or path.endswith("count_tokens"):
            del body["stream"]
        headers = self._caller(key.secret)
        headers["idempotency-key"] = f"{self._planted('a request’s Idempotency-Key')}-{self._numbers}"
        for _ in range(2):
            with suppress(Cut):
                self.keep(
                    f"{path} of {model}",
                    await self.gateway.call("POST", f"{path}?a={self._planted('a query')}", body, headers),
                )

    async def _leave(self, key: Key) -> None:
        """Callers who go away: half way through a stream, before the answer, and before their request was whole."""
        body = {"model": "served", "stream": True, **FACES["/v1/chat/completions"](self.canaries.texts["a prompt"])}
        opened = await self.gateway.open("POST", "/v1/chat/completions", body, self._caller(key.secret))
        opened.leave()
        data = json.dumps({**body, "model": "silent", "stream": False}).encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in self._caller(key.secret).items())
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(data)}\r\n\r\n".encode()
        await converse(self.listen, [head + data], ["POST"], leave=True)
        await converse(self.listen, [head + data[:-1]], ["POST"], leave=True)
        broken = head.replace(b"content-length", b"content-length : x\r\ncontent-length")
        for answer in (await converse(self.listen, [broken + data], ["POST"])).answers:
            self.told.append(("what is no HTTP", answer.body))

    async def _wrongly(self, key: Key, poor: Key) -> None:
        prompt = self.canaries.texts["a prompt"]
        path = "/v1/chat/completions"
        good = {"model": "served", **FACES[path](prompt)}
        wrong: list[Any] = [
            json.dumps(good).encode()[:-1],
            json.dumps(good).encode() + prompt.encode(),
            prompt.encode(),
            json.dumps(prompt).encode(),
            [prompt],
            {**good, "messages": prompt},
            {**good, "messages": [prompt]},
            {**good, "messages": [{"role": [prompt], "content": prompt}]},
            {**good, "messages": [{"role": "user", "content": {"text": prompt}}]},
            {**good, "messages": [{"role": "user", "content": [prompt]}]},
            {**good, "messages": [{"role": "user", "content": [{"type": "video", "text": prompt}]}]},
            *(
                {**good, name: prompt}
                for name in ("n", "max_tokens", "stream", "tools", "stream_options", "service_tier", "audio")
            ),
        ]
        for body in wrong:
            self.keep("a bad body", await self.gateway.call("POST", path, body, self._caller(key.secret)))
        await self._misnamed(key, poor)
        broke = self.keep("poor", await self.gateway.call("POST", path, good, self._caller(poor.secret)))
        assert broke.status == 402, broke
        self.keep(
            "a bad model", await self.gateway.call("POST", path, {**good, "model": "none"}, self._caller(key.secret))
        )
        for secret in (key.secret + "x", key.secret[:-1], f"{key.secret} {key.secret}", key.secret.upper()):
            assert (
                self.keep("a stranger", await self.gateway.call("POST", path, good, self._caller(secret))).status == 401
            )
        for method, place in (("POST", f"/v1/{prompt}"), ("GET", f"/v1/models?key={key.secret}"), ("DELETE", path)):
            answer = await self.gateway.call(method, place, good, self._caller(key.secret))
            if prompt not in place:
                self.keep("a bad path", answer)

    async def _misnamed(self, key: Key, poor: Key) -> None:
        """What is refused by its name: that is for the caller, who chose it, and for nobody else."""
        name = self._planted("a name of a caller's")
        chat, messages = "/v1/chat/completions", "/v1/messages"
        part = [{"role": "user", "content": [{"type": name}]}]
        for path, secret, model, more, status in (
            (chat, poor, "served", {name: 1}, 422),
            (chat, poor, "served", {"messages": part}, 422),
            (messages, poor, "served", {"messages": part}, 422),
            ("/v1/responses", poor, "served", {"input": [{"type": name}]}, 422),
            (messages, key, "openai-only", {name: 1}, 400),
            (messages, key, "openai-only", {"messages": part}, 400),
        ):
            body = {"model": model, **FACES[path](self.canaries.texts["a prompt"]), **more}
            answer = await self.gateway.call("POST", path, body, self._caller(secret.secret))
            assert answer.status == status, answer.body

    def _planted(self, name: str) -> str:
        return self.canaries.texts.get(name) or self.canaries.plant(name)

    def _caller(self, secret: str) -> dict[str, str]:
        """Headers as a caller might send them, who is not told which of them go on."""
        own = self._planted("a header of a caller")
        return {
            "authorization": f"Bearer {secret}",
            "cookie": f"session={own}",
            "x-canary": own,
            "user-agent": own,
            "openai-organization": own,
        }


async def reads(flow: Flow, http: Http) -> None:
    """What the read side answers about all of it."""
    head = {"authorization": f"Bearer {flow.lab.admin_key}"}
    org = flow.org
    paths = [
        f"/read/v1/orgs/{org}/requests?format=ndjson",
        f"/read/v1/orgs/{org}/usage?group_by=model,key",
        f"/read/v1/orgs/{org}/audit",
        f"/read/v1/orgs/{org}/budgets",
        "/admin/v1/backends",
        "/admin/v1/models",
        "/admin/v1/admin-keys",
        f"/admin/v1/orgs/{org}/keys",
        "/admin/v1/parked",
        "/admin/v1/projections",
        "/metrics",
    ]
    for path in paths:
        answer = await eventually(partial(http.call, "GET", path, None, head), lambda answer: answer.status != 503)
        assert answer.status == 200, (path, answer.body)
        flow.told.append((path, answer.body))
    rows = (await http.call("GET", f"/read/v1/orgs/{org}/requests?format=ndjson", None, head)).body.splitlines()
    each = {(row["outcome"], row["code"], row["model"]): row["id"] for row in map(json.loads, rows)}
    for id in each.values():
        flow.told.append((id, (await http.call("GET", f"/read/v1/requests/{id}", None, head)).body))


def leaks(flow: Flow, places: Mapping[str, bytes]) -> list[str]:
    """Each canary that is where it must not be: in what was told, or in `places`."""
    found = [f"{what}: {name}" for what, data in flow.told for name in flow.canaries.found(data)]
    return found + [f"{place}: {name}" for place, data in places.items() for name in flow.canaries.found(data)]
