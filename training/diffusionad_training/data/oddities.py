"""What is odd about masks, so that it can be said: those that are empty, full or misshapen."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from diffusionad_client.errors import ImageError
from diffusionad_client.image_files import dimensions
from diffusionad_client.masks import Mask

_EMPTY = "empty masks, taken for no masks"
_FULL = "masks that mark every pixel"
_MISSHAPEN = "masks of another size than their images, stretched over them"

_NAMED = 5


class Oddities:
    """Names of masks by what is odd about them."""

    def __init__(self) -> None:
        self._names: defaultdict[str, list[str]] = defaultdict(list)

    def look_at(self, mask: Mask, name: str, *, of: Path) -> None:
        """Note what is odd about the mask of an image, before it is stretched."""
        if not mask.any():
            self._names[_EMPTY].append(name)
        elif mask.all():
            self._names[_FULL].append(name)
        try:
            height, width = dimensions(of)
        except ImageError:
            return  # whoever scores or trains on the image says so
        if mask.shape != (height, width):
            tall, wide = mask.shape
            self._names[_MISSHAPEN].append(f"{name} ({wide} x {tall}, not {width} x {height})")

    def described(self) -> list[str]:
        """Say it in a line for each oddity, with the first names."""
        return [
            f"{what}: {', '.join(names[:_NAMED])}"
            + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
            for what, names in self._names.items()
        ]
