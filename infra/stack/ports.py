"""Ports on the loopback interface.

They are chosen below the range that the kernel gives to outgoing connections. Inside it, a client that keeps trying a server
that is down can be given the server's port as its own, and then the server cannot come back.
"""

import random
import socket
from itertools import islice
from pathlib import Path

HOST = "127.0.0.1"

_FIRST = 12_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def choose(count: int) -> list[int]:
    """Different ports that nothing listens on. Nothing holds them until a server does."""
    below = max(int(_RANGE.read_text().split()[0]), _FIRST + 5_000)
    candidates = random.sample(range(_FIRST, below), below - _FIRST)
    chosen = list(islice(filter(free, candidates), count))
    if len(chosen) < count:
        raise OSError(f"no {count} free ports from {_FIRST} to {below - 1}")
    return chosen


def free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
