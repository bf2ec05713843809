"""How a run begins in its output folder: anew, or where an earlier one was left.

    there are                        a run                     with --overwrite
    ------------------------------   -----------------------   ----------------------------
    no results                       begins anew               begins anew
    unfinished ones                  goes on with them         goes on with them
    whole ones                       goes on with them         begins anew, replaces them
    whole and unfinished ones        is refused                goes on with the unfinished

Only results of the same images and the same model are gone on with.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from diffusionad_client import regular_files
from diffusionad_client.errors import OutputError
from diffusionad_client.files import PART, write_aside
from diffusionad_client.output_folders import OutputFolder
from diffusionad_client.scoring.results import RESULTS_JSONL, RUN_JSON


class Beginning(Enum):
    """Which results a run adds its rows to."""

    ANEW = "none"
    UNFINISHED = "those of a run that did not end"
    WHOLE = "those of a run that did"


@dataclass(frozen=True)
class Identity:
    """What results are of. It is in run.json from the first moment on."""

    model: str
    root: str  # that the images' names are relative to
    server: str
    started: str  # ISO 8601, with the zone
    false_reject_rate: float | None = None  # see RunSummary
    review_rate: float | None = None

    def write(self, output: OutputFolder) -> None:
        """Say it in the folder, before the first row does."""
        write_aside(output.part(RUN_JSON), json.dumps(asdict(self), indent=2).encode())


def begin(output: OutputFolder, ours: Identity, *, overwrite: bool) -> tuple[Beginning, Identity]:
    """Find out how to begin, and remove what is neither gone on with nor whole.

    The identity comes back with the time when the first run of the results
    started. Raises `OutputError` for those of other images.
    """
    beginning, earlier = _find(output.path, ours, overwrite=overwrite)
    if beginning is not Beginning.UNFINISHED:
        output.discard_parts()
    return beginning, ours if earlier is None else replace(ours, started=earlier.started)


def _find(folder: Path, ours: Identity, *, overwrite: bool) -> tuple[Beginning, Identity | None]:
    has_whole = (folder / RESULTS_JSONL).exists()
    has_part = (folder / (RESULTS_JSONL + PART)).exists()
    if has_part and has_whole and not overwrite:
        raise OutputError(
            f"{folder}: holds whole results, and what a run that was to replace them left "
            f"unfinished; finish it with --overwrite, or go on with the whole ones by deleting "
            f"{folder / (RESULTS_JSONL + PART)}"
        )
    if has_part:
        earlier = _identity(folder / (RUN_JSON + PART))
        if earlier is not None and _is_same(earlier, ours):
            return Beginning.UNFINISHED, earlier
        if earlier is not None and not overwrite:
            raise _refusal(folder, earlier, ours)
        return Beginning.ANEW, None  # of before runs could be gone on with, or to be replaced
    if has_whole and not overwrite:
        earlier = _identity(folder / RUN_JSON)
        if earlier is None or not _is_same(earlier, ours):
            raise _refusal(folder, earlier, ours)
        return Beginning.WHOLE, earlier
    return Beginning.ANEW, None


def _is_same(earlier: Identity, ours: Identity) -> bool:
    return (earlier.model, earlier.root) == (ours.model, ours.root)


def _refusal(folder: Path, earlier: Identity | None, ours: Identity) -> OutputError:
    held = "an earlier run, whose run.json cannot be read"
    if earlier is not None:
        held = f"{earlier.model} for the images in {earlier.root}"
    return OutputError(
        f"{folder}: holds the results of {held}; this run is of {ours.model} for those in "
        f"{ours.root}: choose another folder, or replace them with --overwrite"
    )


def _identity(path: Path) -> Identity | None:
    try:
        document = json.loads(regular_files.read(path).decode("utf-8-sig"))
        values = [document[name] for name in ("model", "root", "server", "started")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Identity(*values) if all(isinstance(value, str) for value in values) else None
