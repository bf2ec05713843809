"""What a run does when the server goes away: it pauses, looks now and then, and goes on.

A failure that may pass says nothing of the image. Whether it was the image's
all the same, a grey one tells: if that is answered at once, it was.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from diffusionad_client.errors import (
    DeadlineExceededError,
    DiffusionADError,
    ServerGoneError,
)

T = TypeVar("T")

FIRST_LOOK_S = 0.5  # between two looks whether the server is back; doubled each time
LONGEST_LOOK_S = 10.0
TRIES = 3  # of one image while the server answers others: then it is the image that it fails on
_LISTEN_EVERY_S = 0.2


class StoppedError(Exception):
    """The run was told to stop before this image's turn came."""


class Patience:
    """Holds the images of a run back while the server is away. Threads share it.

    `look` asks the server for something small, and raises what that raises.
    `seconds` is how long it may be away, infinity for ever. `notice` hears of each pause and of
    its end, in a sentence. `stop` ends all waiting.
    """

    def __init__(
        self,
        look: Callable[[], object],
        *,
        seconds: float,
        notice: Callable[[str], object] = lambda text: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._look = look
        self._seconds = seconds
        self._notice = notice
        self._stop = threading.Event() if stop is None else stop
        self._looking = threading.Lock()  # one thread looks, the others wait
        self._here = threading.Event()
        self._here.set()
        self._returns = 0  # how often the server was found to be there
        self._over: ServerGoneError | None = None

    def run(self, task: Callable[[], T]) -> T:
        """Do a task, and again after the server was away.

        Raises the task's own failure, `ServerGoneError` if the server stayed
        away, and `StoppedError` if the run stops while this waits.
        """
        tries = 0
        while True:
            self._wait_until_here()
            returns = self._returns
            try:
                return task()
            except DiffusionADError as exc:
                if not exc.retryable:
                    raise
                was_away = self._await_server(exc, returns)
                tries += not was_away
                if not was_away and (isinstance(exc, DeadlineExceededError) or tries == TRIES):
                    raise

    def _wait_until_here(self) -> None:
        while True:
            if self._stop.is_set():
                raise StoppedError("the run stops")
            if self._over is not None:
                raise self._over
            if self._here.wait(_LISTEN_EVERY_S):
                return

    def _await_server(self, failure: DiffusionADError, returns: int) -> bool:
        """Wait until the server answers; tell whether it did not at once."""
        while not self._looking.acquire(timeout=_LISTEN_EVERY_S):
            if self._stop.is_set():
                raise StoppedError("the run stops")
        try:
            if self._over is not None:
                raise self._over
            if self._returns != returns:  # another thread has waited meanwhile
                return True
            began = time.monotonic()
            if self._answers():
                return False
            self._here.clear()
            until = "" if math.isinf(self._seconds) else f" up to {_span(self._seconds)}"
            self._notice(f"Paused: {failure}. Waiting{until} for it to come back")
            self._wait_for_an_answer(failure, began)
            self._notice(f"Going on after {_span(time.monotonic() - began)}")
            self._returns += 1
            return True
        finally:
            self._here.set()
            self._looking.release()

    def _wait_for_an_answer(self, failure: DiffusionADError, began: float) -> None:
        pause = FIRST_LOOK_S
        while True:
            left = began + self._seconds - time.monotonic()
            if left <= 0:
                self._over = ServerGoneError(f"{failure}; waited {_span(self._seconds)} for it")
                raise self._over
            if self._stop.wait(min(pause, left)):
                raise StoppedError("the run stops")
            if self._answers():
                return
            pause = min(2 * pause, LONGEST_LOOK_S)

    def _answers(self) -> bool:
        """Tell whether the server is there. An error that is no silence is an answer as well."""
        try:
            self._look()
        except DiffusionADError as exc:
            return not exc.retryable
        return True


def _span(seconds: float) -> str:
    return f"{seconds / 60:.3g} min" if seconds >= 60 else f"{seconds:.1f} s"
