"""Synthetic anomalies: Eq. 12, the masks and the sources."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from diffusionad_training.config import SynthesisConfig
from diffusionad_training.errors import ConfigError
from diffusionad_training.synthesis import masks, sources
from diffusionad_training.synthesis.anomalies import (
    MIN_CONTRAST,
    AnomalySynthesiser,
    blend,
    roughness,
    to_grey,
)
from diffusionad_training.synthesis.relocation import VISIBLE, relocate
from diffusionad_training.synthesis.surfaces import surface_mask

TEXTURE_FREE = SynthesisConfig(texture_share=0, self_share=0.5, procedural_share=0.5)
seeds = st.integers(min_value=0, max_value=2**32 - 1)


def picture(seed: int = 0, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_blend_is_equation_12() -> None:
    normal = np.full((2, 2, 3), 100, dtype=np.uint8)
    source = np.full((2, 2, 3), 200, dtype=np.uint8)
    shares = np.array([[1, 0.5], [0, 0]], dtype=np.float32)
    blended = blend(normal, source, shares, opacity=0.3)
    assert blended[0, 0].tolist() == [170] * 3  # 0.3 * 100 + 0.7 * 200
    assert blended[0, 1].tolist() == [135] * 3  # half of it
    assert (blended[1] == 100).all()


@settings(max_examples=40)
@given(seeds)
def test_an_anomaly_changes_nothing_outside_its_mask_and_can_be_seen_inside(seed: int) -> None:
    image = picture()
    rng = np.random.default_rng(seed)
    anomalous, mask, _ = AnomalySynthesiser(
        dataclasses.replace(TEXTURE_FREE, stroke_share=0.5), None
    ).synthesise(image, rng)
    inside = mask.astype(bool)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    assert inside.any()
    assert (anomalous[~inside] == image[~inside]).all()
    difference = np.abs(anomalous[inside].astype(int) - image[inside])
    assert difference.mean() >= MIN_CONTRAST


def test_a_patchy_anomaly_is_marked_where_it_hardly_shows_too() -> None:
    image = np.full((128, 128, 3), 100, np.uint8)

    def faint(patchy_share: float) -> float:
        """The share of the marked pixels that show less than a fifth of their anomaly's most."""
        config = SynthesisConfig(
            texture_share=0,
            self_share=0,
            procedural_share=1,
            opacity=(0, 0),
            patchy_share=patchy_share,
        )
        synthesiser, contrasts = AnomalySynthesiser(config, None), []
        for seed in range(20):
            anomalous, mask, _ = synthesiser.synthesise(image, np.random.default_rng(seed))
            contrast = np.abs(anomalous.astype(int) - image).mean(axis=-1)[mask > 0]
            contrasts.append(contrast / contrast.max())
        return float((np.concatenate(contrasts) < 0.2).mean())

    assert faint(0) < 0.1
    assert 0.2 < faint(1) < 0.5


def test_roughness_is_the_deviation_of_a_surface() -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(rng.normal(120, 10, (256, 256, 1)), 0, 255).astype(np.uint8).repeat(3, axis=-1)
    assert roughness(noisy).mean() == pytest.approx(10, rel=0.05)
    assert (roughness(np.full((64, 64, 3), 90, np.uint8)) == 0).all()


