"""Whether a broker will serve clients: asked in Kafka's protocol, with the codec of kafka-python, on a connection of its own.

A client object would do more than ask: it retries, follows the metadata to other brokers and has threads.
"""

import socket
from collections.abc import Collection
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from infra.stack.ports import HOST
from infra.stack.server import PROBE_SECONDS

if TYPE_CHECKING:
    from kafka.protocol.parser import KafkaProtocol

CLIENT = "pip install 'tollhouse[distributed]'"

_GROUP = "tollhouse-probe"
_OF_A_GROUP = 0
_METADATA, _COORDINATOR = 9, 2
"""The versions that are asked: Kafka 4 has them, and nothing newer is needed."""


def installed() -> bool:
    """Whether kafka-python is there to ask with."""
    return find_spec("kafka") is not None


def unready(port: int, brokers: Collection[int]) -> str | None:
    """None once the broker at `port` lists all of `brokers` and finds a group's coordinator; else what is missing. The first
    question creates the topic of group offsets, so afterwards no client has to wait for it."""
    from kafka.errors import KafkaError, for_code
    from kafka.protocol.metadata import FindCoordinatorRequest, MetadataRequest
    from kafka.protocol.parser import KafkaProtocol

    protocol = KafkaProtocol(client_id=_GROUP)
    metadata = MetadataRequest(topics=[], allow_auto_topic_creation=False, version=_METADATA)
    coordinator = FindCoordinatorRequest(key=_GROUP, key_type=_OF_A_GROUP, version=_COORDINATOR)
    try:
        with socket.create_connection((HOST, port), timeout=PROBE_SECONDS) as connection:
            listed = {broker.node_id for broker in ask(connection, protocol, metadata).brokers}
            if absent := set(brokers) - listed:
                return f"brokers in its metadata: {sorted(absent)}"
            code = ask(connection, protocol, coordinator).error_code
    except (OSError, KafkaError) as error:
        return f"an answer: {error}"
    return f"the coordinator of groups: {for_code(code).__name__}" if code else None


def ask(connection: socket.socket, protocol: "KafkaProtocol", request: Any) -> Any:
    """The answer of this one broker. Raises `OSError`."""
    protocol.send_request(request)
    connection.sendall(protocol.send_bytes())
    while True:
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("it closed the connection")
        for _, response in protocol.receive_bytes(received):
            return response
