"""Every setting of a run, as frozen dataclasses that check themselves.

A config is stored as JSON in every run, and read back by `evaluate` and
`export`. Presets (presets.py) are objects of these classes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from diffusionad_training.errors import ConfigError

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
Parametrisation = Literal["epsilon", "x0"]
PARAMETRISATIONS: tuple[str, ...] = get_args(Parametrisation)
Restoration = Literal["diffusion", "autoencoder"]
RESTORATIONS: tuple[str, ...] = get_args(Restoration)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The linear noise schedule of Eq. 1. Steps count from 0."""

    steps: int = 1000  # T: entries of the table
    beta_first: float = 1e-4
    beta_last: float = 1e-2

    def __post_init__(self) -> None:
        _require(self.steps >= 2, f"steps ({self.steps}) must be at least 2")
        _require(
            0 < self.beta_first <= self.beta_last < 1,
            f"betas must satisfy 0 < beta_first ({self.beta_first}) <= beta_last "
            f"({self.beta_last}) < 1",
        )


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """The two noise scales of norm guidance (Sec. 4.2). Steps count from 0."""

    small_step: int = 200  # t_s at inference: keeps detail, leaves large defects standing
    large_step: int = 400  # t_b at inference: erases large defects, loses detail
    weight: float = 1.0  # w of Eq. 7: pull towards the large-step estimate
    tau: int = 300  # training draws t_s from {0..tau}, t_b from {tau+1..last_step}
    last_step: int = 999  # the largest t_b in training

    def __post_init__(self) -> None:
        _require(
            0 <= self.small_step < self.large_step <= self.last_step,
            f"need 0 <= small_step ({self.small_step}) < large_step ({self.large_step}) "
            f"<= last_step ({self.last_step})",
        )
        _require(
            0 <= self.tau < self.last_step,
            f"tau ({self.tau}) must lie in [0, last_step={self.last_step})",
        )


@dataclass(frozen=True, kw_only=True)
class NoiseNetworkConfig:
    """The diffusion U-Net. Resolutions are those of its own feature maps."""

    base_channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)  # channels of each level, times the base
    blocks: int = 2  # residual blocks a level; one more on the way up
    attention_levels: tuple[int, ...] = (3, 4, 5)  # levels with attention; 0 is the finest
    heads: int = 4
    unshuffle: int = 1  # fold k x k pixels into channels before the first level
    parametrisation: Parametrisation = "epsilon"  # what the network outputs
    snr_cap: float = 5.0  # x0 only: the loss is weighted by min(SNR, snr_cap)
    # Of GroupNorm. A group of one channel forgets the brightness and contrast of the image:
    # a network with few channels needs fewer groups.
    groups: int = 32
    dropout: float = 0.0
    # Compute each block again on the way back instead of keeping what it computed: about
    # a third more time for a fraction of the memory.
    recompute: bool = False

    def __post_init__(self) -> None:
        _require(
            self.parametrisation in PARAMETRISATIONS,
            f"parametrisation must be one of {PARAMETRISATIONS}, not {self.parametrisation!r}",
        )
        _require(
            self.groups >= 1 and self.base_channels % self.groups == 0,
            f"base_channels ({self.base_channels}) must be a multiple of groups ({self.groups})",
        )
        _require(self.unshuffle >= 1, f"unshuffle ({self.unshuffle}) must be at least 1")
        levels = len(self.multipliers)
        _require(
            levels >= 1 and min(self.multipliers) >= 1 and self.blocks >= 1,
            f"multipliers {self.multipliers} and blocks ({self.blocks}) must be at least 1",
        )
        _require(
            self.heads >= 1 and self.base_channels % self.heads == 0,
            f"heads ({self.heads}) must divide base_channels ({self.base_channels})",
        )
        _require(0 <= self.dropout < 1, f"dropout ({self.dropout}) must lie in [0, 1)")
        _require(
            all(0 <= level < levels for level in self.attention_levels),
            f"attention_levels {self.attention_levels} must lie in [0, {levels})",
        )

    @property
    def stride(self) -> int:
        """The image's side must be a multiple of this many pixels."""
        return int(self.unshuffle * 2 ** (len(self.multipliers) - 1))


