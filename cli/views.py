"""The views process of a running server: keeps the projections, answers reads. Ends when its parent does."""

import sys


def main() -> None:
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
