"""What each projection looks at in a record, by its name: whoever feeds, rebuilds or repairs a view sees the same."""

from projections import balances, usage
from projections.decoding import Decode, decode, looking_at

_DECODE = {balances.NAME: looking_at(balances.LOOKS), usage.NAME: looking_at(usage.LOOKS)}


def decoding_of(projection: str) -> Decode:
    """How its records are decoded: whole, unless it says what it looks at."""
    return _DECODE.get(projection, decode)
