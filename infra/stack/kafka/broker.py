"""One broker, which is also a controller.

One broker alone keeps its promises through kill -9 of the process. With three, what is acknowledged is on two of them
(``min.insync.replicas=2``) and the loss of any one stops nothing for longer than its session.
"""

import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.stack.kafka.probe import CLIENT, installed, unready
from infra.stack.kafka.runtime import Runtime
from infra.stack.ports import HOST
from infra.stack.server import missing

CLUSTER_ID = "tollhouse"

_PROPERTIES = """process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={acknowledged}
offsets.topic.num.partitions=1
offsets.topic.replication.factor={copies}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={acknowledged}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={acknowledged}
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms={session}
broker.heartbeat.interval.ms={heartbeat}
log.cleaner.dedupe.buffer.size=8388608
"""

# Milliseconds. The session is how long the cluster waits for a broker that was killed, also for its return under the same id.
# With more than one broker it must outlast the pauses of a busy machine.
_ALONE = {"session": 1000, "heartbeat": 200}
_TOGETHER = {"session": 2000, "heartbeat": 500}


@dataclass(frozen=True)
class Node:
    """A broker's number, from 1, and its ports."""

    number: int
    port: int
    controller_port: int

    @property
    def name(self) -> str:
        return f"kafka-{self.number}"


@dataclass(frozen=True)
class Broker:
    """`node` of `cluster`, with its folder at `home`. `options`: Java's, instead of those that use the class archive."""

    home: Path
    node: Node
    cluster: tuple[Node, ...]
    runtime: Runtime
    options: Sequence[str] = ()
    stop_signal: int = signal.SIGTERM

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.node.port, self.node.controller_port)

    @property
    def work(self) -> Path:
        return self.home / "work"

    @property
    def program(self) -> Path | None:
        return self.runtime.java

    def prepare(self) -> None:
        if not installed():
            raise missing("kafka-python", CLIENT)
        self.work.mkdir(parents=True, exist_ok=True)
        copies = len(self.cluster)
        properties = _PROPERTIES.format(
            node=self.node.number,
            voters=",".join(f"{each.number}@{HOST}:{each.controller_port}" for each in self.cluster),
            host=HOST,
            port=self.node.port,
            controller_port=self.node.controller_port,
            data=self._data,
            copies=copies,
            acknowledged=copies // 2 + 1,
            **(_ALONE if copies == 1 else _TOGETHER),
        )
        self._properties.write_text(properties)
        if not (self._data / "meta.properties").exists():
            arguments = ("format", "-t", CLUSTER_ID, "-c", str(self._properties), "--ignore-formatted")
            options = self.options and ("-Xshare:auto",)
            self.runtime.run("kafka.tools.StorageTool", *arguments, work=self.work, options=options)

    def command(self) -> Sequence[str]:
        return self.runtime.command("kafka.Kafka", str(self._properties), work=self.work, options=self.options)

    def awaited(self, running: Collection[str]) -> str | None:
        return unready(self.node.port, {each.number for each in self.cluster if each.name in running})

    @property
    def _data(self) -> Path:
        return self.home / "data"

    @property
    def _properties(self) -> Path:
        return self.home / "server.properties"
