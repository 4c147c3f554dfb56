"""What the processes of distributed mode have in common: the view of the control topic, and the way to the facts topic."""

from dataclasses import dataclass

from cli.settings import Settings
from commands.fact_writer import FactWriter
from domain.errors import Unavailable
from infra.adapters.clock import SteadyClock
from infra.adapters.ids import new_id
from infra.adapters.kafka_bulk import KafkaBulkReader
from infra.adapters.kafka_facts import KafkaFactLog
from infra.adapters.kafka_topics import check_topics
from infra.adapters.secrets import InstallationSecrets
from projections.keyring import Keyring
from projections.ports import CONTROL
from streams.control_follower import ControlFollower

PATIENCE = 1.5
"""Seconds a broker may take to answer about the control topic before another connection is tried. A view that waits for an
answer ages by itself; giving up sooner would make a slow answer of a busy machine into none at all."""

TOPICS_PATIENCE = 2.0
"""Seconds Kafka may take to answer about its topics before a starting process says that it waits."""

PROOF_SECONDS = 2.0
"""How long a question about keys and resources waits for the control topic."""

LEASE_SECONDS = 2.0
"""How long a right that one process has lasts without it: what it did stands still for this long if it dies."""

RELAY = "relay"
"""Name of the lease of who forwards control records. Stored format."""


@dataclass(slots=True)
class Core:
    """What every process has. Made on its event loop; nothing is connected before it is used."""

    kafka: str
    secret: bytes
    clock: SteadyClock
    secrets: InstallationSecrets
    keyring: Keyring
    follower: ControlFollower
    log: KafkaFactLog
    writer: FactWriter

    async def close(self) -> None:
        await self.follower.close()
        await self.log.close()


def core_of(settings: Settings) -> Core:
    """`settings` has kafka and secret (see `cli.serving.needed`)."""
    assert settings.kafka is not None
    assert settings.secret is not None
    secret = settings.secret.get_secret_value().encode()
    clock, keyring = SteadyClock(), Keyring()
    log = KafkaFactLog(settings.kafka)
    return Core(
        kafka=settings.kafka,
        secret=secret,
        clock=clock,
        secrets=InstallationSecrets(secret),
        keyring=keyring,
        follower=ControlFollower(keyring, KafkaBulkReader(settings.kafka, CONTROL, patience=PATIENCE)),
        log=log,
        writer=FactWriter(log, clock, new_id),
    )


async def forwarded_later(position: int) -> None:
    """For commands whose caller does not wait: whoever leads the relay forwards them, as soon as somebody does."""


def require_topics(kafka: str) -> None:
    """Raises `Unavailable` while the topics are not there as they must be."""
    if problems := check_topics(kafka, patience=TOPICS_PATIENCE):
        raise Unavailable(f"{'; '.join(problems)} (run `tollhouse bootstrap`)", code="topics_missing")
