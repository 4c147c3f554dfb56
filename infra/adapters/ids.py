"""Fresh ids: UUIDv7 in base32. Unique, sortable by time, not secret."""

import random
import time

from domain.ids import made_id, uuid7

_seed = random.SystemRandom().getrandbits(256)
_random = random.Random(_seed).getrandbits  # seeded by the system: an id must be unique, not unguessable


def new_id(prefix: str) -> str:
    """``<prefix>_`` and a new UUIDv7."""
    return made_id(prefix, uuid7(time.time_ns() // 1_000_000, _random(74)))
