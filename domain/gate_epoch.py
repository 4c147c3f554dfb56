"""Gate epochs: one stream per facts partition. Fencing a partition ends every admission under earlier epochs."""

from msgspec import Struct

KIND = "gate"


# ---------------------------------------------------------------- events: stored format


class GateFenced(Struct, frozen=True, kw_only=True):
    partition: int
    epoch: int


Event = GateFenced

EVENTS: tuple[type[Struct], ...] = (GateFenced,)


# ---------------------------------------------------------------- state


class GateEpoch(Struct, frozen=True, kw_only=True):
    """The epoch in force of one partition."""

    partition: int
    epoch: int

    @property
    def removed(self) -> bool:
        return False


def evolve(_state: GateEpoch | None, event: Event) -> GateEpoch | None:
    """The state after `event`."""
    return GateEpoch(partition=event.partition, epoch=event.epoch)


# ---------------------------------------------------------------- commands and decisions


class FenceGate(Struct, frozen=True, kw_only=True):
    partition: int


Command = FenceGate


def decide(command: Command, state: GateEpoch | None) -> list[Event]:
    """Always a new epoch, one above the last (the first is 1)."""
    return [GateFenced(partition=command.partition, epoch=1 if state is None else state.epoch + 1)]
