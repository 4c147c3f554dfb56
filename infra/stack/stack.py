"""The stack of one folder: its servers, their ports and the processes that run them.

Guarantees: everything listens on 127.0.0.1; ports are chosen once and kept; `up` starts what does not run, on the data it had,
and returns when every server answers; `down` leaves no process. Several processes may use one folder: they take turns.
It does not watch: a server that dies stays dead until the next `up`.
"""

import fcntl
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec

from domain.errors import Conflict, NotFound, invalid
from infra.stack import running
from infra.stack.clickhouse import ClickHouse
from infra.stack.kafka import Broker, Node, Runtime, Tell, train
from infra.stack.ports import HOST, choose
from infra.stack.postgres import Postgres
from infra.stack.process import Process
from infra.stack.redis import Redis
from infra.stack.server import Server, launch, sweep
from infra.stack.state import ServerState, State, load, save

BROKER_COUNTS = (1, 3)

_OTHERS = ("postgres", "redis", "clickhouse")
_NAMED = Postgres | Redis | ClickHouse

_LOOK_SECONDS = 0.01


class ServerStatus(msgspec.Struct):
    """`state`: ``ready``, ``silent`` (it runs and does not answer; `awaited` says what for), ``paused`` or ``stopped``."""

    name: str
    state: str
    pid: int | None
    port: int
    awaited: str | None


