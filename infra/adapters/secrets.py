"""`Secrets` from the operating system's randomness and the installation's secret."""

import base64
import hmac
import secrets

from infra.adapters.ids import lot
from infra.adapters.sealing import Sealing, derived_key


class InstallationSecrets:
    """See `commands.ports.Secrets`. `secret` is at least 32 bytes; everything is lost with it."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = hmac.new(derived_key(secret, "keys"), digestmod="sha256")
        self._sealing = Sealing(secret, "credentials")

    def random(self, bits: int) -> int:
        return secrets.randbits(bits)

    def lot(self, bits: int) -> int:
        return lot(bits)

    def hash(self, key: str) -> str:
        keyed = self._keyed.copy()  # `hmac.digest` would let other threads run meanwhile
        keyed.update(key.encode())
        return keyed.hexdigest()

    def seal(self, plain: str) -> str:
        return base64.urlsafe_b64encode(self._sealing.seal(plain.encode(), "backend")).decode()

    def unseal(self, sealed: str) -> str:
        return self._sealing.open(base64.urlsafe_b64decode(sealed), "backend").decode()
