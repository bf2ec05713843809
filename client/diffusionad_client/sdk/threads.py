"""Drives steps in the thread that calls, which waits for what they ask for."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from diffusionad_client.sdk.steps import (
    AT_ONCE,
    Alongside,
    Ask,
    LocalWork,
    Pause,
    Resolve,
    Step,
    Steps,
    Together,
)
from diffusionad_client.sdk.transports.grpc import Cancellation, cancellation_here

T = TypeVar("T")


class ThreadDriver:
    """Takes courses of steps. Threads may share it; a forked process goes on with it."""

    def __init__(self) -> None:
        self._begin()

    def run(self, steps: Steps[T]) -> T:
        """Take a course to its end, and give what it comes to."""
        if os.getpid() != self._pid:  # the threads of the parent are not here
            self._begin()
        return _run(steps, self._do)

    def stop(self) -> None:
        """End what runs in the background."""
        self._over.set()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._over = threading.Event()
        self._alongside: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def _do(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return step.call()
        if isinstance(step, LocalWork):
            return step.do()
        if isinstance(step, Pause):
            return _pause(step.seconds)
        if isinstance(step, Together):
            return self._together(step)
        if isinstance(step, Resolve):
            return _resolve(step)
        return self._start(step)

    def _together(self, step: Together) -> list[Any]:
        if len(step.courses) < 2:
            return [self.run(course) for course in step.courses]
        workers = min(AT_ONCE, len(step.courses))
        cancellation = cancellation_here() or Cancellation()

        def take(course: Steps[Any]) -> Any:
            with cancellation.of_this_thread():
                return self.run(course)

        with ThreadPoolExecutor(workers, thread_name_prefix="diffusionad") as pool:
            try:
                came = [pool.submit(take, course) for course in step.courses]
                return [each.result() for each in came]
            except BaseException as exc:
                if not isinstance(exc, Exception):  # an interrupt: nobody waits for the others
                    cancellation.cancel()
                raise

    def _start(self, step: Alongside) -> None:
        with self._lock:
            before = self._alongside.get(step.name)
            if self._over.is_set() or (before is not None and before.is_alive()):
                return
            thread = threading.Thread(
                target=_run_until,
                args=(self._over, step.course, self._do),
                name=f"diffusionad {step.name}",
                daemon=True,
            )
            self._alongside = {n: t for n, t in self._alongside.items() if t.is_alive()}
            self._alongside[step.name] = thread
            thread.start()


def _run(steps: Steps[T], do: Callable[[Step], Any]) -> T:
    try:
        step = next(steps)
        while True:
            try:
                came = do(step)
            except BaseException as exc:  # an interrupt too: what it holds is to be let go of
                step = steps.throw(exc)
            else:
                step = steps.send(came)
    except StopIteration as end:
        result: T = end.value
        return result


def _run_until(
    over: threading.Event, course: Callable[[], Steps[None]], do: Callable[[Step], Any]
) -> None:
    """Take a course, unless the driver is stopped meanwhile."""

    def do_until(step: Step) -> Any:
        if isinstance(step, Pause):
            over.wait(step.seconds)
        if over.is_set():
            raise _StoppedError
        return None if isinstance(step, Pause) else do(step)

    try:
        _run(course(), do_until)
    except _StoppedError:
        pass
    except Exception:
        if not over.is_set():  # a line that was closed while it was asked
            raise


class _StoppedError(Exception):
    """The driver was stopped."""


def _pause(seconds: float) -> None:
    cancellation = cancellation_here()
    if cancellation is None:
        time.sleep(seconds)
    else:
        cancellation.pause(seconds)


def _resolve(step: Resolve) -> list[str]:
    """Look a name up. The system's resolver takes no timeout, so it gets a thread."""
    found: list[str] = []

    def look_up() -> None:
        with suppress(OSError, UnicodeError):
            found.extend(addresses(socket.getaddrinfo(step.host, step.port, type=_STREAM)))

    thread = threading.Thread(target=look_up, name="diffusionad look-up", daemon=True)
    thread.start()
    thread.join(step.timeout)
    return [*found]


_STREAM = socket.SOCK_STREAM


def addresses(entries: Any) -> list[str]:
    """Give the addresses of one family in a resolver's answer, as HOST:PORT.

    A machine that has an address of each family is one server all the same.
    """
    of_family: dict[Any, list[str]] = {}
    for family, _, _, _, place in entries:
        host = f"[{place[0]}]" if ":" in place[0] else place[0]
        found = of_family.setdefault(family, [])
        if (address := f"{host}:{place[1]}") not in found:
            found.append(address)
    return max(of_family.values(), key=len, default=[])
