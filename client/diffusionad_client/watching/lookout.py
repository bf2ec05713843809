"""Looks for images in a folder: what the system tells of it, and walks through all of it.

Events come at once, but can be lost: while a new folder is not watched yet, or
when there are more than the system keeps. A walk now and then finds the rest;
on a network share, whose server tells nothing, walks are all there is.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from queue import Empty, Full, Queue, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from diffusionad_client import folders
from diffusionad_client.errors import ArgumentError, SourceError

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.api import BaseObserver

WALK_S = 60.0  # between walks where there are events as well
_AHEAD = 1000  # names that a walk is ahead of those who take them
_LISTEN_EVERY_S = 0.2
_FRESH_S = 5.0  # for which files of a new folder may have come before it was watched


class Event(NamedTuple):
    """Something happened to an image."""

    name: str
    is_new: bool  # it came; False: it was there, and was opened or written to


class Walk(Enum):
    """Stands between the names of a walk."""

    BEGINS = "a walk through the folder begins"
    ENDS = "all that is in the folder was named since it began"


def check_can_watch(poll_s: float | None) -> None:
    """Raise `ArgumentError` if the package that watches folders is not installed."""
    from importlib.util import find_spec

    if poll_s is None and find_spec("watchdog") is None:
        raise ArgumentError(
            "watching a folder needs watchdog, which is not installed here; run "
            "`pip install 'diffusionad-client[watch]'`, or look every two seconds with --poll 2"
        )


class Lookout:
    """Names the images of a folder as they appear or change, some of them more than once.

    Names are relative to the folder, with "/" between folders. Folders that
    `skip` lists, by their real paths, are not looked into. `poll_s` is the time
    between walks, in seconds; None: there are events. The threads end with
    `stop`; `notice` hears of folders that cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        skip: Iterable[Path] = (),
        poll_s: float | None = None,
        stop: threading.Event,
        notice: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.has_events = poll_s is None
        self._top = os.path.realpath(folder)
        self._skipped = frozenset(map(os.path.realpath, skip))
        self._walk_s = WALK_S if poll_s is None else poll_s
        self._stop = stop
        self._notice = notice
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._found: Queue[str | Walk] = Queue(_AHEAD)
        self._observer: BaseObserver | None = None
        self._fresh: dict[str, float] = {}  # new folders, and since when
        self._unreadable: set[str] = set()  # that were told of

    def start(self) -> None:
        """Begin to look. Raises `SourceError` if the system does not tell of the folder."""
        if self.has_events:  # first, or what comes before the walk would be missed
            self._observer = self._listen()
        threading.Thread(target=self._walk_now_and_then, name="walk", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()

    def event(self) -> Event | None:
        """Give the next of what happened to images; None: nothing did.

        Raises `SourceError` if the system tells no more.
        """
        if self._observer is not None and not all(e.is_alive() for e in self._observer.emitters):
            raise self._untold("it stopped doing so")
        with suppress(Empty):
            return self._events.get_nowait()
        return None

    def found(self) -> str | Walk | None:
        """Give the next image of a walk, or its beginning or end; None: it has come to none."""
        with suppress(Empty):
            return self._found.get_nowait()
        return None

    def again(self, name: str) -> None:
        """Name an image once more, as if something had happened to it. Any thread."""
        self._events.put(Event(name, is_new=False))

    def _skip(self, real: str) -> bool:
        return real in self._skipped

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self._top).replace(os.sep, "/")

    def _listen(self) -> BaseObserver:
        from watchdog.observers import Observer

        observer = Observer()
        try:
            observer.schedule(_handler(self._happened), self._top, recursive=True)
            observer.start()
        except OSError as exc:
            raise self._untold(str(exc.strerror or exc)) from exc
        return observer

    def _untold(self, reason: str) -> SourceError:
        if not os.path.isdir(self._top):
            return SourceError(f"{self._top}: is no longer there to be watched")
        return SourceError(
            f"{self._top}: the system does not tell what comes into it: {reason}; make room for "
            "watches (Linux: sysctl fs.inotify.max_user_watches), or look every few seconds "
            "with --poll 2"
        )

    def _happened(self, path: str, *, is_new: bool) -> None:
        name = self._name(path)
        if not os.path.isdir(path):
            if folders.would_find(self._top, name, skip=self._skip):
                self._events.put(Event(name, is_new and not self._is_fresh(os.path.dirname(path))))
        elif (
            is_new
            and name != "."
            and folders.would_find(self._top, f"{name}/0.png", skip=self._skip)
        ):
            self._fresh[path] = time.monotonic()
            for image in self._images_below(path):
                self._events.put(Event(self._name(image), is_new=False))

    def _is_fresh(self, folder: str) -> bool:
        """Tell whether a folder is so new that its files may have come before it was watched."""
        now = time.monotonic()
        self._fresh = {each: at for each, at in self._fresh.items() if now - at < _FRESH_S}
        return folder in self._fresh

    def _walk_now_and_then(self) -> None:
        while True:
            self._put(Walk.BEGINS)
            for path in self._images_below(self._top):
                if not self._put(self._name(path)):
                    return
            self._put(Walk.ENDS)
            if self._stop.wait(self._walk_s):
                return

    def _images_below(self, path: str) -> Iterable[str]:
        return folders.find_images(
            path, skip=self._skip, with_special=True, unreadable=self._cannot_read
        )

    def _cannot_read(self, error: SourceError) -> None:
        if str(error) not in self._unreadable:
            self._unreadable.add(str(error))
            self._notice(f"{error}; it is tried again")

    def _put(self, item: str | Walk) -> bool:
        while not self._stop.is_set():
            with suppress(Full):
                self._found.put(item, timeout=_LISTEN_EVERY_S)
                return True
        return False


def _handler(happened: Callable[..., object]) -> FileSystemEventHandler:
    """Make what takes the events of a folder and passes on those of files that come or change."""
    from watchdog.events import FileSystemEventHandler

    class Told(FileSystemEventHandler):
        def dispatch(self, event: FileSystemEvent) -> None:
            if event.event_type in ("created", "moved"):
                path = event.dest_path if event.event_type == "moved" else event.src_path
                happened(os.fsdecode(path), is_new=True)
            elif event.event_type in ("opened", "modified", "closed") and not event.is_directory:
                happened(os.fsdecode(event.src_path), is_new=False)

    return Told()
