"""Named configurations. Where a preset leaves the paper, a comment says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffusionad_training.config import (
    AugmentationConfig,
    Config,
    DetectorConfig,
    FeaturesConfig,
    GuidanceConfig,
    LossConfig,
    NoiseNetworkConfig,
    OptimisationConfig,
    ScheduleConfig,
    SegmentationNetworkConfig,
    SynthesisConfig,
    TrainingConfig,
)
from diffusionad_training.config.settings import changed
from diffusionad_training.errors import ConfigError

# arXiv:2303.08730v4. The paper gives 3000 epochs; for the 200 to 400 images of an
# MVTec category, at 8 normal images a batch, that is about 100,000 steps.
PAPER = Config(preset="paper")

# Between the two, for one consumer GPU of 8 GB: the paper's architecture at half its
# width, a quarter of its work. A step sees as many images as the paper's, half at a time.
STANDARD = Config(
    preset="standard",
    detector=DetectorConfig(
        # The public code's schedule: at t_s = 200 it hides more of a defect than the paper's
        # (alpha_bar 0.66 instead of 0.80).
        schedule=ScheduleConfig(beta_last=2e-2),
        noise_network=NoiseNetworkConfig(base_channels=64, recompute=True),
        segmentation_network=SegmentationNetworkConfig(widths=(32, 64, 128, 256, 256, 256)),
    ),
    training=TrainingConfig(
        synthesis=SynthesisConfig(
            # Sources of its own beside textures, which not everyone has, and the image itself.
            procedural_share=0.3,
            # Cracks and scratches are thin; Perlin masks alone are all blobs.
            perlin_share=0.6,
            stroke_share=0.4,
            within_part=False,  # small defects come from strokes; blobs may lie anywhere
        ),
        augmentation=AugmentationConfig(brightness=0.08, contrast=0.1),
        optimisation=OptimisationConfig(
            normal_per_batch=4,
            synthetic_per_batch=4,
            accumulate=2,
            # A fifth of the paper's: averaged and decayed to zero, weights settle sooner.
            steps=20_000,
            noise_learning_rate=2e-4,
            segmentation_learning_rate=2e-4,
            warmup_steps=500,
            cosine_decay=True,
            ema_decay=0.999,
            gradient_clip=1.0,
            precision="bf16",
        ),
    ),
)

# For machines without a GPU: one image costs under 5 GFLOP instead of 1,202, and a training
# of an hour or two has to do. docs/experiments.md says what came of it, docs/tried.md how.
EDGE = Config(
    preset="edge",
    detector=DetectorConfig(
        schedule=ScheduleConfig(beta_last=2e-2),  # the public code's
        # Gaps inside a defect and specks beside it are what a small network's map shows.
        map_smoothing=3.0,
        guidance=GuidanceConfig(
            # Little noise (alpha_bar 0.96): what a small network cannot tell from noise after an
            # hour, it takes for a defect.
            small_step=60,
            large_step=300,  # alpha_bar 0.39: of a component hardly more is left than its place
            # So little noise needs a high w: the pull to n is w (1 - alpha_bar), a quarter.
            weight=6.0,
            large_reduction=2,  # noise has eaten the fine detail anyway: a quarter of the work
            # What is not used at inference is not worth a small network's capacity.
            spread=10,
        ),
        # What an hour of training does not teach, pictures of the whole world have taught: which
        # faint differences count, and what of a good part's looks was never seen.
        features=FeaturesConfig(backbone="efficientnet-lite0", memory=2000),
        noise_network=NoiseNetworkConfig(
            base_channels=32,
            multipliers=(1, 1, 2, 2),
            blocks=1,
            attention_levels=(2, 3),
            unshuffle=4,
            groups=8,
            # So little noise hides no defect: a skip would hand it on to the reconstruction.
            skip_connections=False,
            # 48 channels of noise do not fit through 32; the picture does.
            parametrisation="x0",
        ),
        segmentation_network=SegmentationNetworkConfig(widths=(16, 32, 64, 96, 96), unshuffle=2),
    ),
    training=TrainingConfig(
        loss=LossConfig(
            focal_gamma=2.0,
            # Repainting what is wrong is learnt much faster from examples than from the
            # distribution of good parts alone, which takes a network and a time this size has not.
            restoration_weight=1.0,
            anomaly_weight=5.0,
            components_at_large_step=True,  # or the small step redraws them by itself
            snr_cap=1.0,  # min-SNR's 5 weighs the large step an eighth of the small one
        ),
        synthesis=SynthesisConfig(
            texture_share=0.3,
            self_share=0.4,
            procedural_share=0.3,
            # What is missing or out of place, neither blobs nor textures teach.
            relocation_share=0.4,
            component_share=0.2,
            # Cracks and scratches are thin; Perlin masks alone are all blobs.
            perlin_share=0.6,
            stroke_share=0.4,
            opacity=(0.0, 0.4),  # fainter ones teach to be unsure everywhere
            patchy_share=0.5,  # or the map shows a defect's edges and not what lies between
            soft_edge=2.0,
            least_scale=0.3,  # defects are small; and small pieces out of place are hard to see
            within_part=False,  # small defects come from strokes; blobs may lie anywhere
        ),
        augmentation=AugmentationConfig(brightness=0.15, contrast=0.1),
        optimisation=OptimisationConfig(
            # Half the paper's batch: at equal wall time, twice the steps. Most of it anomalous:
            # outside its mask, such an image is as normal as any.
            normal_per_batch=2,
            synthetic_per_batch=6,
            steps=8_000,
            noise_learning_rate=2e-3,
            segmentation_learning_rate=1.2e-3,
            warmup_steps=100,
            cosine_decay=True,
            ema_decay=0.998,
            gradient_clip=1.0,
            crop_side=128,
            crop_share=0.9,
            segmentation_from=0.15,
        ),
    ),
)

# The same on a texture, where it is closer to the paper again.
EDGE_ON_TEXTURES = replace(
    EDGE,
    training=replace(
        EDGE.training,
        synthesis=replace(
            EDGE.training.synthesis,
            # A piece of a texture cannot be told from any other piece.
            relocation_share=0.0,
            component_share=0.0,
            # Specks and hair cracks are a texture's own: blobs of pictures, as in the paper,
            # and only such as exceed its roughness.
            stroke_share=0.0,
            procedural_share=0.0,
            visibility=1.5,
            least_scale=1.0,
            # Where an anomaly hardly shows, the surface's own grain shows as much.
            patchy_share=0.0,
        ),
        optimisation=replace(
            EDGE.training.optimisation,
            # What is wrong is large and faint: windows do not show it.
            crop_share=0.0,
            segmentation_from=0.0,
            steps=2000,  # each as long as four on windows
        ),
    ),
)

PRESETS: dict[str, Config] = {preset.preset: preset for preset in (PAPER, STANDARD, EDGE)}
ON_TEXTURES: dict[str, Config] = {preset.preset: preset for preset in (EDGE_ON_TEXTURES,)}


def customised(
    preset: str,
    *,
    size: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    flip: bool | None = None,
    with_textures: bool,
    with_features: bool = True,
    on_texture: bool = False,
) -> Config:
    """Adapt a preset to one run; None leaves a setting as it is.

    Windows and smoothing keep their share of the `size`, and a `batch` its share of synthetic
    anomalies. Without textures their share goes to the other sources, without features the
    segmentation network sees pixels alone. `on_texture` starts from what the preset is for
    surfaces that are one. Raises `ConfigError`.
    """
    if preset not in PRESETS:
        raise ConfigError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    config = ON_TEXTURES.get(preset, PRESETS[preset]) if on_texture else PRESETS[preset]
    settings: dict[str, Any] = {}
    if steps is not None:
        settings["optimisation.steps"] = steps
    if batch is not None:
        optimisation = config.training.optimisation
        before = optimisation.normal_per_batch, optimisation.synthetic_per_batch
        normal = max(1, round(batch * before[0] / sum(before)))
        settings["optimisation.normal_per_batch"] = normal
        settings["optimisation.synthetic_per_batch"] = batch - normal
    if size is not None:
        settings["size"] = size
        settings["map_smoothing"] = config.detector.map_smoothing * size / config.detector.size
        settings["optimisation.crop_side"] = _scaled_crop(config, size)
    if not with_textures:
        settings["synthesis.texture_share"] = 0.0
    if not with_features:
        settings["features.backbone"] = "none"
    if flip is not None:
        settings["augmentation.flip"] = flip
    return changed(config, settings)


def _scaled_crop(config: Config, size: int) -> int:
    """Side of the windows at another size of image; 0, for none, where none would fit."""
    stride = config.detector.stride
    return config.training.optimisation.crop_side * size // config.detector.size // stride * stride
