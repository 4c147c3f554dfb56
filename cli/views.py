"""The views process of a running server: keeps the projections of a data folder and answers reads on a unix socket.

Started by `tollhouse serve`, ended with it: its standard input is a pipe from the server, whose end is the server's end.
"""

import argparse
import os
from pathlib import Path

from cli import log_lines
from cli.loading import loading
from infra.adapters.child_process import end_with_parent

NICENESS = 10
"""The request path goes first."""


def main() -> None:
    options = argparse.ArgumentParser(prog="tollhouse views", description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--socket", type=Path, required=True)
    args = options.parse_args()
    end_with_parent()
    os.nice(NICENESS)
    log_lines.configure()
    with loading():
        from cli.viewing import keep_views

    keep_views(args.data, args.socket)


if __name__ == "__main__":
    main()
