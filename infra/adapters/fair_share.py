"""Fair shares of a limit that several keys use together, so that none can crowd the others out.

While nobody is short, a key may use whatever is there. Once a key was refused that used less than its share, the limit is
contended for a while, and whoever has its share stands back. The share of a key is at least the limit divided by the number of
keys that asked in this minute or the last, and more where others leave something: who wanted less than that in a minute gets it,
and the hungry ones, who wanted more, split equally what is left.

How much a key uses is estimated from what it used in this minute and in the last, which takes few numbers; only who has to stand
back hangs on it, never how much is admitted in all.
"""

from dataclasses import dataclass, field

from infra.adapters.rate_window import WINDOW

BRIEFLY = 3.0
"""Seconds that places among those under way are contended: who was refused one has time to come again."""


@dataclass(slots=True)
class Sharer:
    """One key: what it used, and what it wanted, in the minute that is numbered `minute`, and in the one before; and whether it
    was hungry."""

    minute: int
    used: int = 0
    before: int = 0
    wanted: int = 0
    wanted_before: int = 0
    hungry: bool = False
    hungry_before: bool = False

    def turn_to(self, minute: int) -> bool:
        """Whether that is news."""
        if self.minute == minute:
            return False
        last = self.minute == minute - 1
        self.before, self.wanted_before, self.hungry_before = (
            (self.used, self.wanted, self.hungry) if last else (0, 0, False)
        )
        self.minute, self.used, self.wanted, self.hungry = minute, 0, 0, False
        return True

    def in_use(self, now: float) -> float:
        """About what it used in the last sixty seconds."""
        return self.used + self.before * (1 - (now - self.minute * WINDOW) / WINDOW)

    def below_in(self, share: float, now: float) -> float:
        """Seconds until it has less than `share` in use, if it is let in no more."""
        begin, used = self.minute * WINDOW, self.before
        if self.used >= share:
            begin, used = begin + WINDOW, self.used
        else:
            share -= self.used
        return max(0.001, begin + WINDOW * (1 - share / used) - now) if used >= share else 0.001


@dataclass(slots=True)
class FairShare:
    """Of one limit, in this minute and in the one before it: how many keys asked, how many of them were hungry, and what the
    others wanted."""

    minute: int = -1
    asking: int = 0
    asked: int = 0
    hungry: int = 0
    hungry_before: int = 0
    modest: int = 0
    modest_before: int = 0
    contended: float = 0.0
    sharers: dict[str, Sharer] = field(default_factory=dict)

    def asks(self, name: str, now: float) -> Sharer:
        """The key of this name, which asks now."""
        minute = int(now // WINDOW)
        if self.minute != minute:
            self._turn_to(minute)
        sharer = self.sharers.get(name)
        if sharer is None:
            sharer = self.sharers[name] = Sharer(minute)
            self.asking += 1
        elif sharer.turn_to(minute):
            self.asking += 1
        return sharer

    def of(self, sharer: Sharer, limit: int) -> float:
        """What is the share of a key that wants more than it has."""
        now, before = limit - self.modest, limit - self.modest_before
        if not sharer.hungry:
            now += sharer.wanted
        if not sharer.hungry_before:
            before += sharer.wanted_before
        left = now / (self.hungry + (not sharer.hungry))
        left_before = before / (self.hungry_before + (not sharer.hungry_before))
        return max(self._equal(limit), min(left, left_before))

    def contend(self, until: float) -> None:
        """A key that has less than its share was refused."""
        self.contended = max(self.contended, until)

    def refuse(self, sharer: Sharer, amount: int, limit: int) -> None:
        """It wanted so much more than it got."""
        self._want(sharer, amount)
        if not sharer.hungry and sharer.wanted >= self._equal(limit):
            sharer.hungry = True
            self.hungry += 1
            self.modest = max(0, self.modest - sharer.wanted)

    def take(self, sharer: Sharer, amount: int) -> None:
        """It used so much more."""
        sharer.used += amount
        self._want(sharer, amount)

    def correct(self, sharer: Sharer, minute: int, more: int) -> None:
        """What `sharer` used in `minute` was `more` (or less) than was counted."""
        if sharer.minute == minute:
            sharer.used, sharer.wanted = max(0, sharer.used + more), max(0, sharer.wanted + more)
            hungry = sharer.hungry
        elif sharer.minute == minute + 1:
            sharer.before, sharer.wanted_before = max(0, sharer.before + more), max(0, sharer.wanted_before + more)
            hungry = sharer.hungry_before
        else:
            return
        if not hungry and self.minute == minute:
            self.modest = max(0, self.modest + more)
        elif not hungry and self.minute == minute + 1:
            self.modest_before = max(0, self.modest_before + more)

    def _equal(self, limit: int) -> float:
        return limit / max(self.asking, self.asked)

    def _want(self, sharer: Sharer, amount: int) -> None:
        sharer.wanted += amount
        if not sharer.hungry:
            self.modest += amount

    def _turn_to(self, minute: int) -> None:
        last = self.minute == minute - 1
        self.asked, self.hungry_before, self.modest_before = (
            (self.asking, self.hungry, self.modest) if last else (0, 0, 0)
        )
        self.minute, self.asking, self.hungry, self.modest = minute, 0, 0, 0
        self.sharers = {name: each for name, each in self.sharers.items() if each.minute >= minute - 1}
