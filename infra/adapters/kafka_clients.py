"""kafka-python's clients, made so that one that cannot connect leaves nothing behind.

Their constructors ask the brokers for their version and raise when none answers, without ending the thread that asked.
"""

from collections.abc import Callable
from typing import Any

from kafka.net.compat import KafkaNetClient

_RECONNECT_MS, _RECONNECT_MAX_MS = 20, 500
_RETRY_MS = 50


def connect(make: Callable[..., Any], servers: str, patience: float, **settings: Any) -> Any:
    """A client of the kind `make`. `servers`: HOST:PORT, comma separated; `patience`: seconds a broker may take to answer.

    Raises `kafka.errors.KafkaError` when none does.
    """
    networks: list[KafkaNetClient] = []

    def network(**configuration: Any) -> KafkaNetClient:
        networks.append(KafkaNetClient(**configuration))
        return networks[-1]

    milliseconds = int(patience * 1000)
    chosen = {
        "bootstrap_timeout_ms": milliseconds,
        "request_timeout_ms": milliseconds,
        "reconnect_backoff_ms": _RECONNECT_MS,
        "reconnect_backoff_max_ms": _RECONNECT_MAX_MS,
        "retry_backoff_ms": _RETRY_MS,
        **settings,
    }
    try:
        return make(bootstrap_servers=servers.split(","), kafka_client=network, **chosen)
    except BaseException:
        for each in networks:
            each.close()
        raise
