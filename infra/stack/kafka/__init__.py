"""Apache Kafka without Docker: its jars by Maven, one or three brokers that are their own controllers (KRaft)."""

from infra.stack.kafka.broker import Broker, Node
from infra.stack.kafka.runtime import Runtime, Tell
from infra.stack.kafka.training import train

__all__ = ["Broker", "Node", "Runtime", "Tell", "train"]
