"""Threads that do one thing for another thread, which waits for it only so long.

Starting one costs more than reading a file from memory does. So those that are
free wait a moment for the next task. Nobody waits for one that hangs: they are
daemons, which a process that ends leaves behind.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

_IDLE_S = 1.0  # that one waits for another task


class HelperThreads:
    """Threads of one name. Any thread may ask; a forked process has its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begin()

    def begin(self, task: Callable[[], None]) -> None:
        """Have a task done by a thread that is free, or by a new one. It must raise nothing."""
        if os.getpid() != self._pid:  # the threads of the parent are not here
            self._begin()
        try:
            helper = self._free.pop()
        except IndexError:
            helper = SimpleQueue()
            work = (self._free, helper)
            threading.Thread(target=_help, args=work, name=self._name, daemon=True).start()
        helper.put(task)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._free: list[_Tasks] = []  # whose operations are whole to other threads


_Tasks = SimpleQueue[Callable[[], None]]


def _help(free: list[_Tasks], tasks: _Tasks) -> None:
    while True:
        try:
            task = tasks.get(timeout=_IDLE_S)
        except Empty:
            try:
                free.remove(tasks)
            except ValueError:  # whoever has just taken it will give it a task
                continue
            return
        task()
        del task  # or what it read would live until the next one
        free.append(tasks)
