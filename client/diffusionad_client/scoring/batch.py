"""One run from end to end: agree with the server on a release, score, write the results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from diffusionad_client.artifacts.metadata import Verdict
from diffusionad_client.contract import Priority
from diffusionad_client.errors import DiffusionADError
from diffusionad_client.files import PART
from diffusionad_client.scoring.results import RESULTS_JSONL, ResultsWriter, Row, RunSummary
from diffusionad_client.scoring.run import Scorer, score_all
from diffusionad_client.scoring.sources import ImageSet
from diffusionad_client.sdk.client import Client

_GREETING_S = 10.0  # long enough for any server that is there to say what it serves


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user chose for a run."""

    output: Path
    model: str | None = None  # None: the server's only category
    accept: float | None = None  # None: the release's
    reject: float | None = None
    heatmaps: bool = True
    save_maps: bool = False
    overwrite: bool = False
    concurrency: int = 4
    timeout: float = 30.0  # seconds an image


def score_batch(
    url: str, found: ImageSet, settings: Settings, on_row: Callable[[Row], None]
) -> RunSummary:
    """Score all images through the server at `url`; `on_row` hears of each as it is done.

    The server is asked for the model before anything is written or removed.
    """
    with Client(url, settings.model, timeout=settings.timeout, priority=Priority.BATCH) as client:
        served = client.served(timeout=min(_GREETING_S, settings.timeout))
        # Refuses thresholds in the wrong order before anything is scored.
        served.metadata.thresholds.with_changes(accept=settings.accept, reject=settings.reject)
        scorer = Scorer(
            client=client,
            model=served.model,
            accept=settings.accept,
            reject=settings.reject,
            output=settings.output,
            heatmaps=settings.heatmaps,
            save_maps=settings.save_maps,
        )
        with ResultsWriter(settings.output, overwrite=settings.overwrite) as writer:
            started = datetime.now(timezone.utc).astimezone()
            clock = time.perf_counter()
            verdicts = Counter({verdict.value: 0 for verdict in Verdict})
            failed = 0
            rows = score_all(scorer, found, concurrency=settings.concurrency)
            with closing(rows):
                try:
                    for row in rows:
                        writer.write(row)
                        if row.verdict is None:
                            failed += 1
                        else:
                            verdicts[row.verdict] += 1
                        on_row(row)
                except DiffusionADError as exc:
                    part = settings.output / (RESULTS_JSONL + PART)
                    done = f"{verdicts.total()} of {len(found.names)} images were scored"
                    raise type(exc)(f"{exc}; stopped: {done}, see {part}") from exc
            summary = RunSummary(
                model=served.model,
                server=url,
                root=str(found.root),
                started=started.isoformat(timespec="seconds"),
                seconds=round(time.perf_counter() - clock, 3),
                images=len(found.names),
                failed=failed,
                verdicts=dict(verdicts),
            )
            writer.finish(summary)
    return summary
