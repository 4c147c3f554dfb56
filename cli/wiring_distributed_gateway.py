"""The composition root of a gateway: facts on Kafka, the gate on Redis, the keyring from the control topic. No PostgreSQL: its
outage stops no request."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api.backends_page import BackendsPage
from api.metrics import Metrics
from api.proxy import Proxy
from api.router.app import Router
from api.router.errors import error_body
from api.router.exchange import Exchange
from api.site import App, Receive, Scope, Send
from cli.assembling import WATCH_SECONDS, router_of, telling_spans, watch_of
from cli.running import every, running
from cli.serving import Starting
from cli.settings import Settings
from cli.wiring_distributed import Core, core_of, require_topics
from commands.admission import Admission
from commands.backend_states import BackendStates
from commands.outcomes import Outcomes
from commands.tracing import Spans
from domain.ids import PARTITIONS
from infra.adapters.address_guard import AddressGuard
from infra.adapters.ids import new_id
from infra.adapters.redis_gate import RedisGate
from infra.adapters.upstream import HttpUpstream
from streams.gate_watch import LOOK_SECONDS, GateWatch

READ_SIDE = ("/v1/requests/", "/v1/organization/")
DRAIN_SECONDS = 10.0

_log = logging.getLogger("tollhouse")


@dataclass(slots=True)
class Gateway:
    """A gateway that runs. See `cli.serving.Process`."""

    settings: Settings
    core: Core
    gate: RedisGate
    watch: GateWatch
    reads: HttpUpstream
    router: Router
    backends: BackendStates

    def mounts(self) -> Mapping[str, App]:
        return {
            "/v1/": self.router,
            "/backendz": BackendsPage(self.backends),
            **dict.fromkeys(READ_SIDE, self._read_side),
        }

    def reasons(self) -> list[str]:
        """Why requests are refused now; empty when they are not."""
        reasons = []
        if not self.core.keyring.fresh(time.monotonic()):
            reasons.append("the view of keys and budgets is not fresh: Kafka's control topic is not answering")
        if not self.watch.answers:
            reasons.append("the gate does not answer: waiting for Redis")
        elif not self.watch.open:
            reasons.append("the gate is not open: waiting for a worker to open it")
        if stepped := self.core.clock.stepped:
            reasons.append(f"the system's clock leapt by {stepped:.0f} s: put it right, or start the process again")
        return reasons

    def turn_to(self, run: str) -> None:
        """Admits at the gate with this identity from now on. Whatever is asked of another one is refused by it."""
        clock = self.core.clock
        self.router.admission = Admission(
            self.gate, self.core.writer, self.core.keyring, clock, run, lambda: clock.stepped
        )

    async def look(self) -> None:
        """Asks which gate there is, and whether it is open."""
        before = self.watch.identity
        await self.watch.look()
        if self.watch.identity is not None and self.watch.identity != before:
            self.turn_to(self.watch.identity)

    async def _read_side(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What became of a request is in views that a gateway has no way to: it passes the question on, if told where to."""
        exchange_id = new_id("req")
        if self.settings.url is not None:
            await Proxy(self.reads, self.settings.url)(scope, receive, send, exchange_id)
            return
        message = "answered by `tollhouse read` and `tollhouse control`; a gateway with TOLLHOUSE_URL set passes it on"
        await Exchange(exchange_id, scope, receive, send).send_bytes(404, error_body(404, "unknown_url", message))


@asynccontextmanager
async def open_gateway(
    settings: Settings, metrics: Metrics, starting: Starting, failed: "asyncio.Future[None]"
) -> AsyncIterator[Gateway]:
    """Runs a gateway until the context ends, once the topics are there."""
    assert settings.redis is not None
    core = core_of(settings)
    gate = RedisGate(settings.redis)
    upstream = HttpUpstream(AddressGuard(loopback=settings.allow_private, private=settings.allow_private))
    reads = HttpUpstream()  # to where the operator said: no guard
    try:
        await starting.until("Kafka", lambda: require_topics(core.kafka))
        async with telling_spans(settings, core.keyring) as spans:
            gateway = _assemble(settings, metrics, core, gate, upstream, reads, spans)
            watch = watch_of(gateway.backends, core.keyring, upstream, core.secrets)
            works = {
                "keyring": core.follower.run,
                "gate": lambda: every(LOOK_SECONDS, gateway.look),
                "backends": lambda: every(WATCH_SECONDS, watch.tick),
            }
            async with running(failed, works):
                yield gateway
                async with asyncio.timeout(DRAIN_SECONDS):
                    await core.writer.drain()
    except TimeoutError:
        _log.error("the log did not take the last facts within %s s", DRAIN_SECONDS)
    finally:
        upstream.close()
        reads.close()
        await gate.close()
        await core.close()


def _assemble(
    settings: Settings,
    metrics: Metrics,
    core: Core,
    gate: RedisGate,
    upstream: HttpUpstream,
    reads: HttpUpstream,
    spans: Spans | None,
) -> Gateway:
    clock, backends = core.clock, BackendStates()
    metrics.gauge("tollhouse_view_age_seconds", "Age of the view of keys", lambda: core.keyring.age(time.monotonic()))
    metrics.gauge("tollhouse_view_position", "Journal position of the view of keys", lambda: core.keyring.position)
    router = router_of(
        settings,
        metrics,
        keyring=core.keyring,
        admission=Admission(gate, core.writer, core.keyring, clock, "", lambda: clock.stepped),
        outcomes=Outcomes(gate, core.writer, _exceeded, spans),
        writer=core.writer,
        upstream=upstream,
        clock=clock,
        secrets=core.secrets,
        states=backends,
        spans=spans,
    )
    return Gateway(settings, core, gate, GateWatch(gate, core.keyring, PARTITIONS), reads, router, backends)


async def _exceeded(model: str, request: str, cost: int, hold: int) -> None:
    """Whoever keeps the gate reads it in the fact, and closes the model: that survives the end of this process."""
    _log.warning("request %s of model %s cost %d, more than its hold of %d", request, model, cost, hold)
