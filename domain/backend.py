"""Backends: where requests are sent. A credential is known here as ciphertext only."""

import re
from typing import Literal
from urllib.parse import urlsplit

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from domain.errors import NotFound, invalid
from domain.inputs import at_least, reason_text

KIND = "backend"

Protocol = Literal["openai", "anthropic"]

CapField = Literal["max_completion_tokens", "max_tokens"]
"""Names of the output cap of a chat completion: the newer one, and the one that many servers of the protocol heed alone."""

LEAST_SECONDS = 0.5
"""Of a bound on silence: nobody looks more often."""

_PATH = re.compile(r"/[!-~]{0,199}")


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a backend is used, where that is said; None: without a bound, or not at all. A request fails that has no byte of
    its answer's body within `first_byte_seconds`, or no further one within `idle_seconds`. Each gateway sends it at most
    `max_concurrent` requests at a time and `requests_per_minute` in any minute, and where there is a `health_path` asks
    for it, below the base URL, every `health_seconds`. A chat completion states its output cap in `output_cap_field`; None: as
    the caller did, and as ``max_completion_tokens`` where he did not."""

    first_byte_seconds: float | None = None
    idle_seconds: float | None = 300.0
    max_concurrent: int | None = None
    requests_per_minute: int | None = None
    health_path: str | None = None
    health_seconds: float = 10.0
    output_cap_field: CapField | None = None


USUAL = Terms()


class Connection(Struct, frozen=True, kw_only=True):
    """How a backend is reached. `url` is the base URL as the provider's own SDK takes it, without a trailing slash;
    `credential` is ciphertext; past `timeout_seconds` a request's outcome is unknown. `terms` left out are the usual ones."""

    url: str
    protocol: Protocol
    credential: str | None = None
    timeout_seconds: float = 600.0
    weight: int = 1
    terms: Terms | UnsetType = UNSET


# ---------------------------------------------------------------- events: stored format


class BackendRegistered(Struct, frozen=True, kw_only=True):
    connection: Connection


class BackendChanged(Struct, frozen=True, kw_only=True):
    connection: Connection
    before: Connection


class BackendDrained(Struct, frozen=True, kw_only=True):
    reason: str | None


class BackendKilled(Struct, frozen=True, kw_only=True):
    reason: str | None


class BackendRestored(Struct, frozen=True, kw_only=True):
    reason: str | None


Event = BackendRegistered | BackendChanged | BackendDrained | BackendKilled | BackendRestored

EVENTS: tuple[type[Struct], ...] = (BackendRegistered, BackendChanged, BackendDrained, BackendKilled, BackendRestored)


# ---------------------------------------------------------------- state


class Backend(Struct, frozen=True, kw_only=True):
    """`drained`: no new requests, those under way go on; `killed`: no request at all."""

    url: str
    protocol: Protocol
    credential: str | None
    timeout_seconds: float
    weight: int
    terms: Terms = USUAL
    state: Literal["active", "drained", "killed"] = "active"

    @property
    def removed(self) -> bool:
        """Never: facts and routes name backends for ever."""
        return False

    @property
    def connection(self) -> Connection:
        return Connection(
            url=self.url,
            protocol=self.protocol,
            credential=self.credential,
            timeout_seconds=self.timeout_seconds,
            weight=self.weight,
            terms=UNSET if self.terms == USUAL else self.terms,
        )


def evolve(state: Backend | None, event: Event) -> Backend | None:
    """The state after `event`."""
    if isinstance(event, BackendRegistered | BackendChanged):
        new = event.connection
        return Backend(
            url=new.url,
            protocol=new.protocol,
            credential=new.credential,
            timeout_seconds=new.timeout_seconds,
            weight=new.weight,
            terms=new.terms or USUAL,
            state="active" if state is None else state.state,
        )
    if state is None:
        return None
    match event:
        case BackendDrained():
            return replace(state, state="drained")
        case BackendKilled():
            return replace(state, state="killed")
        case BackendRestored():
            return replace(state, state="active")


# ---------------------------------------------------------------- commands and decisions


class PutBackend(Struct, frozen=True, kw_only=True):
    """Registers a backend or replaces how it is reached."""

    connection: Connection


class DrainBackend(Struct, frozen=True, kw_only=True):
    reason: str | None = None


class KillBackend(Struct, frozen=True, kw_only=True):
    reason: str | None = None


class RestoreBackend(Struct, frozen=True, kw_only=True):
    reason: str | None = None


Command = PutBackend | DrainBackend | KillBackend | RestoreBackend


def decide(command: Command, state: Backend | None) -> list[Event]:
    """The events of `command`; none if it is so already. Raises `NotFound`, `Invalid`."""
    if isinstance(command, PutBackend):
        connection = _checked(command.connection)
        if state is None:
            return [BackendRegistered(connection=connection)]
        before = state.connection
        return [] if connection == before else [BackendChanged(connection=connection, before=before)]
    if state is None:
        raise NotFound("no such backend")
    reason = reason_text(command.reason)
    match command:
        case DrainBackend():
            return [] if state.state == "drained" else [BackendDrained(reason=reason)]
        case KillBackend():
            return [] if state.state == "killed" else [BackendKilled(reason=reason)]
        case RestoreBackend():
            return [] if state.state == "active" else [BackendRestored(reason=reason)]


def _checked(connection: Connection) -> Connection:
    if not 0 < connection.timeout_seconds <= 86400:
        raise invalid("timeout_seconds", "must be above 0 and at most 86400")
    at_least(0, connection.weight, "weight")
    terms = UNSET if connection.terms in (UNSET, USUAL) else _checked_terms(connection.terms)
    return replace(connection, url=_base_url(connection.url), terms=terms)


def _checked_terms(terms: Terms) -> Terms:
    for name in ("first_byte_seconds", "idle_seconds", "health_seconds"):
        seconds = getattr(terms, name)
        if seconds is not None and not LEAST_SECONDS <= seconds <= 86400:
            raise invalid(name, f"must be at least {LEAST_SECONDS} and at most 86400")
    for name in ("max_concurrent", "requests_per_minute"):
        at_least(1, getattr(terms, name), name)
    path = terms.health_path
    if path is not None and not _PATH.fullmatch(path):
        raise invalid("health_path", "must be a path that begins with '/', at most 200 characters")
    return terms


def _base_url(text: str) -> str:
    wrong = invalid("url", "must be an http or https base URL without credentials, query or fragment")
    if len(text) > 2000 or not text.isprintable() or " " in text:
        raise wrong
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise wrong from None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise wrong
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise wrong
    return text.rstrip("/")
