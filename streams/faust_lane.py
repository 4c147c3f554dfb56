"""One projection of a Faust worker: takes parcels as they come, feeds them to the engine in batches, and never leaves a gap.

It knows one cure: whatever stands between it and the next record (a store that does not answer, a record that does not follow
on the view, a version of the view that was switched by somebody else), it lets go of what it holds and has everything read
again from the watermark. Meanwhile it drops what comes, so that no other projection waits for it. Nor does one wait for its
store: while a batch is applied it holds what comes, up to `HELD` records.
The store is called in a thread of its own. A bug is raised: the process ends, and nothing it had not applied counts as done.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from domain.errors import Unavailable
from projections.engine import Engine
from projections.ports import Mark, Outcome, Record, Store
from streams.faust_consumer import Parcel

BATCH = 4000
"""Records applied at once, at most."""

HELD = 20_000
"""Records held until they are applied, about: whoever brings more waits."""

LOOK_SECONDS = 1.0
"""How often the store is asked what other processes did: the watermark, the live version, what is parked."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before it is tried again what failed: doubled each time, until something is taken in."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Reading(Protocol):
    """The consumer, for one topic."""

    @property
    def turn(self) -> int:
        """How often reading was moved."""

    async def rewind(self, offsets: Mapping[int, int]) -> None:
        """Reads on from these offsets, as far as the partitions are this worker's. Raises `Unavailable`."""

    def ends(self) -> Mapping[int, int]:
        """Of this worker's partitions, as far as it is known, the next offset of the log."""


class Lane:
    """`holds` is called with one parcel after the other, `work` and `tend` run beside it; all on one event loop.

    `error` says why the view stands still at the moment; `moved_at` (monotonic) when it last took something in, or was seen to
    have everything.
    """

    def __init__(self, store: Store, engine: Engine, version: int, linger: float = 0.0) -> None:
        self.name, self.topic = store.name, store.topic
        self.engine = engine
        self.linger = linger
        self.error: str | None = None
        self.moved_at = time.monotonic()
        self.applied = 0
        """Records taken in by this process."""
        self._store, self._version = store, version
        self._reading: Reading | None = None
        self._held: list[Record] = []
        self._next: dict[int, int] = {}
        self._failures = 0
        self._left: int | None = None
        """The turn that reading is being moved away from."""
        self._closed = False
        self._astray, self._some, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"lane-{self.name}")

    def begin(self, reading: Reading) -> None:
        """Before the first parcel."""
        self._reading = reading

    async def close(self) -> None:
        """Returns once the thread is through with what it is at; nothing is applied any more."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)

    # ------------------------------------------------------------ where it is

    def marks(self) -> Mapping[int, Mark]:
        """The watermark, as of what is known here."""
        return self.engine.marks()

    def lag(self) -> int:
        """Records of this worker's partitions that are not in the view."""
        marks, ends = self.marks(), self._reading.ends() if self._reading else {}
        return sum(max(0, end - marks.get(partition, Mark()).offset) for partition, end in ends.items())

    async def position(self, seconds: float) -> Mapping[int, Mark] | None:
        """The watermark, as the store has it now. None if it does not tell within `seconds`: the lane is astray then, and has
        what it lacks read again once the store tells."""
        try:
            async with asyncio.timeout(seconds):
                await self._run(self._look)
        except Unavailable as error:
            self._let_go(error)
        except TimeoutError:
            self._let_go(Unavailable(f"its store did not answer within {seconds} s"))
        else:
            return self.marks()
        return None

    # ------------------------------------------------------------ taking in

    def holds(self, parcel: Parcel) -> bool:
        """Takes a parcel if it follows on; False: it was of no use, or something has to be read again first."""
        if self.astray:
            return False
        records = parcel.records
        partition = records[0].partition
        due = max(self._next.get(partition, 0), self.marks().get(partition, Mark()).offset)
        if records[0].offset > due:
            assert self._reading is not None
            if parcel.turn == self._reading.turn != self._left:  # of an earlier turn: what is missing comes by itself
                self._let_go(None)
            return False
        if records[-1].offset >= due:
            self._held += records
            self._next[partition] = records[-1].offset + 1
            self._some.set()
        return True

    async def room(self) -> None:
        """Returns once there is room for another parcel."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    async def work(self) -> None:
        """Goes on for ever: applies what is held, and what comes meanwhile after that."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._held:
                few = len(self._held) < BATCH
                if await self.flush() and few and self.linger:
                    await asyncio.sleep(self.linger)

    @property
    def astray(self) -> bool:
        """What it held is let go, and comes again."""
        return self._astray.is_set()

    @property
    def full(self) -> bool:
        """Enough is held."""
        return len(self._held) >= HELD

    async def flush(self) -> bool:
        """Applies what is held, or a batch of it; True once it is in the view. False: all is let go, and comes again."""
        held, self._held = self._held[:BATCH], self._held[BATCH:]
        self._room.set()
        if not held:
            return True
        try:
            if not await self._run(lambda: self._feed(held)):
                self._let_go(None)
                return False
        except Unavailable as error:
            self._let_go(error)
            return False
        self.error, self._failures = None, 0
        self.applied += len(held)
        self.moved_at = time.monotonic()
        return True

    def _feed(self, records: list[Record]) -> bool:
        """False, and nothing done, if something is missing between the view and `records`: it may be another view by now, or
        one that another process moved."""
        while self._follows(records):
            if self.engine.feed(records) is not Outcome.STALE:
                return True
        return False

    def _follows(self, records: list[Record]) -> bool:
        first: dict[int, int] = {}
        for record in records:
            first.setdefault(record.partition, record.offset)
        marks = self.marks()
        return all(offset <= marks.get(partition, Mark()).offset for partition, offset in first.items())

    def _let_go(self, error: Unavailable | None) -> None:
        self._held.clear()
        self._next.clear()
        self._failures += 1
        if error is not None:
            self.error = f"{type(error).__name__}: {error}"
            _log.warning("projection %s: %s", self.name, error)
        else:
            _log.info("projection %s reads again from its watermark", self.name)
        self._room.set()
        self._astray.set()

    # ------------------------------------------------------------ looking after it

    async def tend(self) -> None:
        """Goes on for ever: brings it back when it went astray, and looks what other processes did."""
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._astray.wait()
            except TimeoutError:
                pass
            if self.astray:
                await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 10)))
            try:
                if await self._run(self._look) or self.astray:
                    await self._return()
                self.error = None
            except Unavailable as error:
                self._let_go(error)
            else:
                if not self.lag():
                    self.moved_at = time.monotonic()

    async def _return(self) -> None:
        """Has everything read again that is not in the view. It takes what comes from now on: the first of it may be here before
        it is known that reading was moved, and nobody brings it twice."""
        assert self._reading is not None
        self._held.clear()
        self._next.clear()
        marks, self._left = self.marks(), self._reading.turn
        self._astray.clear()
        try:
            await self._reading.rewind({p: marks.get(p, Mark()).offset for p in self._reading.ends()})
        finally:
            self._left = None

    def _look(self) -> bool:
        """Takes over what other processes did. True if another version of the view is fed from now on."""
        live = self._store.live()
        switched = live != self._version
        if switched:
            self.engine.replace(self._store.open(live))
            self._version = live
            _log.info("projection %s goes on with version %s", self.name, live)
        self.engine.refresh()
        return switched

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._closed:
            raise Unavailable("the worker ends")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