@dataclass(frozen=True, kw_only=True)
class SegmentationNetworkConfig:
    """The segmentation U-Net: input image and reconstruction in, anomaly map out."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)  # channels of each level
    unshuffle: int = 1

    def __post_init__(self) -> None:
        _require(
            len(self.widths) >= 2 and min(self.widths) >= 1,
            f"widths {self.widths} must be two levels or more, of at least one channel",
        )
        _require(self.unshuffle >= 1, f"unshuffle ({self.unshuffle}) must be at least 1")

    @property
    def stride(self) -> int:
        """The image's side must be a multiple of this many pixels."""
        return int(self.unshuffle * 2 ** (len(self.widths) - 1))


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Eqs. 9 and 10, and the focal loss in it."""

    focal_weight: float = 5.0  # gamma of Eq. 10
    focal_alpha: float = 0.5  # weight of defect pixels; normal ones have 1 - alpha
    focal_gamma: float = 4.0  # exponent
    # Beyond the paper: synthetic anomalies count in Eq. 9 with this weight, the clean
    # image being what the network should see in them; 0 leaves them out, as Eq. 9 does.
    restoration_weight: float = 0.0

    def __post_init__(self) -> None:
        _require(
            min(self.focal_weight, self.focal_gamma, self.restoration_weight) >= 0,
            f"the loss weights and the exponent must not be negative: {self}",
        )
        _require(0 <= self.focal_alpha <= 1, f"focal_alpha ({self.focal_alpha}) must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """Synthetic anomalies (Sec. 4.4).

    Shares of sources and of masks are relative weights, 0 to leave one out.
    """

    texture_share: float = 0.5  # A from a folder of textures; needs one
    self_share: float = 0.5  # A is the image itself, augmented and shuffled
    procedural_share: float = 0.0  # A is generated: no pictures needed
    warp_share: float = 0.0  # A is the image bent out of shape; validation looks for these
    relocation_share: float = 0.0  # of all anomalies: pieces of the image moved, no A at all
    perlin_share: float = 1.0  # masks of thresholded Perlin noise
    stroke_share: float = 0.0  # masks of thin curved strokes and small spots
    opacity: tuple[float, float] = (0.2, 0.8)  # beta of Eq. 12: lower shows more of A
    grid: int = 8  # self: the image is cut into grid x grid tiles
    # Perlin masks only within a random part of the image, as Sec. 4.4 has it where there
    # is no foreground mask.
    within_part: bool = True

    def __post_init__(self) -> None:
        low, high = self.opacity
        _require(0 <= low <= high < 1, f"opacity {self.opacity} must satisfy 0 <= low <= high < 1")
        _require(
            0 <= self.relocation_share <= 1,
            f"relocation_share ({self.relocation_share}) must lie in [0, 1]",
        )
        _require(self.grid >= 1, f"grid ({self.grid}) must be at least 1")
        sources = (self.texture_share, self.self_share, self.procedural_share, self.warp_share)
        masks = (self.perlin_share, self.stroke_share)
        _require(min(sources + masks) >= 0, "the shares of synthesis must not be negative")
        _require(sum(sources) > 0 and sum(masks) > 0, "some share of synthesis must be positive")


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Photometric jitter of the normal images, so that lighting is not taken for a defect."""

    brightness: float = 0.0  # shift, up to this share of the full range, either way
    contrast: float = 0.0  # factor 1 +- this
    flip: bool = False  # mirror left-right and up-down: for products without a right way up

    def __post_init__(self) -> None:
        _require(
            0 <= self.brightness <= 1 and 0 <= self.contrast <= 1,
            f"brightness ({self.brightness}) and contrast ({self.contrast}) must lie in [0, 1]",
        )


