"""Read the region of interest that a user drew."""

from __future__ import annotations

from pathlib import Path

from diffusionad_client import roi
from diffusionad_client.contract import TOP_PIXELS
from diffusionad_client.errors import ImageError
from diffusionad_training.errors import ExportError


def read_region(path: Path, size: int) -> roi.Mask:
    """Read a mask of any size, stretched to the model's. Raises `ExportError`.

    The score is a mean over TOP_PIXELS of the map: a smaller region could
    never reach the scores that the thresholds are made for.
    """
    try:
        mask = roi.read(path, size)
    except ImageError as exc:
        raise ExportError(f"the region of interest {exc}") from exc
    inside = int(mask.sum())
    if inside < TOP_PIXELS:
        raise ExportError(
            f"{path}: {inside or 'none'} of its pixels lie inside at {size} x {size}, and a score "
            f"needs {TOP_PIXELS}; what is to be inspected must not be black, and larger"
        )
    return mask
