"""The product under attack: a real server on an empty folder and a free port, the admin's steps, and its backend.

    async with Lab() as lab:
        key = await lab.org("acme")
        ...

Everything is started, asked and ended from outside: by processes, HTTP and signals. Nothing of the product is imported.
"""

import asyncio
import csv
import io
import json
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.backend import Backend, backend
from tests.child import Child
from tests.exact import nano
from tests.http1 import Answer, Http, Opened
from tests.waiting import eventually

TOLLHOUSE = str(Path(sys.executable).with_name("tollhouse"))
"""The console script, installed beside the interpreter that runs the tests."""

PRICE = {"input_usd": "0.150001", "output_usd": "0.600007"}
"""Dollars per million tokens; nearly every cost at it ends between two nano-dollars."""


@dataclass(frozen=True, slots=True)
class Key:
    """A service key as it was issued."""

    id: str
    secret: str


@dataclass(frozen=True, slots=True)
class Balance:
    """A budget's figures in nano-dollars."""

    limit: int
    consumed: int
    held: int
    estimated: int


@dataclass(frozen=True, slots=True)
class Row:
    """A request as the books have it."""

    id: str
    outcome: str
    code: str
    model: str
    cost: int
    estimated: bool


@dataclass(slots=True)
class HelloService:
    """The product's own model backend; its journal is the truth about what it served."""

    child: Child
    url: str
    journal: Path

    def served(self) -> list[dict[str, Any]]:
        """Its journal's lines, each with request_id, model, prompt_tokens, completion_tokens, state."""
        return [json.loads(line) for line in self.journal.read_text().splitlines()]


