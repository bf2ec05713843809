"""What runs on the machines of a Ray cluster: images in, their rows and pictures out."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from diffusionad_client.contract import Priority
from diffusionad_client.errors import DiffusionADError
from diffusionad_client.scoring.patience import Patience, StoppedError
from diffusionad_client.scoring.score_one import ScoredImage
from diffusionad_client.scoring.window import Window, overloads_of, window_of
from diffusionad_client.scoring.work import Task, Work, look
from diffusionad_client.scoring.workers import Workers
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.connection import Connection

COLUMN = "pickled"  # of the tables that come and go
_GROUP = 16  # images that are sent back together
_LISTEN_EVERY_S = 0.5

# None: it was done before. StoppedError: it was not begun.
Came = ScoredImage | DiffusionADError | StoppedError | None


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know, beside the images."""

    connection: Connection
    model: str
    work: Work
    concurrency: int | None  # images under way; None: as many as are fastest
    patience: float  # s


class Worker:
    """Scores blocks of images, each in a few threads. Ray makes one object a worker."""

    def __init__(self, job: Job, board: Any) -> None:
        self._job = job
        self._board = board
        self._client = Client(job.connection, job.model, priority=Priority.BATCH)
        self._inspect = partial(self._client.inspect, model=job.model)
        self._window: Window = window_of(job.concurrency, partial(overloads_of, self._client))
        self._threads = Workers(self._window.threads, "score")
        self._stop = threading.Event()
        self._patience = Patience(
            lambda: look(self._inspect, job.work.recipe.decode),
            seconds=job.patience,
            notice=board.tell.remote,
            stop=self._stop,
        )
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def __call__(self, block: Any) -> Iterator[Any]:
        """Score the images of a table, and give tables of what came, in the same order."""
        tasks = [pickle.loads(each) for each in block[COLUMN].to_pylist()]
        under_way = [(task.name, self._threads.submit(partial(self._do, task))) for task in tasks]
        for first in range(0, len(under_way), _GROUP):
            came = [(name, future.result()) for name, future in under_way[first : first + _GROUP]]
            yield _table([pickle.dumps(each) for each in came])

    @property
    def is_stopped(self) -> bool:
        """Whether it begins nothing more."""
        return self._stop.is_set()

    def _do(self, task: Task) -> Came:
        if self._stop.is_set():
            return StoppedError("the run stops")
        try:
            with self._window.image():
                return self._patience.run(lambda: self._job.work.do(task, self._inspect))
        except (DiffusionADError, StoppedError) as exc:
            exc.__cause__ = exc.__context__ = None  # which may not be sent
            return exc

    def _listen(self) -> None:
        import ray

        while not self._stop.wait(_LISTEN_EVERY_S):
            if ray.get(self._board.is_stopped.remote()):
                self._stop.set()


def _table(packed: list[bytes]) -> Any:
    import pyarrow

    return pyarrow.table({COLUMN: pyarrow.array(packed, pyarrow.binary())})
