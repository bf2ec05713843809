"""Which products the made-up line makes; light to import, for the command's help."""

from __future__ import annotations

from enum import StrEnum


class Product(StrEnum):
    """What stands on the belt."""

    PLATE = "plate"  # the brushed plate alone
    CLIP = "clip"  # the plate with a clip pressed in, which may be missing or turned


# What is made if nothing is said: the product that the shipped model was trained on.
DEFAULT = Product.CLIP