@dataclass(frozen=True, kw_only=True)
class OptimisationConfig:
    """Adam, both networks jointly (Eq. 11)."""

    normal_per_batch: int = 8
    synthetic_per_batch: int = 8
    # The public code's way: each image is anomalous by chance, with the share of the batch
    # as its probability. The paper's batches have their share exactly.
    synthetic_at_random: bool = False
    steps: int = 100_000  # optimiser steps
    noise_learning_rate: float = 1e-4
    segmentation_learning_rate: float = 1e-4
    warmup_steps: int = 0
    # Optimiser steps in which the segmentation network's rate falls to zero and rises again,
    # as in the public code; 0 for never.
    segmentation_cosine_period: int = 0
    cosine_decay: bool = False  # of both rates, to zero at the end of the run; constant otherwise
    ema_decay: float = 0.0  # exponential moving average of the weights; 0 for none
    gradient_clip: float = 0.0  # largest norm of the gradient; 0 for none
    # The first part of a training sees windows of the images (see data/crops.py): many more
    # steps in the same time. The rest sees whole images, as inference does.
    crop_side: int = 0  # pixels; 0 for whole images only
    crop_share: float = 0.0  # of the training
    accumulate: int = 1  # batches whose gradients make one optimiser step
    precision: Precision = "fp32"  # of the passes; weights and optimiser stay float32

    def __post_init__(self) -> None:
        _require(self.normal_per_batch >= 1, "a batch needs at least one normal image (Eq. 9)")
        _require(self.synthetic_per_batch >= 1, "a batch needs at least one synthetic anomaly")
        _require(
            self.crop_side >= 0 and 0 <= self.crop_share < 1,
            f"crop_side ({self.crop_side}) must not be negative, and crop_share "
            f"({self.crop_share}) must lie in [0, 1): the end needs whole images",
        )
        _require(self.accumulate >= 1, f"accumulate ({self.accumulate}) must be at least 1")
        _require(
            self.precision in PRECISIONS,
            f"precision must be one of {PRECISIONS}, not {self.precision!r}",
        )
        _require(self.steps >= 1, f"steps ({self.steps}) must be at least 1")
        _require(
            min(self.noise_learning_rate, self.segmentation_learning_rate) > 0,
            f"learning rates must be positive, not {self.noise_learning_rate} and "
            f"{self.segmentation_learning_rate}",
        )
        _require(0 <= self.ema_decay < 1, f"ema_decay ({self.ema_decay}) must lie in [0, 1)")
        _require(
            min(self.gradient_clip, self.warmup_steps, self.segmentation_cosine_period) >= 0,
            f"gradient_clip ({self.gradient_clip}), warmup_steps ({self.warmup_steps}) and "
            f"segmentation_cosine_period ({self.segmentation_cosine_period}) must not be negative",
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    preset: str
    size: int = 256  # pixels; images are stretched to size x size
    signed_range: bool = True  # pixels in [-1, 1] inside the model; [0, 1] otherwise
    # An autoencoder has the diffusion network's blocks without its skips and its noise: the
    # first row of the paper's Table 3, for measuring what diffusion brings. It is not served.
    restoration: Restoration = "diffusion"
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    noise_network: NoiseNetworkConfig = field(default_factory=NoiseNetworkConfig)
    segmentation_network: SegmentationNetworkConfig = field(
        default_factory=SegmentationNetworkConfig
    )
    loss: LossConfig = field(default_factory=LossConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)

    def __post_init__(self) -> None:
        _require(
            self.restoration in RESTORATIONS,
            f"restoration must be one of {RESTORATIONS}, not {self.restoration!r}",
        )
        crop = self.optimisation.crop_side
        for network in (self.noise_network, self.segmentation_network):
            _require(
                self.size > 0 and self.size % network.stride == 0,
                f"size ({self.size}) must be a positive multiple of {network.stride}, "
                f"the stride of {type(network).__name__}",
            )
            _require(
                crop % network.stride == 0 and crop <= self.size,
                f"crop_side ({crop}) must be a multiple of {network.stride}, the stride of "
                f"{type(network).__name__}, and at most the size ({self.size})",
            )
        _require(
            self.guidance.last_step < self.schedule.steps,
            f"last_step ({self.guidance.last_step}) must lie below the schedule's "
            f"{self.schedule.steps} steps",
        )

    def to_json(self) -> str:
        """Render as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Read what `to_json` wrote. Raises `ConfigError` on anything unknown."""
        try:
            document = json.loads(text)
        except json.JSONDecodeError as exc:
            raise ConfigError(f"the config is not JSON: {exc}") from exc
        config: Config = _build(cls, document, "config")
        return config


def _build(cls: type[Any], document: Any, where: str) -> Any:
    """Make a config dataclass from parsed JSON, its nested ones included."""
    _require(isinstance(document, dict), f"{where} must be an object, not {document!r}")
    hints = get_type_hints(cls)
    unknown = sorted(set(document) - set(hints))
    _require(not unknown, f"{where}: unknown settings {unknown}; known: {sorted(hints)}")
    values: dict[str, Any] = {}
    for name, value in document.items():
        if dataclasses.is_dataclass(hints[name]):
            values[name] = _build(hints[name], value, f"{where}.{name}")
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**values)
    except TypeError as exc:
        raise ConfigError(f"{where}: {exc}") from exc
