"""Identifiers: those people choose, those we make, and which partition an organization's facts live in."""

import re
from functools import lru_cache

from domain.errors import invalid

PLATFORM = "_"
"""The organization part of streams that belong to no organization (backends, models, prices, admin keys, gate)."""

PARTITIONS = 12
"""Partitions of the facts topic. Stored format: a count never changes, a new topic version replaces it."""

_CHOSEN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32, lower case: sorts as the number does
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


def chosen_id(text: str, field: str = "id") -> str:
    """`text` if it is an id that people may choose, else `Invalid` naming `field`."""
    if not _CHOSEN.fullmatch(text):
        raise invalid(field, f"must be 1 to 63 of a-z, 0-9 and '-', not beginning with '-'; got {text!r:.80}")
    return text


def uuid7(unix_ms: int, random: int) -> int:
    """A UUIDv7 (RFC 9562) as a number: 48 bits of milliseconds, version, 74 bits taken from `random`."""
    return unix_ms << 80 | 7 << 76 | (random >> 62 & 0xFFF) << 64 | 2 << 62 | random & 0x3FFFFFFFFFFFFFFF


def made_id(prefix: str, uuid: int) -> str:
    """`prefix_` and the 128 bits in 26 characters of base32: ``req_06cj1…``. Ids sort by the time they were made."""
    pairs = _PAIRS
    return (
        f"{prefix}_{_moment(uuid >> 80)}{pairs[uuid >> 70 & 1023]}{pairs[uuid >> 60 & 1023]}{pairs[uuid >> 50 & 1023]}"
        f"{pairs[uuid >> 40 & 1023]}{pairs[uuid >> 30 & 1023]}{pairs[uuid >> 20 & 1023]}{pairs[uuid >> 10 & 1023]}"
        f"{pairs[uuid & 1023]}"
    )


def moment_of(id: str) -> int:
    """The Unix milliseconds at which an id of ours was made."""
    moment = 0
    for digit in id.partition("_")[2][:10]:
        moment = moment << 5 | _ALPHABET.index(digit)
    return moment


@lru_cache(maxsize=16)
def _moment(unix_ms: int) -> str:
    """The first ten characters: exactly the milliseconds, which the ids of one moment share."""
    return "".join(_PAIRS[unix_ms >> shift & 1023] for shift in (40, 30, 20, 10, 0))


@lru_cache(maxsize=65536)
def partition_of(org: str, partitions: int = PARTITIONS) -> int:
    """The facts partition of an organization: Kafka's default partitioner (murmur2 of the key's bytes)."""
    return (murmur2(org.encode()) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 as `org.apache.kafka.common.utils.Utils.murmur2` computes it, as an unsigned 32-bit number."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
