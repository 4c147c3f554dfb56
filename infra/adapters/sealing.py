"""Authenticated encryption under the installation's secret: AES-256-GCM, a key per purpose derived with HKDF-SHA256.

What is sealed for one context opens in no other, so a sealed text copied to another place is worthless there.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from domain.errors import Unavailable

_NONCE = 12


def derived_key(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose, from the installation's secret."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"tollhouse/{purpose}".encode()).derive(secret)


class Sealing:
    """Seals and opens bytes for one purpose."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        self._cipher = AESGCM(derived_key(secret, purpose))

    def seal(self, plain: bytes, context: str) -> bytes:
        """Nonce and ciphertext. `context` is not kept: opening needs the same."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """The plain bytes. Raises `Unavailable` (``wrong_secret``) if they were sealed under another secret or context."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], context.encode())
        except InvalidTag:
            raise Unavailable(
                "sealed under another secret: TOLLHOUSE_SECRET has changed", code="wrong_secret"
            ) from None
