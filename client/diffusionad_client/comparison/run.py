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
from diffusionad_client.errors import ContractError
from diffusionad_client.files import write_aside
from diffusionad_client.output_folders import Kind, check_claim, claimed
from diffusionad_client.scoring.batch import score_batch
from diffusionad_client.scoring.listener import Listener
from diffusionad_client.scoring.settings import Settings
from diffusionad_client.scoring.sources import Source
from diffusionad_client.sdk.client import Client
from diffusionad_client.sdk.connection import Connection

COMPARE_HTML, COMPARE_JSON = "compare.html", "compare.json"
_BASE, _CANDIDATE = "base", "candidate"
COMPARISON = Kind(
    name="release compare",
    content="an earlier comparison",
    entries=(_BASE, _CANDIDATE, COMPARE_JSON, COMPARE_HTML),
    proofs=(COMPARE_JSON, COMPARE_HTML),
)

_GREETING_S = 10.0

# Given the number of images, if that is known, and a title, shows how far scoring is.
Progress = Callable[[int | None, str], AbstractContextManager[Listener]]


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` if the comparison could not be written to the folder as it stands."""
    check_claim(output, COMPARISON, overwrite=overwrite)


def compare_models(
    connection: Connection,
    base: str,
    candidate: str,
    source: Source,
    settings: Settings,
    progress: Progress,
) -> Comparison:
    """Score all images with both categories, and write the comparison to `settings.output`.

    The server is asked for both before anything is written, and an earlier
    comparison stays what it is until all is done. Raises a `DiffusionADError`
    if the server does not serve them, or dies on the way: then the rows so far
    are in the .part files of that side.
    """
    _check_both(connection, base, candidate)
    with claimed(settings.output, COMPARISON, overwrite=settings.overwrite) as output:
        for side, model in ((_BASE, base), (_CANDIDATE, candidate)):
            with progress(source.count, f"Scoring with {model}") as listener:
                own = replace(settings, output=output.part(side), model=model)
                score_batch(connection, source, own, listener)
        result = compare_results(output.part(_BASE), output.part(_CANDIDATE))
        text = json.dumps(document(result), indent=2, allow_nan=False)
        write_aside(output.part(COMPARE_JSON), text.encode())
        write_page(result, output.part(COMPARE_HTML))
        output.publish()
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


def _check_both(connection: Connection, base: str, candidate: str) -> None:
    with Client(connection, timeout=min(_GREETING_S, connection.timeout)) as client:
        first, second = client.served(base), client.served(candidate)
    if (first.model, first.metadata.release) == (second.model, second.metadata.release):
        raise ContractError(
            f"{base} on {connection.address}: a release cannot be compared with itself; add the "
            f"other one under a name of its own, such as {base}-candidate"
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
