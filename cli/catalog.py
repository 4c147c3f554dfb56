"""``tollhouse backend``, ``model`` and ``price``: what is served, by whom, and what it costs."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.limits import Concurrent, PerMinute, Tokens, limits_document
from cli.orgs import Reason
from cli.paths import segment
from cli.session import Effect, Session, command, noun
from domain.errors import invalid

BACKEND_COLUMNS = ("id", "url", "protocol", "state", "timeout_seconds", "weight", "version")
MODEL_COLUMNS = ("id", "routes", "max_output_tokens", "context_tokens", "version")
PRICE_COLUMNS = (
    "id",
    "input_usd",
    "output_usd",
    "cached_input_usd",
    "cache_write_usd",
    "reasoning_usd",
    "per_request_usd",
    "effective_from",
    "source_date",
)


def register(root: typer.Typer) -> None:
    """Adds the nouns to `root`."""
    _backends(noun(root, "backend", "Backends: where requests are sent."))
    _models(noun(root, "model", "Models that applications may name."))
    _prices(noun(root, "price", "Prices of models, with their history."))


def parse_route(text: str, model: str) -> dict[str, Any]:
    """``BACKEND``, ``BACKEND=UPSTREAM_MODEL``, and after commas ``weight=N`` and ``tier=N``. Raises `Invalid`."""
    head, *options = text.split(",")
    backend, _, upstream = head.partition("=")
    route: dict[str, Any] = {"backend": backend, "upstream_model": upstream or model}
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("weight", "tier") or not value.isdigit():
            raise invalid("--route", f"must be BACKEND[=UPSTREAM_MODEL][,weight=N][,tier=N]; got {text!r}")
        route[name] = int(value)
    return route


def _backends(app: typer.Typer) -> None:
    def path(backend: str) -> str:
        return f"/admin/v1/backends/{segment(backend)}"

    def seconds(flag: str, text: str) -> Any:
        return typer.Option(flag, help=text, show_default=False)

    @command(app, "set", Effect.CHANGES)
    def set_(
        session: Session,
        backend: str,
        address: Annotated[
            str,
            typer.Argument(metavar="URL", help="What the provider's own SDK takes as base URL.", show_default=False),
        ],
        protocol: Annotated[str, typer.Option("--protocol", help="openai or anthropic.")] = "openai",
        credential: Annotated[
            str | None, typer.Option("--credential-file", help="File with the API key; - is stdin.", show_default=False)
        ] = None,
        timeout: Annotated[float | None, typer.Option("--timeout-seconds", show_default=False)] = None,
        weight: Annotated[int | None, typer.Option("--weight", show_default=False)] = None,
        first_byte: Annotated[float | None, seconds("--first-byte-seconds", "Wait for an answer's first byte.")] = None,
        idle: Annotated[float | None, seconds("--idle-seconds", "Wait for each further one.")] = None,
        max_concurrent: Annotated[int | None, typer.Option("--max-concurrent", help="Of each gateway.")] = None,
        per_minute: Annotated[int | None, typer.Option("--requests-per-minute", help="Of each gateway.")] = None,
        health_path: Annotated[str | None, typer.Option("--health-path", help="Asked for, such as /models.")] = None,
        health: Annotated[float | None, seconds("--health-seconds", "Between two times.")] = None,
        cap_field: Annotated[
            str | None,
            typer.Option("--output-cap-field", help="max_completion_tokens or max_tokens.", show_default=False),
        ] = None,
    ) -> None:
        """Register a backend, or replace it."""
        body = {
            "url": address,
            "protocol": protocol,
            "credential": None if credential is None else _secret(credential),
            "timeout_seconds": timeout,
            "weight": weight,
            "first_byte_seconds": first_byte,
            "idle_seconds": idle,
            "max_concurrent": max_concurrent,
            "requests_per_minute": per_minute,
            "health_path": health_path,
            "health_seconds": health,
            "output_cap_field": cap_field,
        }
        then = [f"tollhouse model set MODEL --route {backend} --max-output 4096 --context 128000"]
        session.change("PUT", path(backend), body, then=then)

    @command(app, "list")
    def list_(session: Session) -> None:
        """List the backends."""
        session.list("/admin/v1/backends", BACKEND_COLUMNS)

    @command(app, "show")
    def show(session: Session, backend: str) -> None:
        """Show a backend; never its credential."""
        session.show(path(backend))

    @command(app, "drain", Effect.REMOVES)
    def drain(session: Session, backend: str, reason: Reason = None) -> None:
        """Send it no new requests; let those under way end."""
        session.confirm(f"drain backend {backend}")
        session.change("POST", f"{path(backend)}/drain", {"reason": reason})

    @command(app, "kill", Effect.REMOVES)
    def kill(session: Session, backend: str, reason: Reason = None) -> None:
        """Send it nothing from now on."""
        session.confirm(f"kill backend {backend}")
        then = [f"tollhouse backend restore {backend}"]
        session.change("POST", f"{path(backend)}/kill", {"reason": reason}, then=then)

    @command(app, "restore", Effect.CHANGES)
    def restore(session: Session, backend: str) -> None:
        """Use it again."""
        session.change("POST", f"{path(backend)}/restore")


def _secret(file: str) -> str:
    try:
        return (sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")).strip()
    except OSError as error:
        raise invalid("--credential-file", f"must be a readable file: {error.strerror}: {file}") from None


def _models(app: typer.Typer) -> None:
    def path(model: str) -> str:
        return f"/admin/v1/models/{segment(model)}"

    @command(app, "set", Effect.CHANGES)
    def set_(
        session: Session,
        model: str,
        route: Annotated[
            list[str], typer.Option("--route", help="BACKEND[=UPSTREAM_MODEL][,weight=N][,tier=N]; repeatable.")
        ],
        max_output: Annotated[
            int, typer.Option("--max-output", help="Most tokens of an answer, and the cap without one.")
        ],
        context: Annotated[int, typer.Option("--context", help="Tokens of its context window.")],
        balance: Annotated[
            str | None, typer.Option("--balance", help="weighted or least_loaded, within a tier.", show_default=False)
        ] = None,
        requests_per_minute: PerMinute = None,
        tokens_per_minute: Tokens = None,
        concurrent: Concurrent = None,
    ) -> None:
        """Publish a model, or replace it. Its limits are those of each organization."""
        body = {
            "routes": [parse_route(text, model) for text in route],
            "max_output_tokens": max_output,
            "context_tokens": context,
            "balance": balance,
            "limits": limits_document(requests_per_minute, tokens_per_minute, concurrent),
        }
        session.change("PUT", path(model), body, then=[f"tollhouse price seed --model {model}"])

    @command(app, "list")
    def list_(session: Session) -> None:
        """List the models."""
        session.list("/admin/v1/models", MODEL_COLUMNS)

    @command(app, "show")
    def show(session: Session, model: str) -> None:
        """Show a model."""
        session.show(path(model))

    @command(app, "withdraw", Effect.REMOVES)
    def withdraw(session: Session, model: str) -> None:
        """Refuse requests that name it."""
        session.confirm(f"withdraw model {model}")
        session.change("DELETE", path(model))


def _prices(app: typer.Typer) -> None:
    def dollars(flag: str, text: str) -> Any:
        return typer.Option(flag, help=text, show_default=False)

    @command(app, "set", Effect.CHANGES)
    def set_(
        session: Session,
        model: str,
        input_usd: Annotated[str, dollars("--input-usd", "Dollars per million input tokens.")],
        output_usd: Annotated[str, dollars("--output-usd", "Dollars per million output tokens.")],
        cached_input_usd: Annotated[str | None, dollars("--cached-input-usd", "Of input read from a cache.")] = None,
        cache_write_usd: Annotated[str | None, dollars("--cache-write-usd", "Of input written to a cache.")] = None,
        reasoning_usd: Annotated[str | None, dollars("--reasoning-usd", "Of reasoning tokens.")] = None,
        audio_input_usd: Annotated[str | None, dollars("--audio-input-usd", "Of sound that comes in.")] = None,
        image_input_usd: Annotated[str | None, dollars("--image-input-usd", "Of pictures that come in.")] = None,
        audio_output_usd: Annotated[str | None, dollars("--audio-output-usd", "Of sound in the answer.")] = None,
        per_request_usd: Annotated[str | None, dollars("--per-request-usd", "Dollars per request.")] = None,
        effective_from: Annotated[str | None, dollars("--effective-from", "RFC 3339; now without it.")] = None,
    ) -> None:
        """List a price from now on, or from a later moment."""
        body = {
            "input_usd": input_usd,
            "output_usd": output_usd,
            "cached_input_usd": cached_input_usd,
            "cache_write_usd": cache_write_usd,
            "reasoning_usd": reasoning_usd,
            "audio_input_usd": audio_input_usd,
            "image_input_usd": image_input_usd,
            "audio_output_usd": audio_output_usd,
            "per_request_usd": per_request_usd,
            "effective_from": effective_from,
        }
        session.change("PUT", f"/admin/v1/prices/{segment(model)}", body)

    @command(app, "list")
    def list_(session: Session) -> None:
        """List the prices."""
        session.list("/admin/v1/prices", PRICE_COLUMNS)

    @command(app, "show")
    def show(session: Session, model: str) -> None:
        """Show a model's price and its history."""
        session.show(f"/admin/v1/prices/{segment(model)}")

    @command(app, "seed", Effect.CHANGES)
    def seed(
        session: Session,
        model: Annotated[
            list[str] | None,
            typer.Option("--model", help="MODEL or MODEL=PUBLISHED_NAME; repeatable. All models without it."),
        ] = None,
    ) -> None:
        """List the published prices of known models, each with its source and date."""
        from cli.seeding import seed_prices

        seed_prices(session, model or [])
