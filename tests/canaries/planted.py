"""What is planted, and how it is found again: as it is, or in a coat that a careless program puts on."""

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cache
from uuid import uuid4


@dataclass
class Canaries:
    """`texts`: what was planted, by what it is."""

    texts: dict[str, str] = field(default_factory=dict)

    def plant(self, name: str, prefix: str = "") -> str:
        """A new text that nothing else contains."""
        return self.keep(name, f"{prefix}canary{uuid4().hex}")

    def keep(self, name: str, text: str) -> str:
        """A secret that the product made."""
        self.texts[name] = text
        return text

    def found(self, data: bytes) -> list[str]:
        """Which of them `data` has, in whatever coat."""
        return [f"{name}, {coat}" for name, text in self.texts.items() for coat, form in _coats(text) if form in data]


@cache
def _coats(text: str) -> list[tuple[str, bytes]]:
    raw = text.encode()
    coats = [
        ("as it is", raw),
        ("in hex", raw.hex().encode()),
        ("in UTF-16", text.encode("utf-16-le")),
        ("as SHA-256", hashlib.sha256(raw).hexdigest().encode()),
        ("as the bytes of SHA-256", hashlib.sha256(raw).digest()),
    ]
    for shift in range(3):  # base64 of something longer that has it inside
        inside = base64.b64encode(b"_" * shift + raw)[4 if shift else 0 : -4]
        coats.append(("in base64", inside))
        coats.append(("in base64 for URLs", inside.translate(bytes.maketrans(b"+/", b"-_"))))
    return coats
