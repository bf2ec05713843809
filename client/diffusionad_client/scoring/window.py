"""How many images are under way at once: so many, or as many as make the run faster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diffusionad_client.errors import DeadlineExceededError, ServerBusyError
from diffusionad_client.sdk.client import Client

MOST = 64  # images under way, however fast the server is
FIRST = 4
GAIN = 1.05  # a wider window must be so much faster to be kept
GROWTH = 1.5
LONGEST_S = 10.0  # for one image, in the mean; more is a queue, and not work
SHORTEST_EPOCH_S = 0.5  # for the speed of a window to say something
HOLD = 20  # epochs before a window that was best is tried against others again


class Window:
    """A fixed number of images under way. Threads share it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    @property
    def threads(self) -> int:
        """How many threads the images need."""
        return self.limit

    @contextmanager
    def image(self) -> Iterator[None]:
        """Have one image under way while the context lasts."""
        yield


def window_of(images: int | None, overloads: Callable[[], int]) -> Window:
    """Make a window of so many images; None: of as many as make the run faster."""
    return GrowingWindow(overloads) if images is None else Window(images)


def overloads_of(client: Client) -> int:
    """Count how often servers had no room in their queues, or did not answer in time."""
    kinds = (ServerBusyError.__name__, DeadlineExceededError.__name__)
    return sum(server.errors.get(kind, 0) for server in client.stats().servers for kind in kinds)


class GrowingWindow(Window):
    """Grows while that makes the run faster, and shrinks when the server has too much to do.

    It is measured in epochs, of two rounds of images each. A wider one that is
    faster is kept and followed by one wider still; else the best one comes back
    for a while. Then a narrower one is tried, which is kept if it is as fast,
    and a wider one again. When the server was full, the window is halved;
    `overloads` counts how often it has said so.
    """

    def __init__(
        self,
        overloads: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(FIRST)
        self._overloads = overloads
        self._clock = clock
        self._under_way = 0
        self._free = threading.Condition()
        self._best = (0.0, FIRST)  # images a second, and the window that gave it
        self._held = 0  # epochs that the best window is kept for yet
        self._begin()

    @property
    def threads(self) -> int:
        """How many threads the images need at most."""
        return MOST

    @contextmanager
    def image(self) -> Iterator[None]:
        """Have one image under way while the context lasts; waits until there is room."""
        with self._free:
            self._free.wait_for(lambda: self._under_way < self.limit)
            self._under_way += 1
        began = self._clock()
        try:
            yield
        finally:
            with self._free:
                self._under_way -= 1
                self._count(self._clock() - began)
                self._free.notify_all()

    def _begin(self) -> None:
        self._began = self._clock()
        self._done = 0
        self._seconds = 0.0
        self._overloads_before = self._overloads()

    def _count(self, seconds: float) -> None:
        self._done += 1
        self._seconds += seconds
        elapsed = self._clock() - self._began
        if self._done < 2 * self.limit or elapsed < SHORTEST_EPOCH_S:
            return
        rate, latency = self._done / elapsed, self._seconds / self._done
        if self._overloads() > self._overloads_before:
            self._settle(rate, max(1, self.limit // 2))
        elif latency > LONGEST_S:
            self._settle(rate, self._narrower())
        elif self._held:
            self._held -= 1
            if not self._held:
                self._best = (rate, self.limit)
                self._try(self._narrower())
        else:
            self._judge_trial(rate)
        self._begin()

    def _judge_trial(self, rate: float) -> None:
        fastest, limit = self._best
        was_wider = self.limit > limit or not fastest
        if was_wider and rate > GAIN * fastest:
            self._best = (rate, self.limit)
            self._try(self._wider())
        elif not was_wider and rate * GAIN >= fastest:  # as fast with less
            self._best = (max(rate, fastest), self.limit)
            self._try(self._narrower())
        elif was_wider:
            self._settle(*self._best)
        else:
            self.limit = limit
            self._try(self._wider())

    def _try(self, limit: int) -> None:
        if limit == self._best[1]:
            self._settle(*self._best)
        else:
            self.limit = limit

    def _wider(self) -> int:
        return min(MOST, max(self.limit + 1, int(self.limit * GROWTH)))

    def _narrower(self) -> int:
        return max(1, int(self.limit / GROWTH))

    def _settle(self, rate: float, limit: int) -> None:
        self._best = (rate, limit)
        self.limit = limit
        self._held = HOLD
