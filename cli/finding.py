"""One line of ``tollhouse doctor``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `ok`, what was seen, and what to do if it is not ok."""

    check: str
    ok: bool
    seen: str
    fix: str = ""
