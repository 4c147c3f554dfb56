"""A worker process without a gatekeeper: it adds nothing to the log. Ends at SIGTERM."""

import sys

from cli.loading import loading


def main(listen: str) -> None:
    with loading():
        import uvloop

        from api.metrics import Metrics
        from cli.serving import serve_process
        from cli.settings import load_settings
        from cli.wiring_worker import open_feeding
        from cli.worker import configure_logs

    settings, metrics = load_settings({"listen": listen}), Metrics()
    configure_logs()
    uvloop.run(
        serve_process(settings, metrics, lambda starting, failed: open_feeding(settings, metrics, starting, failed))
    )


if __name__ == "__main__":
    main(sys.argv[1])
