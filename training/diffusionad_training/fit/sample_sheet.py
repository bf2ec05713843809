"""Pictures of a detector at work, for whoever watches a training run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffusionad_client.files import write_aside
from diffusionad_training.data.batches import Batch
from diffusionad_training.method.model import DiffusionAD, Segmentation

MAX_ROWS = 16  # images of a sheet: a whole batch of the paper's


@torch.no_grad()
def sample_sheet(model: DiffusionAD, batch: Batch) -> NDArray[np.uint8]:
    """Draw one row an image, (H, W, 3) uint8: the image, what restoring it shows, mask, map.

    With norm guidance that is x0, x_ts, x_tb, x0_s, n, x0_g, mask, anomaly map.
    """
    images = batch["images"][:MAX_ROWS]
    shown = list(model.restoration.show(model, model.normalise(images)).values())
    anomaly_map, _ = Segmentation(model)(images, shown[-1])
    return _joined(
        [
            images,
            *(model.to_picture(x) for x in shown),
            _grey(batch["masks"][:MAX_ROWS, 0]),
            _grey(anomaly_map),
        ]
    )


def _joined(columns: list[Tensor]) -> NDArray[np.uint8]:
    """Set columns of images (N, H, W, 3) side by side, and the images one above the other."""
    sheet: NDArray[np.uint8] = torch.cat(columns, dim=2).flatten(0, 1).cpu().numpy()
    return sheet


def save_sheet(sheet: NDArray[np.uint8], path: Path) -> None:
    """Write a sheet as a PNG. Raises `OutputError`."""
    picture = io.BytesIO()
    Image.fromarray(sheet).save(picture, format="PNG")
    write_aside(path, picture.getvalue())


def _grey(values: Tensor) -> Tensor:
    """(N, H, W) in [0, 1] -> (N, H, W, 3) uint8."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)[..., None].expand(-1, -1, -1, 3)
