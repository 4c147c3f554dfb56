"""``/v1/messages/count_tokens``: how many tokens a request would have. Nothing is held and nothing is booked: it costs nothing.

A backend that speaks the protocol is asked. Where a model has none, the answer is an estimate, and says so.
"""

from dataclasses import dataclass

import msgspec
from msgspec import Raw

from api.router.errors import RouterError
from api.router.exchange import Exchange
from api.router.faces.face import Header
from api.router.faces.fields import Fields, fields_of, model_of
from api.router.faces.messages import betas_of, estimated_input, protocol_headers, version_of
from api.router.faces.messages_bound import looked
from api.router.heads import Heads
from commands.backend_choice import BackendChoice
from commands.ports import Upstream
from domain.errors import UpstreamFailed
from domain.scope import PublishedModel, Target

ESTIMATED = (b"x-tollhouse-estimated", b"true")

_PATH = "/v1/messages/count_tokens"
_encode = msgspec.json.encode


@dataclass(slots=True)
class CountRequest:
    """`estimate` is at least one."""

    model: str
    estimate: int
    fields: Fields
    sent: bytes
    headers: bytes


def parse_count(body: bytes, header: Header) -> CountRequest:
    """Raises `RouterError` (``invalid_json``, ``missing_model``, ``invalid_value``) naming the field."""
    fields = fields_of(body)
    model = model_of(fields)
    headers = protocol_headers(version_of(header), betas_of(header))
    return CountRequest(model, estimated_input(body, looked(fields)), fields, body, headers)


class TokenCount:
    """Asks a backend of the model's `choice` through `upstream`, with the headers that all its requests have."""

    def __init__(self, upstream: Upstream, heads: Heads, choice: BackendChoice) -> None:
        self._upstream, self._heads, self._choice = upstream, heads, choice

    async def answer(self, exchange: Exchange, asked: CountRequest, model: PublishedModel) -> None:
        """Raises `RouterError` (``upstream_error``, ``upstream_timeout``)."""
        others = {target.protocol for target in model.targets} - {"anthropic"}
        claim = self._choice.claim(model, (), others)
        if claim is None:
            await exchange.send_bytes(200, b'{"input_tokens":%d}' % asked.estimate, [ESTIMATED])
            return
        try:
            await self._ask(exchange, asked, claim.target)
        finally:
            claim.released()

    async def _ask(self, exchange: Exchange, asked: CountRequest, target: Target) -> None:
        body = asked.sent
        if target.upstream_model != asked.model:
            body = _encode({**asked.fields, "model": Raw(_encode(target.upstream_model))})
        head = self._heads.of(target) + asked.headers + b"x-request-id: " + exchange.id.encode() + b"\r\n"
        try:
            response = await self._upstream.send(target.url, _PATH, head, body, target.timeout_seconds)
        except UpstreamFailed as failure:
            raise RouterError(failure.code, failure.message) from failure
        if response.streamed or not (response.status == 200 or 400 <= response.status < 500):
            response.close()
            raise RouterError("upstream_error", f"the backend answered {response.status}")
        said = response.body if response.status == 200 else self._heads.unspoken(target, response.body)
        await exchange.send_bytes(response.status, said, [(b"x-tollhouse-backend", target.backend.encode())])
