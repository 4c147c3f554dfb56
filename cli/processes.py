"""What runs here instead of asking a server: ``tollhouse serve``, the processes of distributed mode and their ``bootstrap``,
``hello``, ``load``, ``demo``, ``doctor``, ``completion``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import CheckFailed
from cli.loading import loading
from cli.output import Format, emit, emit_list, note
from cli.session import Session, command
from domain.errors import invalid

if TYPE_CHECKING:
    from cli.settings import Settings

HELLO_LISTEN = "127.0.0.1:8081"
SHELLS = ("bash", "zsh", "fish")

Listen = Annotated[str | None, typer.Option("--listen", help="HOST:PORT; port 0 is any free one.", show_default=False)]


def register(root: typer.Typer) -> None:
    """Adds the commands to `root`."""
    _serve(root)
    _distributed(root)
    _worker(root)
    _hello(root)
    _load(root)
    _demo(root)
    _doctor(root)
    _completion(root)


def _serve(root: typer.Typer) -> None:
    @root.command("serve")
    def serve(
        data: Annotated[Path | None, typer.Option("--data", help="Its folder. [env: TOLLHOUSE_DATA]")] = None,
        listen: Listen = None,
        sync: Annotated[
            str | None, typer.Option("--sync", help="full survives power loss; normal is faster.", show_default=False)
        ] = None,
    ) -> None:
        """Run everything in one process, on one folder and one port."""
        from cli.settings import load_settings

        with loading():
            from cli.serve import serve as run

        run(load_settings({"data": data, "listen": listen, "sync": sync}))


def _worker(root: typer.Typer) -> None:
    @root.command("worker")
    def worker(listen: Listen = None) -> None:
        """Keep the views of distributed mode, together with all other workers."""
        settings = _having("worker", ("kafka", "postgres", "clickhouse", "redis", "secret"), {"listen": listen})
        with loading():
            from cli.worker import work

        work(settings)


def _distributed(root: typer.Typer) -> None:
    @root.command("bootstrap")
    def bootstrap() -> None:
        """Make topics, tables and the first admin key of distributed mode; what is there stays as it is."""
        settings = _having("bootstrap", ("kafka", "postgres", "secret"))
        with loading():
            from cli.bootstrap import bootstrap as run

        run(settings)

    @root.command("gateway")
    def gateway(
        listen: Listen = None,
        workers: Annotated[
            int | None, typer.Option("--workers", help="Gateways that share the port, one a core.", show_default=False)
        ] = None,
    ) -> None:
        """Run a gateway of distributed mode: it takes the requests of applications."""
        settings = _having("gateway", ("kafka", "redis", "secret"), {"listen": listen, "workers": workers})
        with loading():
            from cli.gateway import serve_gateway

        serve_gateway(settings)

    @root.command("control")
    def control(listen: Listen = None) -> None:
        """Run a control process of distributed mode: it takes commands and forwards them to the gateways."""
        settings = _having("control", ("kafka", "postgres", "secret"), {"listen": listen})
        with loading():
            from cli.control import serve_control

        serve_control(settings)

    @root.command("read")
    def read(listen: Listen = None) -> None:
        """Run a read process of distributed mode: it answers reads from the views that workers keep."""
        settings = _having("read", ("kafka", "postgres", "clickhouse", "secret"), {"listen": listen})
        with loading():
            from cli.read import serve_reads

        serve_reads(settings)

    @root.command("world")
    def world(listen: Listen = None) -> None:
        """Run the World service: which models are slow, from a projection of its own. The pattern of a service of yours."""
        settings = _having("world", ("kafka", "postgres", "secret"), {"listen": listen})
        with loading():
            from cli.world import serve_world

        serve_world(settings)


def _having(process: str, names: Sequence[str], flags: Mapping[str, Any] | None = None) -> "Settings":
    """The settings, of which `process` needs `names`: what is missing is told before anything heavy is imported."""
    from cli.settings import load_settings, needed

    settings = load_settings(flags)
    needed(settings, process, *names)
    return settings


def _hello(root: typer.Typer) -> None:
    @root.command("hello")
    def hello(
        listen: Annotated[str, typer.Option("--listen", help="HOST:PORT; port 0 is any free one.")] = HELLO_LISTEN,
        ttft_ms: Annotated[float, typer.Option("--ttft-ms", help="Wait before the first token.")] = 0.0,
        ms_per_token: Annotated[float, typer.Option("--ms-per-token", help="Wait for each token.")] = 0.0,
        error_rate: Annotated[float, typer.Option("--error-rate", help="Share refused with 500, 0 to 1.")] = 0.0,
        drop_rate: Annotated[float, typer.Option("--drop-rate", help="Share cut half way, 0 to 1.")] = 0.0,
        journal: Annotated[
            Path | None, typer.Option("--journal", help="Append one NDJSON line per request.", show_default=False)
        ] = None,
    ) -> None:
        """Run a model backend that answers at once and reports exact usage."""
        from api.hello import Options
        from cli.hello import serve_hello
        from cli.settings import parse_listen

        try:
            address = parse_listen(listen)
        except ValueError as error:
            raise invalid("--listen", str(error)) from None
        options = Options(
            ttft_ms=ttft_ms, ms_per_token=ms_per_token, error_rate=error_rate, drop_rate=drop_rate, journal=journal
        )
        serve_hello(address, options)


def _load(root: typer.Typer) -> None:
    @command(root, "load")
    def load(
        session: Session,
        trace: Annotated[
            Path, typer.Option("--trace", help="CSV: TIMESTAMP,ContextTokens,GeneratedTokens.", show_default=False)
        ],
        key: Annotated[
            list[str], typer.Option("--key", help="Service key; several are used in turn.", show_default=False)
        ],
        model: Annotated[list[str] | None, typer.Option("--model", help="Model; several are used in turn.")] = None,
        speed: Annotated[float, typer.Option("--speed", help="Times as fast as it was; 0: as fast as possible.")] = 0.0,
        concurrency: Annotated[int, typer.Option("--concurrency", help="Requests in flight at most.")] = 64,
        limit: Annotated[
            int | None, typer.Option("--limit", help="The first so many rows.", show_default=False)
        ] = None,
        stream_share: Annotated[
            float, typer.Option("--stream-share", help="Share of streamed requests, 0 to 1.")
        ] = 0.0,
        retry_busy: Annotated[
            bool, typer.Option("--retry-busy", help="Send again what was refused as budget_busy.")
        ] = False,
    ) -> None:
        """Replay a trace against a router."""
        from cli.connect import running_url
        from cli.load import LoadPlan, replay, summary

        url = session.settings.url or running_url(session.settings.data)
        if url is None:
            raise invalid("--url", "must be the router's, unless a server runs on the data folder")
        models = tuple(model or ("hello",))
        result = summary(replay(LoadPlan(trace, url, key, models, speed, concurrency, limit, stream_share, retry_busy)))
        if session.form is Format.table:
            emit(_flat(result), session.form)
        else:
            emit(result, session.form)


def _flat(doc: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in doc.items():
        if isinstance(value, dict):
            flat.update({f"{name} {inner}": part for inner, part in value.items()})
        else:
            flat[name] = value
    return flat


def _demo(root: typer.Typer) -> None:
    @root.command("demo")
    def demo(
        keep: Annotated[bool, typer.Option("--keep", help="Leave it running to look around.")] = False,
        trace: Annotated[
            Path | None,
            typer.Option("--trace", help="Another trace than the one that comes along.", show_default=False),
        ] = None,
        limit: Annotated[
            int | None, typer.Option("--limit", help="The first so many rows.", show_default=False)
        ] = None,
        servers: Annotated[
            bool, typer.Option("--distributed", help="Each process by itself, on a stack of real servers.")
        ] = False,
        refusals: Annotated[
            bool, typer.Option("--refusals/--no-refusals", help="Budgets run out, or are above everything.")
        ] = True,
    ) -> None:
        """Meter a real trace for two organizations, and compare the books with the backend's own; exit 0 if they agree."""
        from cli.demo import demo as run

        run(keep=keep, trace=trace, limit=limit, servers=servers, refusals=refusals)


