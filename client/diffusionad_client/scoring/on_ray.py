"""Scoring on more than one machine: the step of `score_one` as a pipeline of Ray Data.

This process lists the images and writes all results. Workers on the machines of
a Ray cluster do what lies between: they read the files, decode them, ask the
servers and draw. So what they need is there under the same name everywhere: the
images, on a network drive or in a bucket, the files of certificates and tokens,
and this package. Addresses of servers are looked up where a worker runs:
"localhost" is the server beside it.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from typing import Any

from diffusionad_client.errors import ArgumentError, DiffusionADError, EngineError, SourceError
from diffusionad_client.scoring.board import Board
from diffusionad_client.scoring.engines import Keep
from diffusionad_client.scoring.giving_up import Losses
from diffusionad_client.scoring.patience import StoppedError
from diffusionad_client.scoring.ray_worker import COLUMN, Came, Job, Worker
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.settings import Cluster
from diffusionad_client.scoring.work import Task, Work
from diffusionad_client.sdk.connection import Connection

BLOCK = 128  # images that a worker is given at once
_LISTEN_EVERY_S = 0.5
_REACH_S = 5.0  # for the head of a cluster
_STORE_BYTES = 256 * 2**20  # of a cluster of this machine: for what is on its way
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing of a factory is told anyone
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its own affairs
}
_REFUSALS = (ConnectionError, RuntimeError, ValueError, OSError)  # what Ray says no with


def check_can_run() -> None:
    """Raise `ArgumentError` if Ray is not installed here."""
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise ArgumentError(
            "--engine ray needs Ray, which is not installed here; run "
            "`pip install 'diffusionad-client[ray]'` on each of its machines"
        )


@dataclass(frozen=True, kw_only=True)
class OnRay:
    """Scores on the workers of a Ray cluster. An `Engine`."""

    cluster: Cluster
    connection: Connection
    model: str
    concurrency: int | None  # images that each worker has under way; None: as many as are fastest
    patience: float
    notice: Callable[[str], object] = lambda text: None
    stop: threading.Event = field(default_factory=threading.Event)

    def score_all(
        self, tasks: Iterable[Task], work: Work, keep: Keep
    ) -> Generator[Row | None, None, None]:
        """Yield the row of every image, in order; see `run.score_all` for how that ends."""
        job = Job(self.connection, self.model, work, self.concurrency, self.patience)
        losses = Losses()
        with closing(self._came(tasks, job)) as all_that_came:
            for name, came in all_that_came:
                if isinstance(came, StoppedError):
                    continue
                if isinstance(came, DiffusionADError):
                    row: Row | None = losses.failed(name, came)
                else:
                    row = None if came is None else keep(came)
                    losses.came(row)
                yield row
        if not self.stop.is_set():
            losses.end()

    def _came(self, tasks: Iterable[Task], job: Job) -> Generator[tuple[str, Came], None, None]:
        import ray.data

        with _cluster(ray, self.cluster.address) as cpus:
            workers = self.cluster.workers or max(1, int(cpus))
            # In the cluster's memory, which goes to its disks: of millions of images, little is
            # kept here.
            held = [ray.put(block) for block in blocks(tasks)]
            if not held:
                return
            board = ray.remote(num_cpus=0)(Board).remote()
            data = ray.data.from_arrow_refs(held).map_batches(
                Worker,
                fn_constructor_kwargs={"job": job, "board": board},
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=min(1.0, cpus / workers),
                batch_size=None,
                batch_format="pyarrow",
            )
            stopped = 0
            with self._listening(ray, board):
                try:
                    for row in data.iter_rows():
                        name, came = pickle.loads(row[COLUMN])
                        stopped = stopped + 1 if isinstance(came, StoppedError) else 0
                        yield name, came
                        if stopped > 4 * workers * BLOCK:  # nothing more is under way
                            break
                except ray.exceptions.RayError as exc:
                    raise EngineError(f"Ray lost the run: {_reason(exc)}") from exc

    @contextmanager
    def _listening(self, ray: Any, board: Any) -> Iterator[None]:
        """Pass on what workers say, and tell them to stop, while the context lasts."""
        over = threading.Event()

        def listen() -> None:
            while not over.wait(_LISTEN_EVERY_S):
                try:
                    if self.stop.is_set():
                        board.stop.remote()
                    for text in ray.get(board.take.remote()):
                        self.notice(text)
                except ray.exceptions.RayError:
                    return  # the rows say why

        thread = threading.Thread(target=listen, name="listen to Ray", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[float]:
    """Join a cluster, or start one on this machine; gives the number of its CPUs."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        how = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    else:
        how = {"address": address}
    try:
        if address is not None and ":" in address.strip(":"):
            _check_reached(address)  # Ray would try for minutes
        with _unheard():
            ray.init(**how, **quiet)
    except _REFUSALS as exc:
        where = "on this machine" if address is None else f"at {address}"
        raise EngineError(
            f"no Ray {where}: {_reason(exc)}; an address is that of the cluster's head, such as "
            "10.0.0.5:6379, or auto on a machine of the cluster"
        ) from exc
    try:
        from ray.data import DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True  # rows come in the order of the source
        context.target_max_block_size = 1  # what a worker has done comes at once
        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(handler, logging.StreamHandler):  # what it says is in its log file too
                handler.setLevel(logging.ERROR)
        yield float(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


def _check_reached(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep what Ray's own libraries print while they start from this process's output."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def blocks(tasks: Iterable[Task]) -> Iterator[Any]:
    """Pack tasks into tables that can be sent to other machines."""
    import pyarrow
    from ray import cloudpickle

    waiting = iter(tasks)
    while group := list(islice(waiting, BLOCK)):
        try:
            packed = [cloudpickle.dumps(task) for task in group]
        except (TypeError, pickle.PicklingError) as exc:
            raise SourceError(
                f"{group[0].name}: only this process can read it ({exc}); unpack the images, or "
                "leave out --engine ray"
            ) from exc
        yield pyarrow.table({COLUMN: pyarrow.array(packed, pyarrow.binary())})


def _reason(exc: Exception) -> str:
    """Give the first line of what Ray says: others are traces of its own."""
    lines = [line for line in str(exc).splitlines() if line.strip()]
    return lines[0] if lines else type(exc).__name__
