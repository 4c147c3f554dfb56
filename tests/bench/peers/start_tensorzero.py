"""Run by the peer's own Python: starts the gateway that is inside TensorZero's wheel, and says where it listens."""

import signal
import sys

from tensorzero import _start_http_gateway

gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print(f"ready {gateway.base_url}", flush=True)
signal.pause()