class Stack:
    """Kafka, PostgreSQL, Redis and ClickHouse in `folder`.

    `brokers`: 1 or 3; None is what the folder has, else 1. `cache`: where Kafka's jars are kept for all folders. As a context
    manager it is up inside the block and down afterwards. Every method that starts something raises `Unavailable`: with code
    ``missing_dependency`` it says what to install, with ``stack_failed`` what went wrong.
    """

    def __init__(
        self,
        folder: Path,
        brokers: int | None = None,
        *,
        cache: Path | None = None,
        tell: Tell = lambda _: None,
    ) -> None:
        if brokers not in (None, *BROKER_COUNTS):
            raise invalid("--brokers", f"must be 1 or 3; got {brokers}")
        self.folder = folder.resolve()
        self._brokers = brokers
        self._runtime = Runtime((cache or Path.home() / ".cache" / "tollhouse").resolve(), tell, train)

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def urls(self) -> dict[str, str]:
        """Where clients find each: ``kafka`` (HOST:PORT, comma separated), ``postgres``, ``redis`` and ``clickhouse`` (URLs). The
        ports stay the same for ever. Raises `NotFound` before the first `up`."""
        state = self._known()
        kafka = ",".join(f"{HOST}:{node.port}" for node in _nodes(state))
        servers = self._servers(state).values()
        return {"kafka": kafka, **{each.name: each.url for each in servers if isinstance(each, _NAMED)}}

    @property
    def environment(self) -> dict[str, str]:
        """`urls` as the settings of Tollhouse: TOLLHOUSE_KAFKA, TOLLHOUSE_POSTGRES and so on."""
        return {f"TOLLHOUSE_{name.upper()}": url for name, url in self.urls.items()}

    @property
    def names(self) -> list[str]:
        """The servers: ``kafka-1`` to ``kafka-3``, ``postgres``, ``redis``, ``clickhouse``. Raises `NotFound` before the first
        `up`."""
        return list(self._known().servers)

    def up(self) -> None:
        """Starts every server that does not run, and returns when all of them answer."""
        with self._alone():
            state = load(self.folder) or self._new()
            if self._brokers not in (None, state.brokers):
                raise Conflict(f"{self.folder} has {state.brokers} broker(s), not {self._brokers}: use another folder")
            for name in _OTHERS:
                if name not in state.servers:  # the folder is older than this kind of server
                    state.servers[name] = ServerState(choose(1))
            servers = self._servers(state)
            self._start(state, [servers[name] for name, each in state.servers.items() if not _alive(each)], servers)

    def down(self) -> None:
        """Stops every server cleanly, and kills those that do not stop. The data stay."""
        state = load(self.folder)
        if state is None:
            return
        with self._alone():
            state = self._known()
            self._stop(state, list(state.servers))

    def start(self, name: str) -> None:
        """Starts one server that does not run, and returns when it answers."""
        with self._alone():
            state = self._known()
            servers = self._servers(state)
            self._start(state, [] if _alive(_one(state, name)) else [servers[name]], {name: servers[name]})

    def stop(self, name: str) -> None:
        """Stops one server cleanly."""
        with self._alone():
            state = self._known()
            _one(state, name)
            self._stop(state, [name])

    def kill(self, name: str) -> None:
        """SIGKILL to one server; returns when it is dead. Raises `NotFound` if it does not run."""
        running.kill(*self._started(name))

    def pause(self, name: str) -> None:
        """SIGSTOP to one server and its children; returns once it stands still. Raises `NotFound` if it does not run."""
        server, process = self._started(name)
        running.send(server, process, signal.SIGSTOP)
        while process.running:  # the signal is taken when its threads are next woken
            time.sleep(_LOOK_SECONDS)

    def resume(self, name: str) -> None:
        """SIGCONT after `pause`."""
        running.send(*self._started(name), signal.SIGCONT)

    def status(self) -> list[ServerStatus]:
        """Every server as it is now. Raises `NotFound` before the first `up`."""
        state = self._known()
        going = _running(state)
        found = []
        for name, server in self._servers(state).items():
            each = state.servers[name]
            alive = each.process is not None and each.process.alive
            awaited = server.awaited(going) if name in going else None
            told = "stopped" if not alive else "paused" if name not in going else "silent" if awaited else "ready"
            pid = each.process.pid if alive and each.process else None
            found.append(ServerStatus(name, told, pid, each.ports[0], awaited))
        return found

    def _start(self, state: State, dead: Sequence[Server], wanted: Mapping[str, Server]) -> None:
        """Starts `dead`, and waits for `wanted`."""
        if any(isinstance(server, Broker) for server in dead):
            self._runtime.prepare()
        with ThreadPoolExecutor() as pool:
            list(pool.map(_make_ready, dead))
        for server in dead:
            self._launch(state, server)
        started = [(server, process) for name, server in wanted.items() if (process := state.servers[name].process)]
        running.wait_ready(started, lambda: _running(state))

    def _launch(self, state: State, server: Server) -> None:
        each = state.servers[server.name]
        if each.process is not None:
            each.process.ended(0)
        each.process = launch(server)
        save(self.folder, state)

    def _stop(self, state: State, names: Sequence[str]) -> None:
        servers = self._servers(state)
        running.stop([(servers[name], process) for name in names if (process := state.servers[name].process)])
        for name in names:
            state.servers[name].process = None
        save(self.folder, state)

    def _started(self, name: str) -> tuple[Server, Process]:
        state = self._known()
        process = _one(state, name).process
        if process is None or not process.alive:
            raise NotFound(f"{name} does not run in {self.folder}")
        return self._servers(state)[name], process

    def _servers(self, state: State) -> dict[str, Server]:
        nodes = _nodes(state)
        brokers = [Broker(self.folder / node.name, node, nodes, self._runtime) for node in nodes]
        port = {name: each.ports[0] for name, each in state.servers.items()}
        servers: list[Server] = [
            *brokers,
            Postgres(self.folder / "postgres", port["postgres"], state.password),
            Redis(self.folder / "redis", port["redis"]),
        ]
        if "clickhouse" in port:
            servers.append(ClickHouse(self.folder / "clickhouse", port["clickhouse"], state.password))
        return {server.name: server for server in servers}

    def _new(self) -> State:
        brokers = self._brokers or 1
        ports = iter(choose(2 * brokers + len(_OTHERS)))
        servers = {f"kafka-{number}": ServerState([next(ports), next(ports)]) for number in range(1, brokers + 1)}
        servers |= {name: ServerState([next(ports)]) for name in _OTHERS}
        state = State(brokers, secrets.token_urlsafe(18), servers)
        save(self.folder, state)
        return state

    def _known(self) -> State:
        state = load(self.folder)
        if state is None:
            raise NotFound(f"no stack in {self.folder}: start one with `tollhouse stack up --dir {self.folder}`")
        return state

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time starts and stops things in the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _make_ready(server: Server) -> None:
    sweep(server)
    server.prepare()


def _nodes(state: State) -> tuple[Node, ...]:
    return tuple(Node(number, *state.servers[f"kafka-{number}"].ports) for number in range(1, state.brokers + 1))


def _one(state: State, name: str) -> ServerState:
    if name not in state.servers:
        raise NotFound(f"no server {name}; there are {', '.join(state.servers)}")
    return state.servers[name]


def _alive(each: ServerState) -> bool:
    return each.process is not None and each.process.alive


def _running(state: State) -> set[str]:
    return {name for name, each in state.servers.items() if each.process is not None and each.process.running}
