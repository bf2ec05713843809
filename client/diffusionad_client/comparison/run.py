"""Score the same images with two categories of one server, and write what differs.

OUTPUT/
  compare.html        the page
  compare.json        the same numbers, with every change and every failure
  base/               the results of the one, as `diffusionad score` writes them
  candidate/          those of the other
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusionad_client.artifacts.metadata import Verdict
from diffusionad_client.comparison.page import write_page
from diffusionad_client.comparison.pairing import ClassCounts, Comparison, Side, compare_results
from diffusionad_client.errors import ContractError, OutputError
from diffusionad_client.files import output_errors, write_aside
from diffusionad_client.scoring.batch import Settings, score_batch
from diffusionad_client.scoring.results import Row, check_free
from diffusionad_client.scoring.sources import ImageSet
from diffusionad_client.sdk.client import Client

COMPARE_HTML, COMPARE_JSON = "compare.html", "compare.json"
_BASE, _CANDIDATE = "base", "candidate"

_GREETING_S = 10.0

# Given the number of images and a title, shows how far scoring is; hears of each row.
Progress = Callable[[int, str], AbstractContextManager[Callable[[Row], None]]]


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` if another comparison stands in the folder and may not be replaced."""
    if overwrite:
        return
    with output_errors(output):
        earlier = [name for name in (COMPARE_HTML, COMPARE_JSON) if (output / name).exists()]
    if earlier:
        raise OutputError(
            f"{output}: holds an earlier comparison ({earlier[0]}); "
            "choose another folder, or replace it with --overwrite"
        )
    for side in (_BASE, _CANDIDATE):
        check_free(output / side)


def compare_models(
    url: str,
    base: str,
    candidate: str,
    found: ImageSet,
    settings: Settings,
    progress: Progress,
) -> Comparison:
    """Score all images with both categories, and write the comparison to `settings.output`.

    The server is asked for both before anything is written. Raises a
    `DiffusionADError` if it does not serve them, or dies on the way: then the
    rows so far are in the .part files of that side.
    """
    output = settings.output
    check_output(output, overwrite=settings.overwrite)
    _check_both(url, base, candidate, settings)
    for side, model in ((_BASE, base), (_CANDIDATE, candidate)):
        with progress(len(found.names), f"Scoring with {model}") as on_row:
            own = replace(settings, output=output / side, model=model)
            score_batch(url, found, own, on_row)
    result = compare_results(output / _BASE, output / _CANDIDATE)
    text = json.dumps(document(result), indent=2, allow_nan=False)
    write_aside(output / COMPARE_JSON, text.encode())
    write_page(result, output / COMPARE_HTML)
    return result


def document(result: Comparison) -> dict[str, Any]:
    """Give the JSON form of a comparison: all of its counts, changes and failures."""
    return {
        "base": _side(result.base),
        "candidate": _side(result.candidate),
        "images": result.images,
        "compared": result.compared,
        "failed": len(result.failures),
        "changed": len(result.changes),
        "spearman": result.spearman,
        "transitions": [
            {"base": before, "candidate": after, "images": count}
            for (before, after), count in sorted(result.transitions.items())
        ],
        "classes": [_class(group) for _, group in sorted(result.classes.items())],
        "changes": [
            {
                "image": pair.image,
                "base": {"score": pair.base.score, "verdict": pair.base.verdict},
                "candidate": {"score": pair.candidate.score, "verdict": pair.candidate.verdict},
            }
            for pair in result.changes
        ],
        "failures": [
            {
                "image": pair.image,
                "base": pair.base.error_message,
                "candidate": pair.candidate.error_message,
            }
            for pair in result.failures
        ],
    }


def _check_both(url: str, base: str, candidate: str, settings: Settings) -> None:
    with Client(url, timeout=min(_GREETING_S, settings.timeout)) as client:
        first, second = client.served(base), client.served(candidate)
    if (first.model, first.metadata.release) == (second.model, second.metadata.release):
        raise ContractError(
            f"{base} on {url}: a release cannot be compared with itself; add the other one under "
            f"a name of its own, such as {base}-candidate"
        )


def _side(side: Side) -> dict[str, Any]:
    return {
        "model": side.summary.model,
        "server": side.summary.server,
        "releases": [
            {
                "version": version,
                "release": release,
                "accept": accept,
                "reject": reject,
                "images": count,
            }
            for (version, release, accept, reject), count in side.releases.most_common()
        ],
        "seconds": side.summary.seconds,
        "verdicts": side.summary.verdicts,
        "failed": side.summary.failed,
        "auroc": side.auroc,
    }


def _class(group: ClassCounts) -> dict[str, Any]:
    return {
        "folder": group.name,
        "images": group.images,
        "failed": group.failed,
        "changed": group.changed,
        "base": {verdict.value: group.base[verdict.value] for verdict in Verdict},
        "candidate": {verdict.value: group.candidate[verdict.value] for verdict in Verdict},
        "base_auroc": group.base_auroc,
        "candidate_auroc": group.candidate_auroc,
    }
