"""How a detector is trained: its losses, synthetic anomalies, lighting and optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from diffusionad_training.config.checks import require

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Eqs. 9 and 10, and the focal loss in it."""

    focal_weight: float = 5.0  # gamma of Eq. 10
    focal_alpha: float = 0.5  # weight of defect pixels; normal ones have 1 - alpha
    focal_gamma: float = 4.0  # exponent of the focal loss: higher looks at hard pixels only
    # Beyond the paper: synthetic anomalies count in Eq. 9 with this weight, the clean
    # image being what the network should see in them; 0 leaves them out, as Eq. 9 does.
    restoration_weight: float = 0.0
    # Beyond the paper: what a pixel under a synthetic anomaly weighs in its image's error. They
    # are few, and repainting them is what is hard.
    anomaly_weight: float = 1.0
    # Beyond the paper: anomalies of a whole component count at the large step alone. The small
    # one, which sees them clearly, keeps them as it keeps what is normal, and norm guidance is
    # what puts them right.
    components_at_large_step: bool = False
    # Of a network that predicts x0: its error is weighted by min(SNR, snr_cap).
    snr_cap: float = 5.0

    def __post_init__(self) -> None:
        require(
            min(self.focal_weight, self.focal_gamma, self.restoration_weight) >= 0,
            f"the loss weights and the exponent must not be negative: {self}",
        )
        require(self.snr_cap > 0, f"snr_cap ({self.snr_cap}) must be positive")
        require(self.anomaly_weight > 0, f"anomaly_weight ({self.anomaly_weight}) must be positive")
        require(0 <= self.focal_alpha <= 1, f"focal_alpha ({self.focal_alpha}) must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """Synthetic anomalies (Sec. 4.4).

    Shares of sources and of masks are relative weights, 0 to leave one out.
    """

    texture_share: float = 0.5  # A from a folder of textures; needs one
    self_share: float = 0.5  # A is the image itself, augmented and shuffled
    procedural_share: float = 0.0  # A is generated: no pictures needed
    warp_share: float = 0.0  # A is the image bent out of shape; validation looks for these
    # Of all anomalies: pieces of the image moved, no A at all. On a texture it teaches
    # nothing: what is moved there looks like any other piece.
    relocation_share: float = 0.0
    # Of all anomalies, before any other: a whole component missing, turned, mirrored or elsewhere.
    component_share: float = 0.0
    perlin_share: float = 1.0  # masks of thresholded Perlin noise
    stroke_share: float = 0.0  # masks of thin curved strokes and small spots
    # An anomaly is made in a part of the image as in a whole one, its sides from this share of
    # the image's on: lower makes small anomalies and close ones as likely as large ones.
    least_scale: float = 1.0
    opacity: tuple[float, float] = (0.2, 0.8)  # beta of Eq. 12: lower shows more of A
    # Of the anomalies laid over the image, this share covers a whole surface of one look, out to
    # its edges, where there is one: what covers or fills a surface reaches them, as no blob does.
    surface_share: float = 0.0
    # Of the anomalies laid over the image, this share shows here and there only, and is marked
    # whole: parts of a real defect look like the good surface, and belong to it all the same.
    patchy_share: float = 0.0
    # The largest standard deviation, in pixels, of the edge that A fades out over: cuts are
    # easy to see, and no defect has them.
    soft_edge: float = 0.0
    # An anomaly's least contrast as a multiple of the image's own roughness under it: what
    # a surface's specks and edges hide teaches to turn good parts away for them.
    visibility: float = 0.0
    grid: int = 8  # self: the image is cut into grid x grid tiles
    # Perlin masks only within a random part of the image, as Sec. 4.4 has it where there
    # is no foreground mask.
    within_part: bool = True

    def __post_init__(self) -> None:
        low, high = self.opacity
        require(0 <= low <= high < 1, f"opacity {self.opacity} must satisfy 0 <= low <= high < 1")
        require(
            0 <= self.relocation_share <= 1,
            f"relocation_share ({self.relocation_share}) must lie in [0, 1]",
        )
        require(
            0 <= self.component_share <= 1,
            f"component_share ({self.component_share}) must lie in [0, 1]",
        )
        require(
            0 <= self.patchy_share <= 1, f"patchy_share ({self.patchy_share}) must lie in [0, 1]"
        )
        require(
            0 <= self.surface_share <= 1,
            f"surface_share ({self.surface_share}) must lie in [0, 1]",
        )
        require(0 < self.least_scale <= 1, f"least_scale ({self.least_scale}) must lie in (0, 1]")
        require(self.soft_edge >= 0, f"soft_edge ({self.soft_edge}) must not be negative")
        require(self.visibility >= 0, f"visibility ({self.visibility}) must not be negative")
        require(self.grid >= 1, f"grid ({self.grid}) must be at least 1")
        sources, masks = self.source_shares, self.mask_shares
        require(min(sources + masks) >= 0, "the shares of synthesis must not be negative")
        require(sum(sources) > 0 and sum(masks) > 0, "some share of synthesis must be positive")

    @property
    def source_shares(self) -> tuple[float, ...]:
        """Of textures, the image itself, what is generated, and the image bent."""
        return (self.texture_share, self.self_share, self.procedural_share, self.warp_share)

    @property
    def mask_shares(self) -> tuple[float, ...]:
        """Of Perlin masks and strokes."""
        return (self.perlin_share, self.stroke_share)


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Photometric jitter of the normal images, so that lighting is not taken for a defect."""

    brightness: float = 0.0  # shift, up to this share of the full range, either way
    contrast: float = 0.0  # factor 1 +- this
    flip: bool = False  # mirror left-right and up-down: for products without a right way up

    def __post_init__(self) -> None:
        require(
            0 <= self.brightness <= 1 and 0 <= self.contrast <= 1,
            f"brightness ({self.brightness}) and contrast ({self.contrast}) must lie in [0, 1]",
        )


@dataclass(frozen=True, kw_only=True)
class OptimisationConfig:
    """Adam, both networks jointly (Eq. 11)."""

    normal_per_batch: int = 8  # normal images
    synthetic_per_batch: int = 8  # images with a synthetic anomaly
    # The public code's way: each image is anomalous by chance, with the share of the batch
    # as its probability. The paper's batches have their share exactly.
    synthetic_at_random: bool = False
    steps: int = 100_000  # optimiser steps
    noise_learning_rate: float = 1e-4  # of the diffusion network
    segmentation_learning_rate: float = 1e-4  # of the segmentation network
    warmup_steps: int = 0  # in which both rates rise from nothing
    # Optimiser steps in which the segmentation network's rate falls to zero and rises again,
    # as in the public code; 0 for never.
    segmentation_cosine_period: int = 0
    cosine_decay: bool = False  # of both rates, to zero at the end of the run; constant otherwise
    ema_decay: float = 0.0  # exponential moving average of the weights; 0 for none
    gradient_clip: float = 0.0  # largest norm of the gradient; 0 for none
    # Side, in pixels, of the windows of the images that a training begins with: many more steps
    # in the same time. The rest sees whole images, as inference does. 0 for whole images only.
    crop_side: int = 0
    crop_share: float = 0.0  # of the training that sees windows
    # The share of the training after which the segmentation network is trained too: until
    # then there is little to compare an image with.
    segmentation_from: float = 0.0
    accumulate: int = 1  # batches whose gradients make one optimiser step
    precision: Precision = "fp32"  # of the passes; weights and optimiser stay float32

    def __post_init__(self) -> None:
        require(self.normal_per_batch >= 1, "a batch needs at least one normal image (Eq. 9)")
        require(self.synthetic_per_batch >= 1, "a batch needs at least one synthetic anomaly")
        require(
            self.crop_side >= 0 and 0 <= self.crop_share < 1,
            f"crop_side ({self.crop_side}) must not be negative, and crop_share "
            f"({self.crop_share}) must lie in [0, 1): the end needs whole images",
        )
        require(
            0 <= self.segmentation_from < 1,
            f"segmentation_from ({self.segmentation_from}) must lie in [0, 1)",
        )
        require(self.accumulate >= 1, f"accumulate ({self.accumulate}) must be at least 1")
        require(
            self.precision in PRECISIONS,
            f"precision must be one of {PRECISIONS}, not {self.precision!r}",
        )
        require(self.steps >= 1, f"steps ({self.steps}) must be at least 1")
        require(
            min(self.noise_learning_rate, self.segmentation_learning_rate) > 0,
            f"learning rates must be positive, not {self.noise_learning_rate} and "
            f"{self.segmentation_learning_rate}",
        )
        require(0 <= self.ema_decay < 1, f"ema_decay ({self.ema_decay}) must lie in [0, 1)")
        require(
            min(self.gradient_clip, self.warmup_steps, self.segmentation_cosine_period) >= 0,
            f"gradient_clip ({self.gradient_clip}), warmup_steps ({self.warmup_steps}) and "
            f"segmentation_cosine_period ({self.segmentation_cosine_period}) must not be negative",
        )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything of a training that its detector does not know of."""

    loss: LossConfig = field(default_factory=LossConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)
