"""What both modes build the same way, from parts of either."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cli.running import usual_inflight
from cli.settings import Settings
from commands.admission import Admission
from commands.backend_choice import BackendChoice
from commands.backend_states import BackendStates
from commands.backend_watch import BackendWatch, Checked
from commands.denials import Denials
from commands.fact_writer import FactWriter
from commands.handling import Changes, Commands, Reply, Request
from commands.keys import register_admin_key
from commands.outcomes import Outcomes
from commands.ports import Clock, Secrets, Upstream
from commands.tracing import Spans
from domain.credential import SERVICE, well_formed
from domain.errors import invalid
from infra.adapters.ids import new_id
from projections.keyring import Keyring

WATCH_SECONDS = 1.0
"""Between two looks at the backends."""

if TYPE_CHECKING:
    from api.metrics import Metrics
    from api.router.app import Router


def router_of(
    settings: Settings,
    metrics: "Metrics",
    *,
    keyring: Keyring,
    admission: Admission,
    outcomes: Outcomes,
    writer: FactWriter,
    upstream: Upstream,
    clock: Clock,
    secrets: Secrets,
    states: BackendStates,
    spans: Spans | None,
) -> "Router":
    """The router of a gateway. What it sees of backends is in `states`, and in the metrics."""
    from api.backends_page import watched
    from api.router.app import Router
    from api.router.heads import Heads
    from api.router.places import Places

    watched(states, metrics)
    places = Places(settings.max_inflight or usual_inflight())
    metrics.gauge("tollhouse_requests_under_way", "Requests that have a place", lambda: places.taken)
    metrics.gauge("tollhouse_requests_waiting", "Requests that wait for a place", lambda: places.waiting)
    metrics.gauge("tollhouse_requests_places", "Places there are", lambda: places.most)
    return Router(
        keyring=keyring,
        admission=admission,
        outcomes=outcomes,
        denials=Denials(writer, clock),
        upstream=upstream,
        clock=clock,
        new_id=new_id,
        hash_key=lambda key: secrets.hash(key) if well_formed(key, SERVICE) else None,
        heads=Heads(secrets.unseal),
        observe=metrics.observe,
        once_secret=secrets.hash("idempotency").encode(),
        choice=BackendChoice(states),
        places=places,
        spans=spans,
        max_body=settings.max_body,
        read_timeout=settings.read_timeout,
    )


@asynccontextmanager
async def telling_spans(settings: Settings, keyring: Keyring) -> AsyncIterator[Spans | None]:
    """Where spans are told, if they are; what waits is sent in the end. Raises `Invalid` if what that needs is not installed."""
    if settings.otlp is None:
        yield None
        return
    try:
        from infra.adapters.otlp_spans import OtlpSpans
    except ModuleNotFoundError:
        raise invalid("TOLLHOUSE_OTLP", "needs OpenTelemetry: pip install 'tollhouse[otel]'") from None

    def provider(model: str, backend: str) -> str | None:
        published = keyring.model(model)
        targets = () if published is None else published.targets
        return next((target.protocol for target in targets if target.backend == backend), None)

    spans = OtlpSpans(settings.otlp, provider)
    try:
        yield spans
    finally:
        await asyncio.to_thread(spans.close)


def watch_of(states: BackendStates, keyring: Keyring, upstream: Checked, secrets: Secrets) -> BackendWatch:
    """What looks after backends beside all requests."""
    from api.router.heads import Heads

    return BackendWatch(states, keyring, upstream, Heads(secrets.unseal).of)


async def issue_first_admin_key(commands: Commands, secret: str, key: str | None = None) -> bool:
    """Makes `secret` a platform admin key. Of all calls with the same Idempotency-Key `key` only the first does: False."""
    made = b""

    def plan(changes: Changes) -> Reply:
        nonlocal made
        made = register_admin_key(changes, secret, name="first", role="platform-admin").id.encode()
        return Reply(made)

    answer = await commands.execute(Request(actor="system", key=key, fingerprint="first admin key"), plan)
    return answer.body == made
