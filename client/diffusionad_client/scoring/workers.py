"""A few threads that work off a queue, and that nobody has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from diffusionad_client.errors import DiffusionADError

Result = TypeVar("Result")
_Task = tuple["Future[Any]", Callable[[], Any]]


class Workers:
    """Threads for the tasks of a run.

    Those of `ThreadPoolExecutor` are waited for when the process ends, so that
    one read of a drive that is gone would keep a Ctrl-C out. These are not.
    Raises `DiffusionADError` where the process may not have so many.
    """

    def __init__(self, count: int, name: str) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._stopped = False
        self._count = 0
        for number in range(count):
            thread = threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:  # Python's only word for it
                self.stop()
                raise DiffusionADError(
                    f"this process may not start {count} threads, but {number}: {exc}; let it have "
                    "more of them and of memory (ulimit -u, -v), or give a lower --concurrency"
                ) from exc
            self._count += 1

    def submit(self, task: Callable[[], Result]) -> Future[Result]:
        """Have a task done; tasks are begun in their order."""
        future: Future[Result] = Future()
        self._tasks.put((future, task))
        return future

    def stop(self) -> None:
        """Begin no further task; what is under way is left to itself."""
        self._stopped = True
        for _ in range(self._count):
            self._tasks.put(None)

    def _work(self) -> None:
        while (item := self._tasks.get()) is not None and not self._stopped:
            future, task = item
            try:
                future.set_result(task())
            except BaseException as exc:
                future.set_exception(exc)
            del item, future, task  # or the last result would live until the next task
