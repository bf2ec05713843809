"""One run from end to end: agree with the server on a release, score, write the results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from diffusionad_client.artifacts.metadata import Calibration
from diffusionad_client.contract import Priority
from diffusionad_client.output_folders import OutputFolder, claimed
from diffusionad_client.scoring.beginning import Beginning, Identity, begin
from diffusionad_client.scoring.done import Done, Judging
from diffusionad_client.scoring.engines import Engine, Threads
from diffusionad_client.scoring.listener import Listener
from diffusionad_client.scoring.results import RESULTS, RESULTS_JSONL, RunSummary, read_lines
from diffusionad_client.scoring.scoring_run import ScoringRun
from diffusionad_client.scoring.settings import Settings
from diffusionad_client.scoring.sinks import FolderSink
from diffusionad_client.scoring.sources import Source
from diffusionad_client.scoring.window import overloads_of, window_of
from diffusionad_client.scoring.work import look
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.connection import Connection
from diffusionad_client.sdk.served import ServedModel

_GREETING_S = 10.0  # long enough for any server that is there to say what it serves


def score_batch(
    connection: Connection,
    source: Source,
    settings: Settings,
    listener: Listener,
    add: Callable[[Path], object] = lambda output: None,
    stop: threading.Event | None = None,
) -> RunSummary:
    """Score all images through a server into a folder, or what is missing there.

    The server is asked for the model before anything is written. `add` may
    write a page to the results, before another run can change them. When
    `stop` is set what is under way is finished, and `KeyboardInterrupt` raised.
    Raises a `DiffusionADError`; `ServerGoneError` and `TooManyFailuresError`
    are of runs that the same call goes on with.
    """
    with Client(connection, settings.model, priority=Priority.BATCH) as client:
        greeting_s = min(_GREETING_S, connection.timeout)
        served = client.served(timeout=greeting_s)
        if settings.decode == "server":  # which not every server does
            look(partial(client.inspect, model=served.model, timeout=greeting_s), "server")
        judging, ours = agree(served, source.root, connection.address, settings)
        with claimed(settings.output, RESULTS, overwrite=True, keep_parts=True) as output:
            beginning, identity = begin(output, ours, overwrite=settings.overwrite)
            identity.write(output)
            stop = threading.Event() if stop is None else stop
            run = ScoringRun(
                source=source,
                engine=_engine(client, connection, settings, served.model, listener, stop),
                settings=settings,
                depth=served.metadata.depth,
                judging=judging,
                done=read_done(output, beginning),
                listener=listener,
                stop=stop,
            )
            goes_on = beginning is Beginning.WHOLE
            with FolderSink(output, settings.formats, goes_on=goes_on) as sink:
                summary = run.finish(sink, identity)
            run.tell_gone(read_lines(settings.output / RESULTS_JSONL))
            add(settings.output)
    return summary


def agree(
    served: ServedModel, root: str, server: str, settings: Settings
) -> tuple[Judging, Identity]:
    """Make of what the server serves what results follow from, and what they are of.

    Refuses thresholds in the wrong order, before anything is scored.
    """
    thresholds = served.metadata.thresholds.with_changes(
        accept=settings.accept, reject=settings.reject
    )
    judging = Judging(
        served.metadata.release,
        thresholds,
        settings.digest,
        retry_failed=settings.retry_failed,
    )
    started = datetime.now(timezone.utc).astimezone().isoformat("T", "seconds")
    rates = _rates(served.metadata.calibration, settings)
    return judging, Identity(served.model, root, server, started, **rates)


def _rates(calibration: Calibration, settings: Settings) -> dict[str, float]:
    """Give the rates that the run's thresholds were calibrated to, of those that were."""
    if calibration.is_overruled:
        return {}
    rates = {}
    if settings.reject is None:
        rates["false_reject_rate"] = calibration.false_reject_rate
    if settings.accept is None:
        rates["review_rate"] = calibration.review_rate
    return rates


def _engine(
    client: Client,
    connection: Connection,
    settings: Settings,
    model: str,
    listener: Listener,
    stop: threading.Event,
) -> Engine:
    if settings.cluster is None:
        return Threads(
            inspect=partial(client.inspect, model=model),
            concurrency=window_of(settings.concurrency, partial(overloads_of, client)),
            patience=settings.patience,
            notice=listener.notice,
            stop=stop,
        )
    from diffusionad_client.scoring.on_ray import OnRay

    return OnRay(
        cluster=settings.cluster,
        connection=connection,
        model=model,
        concurrency=settings.concurrency,
        patience=settings.patience,
        notice=listener.notice,
        stop=stop,
    )


def read_done(output: OutputFolder, beginning: Beginning, *, by_content: bool = False) -> Done:
    """Read what was done before, of results that are gone on with. Raises `ReportError`."""
    if beginning is Beginning.ANEW:
        return Done(by_content=by_content)
    whole = beginning is Beginning.WHOLE
    path = (output.whole if whole else output.part)(RESULTS_JSONL)
    return Done.of(read_lines(path), by_content=by_content)
