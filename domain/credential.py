"""The shape of the keys we hand out: prefix, 256 random bits, and a checksum that lets anybody refuse a typo offline."""

from binascii import crc32

SERVICE = "th_sk_"
ADMIN = "th_ak_"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY = 43
_CHECK = 6
_LENGTH = len(SERVICE) + _BODY + _CHECK


def make_key(prefix: str, random: int) -> str:
    """A key of 256 random bits in base62, closed by the CRC-32 of all that comes before it."""
    text = prefix + _base62(random, _BODY)
    return text + _base62(crc32(text.encode()), _CHECK)


def well_formed(key: str, prefix: str) -> bool:
    """Whether `key` can be one of ours: anything else is refused without looking it up."""
    if len(key) != _LENGTH or not key.startswith(prefix) or not key.isascii():
        return False
    return _base62(crc32(key[:-_CHECK].encode()), _CHECK) == key[-_CHECK:]


def redact(key: str) -> str:
    """What people may see of a key."""
    return f"{key[: len(SERVICE)]}…{key[-4:]}"


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