class Lab:
    """`environ` is added to the environment of the product; everything in the folder is gone when the context ends."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        _allow_many_files()
        self.folder = Path(tempfile.mkdtemp(prefix="tollhouse-test-"))
        self.data = self.folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.listen = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self.listen}"
        self.environ = _clean_environ() | dict(environ or {})
        command = [TOLLHOUSE, "serve", "--data", str(self.data), "--listen", self.listen]
        self.product = Child(command, self.folder / "product.log", self.folder, self.environ)
        self.http = Http(self.url)
        self.admin_key = ""
        self.position: str | None = None
        """The position of the last command."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Lab":
        try:
            await self.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    # -- the product as a process

    async def start(self) -> None:
        """Starts the product, on the same folder and port as before."""
        await self.product.start()
        await self.http.close()
        self.admin_key = (self.data / "admin.key").read_text().strip()

    async def hello(self, name: str = "hello", *options: str) -> HelloService:
        """Starts a Hello service that keeps a journal."""
        journal = self.folder / f"{name}.ndjson"
        journal.touch()
        command = [TOLLHOUSE, "hello", "--listen", "127.0.0.1:0", "--journal", str(journal), *options]
        child = Child(command, self.folder / f"{name}.log", self.folder, self.environ)
        url = await child.start()
        self._stack.push_async_callback(child.kill)
        return HelloService(child, f"{url}/v1", journal)

    async def fake(self) -> Backend:
        """A backend under the test's control."""
        return await self._stack.enter_async_context(backend())

    async def run(self, *words: str, environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        """Runs the command line against this product: exit code, stdout, stderr."""
        process = await asyncio.create_subprocess_exec(
            TOLLHOUSE,
            *words,
            cwd=self.folder,
            env=self.environ | {"TOLLHOUSE_DATA": str(self.data)} | dict(environ or {}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    # -- the admin

    async def command(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> Answer:
        """One call of the command API, whatever it answers."""
        head = {"authorization": f"Bearer {key or self.admin_key}"}
        head |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.http.call(method, f"/admin/v1{path}", body, head)
        self.position = answer.headers.get("x-tollhouse-position", self.position)
        return answer

    async def admin(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """A call of the command API that must succeed."""
        answer = await self.command(method, path, body, **headers)
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {answer.body.decode()[:500]}"
        return answer.json() if answer.body else None

    async def org(self, org: str, projects: Sequence[str] = ("main",)) -> dict[str, Key]:
        """An organization with projects, and one service key for each."""
        await self.admin("POST", "/orgs", {"id": org, "name": org.title()})
        keys = {}
        for project in projects:
            await self.admin("POST", f"/orgs/{org}/projects", {"id": project, "name": project})
            keys[project] = await self.key(org, project)
        return keys

    async def key(self, org: str, project: str, **terms: Any) -> Key:
        doc = await self.admin("POST", f"/orgs/{org}/keys", {"name": "test", "project": project, **terms})
        return Key(doc["id"], doc["secret"])

    async def budget(self, org: str, budget: str, limit_usd: str, project: str | None = None) -> None:
        """A hard budget for life, of the organization or of one of its projects."""
        scope = {"kind": "project", "id": project} if project else {"kind": "org"}
        body = {"scope": scope, "limit_usd": limit_usd, "period": "lifetime", "mode": "hard"}
        await self.admin("PUT", f"/orgs/{org}/budgets/{budget}", body)

    async def model(
        self,
        model: str,
        url: str,
        price: Mapping[str, str] = PRICE,
        backend: str = "fake",
        timeout_seconds: float = 60,
        **terms: str,
    ) -> None:
        """A model with a price, served under its own name by a backend at `url`. `terms` of the backend: ``protocol``,
        ``credential``."""
        terms = {"url": url, "protocol": "openai", **terms}
        await self.admin("PUT", f"/backends/{backend}", {**terms, "timeout_seconds": timeout_seconds})
        route = {"backend": backend, "upstream_model": model, "weight": 1, "tier": 0}
        caps = {"max_output_tokens": 256, "context_tokens": 100_000}
        await self.admin("PUT", f"/models/{model}", {"routes": [route], **caps})
        await self.admin("PUT", f"/prices/{model}", dict(price))

    # -- applications

    async def chat(
        self, key: Key, model: str, text: str = "how are you", http: Http | None = None, **fields: Any
    ) -> Answer:
        """One chat completion. `fields` whose names begin with ``header_`` are headers."""
        body, headers = _chat(key, model, text, fields)
        return await (http or self.http).call("POST", "/v1/chat/completions", body, headers)

    async def stream(self, key: Key, model: str, text: str = "how are you", **fields: Any) -> Opened:
        """A streamed chat completion whose head has come."""
        body, headers = _chat(key, model, text, {"stream": True, **fields})
        return await self.http.open("POST", "/v1/chat/completions", body, headers)

    # -- the books

    async def read(self, path: str, position: str | None = None) -> Any:
        """A JSON answer of the read API, at least as new as `position` and the last command."""
        return (await self._read(path, position)).json()

    async def balance(self, org: str, budget: str, position: str | None = None) -> Balance:
        doc = await self.read(f"/orgs/{org}/budgets/{budget}", position)
        return Balance(*(nano(doc[f"{name}_usd"]) for name in ("limit", "consumed", "held", "estimated")))

    async def rows(self, org: str) -> list[Row]:
        """Every request of an organization, from its CSV."""
        text = (await self._read(f"/orgs/{org}/requests?format=csv", None)).body.decode()
        return [
            Row(
                id=row["id"],
                outcome=row["outcome"],
                code=row["code"],
                model=row["model"],
                cost=nano(row["cost_usd"] or "0"),
                estimated=row["estimated"].lower() in ("true", "1"),
            )
            for row in csv.DictReader(io.StringIO(text))
        ]

    async def csv(self, path: str) -> Answer:
        """An export of the read API, at least as new as the last command."""
        return await self._read(path, None)

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        text = (await self.http.call("GET", "/metrics")).body.decode()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(text in line for text in wanted))

    # -- inside

    async def _read(self, path: str, position: str | None) -> Answer:
        head = {"authorization": f"Bearer {self.admin_key}"}
        if (token := position or self.position) is not None:
            head["x-tollhouse-position"] = token
        answer = await eventually(
            lambda: self.http.call("GET", f"/read/v1{path}", None, head),
            lambda answer: answer.code not in ("not_ready", "view_behind"),
        )
        assert answer.status == 200, f"GET {path}: {answer.status} {answer.body.decode()[:500]}"
        return answer

    async def _end(self) -> None:
        await self.http.close()
        await self.product.kill()
        await self._stack.aclose()
        shutil.rmtree(self.folder)


def _chat(key: Key, model: str, text: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    headers = {"authorization": f"Bearer {key.secret}"}
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    for name, value in fields.items():
        if name.startswith("header_"):
            headers[name.removeprefix("header_").replace("_", "-")] = value
        else:
            body[name] = value
    return body, headers


def _clean_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TOLLHOUSE_")}


def _allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
