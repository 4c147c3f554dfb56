"""Fresh ids: UUIDv7 in base32. Unique, sortable by time, not secret."""

import random
import time

from domain.ids import made_id, uuid7

_seed = random.SystemRandom().getrandbits(256)

lot = random.Random(_seed).getrandbits
"""A number of so many bits, as good as never drawn before: seeded by the system. It can be predicted. (The system, asked each
time, would let other threads run meanwhile.)"""


def new_id(prefix: str) -> str:
    """``<prefix>_`` and a new UUIDv7."""
    return made_id(prefix, uuid7(time.time_ns() // 1_000_000, lot(74)))