@settings(max_examples=20)
@given(seeds)
def test_an_anomaly_on_a_rough_surface_is_seen_above_its_roughness(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.clip(rng.normal(120, 15, (64, 64, 1)), 0, 255).astype(np.uint8).repeat(3, axis=-1)
    config = dataclasses.replace(TEXTURE_FREE, stroke_share=0.5, visibility=1.5, opacity=(0, 0.4))
    anomalous, mask, _ = AnomalySynthesiser(config, None).synthesise(image, rng)
    inside = mask.astype(bool)
    contrast = np.abs(anomalous[inside].astype(int) - image[inside]).mean()
    assert contrast >= 1.5 * roughness(image)[inside].mean()


@settings(max_examples=40)
@given(seeds)
def test_a_soft_edge_fades_out_and_is_marked_where_it_shows(seed: int) -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    config = SynthesisConfig(
        texture_share=1, self_share=0, stroke_share=0.5, soft_edge=3, opacity=(0, 0)
    )
    white = np.full((1, 64, 64, 3), 200, np.uint8)
    synthesiser = AnomalySynthesiser(config, white)
    anomalous, mask, _ = synthesiser.synthesise(image, np.random.default_rng(seed))
    inside = mask.astype(bool)
    difference = np.abs(anomalous.astype(int) - image)
    assert inside.any()
    assert difference[inside].min() >= difference[~inside].max()


@pytest.mark.parametrize("deviation", [0.0, 1.5])
def test_a_softened_mask_reaches_one(deviation: float) -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[10, 4:28] = True
    shares = masks.softened(mask, deviation)
    assert shares.max() == 1
    assert (shares[mask] >= 0.5).all()
    assert bool((shares[9, 10:20] > 0).all()) == (deviation > 0)


def test_the_same_seed_gives_the_same_anomaly() -> None:
    synthesiser = AnomalySynthesiser(TEXTURE_FREE, None)
    first, first_mask, _ = synthesiser.synthesise(picture(), np.random.default_rng(7))
    again, again_mask, _ = synthesiser.synthesise(picture(), np.random.default_rng(7))
    assert (first == again).all()
    assert (first_mask == again_mask).all()


def test_a_grey_product_gets_grey_anomalies() -> None:
    image = to_grey(picture())
    textures = np.stack([picture(1), picture(2)])
    synthesiser = AnomalySynthesiser(SynthesisConfig(), textures)
    for seed in range(10):
        anomalous, _, _ = synthesiser.synthesise(image, np.random.default_rng(seed))
        assert (anomalous[..., :1] == anomalous).all()


def test_textures_that_are_asked_for_must_be_given() -> None:
    with pytest.raises(ConfigError, match="texture_share 0.5 but no textures"):
        AnomalySynthesiser(SynthesisConfig(), None)


def test_textures_are_used_when_they_have_the_whole_share() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    texture = np.full((1, 64, 64, 3), 255, dtype=np.uint8)
    config = SynthesisConfig(texture_share=1, self_share=0, opacity=(0, 0))
    synthesiser = AnomalySynthesiser(config, texture)
    changed, mask, _ = synthesiser.synthesise(image, np.random.default_rng(0))
    assert (changed[mask.astype(bool)].max(axis=-1) > 0).any()


def plate_with_a_hole() -> np.ndarray:
    y, x = np.mgrid[:256, :256]
    plate = np.where((y - 128) ** 2 + (x - 128) ** 2 < 60**2, 20, 160).astype(np.uint8)
    return np.repeat(plate[..., None], 3, axis=-1)


@settings(max_examples=30)
@given(seeds)
def test_relocation_marks_what_looks_different_and_nothing_else(seed: int) -> None:
    image = plate_with_a_hole()
    anomalous, mask = relocate(image, np.random.default_rng(seed))
    difference = np.abs(anomalous.astype(int) - image).mean(axis=-1)
    assert mask.any()
    assert difference[mask].mean() > VISIBLE
    assert (difference[~mask] > 2 * VISIBLE).mean() < 0.01


def test_relocation_marks_nothing_on_an_even_surface() -> None:
    image = np.full((256, 256, 3), 120, np.uint8)
    anomalous, mask = relocate(image, np.random.default_rng(0))
    assert not mask.any()
    assert (anomalous == image).all()


def test_relocation_can_make_a_feature_disappear() -> None:
    image = np.full((256, 256, 3), 160, np.uint8)
    image[120:130, 120:130] = 20
    erased = 0
    for seed in range(60):
        anomalous, mask = relocate(image, np.random.default_rng(seed))
        erased += bool((anomalous[120:130, 120:130] > 120).all() and mask[125, 125])
    assert erased >= 3


def test_a_surface_too_even_to_relocate_gets_another_anomaly() -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    synthesiser = AnomalySynthesiser(dataclasses.replace(TEXTURE_FREE, relocation_share=1.0), None)
    _, mask, _ = synthesiser.synthesise(image, np.random.default_rng(0))
    assert mask.any()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80)])
