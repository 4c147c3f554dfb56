"""An installation of distributed mode: its processes on real servers, the admin's steps, and callers at several gateways.

    async with House(installation) as house:
        await house.start(gateways=2)
        key = (await house.org(house.unique("org")))["main"]

Processes are started, asked and ended from outside, as `tests.lab` does it; the facts are read from Kafka itself.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from domain.ids import partition_of
from infra.adapters.kafka_reader import KafkaLogReader
from projections.ports import FACTS, Record
from tests.child import Child
from tests.http1 import Answer, Http, Opened
from tests.lab import PRICE, TOLLHOUSE, Key, Lab
from tests.waiting import eventually

SECRET = "a secret of these tests that is long enough"


@dataclass(frozen=True, slots=True)
class Installation:
    """What was bootstrapped: the settings of its processes, and its first admin key."""

    environ: Mapping[str, str]
    admin_key: str


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact as it is in the log."""

    partition: int
    offset: int
    type: str
    data: dict[str, Any]


class Process:
    """A process of the product, and a client of it."""

    def __init__(self, child: Child, url: str) -> None:
        self.child, self.url, self.http = child, url, Http(url)

    async def start(self) -> None:
        await self.http.close()
        await self.child.start()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        await self.http.close()
        return await self.child.stop()

    def says(self, text: str) -> bool:
        """Whether its log has `text`."""
        return text in self.child.log.read_text()

    async def position(self) -> int:
        """The journal position of its view; of several that share its port, of the one furthest behind."""
        text = (await self.http.call("GET", "/metrics")).body.decode()
        return min(
            int(float(line.split()[1])) for line in text.splitlines() if line.startswith("tollhouse_view_position")
        )

    async def reasons(self) -> list[str]:
        """Why it is not ready; empty when it is."""
        answer = await self.http.call("GET", "/readyz")
        found: list[str] = answer.json()["reasons"]
        assert (answer.status == 503) == bool(found)
        return found


class House(Lab):
    """See the module. The command API is that of the first control process; requests go to the gateways in turn."""

    def __init__(self, installation: Installation) -> None:
        super().__init__({"TOLLHOUSE_ALLOW_PRIVATE": "true", **installation.environ})
        self.installation = installation
        self.admin_key = installation.admin_key
        self.controls: list[Process] = []
        self.gateways: list[Process] = []
        self.gatekeepers: list[Process] = []
        self.others: list[Process] = []
        """Services that a test starts itself."""
        self._turn = count()
        self._numbers = count(1)

    async def __aenter__(self) -> "House":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = dict.fromkeys(self.processes)
        for process in processes:
            await process.http.close()
        await asyncio.gather(*(process.child.kill() for process in processes))
        await self._end()

    @property
    def processes(self) -> list[Process]:
        return [*self.controls, *self.gateways, *self.gatekeepers, *self.others]

    # -- processes

    async def begin(self, *, gateways: int = 1, controls: int = 1, gatekeepers: int = 1) -> None:
        """Starts so many of each at once, in no order; returns when all are ready."""
        self.controls += [self.make("control") for _ in range(controls)]
        self.gateways += [self.make("gateway") for _ in range(gateways)]
        self.gatekeepers += [self.make("gatekeeper") for _ in range(gatekeepers)]
        await asyncio.gather(*(process.start() for process in self.processes))
        self.http = self.controls[0].http

    def make(self, kind: str, **environ: str) -> Process:
        """A process that is not started."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            listen = f"127.0.0.1:{free.getsockname()[1]}"
        command = [TOLLHOUSE, kind, "--listen", listen]
        if kind == "gatekeeper":
            command = [sys.executable, str(Path(__file__).with_name("gatekeeper.py"))]
        log = self.folder / f"{kind}-{next(self._numbers)}.log"
        log.touch()
        return Process(Child(command, log, self.folder, self.environ | environ), f"http://{listen}")

    # -- the admin: what was made is known at every gateway before anybody uses it

    async def key(self, org: str, project: str, **terms: Any) -> Key:
        made = await super().key(org, project, **terms)
        await self.known()
        return made

    async def budget(self, org: str, budget: str, limit_usd: str, project: str | None = None) -> None:
        await super().budget(org, budget, limit_usd, project)
        await self.known()

    async def model(
        self,
        model: str,
        url: str,
        price: Mapping[str, str] = PRICE,
        backend: str = "fake",
        timeout_seconds: float = 60,
        **terms: str,
    ) -> None:
        await super().model(model, url, price, backend, timeout_seconds, **terms)
        await self.known()

    async def known(self) -> None:
        """Returns once every gateway's view has the last command; nothing says that it has before its view is proved again."""
        assert self.position is not None
        wanted = int(self.position.removeprefix("j"))
        for gateway in self.gateways:
            at = await eventually(gateway.position, lambda position: position >= wanted)
            assert at >= wanted

    # -- applications

    async def chat(
        self, key: Key, model: str, text: str = "how are you", http: Http | None = None, **fields: Any
    ) -> Answer:
        return await super().chat(key, model, text, http or self.next_gateway(), **fields)

    async def stream(self, key: Key, model: str, text: str = "how are you", **fields: Any) -> Opened:
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True, **fields}
        headers = {"authorization": f"Bearer {key.secret}"}
        return await self.next_gateway().open("POST", "/v1/chat/completions", body, headers)

    def next_gateway(self) -> Http:
        return self.gateways[next(self._turn) % len(self.gateways)].http

    # -- the log

    async def facts(self, org: str) -> list[Fact]:
        """Every fact of an organization, in order."""
        found = []
        for record in await self.partition(partition_of(org)):
            envelope = json.loads(record.value)
            if envelope["org"] == org:
                found.append(Fact(record.partition, record.offset, envelope["type"], envelope["data"]))
        return found

    async def partition(self, partition: int, topic: str = FACTS) -> list[Record]:
        """Every record of a partition, in order."""
        return await asyncio.to_thread(self._records, topic, partition)

    def _records(self, topic: str, partition: int) -> list[Record]:
        reader = KafkaLogReader(self.environ["TOLLHOUSE_KAFKA"], topic, patience=20.0)
        found: list[Record] = []
        try:
            end = reader.ends()[partition]
            while len(found) < end:
                found += reader.read(partition, len(found), 5000)
        finally:
            reader.close()
        return found[:end]


def unique(name: str) -> str:
    """A name that nobody else in the installation has."""
    return f"{name}-{uuid4().hex[:12]}"
