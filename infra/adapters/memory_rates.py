"""Rate limits in memory, of one partition of the gate: what was admitted in the last minute, and what is under way."""

from collections import OrderedDict
from collections.abc import Sequence

from commands.gate import AdmitRequest, RateClaim
from infra.adapters.fair_share import BRIEFLY, FairShare, Sharer
from infra.adapters.rate_window import WINDOW, Entry, RateWindow

BUSY_RETRY = 1.0
"""Seconds a caller is asked to wait for a place, and for money that is there but held."""

Rate = tuple[RateClaim, int, float]


class Taken:
    """What a hold has taken: its places among those under way, and where its tokens are counted."""

    __slots__ = ("minute", "places", "tokens")

    def __init__(self, minute: int) -> None:
        self.minute = minute
        self.places: list[str] = []
        self.tokens: list[tuple[RateWindow, Entry, tuple[FairShare, Sharer] | None, int]] = []


class MemoryRates:
    """Times are seconds that never go back."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, RateWindow] = OrderedDict()
        self._places: dict[str, int] = {}
        self._shares: dict[str, FairShare] = {}

    def without_places(self) -> "MemoryRates":
        """The same minute, with nothing under way."""
        self._places = {}
        return self

    def in_the_way(self, request: AdmitRequest, now: float) -> tuple[RateClaim, float | None] | None:
        """The limit that is in the way and the seconds to wait, if one is: first one that this request can never pass (None),
        else of those that are full the one that is so longest. Nobody stands in line at those behind the first."""
        for claim in request.rates:
            if _need(claim, request) > claim.limit:
                return claim, None
        longest: tuple[RateClaim, float] | None = None
        for claim in request.rates:
            look = self._wait if longest is None else self._full
            wait = look(claim, _need(claim, request), now)
            if wait is not None and (longest is None or wait > longest[1]):
                longest = claim, wait
        return longest

    def take(self, request: AdmitRequest, now: float) -> Taken:
        """Counts the request under each of its limits."""
        taken = Taken(int(now // WINDOW))
        for claim in request.rates:
            if claim.kind == "concurrent":
                self._place(taken, claim.key)
                if claim.sharer is not None:
                    self._place(taken, _of_sharer(claim))
                continue
            need = _need(claim, request)
            window = self._windows.setdefault(claim.key, RateWindow())
            entry = window.add(now, need)
            self._windows.move_to_end(claim.key)
            shared = None
            if claim.sharer is not None:
                share = self._shares[claim.key]
                shared = share, share.asks(claim.sharer, now)
                share.take(shared[1], need)
            if claim.kind == "tokens":
                taken.tokens.append((window, entry, shared, need))
        return taken

    def state(self, rates: Sequence[RateClaim], now: float) -> tuple[Rate, ...]:
        """Per limit: what remains, and seconds until it is whole again."""
        return tuple(self._state(claim, now) for claim in rates)

    def free(self, taken: Taken) -> None:
        """It is not under way any more."""
        for key in taken.places:
            left = self._places[key] - 1
            if left:
                self._places[key] = left
            else:
                del self._places[key]
        taken.places = []

    def used(self, taken: Taken, tokens: int, now: float) -> None:
        """It turned out to be of so many tokens."""
        for window, entry, shared, counted in taken.tokens:
            window.correct(now, entry, tokens - counted)
            if shared is not None:
                share, sharer = shared
                share.correct(sharer, taken.minute, tokens - counted)
        taken.tokens = []

    def prune(self, now: float) -> None:
        """Forgets limits that nothing was admitted under for a window: the first ones, for the last one used is the last. And
        the shares of those that nobody asked for in this minute or the last."""
        while self._windows:
            oldest = next(iter(self._windows.values()))
            oldest.used(now)
            if oldest.entries:
                break
            self._windows.popitem(last=False)
        for key in [key for key, share in self._shares.items() if (share.minute + 2) * WINDOW < now]:
            del self._shares[key]

    # -- inside

    def _wait(self, claim: RateClaim, need: int, now: float) -> float | None:
        """Seconds until there may be room for who asks, None if there is."""
        full = self._full(claim, need, now)
        if claim.sharer is None:
            return full
        share = self._shares.get(claim.key)
        if share is None:
            share = self._shares[claim.key] = FairShare()
        sharer = share.asks(claim.sharer, now)
        wait = self._in_turn(claim, share, sharer, full, now)
        if wait is not None:
            share.refuse(sharer, need, claim.limit)
        return wait

    def _full(self, claim: RateClaim, need: int, now: float) -> float | None:
        """Seconds until there may be room in the limit, None if there is."""
        if claim.kind == "concurrent":
            return BUSY_RETRY if self._places.get(claim.key, 0) >= claim.limit else None
        window = self._windows.get(claim.key)
        if window is None:
            return None
        over = window.used(now) + need - claim.limit
        return window.room_in(now, over) if over > 0 else None

    def _in_turn(
        self, claim: RateClaim, share: FairShare, sharer: Sharer, full: float | None, now: float
    ) -> float | None:
        """The same of who has a share: `full` while it has less than that, and then also while others are short."""
        places = claim.kind == "concurrent"
        fair = share.of(sharer, claim.limit)
        if (self._places.get(_of_sharer(claim), 0) if places else sharer.in_use(now)) < fair:
            if full is not None:
                share.contend(now + (BRIEFLY if places else full + WINDOW))
            return full
        if now >= share.contended:
            return full
        back = BUSY_RETRY if places else min(sharer.below_in(fair, now), share.contended - now)
        return max(full or 0.0, back)

    def _place(self, taken: Taken, key: str) -> None:
        self._places[key] = self._places.get(key, 0) + 1
        taken.places.append(key)

    def _state(self, claim: RateClaim, now: float) -> Rate:
        remains, whole = claim.limit, 0.0
        if claim.kind == "concurrent":
            remains -= self._places.get(claim.key, 0)
        elif (window := self._windows.get(claim.key)) is not None:
            remains = max(0, remains - window.used(now))
            whole = window.whole_in(now)
        return claim, remains, whole


def _need(claim: RateClaim, request: AdmitRequest) -> int:
    return request.tokens if claim.kind == "tokens" else 1


def _of_sharer(claim: RateClaim) -> str:
    return f"{claim.key}@{claim.sharer}"
