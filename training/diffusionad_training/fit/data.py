"""What a training takes from disk: found, split by group, and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusionad_client.folders import find_images
from diffusionad_training.data import duplicates, foregrounds, groups, layout
from diffusionad_training.data.digest import digest
from diffusionad_training.data.foregrounds import Foreground, Masks
from diffusionad_training.data.images import load_all
from diffusionad_training.data.resolution import detail_lost
from diffusionad_training.data.split import hold_out
from diffusionad_training.errors import DataError
from diffusionad_training.fit.callbacks import Report
from diffusionad_training.fit.plan import TrainingPlan

_CAMERA_BITS = (8, 10, 12, 14)
MIN_TRAINING_IMAGES = 2  # one to train on and one to hold out


@dataclass(frozen=True)
class TrainingData:
    """All that a training takes from disk, in memory."""

    images: NDArray[np.uint8]  # (N, S, S, 3), trained on
    groups: NDArray[np.int64]  # (N,), a number for each group of images
    foregrounds: Masks | None
    held_out: NDArray[np.uint8]  # (M, S, S, 3), never trained on
    held_out_foregrounds: Masks | None
    textures: NDArray[np.uint8] | None
    # What the run's record says of them, see `Origin`.
    digest: str
    left_out: int
    held_out_names: tuple[str, ...]
    textures_digest: str | None
    foreground: str
    detail_lost: float


def read_training_data(plan: TrainingPlan, report: Report) -> TrainingData:
    """Find, split and load what is trained on; tell what is left out. Raises `DataError`."""
    data, size = plan.data, plan.config.detector.size
    data_set = layout.read(data)
    paths = data_set.require_train()
    _report_left_out(data_set, report)
    grouping = groups.grouping(data_set)
    usable = grouping.trainable()
    if len(usable) < MIN_TRAINING_IMAGES:
        raise DataError(
            f"{data}: {len(usable)} good images to train on; training needs {MIN_TRAINING_IMAGES}"
        )
    contents = duplicates.contents([paths[index] for index in usable])
    together = _with_copies(
        data_set, [grouping.groups[index] for index in usable], contents, report
    )
    chosen = hold_out(together, plan.held_out_share, plan.seed)
    if not chosen:
        raise DataError(
            f"{data}: all good images are one group in {groups.GROUPS_FILE}, so that none can be "
            "held out for the thresholds"
        )
    trained = sorted(set(range(len(usable))) - set(chosen))
    held, kept = ([paths[usable[place]] for place in places] for places in (chosen, trained))
    report(f"{len(kept)} good images to train on, {len(held)} held out for the thresholds")
    left_out = len(paths) - len(usable)
    if left_out:
        report(f"{left_out} left out: {groups.GROUPS_FILE} groups them with test images")
    texture_images, textures_digest = None, None
    if plan.textures is not None:
        texture_paths = find_textures(plan.textures)
        textures_digest = digest(plan.textures, texture_paths)
        texture_images = load_all(texture_paths, size)
    largest: list[int] = []  # pixels of images whose files do not say their depth
    depth = plan.config.detector.depth
    everything = load_all(
        [*kept, *held], size, depth=depth, on_deep=lambda image: largest.append(image.largest)
    )
    _hint_at_depth(largest, depth, report)
    _warn_of_constant(everything, report)
    where, masks = _foregrounds(plan.foreground, data_set, [*kept, *held], everything, report)
    lost = detail_lost([*kept, *held], size, masks, depth=depth)
    if lost.described is not None:
        report(lost.described)
    count = len(kept)
    grouped = [together[place] for place in trained]
    return TrainingData(
        images=everything[:count],
        groups=np.unique(grouped, return_inverse=True)[1].astype(np.int64),
        foregrounds=None if masks is None else masks[:count],
        held_out=everything[count:],
        held_out_foregrounds=None if masks is None else masks[count:],
        textures=texture_images,
        digest=digest(data, kept, contents),
        left_out=left_out,
        held_out_names=tuple(data_set.name(path) for path in held),
        textures_digest=textures_digest,
        foreground=where,
        detail_lost=lost.share,
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


def _with_copies(
    data: layout.DataSet, given: list[str], contents: Mapping[Path, str], report: Report
) -> list[str]:
    """Join the given groups of images, so that copies of one image are in one group."""
    if tested := set(contents.values()) & set(_tested_contents(data, contents).values()):
        report(
            f"Warning: {len(tested)} of the images to train on are test images too, by their "
            "content: the figures of `evaluate` will flatter"
        )
    if not (copies := duplicates.copies(contents)):
        return given
    together = duplicates.joined(given, list(contents.values()))
    if len(set(together)) == 1 and len(set(given)) > 1:
        report(
            "Warning: all good images are copies of each other, by their content or their groups: "
            "the thresholds are set by what was trained on"
        )
        return given
    report(f"{copies} good images are copies of others: on one side of the split with them")
    return together


def _tested_contents(data: layout.DataSet, trained: Mapping[Path, str]) -> dict[Path, str]:
    """Name the contents of those test images that may be copies of a training image."""
    sizes = {path.stat().st_size for path in trained if path.is_file()}
    good = [sample.path for sample in data.test if sample.path.is_file()]
    return duplicates.contents([path for path in good if path.stat().st_size in sizes])


def _hint_at_depth(largest: Sequence[int], depth: int, report: Report) -> None:
    """Say that images may have fewer bits than their files have room for; they are too dark then.

    `largest` is the largest pixel of each image that does not say it.
    """
    brightest = max(largest, default=0)
    bits = next((bits for bits in _CAMERA_BITS if 0 < brightest < 1 << bits < 1 << depth), None)
    if bits is not None:
        report(
            f"Warning: the 16-bit images stop at {brightest}, which is dark; if the camera has "
            f"{bits} bits, give --set depth={bits}, and the release will remember it"
        )


def _warn_of_constant(images: NDArray[np.uint8], report: Report) -> None:
    """Say that there is nothing to learn from images (N, S, S, 3) of one colour, or all alike."""
    constant = sum(bool((image == image[0, 0]).all()) for image in images)
    if constant:
        report(
            f"Warning: {constant} of {len(images)} good images show one colour throughout; is the "
            "lens cap on, or the exposure wrong?"
        )
    elif all(np.array_equal(image, images[0]) for image in images[1:]):
        report("Warning: all good images look the same: nothing tells how good parts may differ")


def _report_left_out(data: layout.DataSet, report: Report) -> None:
    for line in data.left_out.described():
        report(f"left out: {line}")


def find_textures(folder: Path) -> list[Path]:
    """List the images of a folder of textures, at every depth."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of textures")
    paths = sorted(map(Path, find_images(folder)))
    if not paths:
        raise DataError(f"{folder}: no images to take textures from")
    return paths
