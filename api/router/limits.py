"""Rate limits as headers."""

from commands.ports import RateClaim


def rate_headers(rates: tuple[tuple[RateClaim, int, float], ...]) -> list[tuple[bytes, bytes]]:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``; the reset is a duration such as ``12ms`` or ``6m0s``."""
    headers = []
    for claim, remaining, reset in rates:
        if claim.kind != "concurrent":
            kind = claim.kind.encode()
            headers.append((b"x-ratelimit-limit-" + kind, b"%d" % claim.limit))
            headers.append((b"x-ratelimit-remaining-" + kind, b"%d" % remaining))
            headers.append((b"x-ratelimit-reset-" + kind, _duration(reset).encode()))
    return headers


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
