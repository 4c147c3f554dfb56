"""Rate limits as headers."""

from collections.abc import Sequence

from commands.gate import RateClaim

_KINDS = ("requests", "tokens")
"""Of limits that have headers."""


def rate_headers(rates: Sequence[tuple[RateClaim, int, float]]) -> list[tuple[bytes, bytes]]:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` of the tightest limit of each kind, the one that leaves least.
    The reset is a duration such as ``12ms`` or ``6m0s``."""
    headers = []
    for kind in _KINDS:
        found = [rate for rate in rates if rate[0].kind == kind]
        if found:
            claim, remaining, reset = min(found, key=lambda rate: (rate[1], rate[0].limit))
            name = kind.encode()
            headers.append((b"x-ratelimit-limit-" + name, b"%d" % claim.limit))
            headers.append((b"x-ratelimit-remaining-" + name, b"%d" % remaining))
            headers.append((b"x-ratelimit-reset-" + name, _duration(reset).encode()))
    return headers


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
