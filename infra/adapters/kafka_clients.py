"""kafka-python's clients, made so that one that cannot connect leaves nothing behind.

Their constructors ask the brokers for their version and raise when none answers, without ending the thread that asked. And a
socket whose connecting failed they leave open until the garbage collector comes: with brokers that are away, a few each second.
"""

from collections.abc import Callable
from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket

_RECONNECT_MS, _RECONNECT_MAX_MS = 20, 500
_RETRY_MS = 50

_DIRECT = "direct"


class _DirectSocket(KafkaNetSocket):  # type: ignore[misc]  # kafka-python has no types
    """A plain TCP connection, as without a proxy. kafka-python knows it by the scheme of a proxy's URL."""

    SCHEMES = (_DIRECT,)

    async def sock_connect(self, net: Any, sock: Any, sockaddr: Any, timeout_at: float | None = None) -> Any:
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:  # also when the client is closed meanwhile
            sock.close()
            raise


def connect(make: Callable[..., Any], servers: str, patience: float, **settings: Any) -> Any:
    """A client of the kind `make`. `servers`: HOST:PORT, comma separated; `patience`: seconds a broker may take to answer.

    Raises `kafka.errors.KafkaError` when none does.
    """
    networks: list[KafkaNetClient] = []

    def network(**configuration: Any) -> KafkaNetClient:
        networks.append(KafkaNetClient(**{**configuration, "proxy_url": f"{_DIRECT}://"}))
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
