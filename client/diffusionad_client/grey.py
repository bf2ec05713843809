"""A grey image, to ask a server for something small that it can answer if it serves at all."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image

LEVEL = 128
GREY = np.full((16, 16, 3), LEVEL, np.uint8)  # RGB


@lru_cache(maxsize=1)
def grey_file() -> bytes:
    """Give the image as a PNG."""
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "PNG")
    return file.getvalue()
