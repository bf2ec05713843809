"""Where the images of a run are scored: in threads of this process, or elsewhere (`on_ray`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from diffusionad_client.scoring.patience import Patience
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.run import score_all
from diffusionad_client.scoring.score_one import Inspect, ScoredImage
from diffusionad_client.scoring.window import Window
from diffusionad_client.scoring.work import Task, Work, look

Keep = Callable[[ScoredImage], Row]  # keeps the pictures of an image, and gives its row


class Engine(Protocol):
    """Scores the images of a run."""

    def score_all(
        self, tasks: Iterable[Task], work: Work, keep: Keep
    ) -> Generator[Row | None, None, None]:
        """Yield the row of every image, in order; see `run.score_all` for how that ends."""


@dataclass(frozen=True, kw_only=True)
class Threads:
    """Scores in threads of this process. Decoding lets go of Python's lock, and so they suffice."""

    inspect: Inspect
    concurrency: int | Window = 4
    patience: float = 10.0  # how long the server may be away, in seconds
    notice: Callable[[str], object] = lambda text: None  # hears of pauses
    stop: threading.Event = field(default_factory=threading.Event)

    def score_all(
        self, tasks: Iterable[Task], work: Work, keep: Keep
    ) -> Generator[Row | None, None, None]:
        """Yield the row of every image; `keep` is called by several threads at once."""
        patience = Patience(
            lambda: look(self.inspect, work.recipe.decode),
            seconds=self.patience,
            notice=self.notice,
            stop=self.stop,
        )

        def score(task: Task) -> Row | None:
            scored = patience.run(lambda: work.do(task, self.inspect))
            return None if scored is None else keep(scored)

        return score_all(tasks, score, concurrency=self.concurrency, stop=self.stop)
