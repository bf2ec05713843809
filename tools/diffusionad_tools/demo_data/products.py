"""What a good part of each product is, and what can go wrong with it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from diffusionad_tools.demo_data.clip import Clip
from diffusionad_tools.demo_data.defects import CLIP_DEFECTS, DEFECTS, Defect
from diffusionad_tools.demo_data.part import Part, sample_part
from diffusionad_tools.demo_data.product import Product


def sample(product: Product, rng: np.random.Generator, size: int) -> Part:
    """Draw a good part of a product as the line makes them; the plate under a clip is the same."""
    part = sample_part(rng, size)
    if product is Product.PLATE:
        return part
    turn = math.radians(rng.uniform(-2.0, 2.0))
    return replace(part, clip=Clip(turn, shine=rng.uniform(0.8, 1.2)))


def defects(product: Product) -> dict[str, Defect]:
    """All that can go wrong with a product, by name."""
    return DEFECTS if product is Product.PLATE else DEFECTS | CLIP_DEFECTS