def _doctor(root: typer.Typer) -> None:
    @command(root, "doctor")
    def doctor(session: Session) -> None:
        """Check each dependency and setting; exit 6 if one needs a fix."""
        from cli.doctor import examine

        findings = list(examine(session.settings))
        if session.form is Format.table:
            for found in findings:
                print(
                    f"{'ok  ' if found.ok else 'FIX '} {found.check:<12} {found.seen}"
                    + ("" if found.ok else f" -> {found.fix}")
                )
        else:
            rows = [{"check": f.check, "ok": f.ok, "seen": f.seen, "fix": None if f.ok else f.fix} for f in findings]
            emit_list(rows, session.form)
        if not all(found.ok for found in findings):
            raise CheckFailed("something needs a fix")


def _completion(root: typer.Typer) -> None:
    @root.command("completion")
    def completion(
        shell: Annotated[str, typer.Argument(help=f"One of {', '.join(SHELLS)}.", show_default=False)],
    ) -> None:
        """Print the completion script of a shell: eval "$(tollhouse completion bash)"."""
        from typer._completion_shared import get_completion_script

        if shell not in SHELLS:
            raise invalid("SHELL", f"must be one of {', '.join(SHELLS)}; got {shell!r:.20}")
        print(get_completion_script(prog_name="tollhouse", complete_var="_TOLLHOUSE_COMPLETE", shell=shell))
        note(f'to use it: eval "$(tollhouse completion {shell})"')
