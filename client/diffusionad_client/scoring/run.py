"""The run itself: many images through a few threads, a bounded number at a time, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Protocol, TypeVar

from diffusionad_client.errors import DiffusionADError
from diffusionad_client.scoring.giving_up import Losses
from diffusionad_client.scoring.patience import StoppedError
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.window import Window
from diffusionad_client.scoring.workers import Workers

# Windows tells a Ctrl-C only to those who do not wait for ever; and images may come meanwhile.
_LISTEN_EVERY_S = 0.05


class Named(Protocol):
    """What is scored: an image, with or without what else is known of it."""

    @property
    def name(self) -> str:
        """The image's."""


Image = TypeVar("Image", bound=Named)


def score_all(
    images: Iterable[Image],
    score: Callable[[Image], Row | None],
    *,
    concurrency: int | Window,
    stop: Event | None = None,
) -> Generator[Row | None, None, None]:
    """Yield the row of every image, in order, with at most `concurrency` of them under way.

    None stands for an image that needed no scoring. An image without a name
    says that none has come yet, and that more will; see `NONE_YET`. Memory
    does not grow with the number of images. When GIVE_UP_AFTER images in a row fail by what is
    not theirs, and for PATIENCE_S if that may pass by itself, or none was ever
    answered, that error is raised; see `giving_up`. Once `stop` is set only
    what is under way is finished. Close the iterator to end it early; then
    nothing is waited for.
    """
    stop = Event() if stop is None else stop
    window = Window(concurrency) if isinstance(concurrency, int) else concurrency
    workers = Workers(window.threads, "score")
    under_way: deque[tuple[str, Future[Row | None]]] = deque()
    to_do = iter(images)
    losses = Losses()
    ended = False

    def unless_stopped(image: Image) -> Row | None:
        if stop.is_set():
            raise StoppedError("the run stops")
        with window.image():
            return score(image)

    try:
        while True:
            # The next ones wait for a free thread.
            while not ended and len(under_way) < 2 * window.limit and not stop.is_set():
                image = next(to_do, None)
                if image is None:
                    ended = True
                elif image.name:
                    task = partial(unless_stopped, image)
                    under_way.append((image.name, workers.submit(task)))
                else:
                    break
            if not under_way:
                if ended or stop.wait(_LISTEN_EVERY_S):
                    break
                continue
            name, future = under_way[0]
            if not future.done():
                with suppress(futures.TimeoutError):
                    future.exception(timeout=_LISTEN_EVERY_S)
                continue
            under_way.popleft()
            try:
                row = future.result()
                losses.came(row)
            except StoppedError:
                continue
            except DiffusionADError as exc:
                row = losses.failed(name, exc)
            yield row
        if not stop.is_set():
            losses.end()
    finally:
        workers.stop()
