"""What a training takes from disk: found, split by group, and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.folders import IMAGE_SUFFIXES
from diffusionad_training.config import Config
from diffusionad_training.data import foregrounds, groups, layout
from diffusionad_training.data.digest import digest
from diffusionad_training.data.foregrounds import Foreground, Masks
from diffusionad_training.data.images import load_all
from diffusionad_training.data.split import hold_out
from diffusionad_training.errors import DataError
from diffusionad_training.fit.callbacks import Report
from diffusionad_training.run.checkpoint import RunRecord

MIN_TRAINING_IMAGES = 2  # one to train on and one to hold out
_IGNORED_NAMED = 5


@dataclass(frozen=True)
class TrainingData:
    """All that a training takes from disk, in memory."""

    images: NDArray[np.uint8]  # (N, S, S, 3), trained on
    foregrounds: Masks | None
    held_out: NDArray[np.uint8]  # (M, S, S, 3), never trained on
    held_out_foregrounds: Masks | None
    textures: NDArray[np.uint8] | None
    record: RunRecord


def read_training_data(
    data: Path,
    config: Config,
    textures: Path | None,
    foreground: Path | Foreground,
    held_out_share: float,
    seed: int,
    report: Report,
) -> TrainingData:
    """Find, split and load what is trained on; tell what is left out. Raises `DataError`."""
    found = layout.read(data)
    paths = found.require_train()
    _report_ignored(found, report)
    grouping = groups.grouping(found)
    usable = grouping.trainable()
    if len(usable) < MIN_TRAINING_IMAGES:
        raise DataError(
            f"{data}: {len(usable)} good images to train on; training needs {MIN_TRAINING_IMAGES}"
        )
    chosen = hold_out([grouping.groups[index] for index in usable], held_out_share, seed)
    if not chosen:
        raise DataError(
            f"{data}: all good images are one group in {groups.GROUPS_FILE}, so that none can be "
            "held out for the thresholds"
        )
    held = [paths[usable[index]] for index in chosen]
    kept = [paths[index] for index in usable if paths[index] not in set(held)]
    report(f"{len(kept)} good images to train on, {len(held)} held out for the thresholds")
    left_out = len(paths) - len(usable)
    if left_out:
        report(f"{left_out} left out: {groups.GROUPS_FILE} groups them with test images")
    texture_images, textures_digest = None, None
    if textures is not None:
        texture_paths = find_textures(textures)
        textures_digest = digest(textures, texture_paths)
        texture_images = load_all(texture_paths, config.size)
    everything = load_all([*kept, *held], config.size)
    where, masks = _foregrounds(foreground, found, [*kept, *held], everything, report)
    count = len(kept)
    record = RunRecord(
        data=data.resolve().name,
        data_digest=digest(data, kept),
        training_images=count,
        left_out=left_out,
        held_out=tuple(found.name(path) for path in held),
        held_out_digest="",
        textures_digest=textures_digest,
        seed=seed,
        time_budget=None,
        steps=0,
        version=version("diffusionad-training"),
        foreground=where,
    )
    return TrainingData(
        images=everything[:count],
        foregrounds=None if masks is None else masks[:count],
        held_out=everything[count:],
        held_out_foregrounds=None if masks is None else masks[count:],
        textures=texture_images,
        record=record,
    )


def _foregrounds(
    wanted: Path | Foreground,
    data: layout.DataSet,
    paths: Sequence[Path],
    images: NDArray[np.uint8],
    report: Report,
) -> tuple[str, Masks | None]:
    """Get the foreground masks of the images, and where they come from."""
    if wanted == "none":
        return "none", None
    if isinstance(wanted, Path):
        return "folder", foregrounds.load(wanted, paths, data.root, images.shape[1], report)
    masks = foregrounds.estimate(images)
    if masks is None:
        report("no product on a plain ground: synthetic anomalies may lie anywhere")
        return "none", None
    report(f"the product covers {masks.mean():.0%} of the images: synthetic anomalies lie on it")
    return "auto", masks


def _report_ignored(data: layout.DataSet, report: Report) -> None:
    if data.ignored:
        named = ", ".join(data.name(path) for path in data.ignored[:_IGNORED_NAMED])
        more = len(data.ignored) - _IGNORED_NAMED
        rest = f" and {more} more" if more > 0 else ""
        report(f"no images by their suffix, left out: {named}{rest}")


def find_textures(folder: Path) -> list[Path]:
    """List the images of a folder of textures, at every depth."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of textures")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: no images to take textures from")
    return paths
