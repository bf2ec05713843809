"""Read the region of interest that a user drew, to export it or to measure in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffusionad_client.artifacts import roi
from diffusionad_client.artifacts.metadata import ReleaseMetadata
from diffusionad_client.contract import TOP_PIXELS
from diffusionad_client.errors import ImageError
from diffusionad_training.errors import RoiError


def read_roi(path: Path, size: int) -> roi.Mask:
    """Read a mask of any size, stretched to the model's. Raises `RoiError`.

    The score is a mean over TOP_PIXELS of the map: a smaller region could
    never reach the scores that the thresholds are made for.
    """
    mask = _read(path, size, roi.read)
    inside = int(mask.sum())
    if inside == mask.size:
        raise RoiError(
            f"{path}: all of its pixels lie inside, so that nothing is left out; draw black what "
            "is not to be inspected, or leave out --roi"
        )
    if inside < TOP_PIXELS:
        raise RoiError(
            f"{path}: {inside or 'none'} of its pixels lie inside at {size} x {size}, and a score "
            f"needs {TOP_PIXELS}; what is to be inspected must not be black, and larger"
        )
    return mask


def served_roi(path: Path, name: str, metadata: ReleaseMetadata) -> roi.Mask:
    """Read the region that a release inspects: a constant of its graphs, so no other will do.

    `name` is the release's, for messages. Raises `RoiError` if the mask is
    of another region, or the release has none.
    """
    mask = read_roi(path, metadata.size)
    if metadata.roi is None:
        raise RoiError(
            f"{path}: {name} inspects the whole image, and that cannot be changed on a server; "
            "export the run with --roi, or measure the run itself: --run RUN --roi MASK"
        )
    if (digest := roi.digest(mask)) != metadata.roi:
        earlier = _read(path, metadata.size, roi.read_by_nearest)
        if roi.digest(earlier) == metadata.roi:
            return earlier
        raise RoiError(
            f"{path}: its region is {digest[:12]} at {metadata.size} x {metadata.size}, and {name} "
            f"inspects {metadata.roi[:12]}; give the mask that was exported, roi.png in the bundle"
        )
    return mask


def _read(path: Path, size: int, read: Callable[[Path, int], roi.Mask]) -> roi.Mask:
    try:
        return read(path, size)
    except ImageError as exc:
        raise RoiError(
            f"the region of interest {exc}; give an image that is black where nothing is inspected"
        ) from exc
