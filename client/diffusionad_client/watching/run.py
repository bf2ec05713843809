"""A watch from end to end: the run of `scoring`, on images that are still to come."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from diffusionad_client.contract import Priority
from diffusionad_client.output_folders import OutputFolder, claimed
from diffusionad_client.scoring.batch import agree, read_done
from diffusionad_client.scoring.beginning import Beginning, Identity, begin
from diffusionad_client.scoring.done import FAILED, Done
from diffusionad_client.scoring.engines import Engine, Keep, Threads
from diffusionad_client.scoring.listener import Listener
from diffusionad_client.scoring.patience import Patience, StoppedError
from diffusionad_client.scoring.results import RESULTS, RESULTS_JSONL, RunSummary
from diffusionad_client.scoring.row import Row
from diffusionad_client.scoring.score_one import Inspect, ScoredImage
from diffusionad_client.scoring.scoring_run import ScoringRun, summarized
from diffusionad_client.scoring.settings import Settings
from diffusionad_client.scoring.sinks import FolderSink
from diffusionad_client.scoring.window import overloads_of, window_of
from diffusionad_client.scoring.work import Task, Work, look
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.connection import Connection
from diffusionad_client.sdk.served import ServedModel
from diffusionad_client.watching.aftermath import Aftermath, Consequences
from diffusionad_client.watching.arrivals import SETTLE_S, Arrivals
from diffusionad_client.watching.follower import Cursor
from diffusionad_client.watching.lookout import Lookout

_GREETING_S = 10.0
_CURSOR = "watch.json"


@dataclass(frozen=True, kw_only=True)
class WatchPlan:
    """What is watched, and what follows."""

    folder: Path
    settle_s: float = SETTLE_S  # how long a file must stand still
    poll_s: float | None = None  # seconds between walks; None: the system tells what comes
    wanted: Consequences = field(default_factory=Consequences)


class WatchListener(Listener):
    """Hears of a watch. Override what is of interest."""

    def begin(self, category: str, incomplete: Callable[[], int]) -> None:
        """The watch begins; `incomplete` counts files that are not complete yet."""

    def ran(self, row: Row, trouble: str | None) -> None:
        """A command has ended for an image; `trouble` is what went wrong. Any thread."""


def watch_folder(
    connection: Connection,
    plan: WatchPlan,
    settings: Settings,
    listener: WatchListener,
    stop: threading.Event,
) -> RunSummary:
    """Score what comes into a folder until `stop` is set; then finish what is under way.

    The results are those of `score`, whole from the first moment on, so that
    they can be read meanwhile. A server that is away is waited for, at the
    beginning too, for the patience of the settings. Raises a `DiffusionADError`,
    or `KeyboardInterrupt` if it is stopped before a server has answered.
    """
    root = Path(plan.folder).absolute()
    with ExitStack() as stack:
        client = stack.enter_context(Client(connection, settings.model, priority=Priority.BATCH))
        served = _greet(client, connection, settings, listener, stop)
        judging, ours = agree(served, str(root), connection.address, settings)
        output = stack.enter_context(
            claimed(settings.output, RESULTS, overwrite=True, keep_parts=True)
        )
        done, identity = _begin(output, ours, settings)
        skip = [settings.output]
        if plan.wanted.sorting is not None:
            skip.append(plan.wanted.sorting.into)
        lookout = Lookout(root, skip=skip, poll_s=plan.poll_s, stop=stop, notice=listener.notice)
        arrivals = Arrivals(root, lookout, settle_s=plan.settle_s, timeout=connection.timeout)
        sink = stack.enter_context(FolderSink(output, settings.formats, goes_on=True))
        results = output.whole(RESULTS_JSONL)
        aftermath = stack.enter_context(
            Aftermath(
                root,
                results,
                Cursor.read(output.own(_CURSOR), identity.started, results.stat().st_size),
                plan.wanted,
                notice=listener.notice,
                ran=listener.ran,
            )
        )
        engine = Threads(
            inspect=partial(client.inspect, model=served.model),
            concurrency=window_of(settings.concurrency, partial(overloads_of, client)),
            patience=settings.patience,
            notice=listener.notice,
            stop=stop,
        )
        run = ScoringRun(
            source=arrivals,
            engine=_OnArrival(
                engine, arrivals, partial(_sort_again, aftermath, done), listener.notice
            ),
            settings=settings,
            depth=served.metadata.depth,
            # What a later release would say of a part that has gone its way, nobody asks.
            judging=replace(judging, by_content=True),
            done=done,
            listener=_Hub(listener, arrivals, aftermath),
            stop=stop,
            endless=True,
        )
        stack.callback(lookout.stop)
        lookout.start()
        listener.begin(served.model, lambda: arrivals.waiting)
        return run.finish(sink, identity)


def _greet(
    client: Client,
    connection: Connection,
    settings: Settings,
    listener: WatchListener,
    stop: threading.Event,
) -> ServedModel:
    """Ask the server for the model, and wait for one that is not there yet."""
    timeout = min(_GREETING_S, connection.timeout)

    def ask() -> ServedModel:
        served = client.served(timeout=timeout)
        if settings.decode == "server":  # which not every server does
            look(partial(client.inspect, model=served.model, timeout=timeout), "server")
        return served

    patience = Patience(ask, seconds=settings.patience, notice=listener.notice, stop=stop)
    try:
        return patience.run(ask)
    except StoppedError as exc:
        raise KeyboardInterrupt from exc


def _begin(output: OutputFolder, ours: Identity, settings: Settings) -> tuple[Done, Identity]:
    """Go on with the results that are there, and make them whole if they are not."""
    beginning, identity = begin(output, ours, overwrite=False)
    identity.write(output)
    done = read_done(output, beginning, by_content=True)
    if beginning is not Beginning.WHOLE:
        with FolderSink(output, settings.formats) as sink:
            sink.finish(summarized(identity, done.counts(), seconds=0.0, scored=0))
        identity.write(output)
    return done, identity


def _sort_again(aftermath: Aftermath, done: Done, name: str, sha256: str) -> None:
    state = done.state(name)
    if state is not None:
        aftermath.found(name, None if state == FAILED else state, sha256)


@dataclass(frozen=True)
class _OnArrival:
    """An engine for images that may change, or go, while they are scored."""

    engine: Engine
    arrivals: Arrivals
    found: Callable[[str, str], object]
    notice: Callable[[str], object]

    def score_all(
        self, tasks: Iterable[Task], work: Work, keep: Keep
    ) -> Generator[Row | None, None, None]:
        watched = _Watched(
            work.recipe,
            work.judging,
            arrivals=self.arrivals,
            found=self.found,
            notice=self.notice,
        )
        return self.engine.score_all(tasks, watched, keep)


@dataclass(frozen=True, kw_only=True)
class _Watched(Work):
    """The work on images that may change: what comes of one that did is not kept."""

    arrivals: Arrivals
    found: Callable[[str, str], object]  # hears of those that were done before, and still lie there
    notice: Callable[[str], object]

    def do(self, task: Task, inspect: Inspect) -> ScoredImage | None:
        name, contents = task.name, list[bytes]()

        def read() -> bytes:
            contents.append(task.image.read())
            return contents[-1]

        scored = super().do(replace(task, image=replace(task.image, read=read)), inspect)
        as_given = self.arrivals.is_as_given(name)
        if as_given is False:
            self.arrivals.release(name, again=True, at_once=True)
            return None
        if scored is None:
            if contents:
                self.found(name, hashlib.sha256(contents[-1]).hexdigest())
            self.arrivals.release(name, again=not contents)
        elif as_given is None and not contents:
            self.notice(f"Gone before it could be read: {name}")
            self.arrivals.release(name)
            return None
        return scored


@dataclass(frozen=True)
class _Hub(Listener):
    """Passes on what is heard of the run to those who go by it."""

    listener: Listener
    arrivals: Arrivals
    aftermath: Aftermath

    def row(self, row: Row) -> None:
        self.aftermath.come()
        # One that could not be read, or failed by what is not its fault, the next walk tries.
        self.arrivals.release(row.image, again=row.sha256 is None)
        self.listener.row(row)

    def notice(self, text: str) -> None:
        self.listener.notice(text)