def test_perlin_noise_is_zero_on_its_lattice_and_bounded(height: int, width: int) -> None:
    noise = masks.perlin_noise(height, width, (4, 8), np.random.default_rng(0))
    assert noise.shape == (height, width)
    assert np.abs(noise).max() <= 1.0 + 1e-6
    assert np.abs(noise[:: height // 4, :: width // 8]).max() < 1e-6


def test_perlin_noise_is_smooth() -> None:
    noise = masks.perlin_noise(256, 256, (2, 2), np.random.default_rng(0))
    assert np.abs(np.diff(noise, axis=0)).max() < 0.05


@settings(max_examples=40)
@given(seeds, st.sampled_from([0.0, 1.0]))
def test_an_anomaly_may_be_made_in_a_part_of_the_image_on_the_product(
    seed: int, relocation_share: float
) -> None:
    image = picture(height=128, width=128)
    foreground = np.zeros((128, 128), dtype=bool)
    foreground[20:30, 90:120] = True
    config = dataclasses.replace(
        TEXTURE_FREE, relocation_share=relocation_share, least_scale=0.3, within_part=False
    )
    synthesiser = AnomalySynthesiser(config, None)
    anomalous, mask, _ = synthesiser.synthesise(image, np.random.default_rng(seed), foreground)
    assert anomalous.shape == image.shape
    assert mask.any()
    assert (anomalous[mask == 0] == image[mask == 0]).all() or relocation_share
    assert (mask[foreground] > 0).any()


def test_small_and_close_anomalies_come_with_a_least_scale() -> None:
    def reach(least_scale: float) -> float:
        config = dataclasses.replace(TEXTURE_FREE, least_scale=least_scale, within_part=False)
        synthesiser, rng = AnomalySynthesiser(config, None), np.random.default_rng(0)
        made = [synthesiser.synthesise(picture(), rng)[1] for _ in range(60)]
        return float(np.median([np.ptp(np.flatnonzero(mask.any(axis=0))) for mask in made]))

    assert reach(0.5) < 0.9 * reach(1.0)


def test_strokes_are_thin() -> None:
    shares = [masks.stroke_mask(256, 256, np.random.default_rng(seed)).mean() for seed in range(50)]
    assert 0 < np.median(shares) < 0.02


def two_surfaces() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A round product, (H, W, 3), whose left has another colour; and both parts of it."""
    y, x = np.mgrid[:128, :128] - 64
    product = np.hypot(y, x) < 50
    left, right = product & (x < -15), product & (x >= -15)
    grey = np.where(left, 60, np.where(right, 130, 220)) + picture(1, 128, 128)[..., 0] % 5
    return np.repeat(grey[..., np.newaxis], 3, axis=-1).astype(np.uint8), left, right


@pytest.mark.parametrize("with_foreground", [False, True])
def test_a_surface_is_masked_out_to_its_edges(with_foreground: bool) -> None:
    image, left, right = two_surfaces()
    foreground = left | right if with_foreground else None
    met = {"left": 0, "right": 0}
    for seed in range(20):
        mask = surface_mask(image, np.random.default_rng(seed), foreground)
        if not mask.any():  # what is around the product is too large a surface
            continue
        name, surface = ("left", left) if (mask & left).sum() > mask.sum() / 2 else ("right", right)
        met[name] += 1
        assert not (mask & ~ndimage.binary_dilation(surface, iterations=3)).any()
        assert not (ndimage.binary_erosion(surface, iterations=4) & ~mask).any()
    assert met["left"] > 0
    # Of the product, the right is too much; of the image, it is not.
    assert (met["right"] > 0) != with_foreground


@given(seeds)
@settings(max_examples=20)
def test_where_there_is_no_surface_other_masks_are_made(seed: int) -> None:
    image = picture(2, 65, 65)
    assert not surface_mask(image, np.random.default_rng(seed)).any()
    config = dataclasses.replace(TEXTURE_FREE, surface_share=1)
    made = AnomalySynthesiser(config, None).synthesise(image, np.random.default_rng(seed))
    assert made.mask.any()


def test_a_surface_on_no_foreground_is_empty() -> None:
    image, left, _ = two_surfaces()
    assert not surface_mask(image, np.random.default_rng(0), np.zeros_like(left)).any()


def test_a_shuffled_self_is_made_of_the_image_s_own_tiles(monkeypatch) -> None:
    monkeypatch.setattr(sources, "augment", lambda image, rng: image)
    image = picture(height=66, width=66)  # not a multiple of the grid
    shuffled = sources.shuffled_self(image, 8, np.random.default_rng(0))
    assert shuffled.shape == image.shape
    assert not (shuffled == image).all()
    whole = slice(0, 64)
    assert sorted(shuffled[whole, whole].ravel()) == sorted(image[whole, whole].ravel())
    assert (shuffled[64:] == image[64:]).all()


@pytest.mark.parametrize("augmentation", sources.AUGMENTATIONS, ids=lambda f: f.__name__)
def test_every_augmentation_keeps_form_and_changes_the_picture(augmentation) -> None:
    from PIL import Image

    original = picture()
    changed = [
        np.asarray(augmentation(Image.fromarray(original), np.random.default_rng(seed)))
        for seed in range(5)
    ]
    assert all(one.shape == original.shape and one.dtype == np.uint8 for one in changed)
    assert any((one != original).any() for one in changed)
